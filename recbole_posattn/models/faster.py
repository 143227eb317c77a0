"""RecBole's models whose Python loops over the rows of a batch take a good part of a step, without these loops.

The results are the same to the last digit. :func:`recbole_posattn.settings.registry.patched_model_class` uses these
with our ``Config``; RecBole's own classes are unchanged.

Shape keys: b rows of a batch, s length of the padded sequences.
"""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.model.sequential_recommender import bert4rec, gcsan, srgnn
from torch import Tensor


def session_graphs(item_seq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The graph of each sequence: its different items are the nodes, and neighbouring items have an edge.

    Args:
        item_seq: Items, 0 behind the last one; int64, shape (b, s).

    Returns:
        The node of each item, int64, shape (b, s); the weights of incoming edges and those of outgoing edges, each
        divided by their number at the other node, shape (b, s, 2·s); and the items of the nodes in ascending order, 0
        (a node of its own if there is padding) behind the last one, int64, shape (b, s).
    """
    b, s = item_seq.shape
    ascending, order = item_seq.sort(dim=1)
    number = torch.zeros_like(item_seq)
    number[:, 1:] = (ascending[:, 1:] != ascending[:, :-1]).cumsum(dim=1)
    node = torch.zeros_like(item_seq).scatter_(1, order, number)
    items = torch.zeros_like(item_seq).scatter_(1, number, ascending)

    row, position = torch.nonzero(item_seq[:, 1:], as_tuple=True)
    edge = torch.zeros(b, s, s, dtype=torch.float64, device=item_seq.device)
    edge[row, node[row, position], node[row, position + 1]] = 1.0
    n_incoming, n_outgoing = edge.sum(dim=1).clamp(min=1.0), edge.sum(dim=2).clamp(min=1.0)
    incoming = (edge / n_incoming[:, None, :]).transpose(1, 2)
    outgoing = edge / n_outgoing[:, :, None]
    return node, torch.cat([incoming, outgoing], dim=2).float(), items


class SRGNN(srgnn.SRGNN):
    """RecBole's SRGNN; builds the graphs of all sequences of a batch at once."""

    def _get_slice(self, item_seq: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return *session_graphs(item_seq), item_seq.gt(0)


class GCSAN(gcsan.GCSAN):
    """RecBole's GCSAN; builds the graphs of all sequences of a batch at once."""

    def _get_slice(self, item_seq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return session_graphs(item_seq)


class BERT4Rec(bert4rec.BERT4Rec):
    """RecBole's BERT4Rec; appends the mask token to all sequences of a batch at once when it predicts."""

    def reconstruct_test_data(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Sequences with the mask behind the last item, without the oldest place; int64, shape (b, s)."""
        longer = torch.nn.functional.pad(item_seq, (0, 1))
        return longer.scatter_(1, item_seq_len[:, None], self.mask_token)[:, 1:]


# By RecBole's class.
FASTER: dict[type[AbstractRecommender], type[AbstractRecommender]] = {
    srgnn.SRGNN: SRGNN,
    gcsan.GCSAN: GCSAN,
    bert4rec.BERT4Rec: BERT4Rec,
}

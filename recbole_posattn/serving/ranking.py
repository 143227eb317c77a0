"""The best items of each row of scores, faster than a look at every score would allow, and the same ones every time.

Shape keys: b users, n items, k best items, c candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Neighbouring items of which only the best one is looked at first.
CHUNK = 64


def best_items(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row and whose they are; of equal scores, the item with the lower number first.

    Args:
        scores: Shape (b, n).
        k: At most n.

    Returns:
        Scores, descending, and int64 columns, each of shape (b, k). What is not a number comes first.
    """
    # The last of k + 1 tells whether the order of equal scores matters for which are among the k.
    best, item = _highest(scores, min(k + 1, scores.shape[1]))
    next_best = best[:, k:]
    best, item = best[:, :k], item[:, :k]
    undecided = ((next_best == best[:, -1:]) & (next_best > -torch.inf)).any(dim=1)
    if undecided.any():
        item[undecided] = _first_of_equals(scores[undecided], best[undecided, -1:], k)
        best[undecided] = scores[undecided].gather(1, item[undecided])
    if undecided.any() or (best[:, 1:] == best[:, :-1]).any():
        item, order = item.sort(dim=1)
        best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
        item = item.gather(1, order)
    return best, item


def _highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``torch.topk`` along the last axis, by way of chunks where these are many.

    The k chunks with the highest maxima hold the k highest scores: a score of another chunk has k maxima that are as
    high at least.
    """
    n_chunks = scores.shape[1] // CHUNK
    if n_chunks < 4 * k:
        return torch.topk(scores, k)
    in_chunks = scores[:, : n_chunks * CHUNK].unflatten(1, (n_chunks, CHUNK))
    chunk = torch.topk(in_chunks.amax(dim=-1), k, sorted=False).indices
    row = torch.arange(len(scores), device=scores.device)[:, None]
    candidates = torch.cat([in_chunks[row, chunk].flatten(1), scores[:, n_chunks * CHUNK :]], dim=1)
    best, place = torch.topk(candidates, k)
    nth, inside = place // CHUNK, place % CHUNK
    behind = nth >= k  # the rest that makes no chunk
    column = torch.where(behind, n_chunks + nth - k, chunk.gather(1, nth.clamp(max=k - 1))) * CHUNK + inside
    return best, column


def _first_of_equals(scores: Tensor, lowest: Tensor, k: int) -> Tensor:
    """Columns of the k best of each row, ascending, whose lowest score (b, 1) others have as well."""
    above, equal = scores > lowest, scores == lowest
    room = k - above.sum(dim=1, keepdim=True)
    taken = above | (equal & (equal.cumsum(dim=1) <= room))
    return taken.nonzero()[:, 1].view(-1, k)

"""The common base of our models: SASRec with kernels and encodings in its attention, trained on sequences.

Shape keys: b batch, s sequence length, d hidden size, n items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.data.shorter import GROUP_COST
from recbole_posattn.nn.backbone import Block, BlockOptions
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.dropout import ItemDropout
from recbole_posattn.nn.encoder import KernelPair, assemble_encoder, init_weights
from recbole_posattn.nn.encodings.base import EncodingOptions
from recbole_posattn.nn.encodings.build import build_encodings
from recbole_posattn.nn.gemm import linear
from recbole_posattn.nn.item_scores import item_score
from recbole_posattn.nn.kernels.base import Alignment, IdentityKernel
from recbole_posattn.nn.losses.base import LossOptions
from recbole_posattn.nn.losses.build import build_loss
from recbole_posattn.nn.matrices import matrices


class SASRecBase(SequentialRecommender):
    """Self-attention over a user's items, without positions unless a subclass adds them.

    Args:
        config: Holds the keys of the model's YAML file.
        dataset: The training split, for the number of items.

    Attributes:
        newest_last: True if the newest item is at the last position, with padding in front.
        padded_length: The length to which all sequences are padded, where padding takes part in the mixing; else
            ``None``, and a batch is as long as its longest sequence.
        loss: The loss of the targets in a batch.

    Raises:
        ValueError: If a key has a value that the YAML file does not allow.
    """

    input_type = InputType.POINTWISE  # RecBole's loader then yields one row per positive, whatever the loss

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.initializer_range = config["initializer_range"]
        self.start = _given(config, "initializer", "feed_forward_bias")
        self.init_padding_row = bool(config["init_padding_row"])
        self.train_objective = config["train_objective"]
        self.length_bucketing = config["length_bucketing"]
        mixes_padding = config["attend_padding"] or config["filter_padding"]
        self.padded_length = config["MAX_ITEM_LIST_LENGTH"] if mixes_padding else None

        hidden_size, n_heads = config["hidden_size"], config["n_heads"]
        self.item_embedding = nn.Embedding(self.n_items, hidden_size, padding_idx=0)
        # A model from outside this package may have a YAML file without the newest keys.
        self.item_dropout = ItemDropout(config["item_dropout_prob"] or 0.0)
        self.item_score = item_score(config["score"] or "dot", config["score_temperature"])
        kernels, branches = self.layer_kernels(config), self.layer_branches(config)
        names = self.encoding_names(config)
        encodings = build_encodings(names, config["n_layers"], encoding_options(config))
        block = BlockOptions(
            hidden_size,
            inner_size=inner_size(config),
            hidden_act=config["hidden_act"],
            dropout=config["hidden_dropout_prob"],
            layer_norm_eps=config["layer_norm_eps"],
            **_given(config, "output_projection", "attend_padding"),
        )
        self.backbone = assemble_encoder(
            config["backbone"] or "recbole",
            kernels,
            encodings,
            block,
            n_heads,
            config["attn_dropout_prob"],
            branches,
            self.block(config),
        )
        # If only lags count, items may be at either end; at the start, they need no mask for the padding.
        mixing = [branch.kernel for branch in branches if branch is not None]
        lag_only = all(part.lag_only for layer in (*kernels, *encodings, mixing) for part in layer or ())
        anywhere = lag_only and self.padded_length is None
        self.newest_last = position_alignment(config) == "end" and not anywhere
        self.loss = build_loss(loss_options(config), item_counts(dataset) if config["loss_negatives"] else None)
        self.apply(self._init_weights)

    def layer_kernels(self, config: Config) -> Sequence[KernelPair | None]:
        """The (Uᵀ, L) kernels of each layer; a shared kernel is one module in all of them, ``None`` is no attention."""
        identity = IdentityKernel(config["MAX_ITEM_LIST_LENGTH"])
        return [(identity, identity)] * config["n_layers"]

    def layer_branches(self, config: Config) -> Sequence[KernelBranch | None]:
        """The branch beside the attention of each layer, or in its place; ``None`` for no branch."""
        return [None] * config["n_layers"]

    def block(self, config: Config) -> Callable[..., Block] | None:
        """What builds a block, see :class:`Backbone`; ``None`` for the block of the key ``backbone``."""
        return None

    def encoding_names(self, config: Config) -> Sequence[str]:
        """The positional encodings, names of :data:`ENCODINGS`."""
        return ()

    def matrices(self) -> list[nn.Parameter]:
        """The weights that ``weight_decay_on: matrices`` decays: of linear layers, and the item embeddings."""
        return matrices(self)

    def learned(self) -> dict[str, Any]:
        """What the trained model reports about itself, for the report of a run: plain data by name."""
        return {}

    def _init_weights(self, module: nn.Module) -> None:
        """RecBole's initialization or that of ``initializer``; kernels and LayerNorms keep their own."""
        init_weights(module, self.initializer_range, **self.start)
        if module is self.item_embedding and not self.init_padding_row:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0.0

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Represent each sequence by the output at its newest item.

        Args:
            item_seq: Items, oldest first, followed by zeros; shape (b, s).
            item_seq_len: Items in each sequence, at least 1; shape (b,).

        Returns:
            Tensor of shape (b, d).
        """
        buckets = self._buckets(item_seq_len)
        newest = [self._newest(item_seq[bucket], item_seq_len[bucket]) for bucket in buckets]
        return newest[0] if len(buckets) == 1 else torch.cat(newest)[torch.argsort(torch.cat(buckets))]

    def _newest(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        aligned = self._align(item_seq, item_seq_len)
        if self.newest_last or bool((item_seq_len == item_seq_len[0]).all()):
            return self.encode(aligned, last_only=True)[:, -1]
        return self.gather_indexes(self.encode(aligned), item_seq_len - 1)

    def encode(self, item_seq: Tensor, last_only: bool = False) -> Tensor:
        """Outputs at every position.

        Args:
            item_seq: Items, shape (b, s), with padding at the start or at the end.
            last_only: Whether only the output at the last position is needed.

        Returns:
            Tensor of shape (b, s, d), or (b, 1, d) if ``last_only``; rows at padding have no meaning.
        """
        padded_in_front = bool((item_seq[:, 0] == 0).any())  # otherwise the causal mask is enough, and faster
        return self.hidden_states(item_seq, item_seq > 0 if padded_in_front else None, last_only)

    def hidden_states(self, item_seq: Tensor, valid: Tensor | None, last_only: bool = False) -> Tensor:
        """:meth:`encode`, where it is known whether padding stands in front; override this one.

        Args:
            item_seq: Items, shape (b, s).
            valid: Where an item stands, boolean of shape (b, s); ``None`` if no padding is in front.
            last_only: See :meth:`encode`.
        """
        embedding = self.item_dropout(self.item_embedding(item_seq), item_seq)
        return self.backbone(embedding, valid, last_only)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The mean loss of every target in the batch, by default cross-entropy over all items (arXiv 2602.21052).

        The objective ``sequence`` has a target at each position, ``augmented`` one after each sequence.
        """
        item_seq, item_seq_len = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        if self.train_objective == "augmented":
            hidden, target = self.forward(item_seq, item_seq_len), interaction[self.POS_ITEM_ID]
        else:
            labelled = [
                self._labelled(item_seq[bucket], item_seq_len[bucket], interaction[TARGET_LIST_FIELD][bucket])
                for bucket in self._buckets(item_seq_len)
            ]
            hidden, target = map(torch.cat, zip(*labelled))
        hidden, item_weight = self.item_score.operands(hidden, self.item_embedding.weight)
        return self.loss(hidden, target, item_weight)

    def _labelled(self, item_seq: Tensor, item_seq_len: Tensor, target_list: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at the positions with a target, and the targets; without padding, most products are saved later."""
        target = self._align(target_list, item_seq_len)
        hidden = self.encode(self._align(item_seq, item_seq_len))
        return hidden[target > 0], target[target > 0]

    def _buckets(self, length: Tensor) -> list[Tensor]:
        """The rows of a batch by length, so that short sequences are not padded to the longest.

        Lengths up to 8, 16, 32, … are computed together: at most half of a longer bucket is padding. The rows of the
        batch and its loss do not change.
        """
        on_cpu = length.device.type == "cpu"
        # A GPU waits for its next kernel longer than it computes a padded batch: there, padding has to be large.
        one = not on_cpu and length.numel() * self.max_seq_length <= GROUP_COST["cuda"]
        if one or not self.length_bucketing or self.padded_length is not None:
            return [torch.arange(len(length), device=length.device)]
        bucket = torch.log2(length.clamp(min=8)).ceil()
        return [torch.nonzero(bucket == value).flatten() for value in bucket.unique()]

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of the given items, shape (b,)."""
        hidden = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        hidden, item_weight = self.item_score.operands(hidden, self.item_embedding(interaction[self.ITEM_ID]))
        return (hidden * item_weight).sum(dim=-1)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, shape (b, n)."""
        return self._scores(self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]))

    def _scores(self, hidden: Tensor) -> Tensor:
        """Scores of all items by their embeddings (tied weights), shape (…, n).

        As in RecBole's SASRec, the padding item is included; RecBole's evaluation sets its score to −∞.
        """
        hidden, item_weight = self.item_score.operands(hidden, self.item_embedding.weight)
        return linear(hidden, item_weight)

    def _align(self, sequence: Tensor, length: Tensor) -> Tensor:
        """Bring (b, s) to the length of the batch, and move padding to the front if ``newest_last``."""
        end = int(length.max()) if self.padded_length is None else self.padded_length
        sequence = F.pad(sequence[:, :end], (0, max(0, end - sequence.shape[1])))
        return padding_in_front(sequence, length) if self.newest_last else sequence


def padding_in_front(sequence: Tensor, length: Tensor) -> Tensor:
    """Move padding from the end to the start; shape (b, s)."""
    s = sequence.shape[1]
    source = torch.arange(s, device=sequence.device) - (s - length)[:, None]
    return sequence.gather(1, source.clamp(min=0)).masked_fill(source < 0, 0)


def encoding_options(config: Config) -> EncodingOptions:
    """The options of the encodings; keys that are not in the model's YAML file keep their defaults."""
    given = _given(config, *(set(EncodingOptions._fields) - {"max_length", "alignment"}))
    return EncodingOptions(max_length=config["MAX_ITEM_LIST_LENGTH"], alignment=position_alignment(config), **given)


def position_alignment(config: Config) -> Alignment:
    """Where short sequences stand; a model without the key has the newest item at the last position."""
    return config["position_alignment"] or "end"


def inner_size(config: Config) -> int | None:
    """The inner channels of the feed-forward networks; ``4x`` is four times ``hidden_size``."""
    return 4 * config["hidden_size"] if config["inner_size"] == "4x" else config["inner_size"]


def _given(config: Config, *keys: str) -> dict[str, Any]:
    """The settings of those of some keys that the model's YAML file has."""
    return {key: config[key] for key in keys if key in config}


def loss_options(config: Config) -> LossOptions:
    """The options of the loss; ``loss_negatives`` holds the given ``train_neg_sample_args``."""
    negatives = config["loss_negatives"] or {}
    return LossOptions(
        loss_type=config["loss_type"],
        chunk_size=config["loss_chunk_size"],
        n_negatives=negatives.get("sample_num", 1),
        distribution=negatives.get("distribution", "uniform"),
        alpha=negatives.get("alpha", 1.0),
        calibration=config["gbce_calibration"],
        label_smoothing=config["label_smoothing"] or 0.0,
        precision=config["loss_precision"] or "float32",
    )


def item_counts(dataset: Dataset) -> Tensor:
    """How often each item is a target in a split; int64, shape (n,)."""
    return torch.bincount(dataset.inter_feat[dataset.iid_field], minlength=dataset.item_num)

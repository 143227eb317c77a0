"""The common base of our models: SASRec with kernels and encodings in its attention, trained on sequences.

Shape keys: b batch, s sequence length, d hidden size, n items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.data.fields import EARLIER_LIST_FIELD, TARGET_LIST_FIELD, TIME_LIST_FIELD
from recbole_posattn.data.shorter import GROUP_COST
from recbole_posattn.models.alignment import first_in_front, padding_in_front
from recbole_posattn.models.options import (
    block_options,
    encoding_options,
    given,
    item_counts,
    loss_history_use,
    loss_options,
    position_alignment,
)
from recbole_posattn.nn.backbone import Backbone, Block
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.dropout import ItemDropout
from recbole_posattn.nn.encoder import KernelPair, assemble_encoder, count_padding, init_weights
from recbole_posattn.nn.encodings.build import build_encodings
from recbole_posattn.nn.gemm import linear
from recbole_posattn.nn.history_partition import HistoryPartition
from recbole_posattn.nn.item_scores import item_score
from recbole_posattn.nn.kernels.base import IdentityKernel
from recbole_posattn.nn.losses.build import build_loss
from recbole_posattn.nn.losses.histories import HistoryMask, TargetHistories
from recbole_posattn.nn.matrices import matrices


class SASRecBase(SequentialRecommender):
    """Self-attention over a user's items, without positions unless a subclass adds them.

    Args:
        config: Holds the keys of the model's YAML file.
        dataset: The training split, for the number of items.

    Attributes:
        newest_last: True if the newest item is at the last position, with padding in front.
        padded_length: The length to which sequences count as padded, where padding takes part in the mixing; else
            ``None``.
        reads_time: Whether the times between items are read; batches then have the field ``TIME_LIST_FIELD``, see
            :mod:`recbole_posattn.data.relative_times`.
        loss: The loss of the targets in a batch.
        history_partition: The biases of items in the history; ``None`` without ``history_partition``.
        masks_history: Whether history items are masked out of the loss (``train_mask_history``).

    Raises:
        ValueError: If a key has a value that the YAML file does not allow.
    """

    input_type = InputType.POINTWISE  # RecBole's loader then yields one row per positive, whatever the loss

    # For messages: the parts that read time in every model of this class; parts chosen by settings are not listed.
    time_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        # A stand-in for the data set, as in a benchmark, may have the number of items only.
        self.reads_time = bool(config["reads_time"]) and getattr(dataset, "times_are_gaps", True)
        self.median_gap: float = getattr(dataset, "median_gap", 1.0)
        self.initializer_range = config["initializer_range"]
        self.start = given(config, "initializer", "feed_forward_bias")
        self.init_padding_row = bool(config["init_padding_row"])
        self.train_objective = config["train_objective"]
        self.length_bucketing = config["length_bucketing"]
        mixes_padding = config["attend_padding"] or config["filter_padding"]
        self.padded_length = config["MAX_ITEM_LIST_LENGTH"] if mixes_padding else None

        self.item_embedding = nn.Embedding(self.n_items, config["hidden_size"], padding_idx=0)
        # A model from outside this package may have a YAML file without the newest keys.
        self.item_dropout = ItemDropout(config["item_dropout_prob"] or 0.0)
        self.item_score = item_score(config["score"] or "dot", config["score_temperature"])
        self.backbone = self.encoder(config)
        counts = config["attend_padding"] and not config["filter_padding"]
        self.counted_length = (
            self.padded_length if counts and count_padding(self.backbone, self.max_seq_length) else None
        )
        # If only lags count, items may be at either end; at the start, they need no mask for the padding.
        lag_only = all(getattr(part, "lag_only", True) for part in self.backbone.modules())
        anywhere = lag_only and self.padded_length is None
        self.newest_last = position_alignment(config) == "end" and not anywhere
        partitions, self.masks_history = loss_history_use(config, dataset)
        self.history_partition = HistoryPartition(self.max_seq_length) if partitions else None
        self.loss = build_loss(loss_options(config), item_counts(dataset) if config["loss_negatives"] else None)
        self.apply(self._init_weights)

    def encoder(self, config: Config) -> Backbone:
        """The encoder, of the parts that the methods below name."""
        kernels, branches = self.layer_kernels(config), self.layer_branches(config)
        options = encoding_options(config)._replace(median_gap=self.median_gap)
        return assemble_encoder(
            config["backbone"] or "recbole",
            kernels,
            build_encodings(self.encoding_names(config), config["n_layers"], options),
            block_options(config),
            config["n_heads"],
            config["attn_dropout_prob"],
            branches,
            self.block(config),
        )

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

    @property
    def cuts_padding(self) -> bool:
        """Whether batches are cut to their longest sequence; attention then counts the padding that is cut off.

        Not in training on a GPU, whose fused attention with dropout has no key that stands for several.
        """
        if self.padded_length is None:
            return True
        return self.padded_length == self.counted_length and not (self.training and self.item_embedding.weight.is_cuda)

    def matrices(self) -> list[nn.Parameter]:
        """The weights that ``weight_decay_on: matrices`` decays: of linear layers, and the item embeddings."""
        return matrices(self)

    def learned(self) -> dict[str, Any]:
        """What the trained model reports about itself, for the report of a run: plain data by name."""
        buckets = [] if self.history_partition is None else self.history_partition.by_bucket()
        biases = {f"{first}-{last}" if last > first else str(first): round(bias, 3) for first, last, bias in buckets}
        return {"history_partition": biases} if biases else {}

    def _init_weights(self, module: nn.Module) -> None:
        """RecBole's initialization or that of ``initializer``; kernels and LayerNorms keep their own."""
        init_weights(module, self.initializer_range, **self.start)
        if module is self.item_embedding and not self.init_padding_row:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0.0

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, times: Tensor | None = None) -> Tensor:
        """Represent each sequence by the output at its newest item.

        Args:
            item_seq: Items, oldest first, followed by zeros; shape (b, s).
            item_seq_len: Items in each sequence, at least 1; shape (b,).
            times: Seconds of each item relative to the newest one, float64, shape (b, s); for models that read time.

        Returns:
            Tensor of shape (b, d).
        """
        buckets = self._buckets(item_seq_len)
        newest = [
            self._newest(item_seq[bucket], item_seq_len[bucket], None if times is None else times[bucket])
            for bucket in buckets
        ]
        return newest[0] if len(buckets) == 1 else torch.cat(newest)[torch.argsort(torch.cat(buckets))]

    def _newest(self, item_seq: Tensor, item_seq_len: Tensor, times: Tensor | None) -> Tensor:
        aligned, times = self._align(item_seq, item_seq_len), self._align_times(times, item_seq_len)
        if self.newest_last or bool((item_seq_len == item_seq_len[0]).all()):
            return self.encode(aligned, last_only=True, times=times)[:, -1]
        return self.gather_indexes(self.encode(aligned, times=times), item_seq_len - 1)

    def encode(self, item_seq: Tensor, last_only: bool = False, times: Tensor | None = None) -> Tensor:
        """Outputs at every position.

        Args:
            item_seq: Items, shape (b, s), with padding at the start or at the end.
            last_only: Whether only the output at the last position is needed.
            times: See :meth:`forward`, placed as the items are (:meth:`_align_times`).

        Returns:
            Tensor of shape (b, s, d), or (b, 1, d) if ``last_only``; rows at padding have no meaning.
        """
        padded_in_front = bool((item_seq[:, 0] == 0).any())  # otherwise the causal mask is enough, and faster
        valid = item_seq > 0 if padded_in_front else None
        if not self.reads_time:
            return self.hidden_states(item_seq, valid, last_only)  # an older subclass has no argument for times
        if times is None:
            raise ValueError(f"{type(self).__name__} reads the times between items, but got none")
        return self.hidden_states(item_seq, valid, last_only, times)

    def hidden_states(
        self, item_seq: Tensor, valid: Tensor | None, last_only: bool = False, times: Tensor | None = None
    ) -> Tensor:
        """:meth:`encode`, where it is known whether padding stands in front; override this one.

        Args:
            item_seq: Items, shape (b, s).
            valid: Where an item stands, boolean of shape (b, s); ``None`` if no padding is in front.
            last_only: See :meth:`encode`.
            times: Seconds of each item relative to the newest one, never falling along a sequence; float64, shape
                (b, s). Padding has the time of the item next to it. ``None`` unless the model reads time.
        """
        embedding = self.item_dropout(self.item_embedding(item_seq), item_seq)
        if times is None:
            return self.backbone(embedding, valid, last_only)
        return self.backbone(embedding, valid, last_only, times)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The mean loss of every target in the batch, by default cross-entropy over all items (arXiv 2602.21052).

        The objective ``sequence`` has a target at each position, ``augmented`` one after each sequence.
        """
        if self.train_objective == "augmented":
            hidden, target = self._hidden(interaction), interaction[self.POS_ITEM_ID]
            position = interaction[self.ITEM_SEQ_LEN] - 1
            sequence = torch.arange(len(position), device=position.device)
        else:
            labelled = [self._labelled(interaction, rows) for rows in self._buckets(interaction[self.ITEM_SEQ_LEN])]
            hidden, target, sequence, position = map(torch.cat, zip(*labelled))
        hidden, item_weight = self.item_score.operands(hidden, self.item_embedding.weight)
        histories = self._histories(interaction, sequence, position)
        return self.loss(hidden, target, item_weight, *([] if histories is None else [histories]))

    def _histories(self, interaction: Interaction, sequence: Tensor, position: Tensor) -> TargetHistories | None:
        """What is before each target, if that matters; arguments as for :class:`TargetHistories`."""
        if self.history_partition is None and not self.masks_history:
            return None
        item = interaction[self.ITEM_SEQ][:, : int(interaction[self.ITEM_SEQ_LEN].max())]  # without common padding
        if self.history_partition is not None:
            return self.history_partition.of_targets(item, sequence, position)
        return HistoryMask(item, sequence, position, interaction.interaction.get(EARLIER_LIST_FIELD))

    def _labelled(self, batch: Interaction, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs at the positions with a target, the targets, their rows in the batch and their positions.

        Without padding, most products are saved later.
        """
        length, times, target_list = batch[self.ITEM_SEQ_LEN][rows], self._times(batch), batch[TARGET_LIST_FIELD][rows]
        has_target = self._align(target_list, length) > 0
        times = self._align_times(None if times is None else times[rows], length)
        hidden = self.encode(self._align(batch[self.ITEM_SEQ][rows], length), times=times)[has_target]
        row, position = torch.nonzero(target_list, as_tuple=True)  # the same order, wherever padding stands
        return hidden, target_list[row, position], rows[row], position

    def _buckets(self, length: Tensor) -> list[Tensor]:
        """The rows of a batch by length, so that short sequences are not padded to the longest.

        Lengths up to 8, 16, 32, … are computed together: at most half of a longer bucket is padding. The rows of the
        batch and its loss do not change.
        """
        on_cpu = length.device.type == "cpu"
        # A GPU waits for its next kernel longer than it computes a padded batch: there, padding has to be large.
        one = not on_cpu and length.numel() * self.max_seq_length <= GROUP_COST["cuda"]
        if one or not self.length_bucketing or not self.cuts_padding:
            return [torch.arange(len(length), device=length.device)]
        bucket = torch.log2(length.clamp(min=8)).ceil()
        return [torch.nonzero(bucket == value).flatten() for value in bucket.unique()]

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of the given items, shape (b,)."""
        candidate = interaction[self.ITEM_ID]
        hidden, item_weight = self.item_score.operands(self._hidden(interaction), self.item_embedding(candidate))
        scores = (hidden * item_weight).sum(dim=-1)
        if self.history_partition is not None:
            history = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
            scores = scores + self.history_partition.of_items(candidate, *history)
        return scores

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, shape (b, n)."""
        scores = self._scores(self._hidden(interaction))
        return self.with_partition(scores, interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    def with_partition(self, scores: Tensor, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Scores of all items, shape (b, n), with ``history_partition``; histories as in :meth:`forward`."""
        return scores if self.history_partition is None else self.history_partition(scores, item_seq, item_seq_len)

    def _hidden(self, batch: Interaction) -> Tensor:
        """:meth:`forward` of a batch."""
        items, length, times = batch[self.ITEM_SEQ], batch[self.ITEM_SEQ_LEN], self._times(batch)
        return self.forward(items, length) if times is None else self.forward(items, length, times)

    def _times(self, batch: Interaction) -> Tensor | None:
        """The times of a batch, shape (b, s), if they are read."""
        return batch[TIME_LIST_FIELD] if self.reads_time else None

    def _scores(self, hidden: Tensor) -> Tensor:
        """Scores of all items by their embeddings (tied weights), shape (…, n), without ``history_partition``.

        As in RecBole's SASRec, the padding item is included; RecBole's evaluation sets its score to −∞.
        """
        return linear(*self.item_score.operands(hidden, self.item_embedding.weight))

    def _cut(self, sequence: Tensor, length: Tensor, n_positions: int | None) -> Tensor:
        """Bring (b, s) to ``n_positions``; by default those of the longest sequence, or all if padding is computed."""
        end = n_positions or (None if self.cuts_padding else self.padded_length) or max(1, int(length.max()))
        return F.pad(sequence[:, :end], (0, max(0, end - sequence.shape[1])))

    def _align(self, sequence: Tensor, length: Tensor, n_positions: int | None = None) -> Tensor:
        """:meth:`_cut`, with padding in front if ``newest_last``."""
        sequence = self._cut(sequence, length, n_positions)
        return padding_in_front(sequence, length) if self.newest_last else sequence

    def _align_times(self, times: Tensor | None, length: Tensor, n_positions: int | None = None) -> Tensor | None:
        """:meth:`_align` of times, which never fall: an item that is earlier than one before it counts as simultaneous.

        Padding has the time of the item next to it.
        """
        if times is None:
            return None
        times = self._cut(times, length, n_positions)
        inside = torch.arange(times.shape[1], device=times.device) < length[:, None]
        times = torch.where(inside, times, -torch.inf).cummax(dim=1).values
        return first_in_front(times, length) if self.newest_last else times

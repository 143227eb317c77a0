"""PosKernelSASRec: SASRec with a positional kernel in every block (Nabiev & Frolov, arXiv 2602.21052, 2026).

Shape keys: b batch, s sequence length, d hidden size, n items.
"""

from __future__ import annotations

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.fields import TARGET_LIST_FIELD
from recbole_posattn.model.backbone import BACKBONES
from recbole_posattn.position.attention import PositionKernelAttention
from recbole_posattn.position.encodings import AbsolutePositionEncoding
from recbole_posattn.position.kernels import PositionKernel, build_kernel, parse_kernel_structure


class PosKernelSASRec(SequentialRecommender):
    """Self-attention in which a learnable kernel C = U L multiplies logits and values, in place of position embeddings.

    Args:
        config: Holds the keys of ``properties/model/PosKernelSASRec.yaml``.
        dataset: The training split, for the number of items.

    Raises:
        ValueError: If a key's value is not one of those the YAML file names.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.initializer_range = config["initializer_range"]
        self.train_objective = config["train_objective"]

        hidden_size, n_heads = config["hidden_size"], config["n_heads"]
        self.item_embedding = nn.Embedding(self.n_items, hidden_size, padding_idx=0)
        kernels = build_layer_kernels(config)
        absolute = "absolute" in config["position_encoding"]
        self.backbone = BACKBONES[config["backbone"]](
            [PositionKernelAttention(hidden_size, n_heads, *pair, config["attn_dropout_prob"]) for pair in kernels],
            hidden_size=hidden_size,
            inner_size=config["inner_size"] or hidden_size,
            hidden_act=config["hidden_act"],
            dropout=config["hidden_dropout_prob"],
            layer_norm_eps=config["layer_norm_eps"],
            input_encoding=AbsolutePositionEncoding(self.max_seq_length, hidden_size, config["position_alignment"])
            if absolute
            else None,
        )
        # Where only the lag counts, items may stand at either end: behind the items, padding needs no mask.
        lag_only = not absolute and all(kernel.lag_only for pair in kernels for kernel in pair)
        self.newest_last = config["position_alignment"] == "end" and not lag_only
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """RecBole's initialization; kernels and LayerNorms start as their own classes say."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if module is self.item_embedding:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0.0

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Represent each sequence by the output at its newest item.

        Args:
            item_seq: Items, oldest first, 0 behind the last one; shape (b, s).
            item_seq_len: Items in each sequence, at least 1; shape (b,).

        Returns:
            Tensor of shape (b, d).
        """
        hidden = self.encode(self._align(item_seq, item_seq_len))
        return hidden[:, -1] if self.newest_last else self.gather_indexes(hidden, item_seq_len - 1)

    def encode(self, item_seq: Tensor) -> Tensor:
        """Outputs at every position.

        Args:
            item_seq: Aligned items, shape (b, s): padding stands in front if ``newest_last``, else behind.

        Returns:
            Tensor of shape (b, s, d); rows at padding have no meaning.
        """
        valid = item_seq > 0 if self.newest_last else None
        return self.backbone(self.item_embedding(item_seq), valid)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Mean cross-entropy over all items, of every target in the batch (arXiv 2602.21052, §training).

        The objective ``sequence`` has a target at each position, ``augmented`` one behind each sequence.
        """
        item_seq, item_seq_len = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        if self.train_objective == "augmented":
            return F.cross_entropy(self._scores(self.forward(item_seq, item_seq_len)), interaction[self.POS_ITEM_ID])
        target = self._align(interaction[TARGET_LIST_FIELD], item_seq_len)
        hidden = self.encode(self._align(item_seq, item_seq_len))
        labelled = target > 0  # gathered before the product with all items: padding would be most of it
        return F.cross_entropy(self._scores(hidden[labelled]), target[labelled])

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of the given items, shape (b,)."""
        hidden = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (hidden * self.item_embedding(interaction[self.ITEM_ID])).sum(dim=-1)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, shape (b, n)."""
        return self._scores(self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]))

    def _scores(self, hidden: Tensor) -> Tensor:
        """Dot products with the item embeddings (tied weights), shape (…, n).

        Like RecBole's SASRec, the padding item takes part; RecBole's evaluation gives it −∞.
        """
        return hidden @ self.item_embedding.weight.T

    def _align(self, sequence: Tensor, length: Tensor) -> Tensor:
        """Cut (b, s) to the longest sequence of the batch and move padding to the front if ``newest_last``."""
        longest = int(length.max())
        sequence = sequence[:, :longest]
        if not self.newest_last:
            return sequence
        source = torch.arange(longest, device=sequence.device) - (longest - length)[:, None]
        return sequence.gather(1, source.clamp(min=0)).masked_fill(source < 0, 0)


def build_layer_kernels(config: Config) -> list[tuple[PositionKernel, PositionKernel]]:
    """The (Uᵀ, L) kernels of each layer; a shared kernel is one module in all of them.

    Raises:
        ValueError: If a key of the kernels has a value that :func:`build_kernel` does not know.
    """
    structure_u, structure_l = parse_kernel_structure(config["kernel_structure"])
    n_layers = config["n_layers"]

    def build(role: str, structure: str, sharing: str) -> list[PositionKernel]:
        kernels = [
            build_kernel(
                role,
                structure,
                max_length=config["MAX_ITEM_LIST_LENGTH"],
                n_groups=kernel_groups(config),
                bandwidth=config["kernel_bandwidth"],
                normalization=config["kernel_normalization"],
                alignment=config["position_alignment"],
            )
            for _ in range(1 if sharing == "shared" else n_layers)
        ]
        return kernels * n_layers if sharing == "shared" else kernels

    sharing = config["kernel_sharing"]
    sharing_u, sharing_l = (sharing["u"], sharing["l"]) if isinstance(sharing, dict) else (sharing, sharing)
    return list(zip(build("u", structure_u, sharing_u), build("l", structure_l, sharing_l)))


def kernel_groups(config: Config) -> int:
    """The number of groups that ``kernel_groups`` (1, ``n_heads`` or ``hidden_size``) stands for."""
    groups = config["kernel_groups"]
    return config[groups] if isinstance(groups, str) else groups

"""PosKernelSASRec: SASRec with a positional kernel in every block (Nabiev & Frolov, arXiv 2602.21052, 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.encoder import KernelPair, build_layer_kernels
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.by_lag import AdaptiveBandKernel


class PosKernelSASRec(SASRecBase):
    """Self-attention with a learnable kernel C = U L on its logits and values instead of position embeddings.

    The keys are those of ``properties/model/PosKernelSASRec.yaml``; ``position_encoding`` adds encodings (hybrids).
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.kernel_width_penalty = config["kernel_width_penalty"]

    def layer_kernels(self, config: Config) -> list[KernelPair]:
        """See :meth:`SASRecBase.layer_kernels`."""
        sharing = config["kernel_sharing"]
        sharing_u, sharing_l = (sharing["u"], sharing["l"]) if isinstance(sharing, dict) else (sharing, sharing)
        return build_layer_kernels(
            config["kernel_structure"], config["n_layers"], kernel_options(config), sharing_u, sharing_l
        )

    def encoding_names(self, config: Config) -> Sequence[str]:
        """See :meth:`SASRecBase.encoding_names`."""
        names: list[str] = config["position_encoding"]
        return names

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of :class:`SASRecBase`, plus ``kernel_width_penalty`` times the mean width z / T of the kernels."""
        loss: Tensor = super().calculate_loss(interaction)
        if not self.kernel_width_penalty:
            return loss
        shares = [kernel.width_share() for kernel in self.modules() if isinstance(kernel, AdaptiveBandKernel)]
        loss = loss + self.kernel_width_penalty * torch.cat(shares).mean()
        return loss

    def kernel_state(self) -> dict[str, Tensor]:
        """The kernels' part of ``state_dict``."""
        return {name: value for name, value in self.state_dict().items() if "_kernel." in name}

    def learned(self) -> dict[str, Any]:
        """See :meth:`SASRecBase.learned`."""
        widths = self.kernel_widths()
        return {"kernel_widths": widths} if widths else {}

    def kernel_widths(self) -> dict[str, list[list[int]]]:
        """The lags that the adaptive kernels keep, by role (``u``, ``l``), then layer, then group.

        Roles without an ``adaptive_band`` are left out.
        """
        widths = {}
        for role in ("u", "l"):
            kernels = [getattr(block.attention, f"{role}_kernel") for block in self.backbone.blocks]
            if isinstance(kernels[0], AdaptiveBandKernel):
                widths[role] = [kernel.hard_width().tolist() for kernel in kernels]
        return widths


def kernel_options(config: Config) -> KernelOptions:
    """The options of the kernels."""
    return KernelOptions(
        role="u",
        max_length=config["MAX_ITEM_LIST_LENGTH"],
        n_groups=kernel_groups(config),
        normalization=config["kernel_normalization"],
        alignment=config["position_alignment"],
        bandwidth=config["kernel_bandwidth"],
        n_decays=config["kernel_decays"],
        rank=config["kernel_rank"],
        normalization_eps=config["kernel_normalization_eps"],
        first_tap_start=config["kernel_first_tap_start"],
    )


def kernel_groups(config: Config) -> int:
    """The number of groups that ``kernel_groups`` (1, ``n_heads`` or ``hidden_size``) stands for."""
    groups = config["kernel_groups"]
    return int(config[groups] if isinstance(groups, str) else groups)

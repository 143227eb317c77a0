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
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encoder import KernelPair, build_branches, build_layer_kernels
from recbole_posattn.nn.encodings.build import READS_TIME as ENCODINGS_OF_TIME
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.by_lag import AdaptiveBandKernel
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.nn.kernels.structures import parse_kernel_structure


class PosKernelSASRec(SASRecBase):
    """Self-attention with learnable kernels over positions instead of position embeddings.

    ``kernel_structure`` chooses the kernel C = U L on the logits and values of the attention (arXiv 2602.21052),
    ``kernel_branch`` one beside the attention, or in its place with ``attention: none``, and ``position_encoding`` adds
    encodings. All keys are in ``properties/model/PosKernelSASRec.yaml``.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.kernel_width_penalty = config["kernel_width_penalty"]

    def layer_kernels(self, config: Config) -> Sequence[KernelPair | None]:
        """See :meth:`SASRecBase.layer_kernels`."""
        if config["attention"] == "none":
            return [None] * config["n_layers"]
        sharing = config["kernel_sharing"]
        sharing_u, sharing_l = (sharing["u"], sharing["l"]) if isinstance(sharing, dict) else (sharing, sharing)
        structures = "-".join(map(self._timed, parse_kernel_structure(config["kernel_structure"])))
        options = kernel_options(config)._replace(median_gap=self.median_gap)
        return build_layer_kernels(structures, config["n_layers"], options, sharing_u, sharing_l)

    def layer_branches(self, config: Config) -> Sequence[KernelBranch | None]:
        """See :meth:`SASRecBase.layer_branches`."""
        n_layers, structure = config["n_layers"], config["kernel_branch"]
        if structure is None:
            return [None] * n_layers
        n_groups = number_of_groups(config, "kernel_branch_groups")
        options = kernel_options(config)._replace(n_groups=n_groups, median_gap=self.median_gap)
        structure = self._timed(structure)
        return build_branches(structure, n_layers, options, config["hidden_size"], config["hidden_dropout_prob"])

    def encoding_names(self, config: Config) -> Sequence[str]:
        """See :meth:`SASRecBase.encoding_names`."""
        return [name for name in config["position_encoding"] if self.reads_time or name not in ENCODINGS_OF_TIME]

    def _timed(self, structure: str) -> str:
        """A structure, or the identity where the times that it reads are not to be read (``read_times``)."""
        return structure if self.reads_time or structure not in STRUCTURES_OF_TIME else "identity"

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of :class:`SASRecBase`, plus ``kernel_width_penalty`` times the mean width z / T of the kernels."""
        loss: Tensor = super().calculate_loss(interaction)
        if not self.kernel_width_penalty:
            return loss
        shares = [kernel.width_share() for kernel in self.modules() if isinstance(kernel, AdaptiveBandKernel)]
        loss = loss + self.kernel_width_penalty * torch.cat(shares).mean()
        return loss

    def kernel_state(self) -> dict[str, Tensor]:
        """The part of ``state_dict`` that belongs to the kernels and branches."""
        parts = ("_kernel.", ".branch.")
        return {name: value for name, value in self.state_dict().items() if any(part in name for part in parts)}

    def learned(self) -> dict[str, Any]:
        """See :meth:`SASRecBase.learned`."""
        widths = self.kernel_widths()
        return {**super().learned(), **({"kernel_widths": widths} if widths else {})}

    def kernel_widths(self) -> dict[str, list[list[int]]]:
        """The lags that the adaptive kernels keep, by role (``u``, ``l``, ``branch``), then layer, then group.

        Roles without an ``adaptive_band`` are left out.
        """
        widths = {}
        for role, path in {"u": "attention.u_kernel", "l": "attention.l_kernel", "branch": "branch.kernel"}.items():
            kernels = [
                module
                for name, module in self.backbone.blocks.named_modules(remove_duplicate=False)
                if name.endswith(f".{path}")
            ]
            if kernels and isinstance(kernels[0], AdaptiveBandKernel):
                widths[role] = [kernel.hard_width().tolist() for kernel in kernels]
        return widths


def kernel_options(config: Config) -> KernelOptions:
    """The options of the kernels."""
    return KernelOptions(
        role="u",
        max_length=config["MAX_ITEM_LIST_LENGTH"],
        n_groups=number_of_groups(config, "kernel_groups"),
        normalization=config["kernel_normalization"],
        alignment=config["position_alignment"],
        bandwidth=config["kernel_bandwidth"],
        n_decays=config["kernel_decays"],
        rank=config["kernel_rank"],
        normalization_eps=config["kernel_normalization_eps"],
        first_tap_start=config["kernel_first_tap_start"],
    )


def number_of_groups(config: Config, key: str) -> int:
    """The number of groups that a key such as ``kernel_groups`` (1, ``n_heads`` or ``hidden_size``) stands for."""
    groups = config[key]
    return int(config[groups] if isinstance(groups, str) else groups)

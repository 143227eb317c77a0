"""Published models with filters over positions: FMLP-Rec, BSARec and TV-Rec.

All three are post-norm blocks around a :class:`KernelBranch` without a gate, the first two on items plus absolute
positions, with the newest item at the last position. Their formulas, costs and differences from their authors' code are
in ``docs/models.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.nn import functional as F

from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.backbone import Block, BSARecBlock
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encoder import KernelPair
from recbole_posattn.nn.kernels.base import PositionKernel
from recbole_posattn.nn.kernels.by_frequency import FrequencyRescaler, SpectralKernel
from recbole_posattn.nn.kernels.by_position import TimeVariantKernel


class _FilterModel(SASRecBase):
    """Blocks with the filter that the subclass names, without a gate."""

    def layer_kernels(self, config: Config) -> Sequence[KernelPair | None]:
        """See :meth:`SASRecBase.layer_kernels`; no attention."""
        return [None] * config["n_layers"]

    def layer_branches(self, config: Config) -> Sequence[KernelBranch | None]:
        """See :meth:`SASRecBase.layer_branches`."""
        return [
            KernelBranch(
                self.filter(config),
                config["hidden_size"],
                config["hidden_dropout_prob"],
                gated=False,
                mixes_padding=bool(config["filter_padding"]),
            )
            for _ in range(config["n_layers"])
        ]

    def filter(self, config: Config) -> PositionKernel:
        """The filter of a layer."""
        raise NotImplementedError


class FMLPRec(_FilterModel):
    """A learned filter over the frequencies of each channel in place of attention (Zhou et al., arXiv 2202.13556).

    a = LN(x + dropout(F⁻¹(W ⊙ F(x)))), out = LN(a + FFN(a)). With ``train_objective: sequence`` the filter's circular
    convolution is restricted to lags of at least 0.
    """

    def encoding_names(self, config: Config) -> Sequence[str]:
        """See :meth:`SASRecBase.encoding_names`."""
        return ["absolute"]

    def filter(self, config: Config) -> PositionKernel:
        """See :meth:`_FilterModel.filter`."""
        return SpectralKernel(config["MAX_ITEM_LIST_LENGTH"], config["hidden_size"], _needs_causality(config))


class BSARec(_FilterModel):
    """A frequency rescaler beside self-attention (Shin et al., arXiv 2312.10325).

    a = α LN(x + dropout(LP(x) + β² (x − LP(x)))) + (1 − α) LN(x + W_O Attn(x)), out = LN(a + FFN(a)). With
    ``train_objective: sequence`` the low pass LP is restricted to lags of at least 0.
    """

    def layer_kernels(self, config: Config) -> Sequence[KernelPair | None]:
        """See :meth:`SASRecBase.layer_kernels`; plain attention."""
        return SASRecBase.layer_kernels(self, config)

    def block(self, config: Config) -> Callable[..., Block]:
        """See :meth:`SASRecBase.block`."""
        return functools.partial(BSARecBlock, alpha=config["bsarec_alpha"])

    def encoding_names(self, config: Config) -> Sequence[str]:
        """See :meth:`SASRecBase.encoding_names`."""
        return ["absolute"]

    def filter(self, config: Config) -> PositionKernel:
        """See :meth:`_FilterModel.filter`."""
        return FrequencyRescaler(
            config["MAX_ITEM_LIST_LENGTH"], config["hidden_size"], config["bsarec_cutoff"], _needs_causality(config)
        )


class TVRec(_FilterModel):
    """Taps that change with the position, by a basis of filters, in place of attention (Shin et al., arXiv 2510.25259).

    a = LN(x + dropout(M x)), M[t, t − k] = Σ_m c_t[m] b̂_m[k], out = LN(a + FFN(a)), without position embeddings. M is
    causal in either objective.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.orthogonality = config["tvrec_orthogonality"]

    def filter(self, config: Config) -> PositionKernel:
        """See :meth:`_FilterModel.filter`."""
        kernel = TimeVariantKernel(config["MAX_ITEM_LIST_LENGTH"], normalization="none", rank=config["kernel_rank"])
        kernel.start_near_zero()
        return kernel

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of :class:`SASRecBase`, plus ``tvrec_orthogonality`` times Σ ‖B̂ B̂ᵀ − I‖² over the layers."""
        loss = super().calculate_loss(interaction)
        if not self.orthogonality:
            return loss
        filters = [kernel for kernel in self.modules() if isinstance(kernel, TimeVariantKernel)]
        return loss + self.orthogonality * torch.stack([overlap(kernel.basis) for kernel in filters]).sum()


def overlap(basis: Tensor) -> Tensor:
    """‖B̂ B̂ᵀ − I‖², B̂ being the rows of a basis (…, r, T) divided by their norms: 0 if they are orthogonal."""
    rows = F.normalize(basis, dim=-1)
    return (rows @ rows.mT - torch.eye(rows.shape[-2], device=rows.device)).square().sum()


def _needs_causality(config: Config) -> bool:
    """Whether the filter must be causal: a loss at every position must not see later items."""
    return config["train_objective"] == "sequence"


FILTER_MODELS = (FMLPRec, BSARec, TVRec)

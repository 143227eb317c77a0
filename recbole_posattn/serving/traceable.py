"""A sequential model as a function of two tensors, which can be traced.

Shape keys: b sequences, L = MAX_ITEM_LIST_LENGTH, n items, including padding.
"""

from __future__ import annotations

import copy

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_posattn.data.relative_times import relative_times
from recbole_posattn.models.alignment import first_in_front, padding_in_front
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.kernels.base import IdentityKernel, PositionKernel


def exportable(model: SequentialRecommender) -> nn.Module:
    """A copy of a model that returns scores of shape (b, n), −∞ for the padding item, without data-dependent branches.

    Its inputs are ``item_id_list``, shape (b, L), oldest first and 0 at the end; ``item_length``, shape (b,); and, if
    the model reads time, ``item_times``, float64, shape (b, L), in the order of the items.
    """
    return (_PositionScorer if isinstance(model, SASRecBase) else _Scorer)(copy.deepcopy(model).cpu().eval())


class _Scorer(nn.Module):
    """Any of RecBole's sequential models."""

    is_padding: Tensor

    def __init__(self, model: SequentialRecommender) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("is_padding", torch.arange(model.n_items) == 0)

    def forward(self, item_id_list: Tensor, item_length: Tensor, item_times: Tensor | None = None) -> Tensor:
        """Scores, shape (b, n)."""
        return self.scores(item_id_list, item_length, item_times).masked_fill(self.is_padding, -torch.inf)

    def scores(self, items: Tensor, length: Tensor, times: Tensor | None) -> Tensor:
        """Scores, including that of the padding item."""
        interaction = Interaction({self.model.ITEM_SEQ: items, self.model.ITEM_SEQ_LEN: length})
        return self.model.full_sort_predict(interaction).view(-1, self.model.n_items)


class _PositionScorer(_Scorer):
    """A model of this package: one path for sequences of all lengths, and constant kernels as matrices."""

    def __init__(self, model: SASRecBase) -> None:
        super().__init__(model)
        for module in self.model.modules():
            if isinstance(module, PositionKernelAttention):
                module.u_kernel, module.l_kernel = _as_matrix(module.u_kernel), _as_matrix(module.l_kernel)
            elif isinstance(module, KernelBranch):
                module.kernel = _as_matrix(module.kernel)

    def scores(self, items: Tensor, length: Tensor, times: Tensor | None) -> Tensor:
        """See :meth:`_Scorer.scores`."""
        model, timed = self.model, {}
        if times is not None:  # in time order: nothing is sorted or checked here
            times = relative_times(times, length)
            timed = {"times": first_in_front(times, length) if model.newest_last else times}
        if model.newest_last:
            aligned = padding_in_front(items, length)
            hidden = model.hidden_states(aligned, aligned > 0, last_only=True, **timed)[:, -1]
        else:
            hidden = model.gather_indexes(model.hidden_states(items, None, **timed), length - 1)
        return model.with_partition(model._scores(hidden), items, length)


class _MatrixKernel(PositionKernel):
    """A kernel as a constant matrix, for sequences of its ``max_length`` only."""

    matrix: Tensor

    def __init__(self, kernel: PositionKernel) -> None:
        super().__init__(kernel.max_length, kernel.n_groups)
        self.register_buffer("matrix", kernel.dense().detach())

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return self.matrix

    def _mix(self, x: Tensor) -> Tensor:
        return self.matrix @ x


def _as_matrix(kernel: PositionKernel) -> PositionKernel:
    return kernel if isinstance(kernel, IdentityKernel) or kernel.reads_time else _MatrixKernel(kernel)

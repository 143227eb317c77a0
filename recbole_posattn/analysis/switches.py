"""The positional parts of a model (U, L, the branch and the encodings), and the model without some of them.

A kernel that is switched off keeps its diagonal only: positions are not mixed, and the weight of each
position itself is unchanged. An encoding that is switched off is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.kernels.base import IdentityKernel, PositionKernel

KERNEL_PARTS = {"U": "u_kernel", "L": "l_kernel"}
BRANCH_PART = "branch"


def attentions_of(model: SASRecBase) -> list[PositionKernelAttention]:
    """The attention of each layer; none where a branch is the whole mixer."""
    attentions = [block.attention for block in model.backbone.blocks]
    return [attention for attention in attentions if isinstance(attention, PositionKernelAttention)]


def branches_of(model: SASRecBase) -> list[KernelBranch]:
    """The branch of each layer, if the layers have one."""
    return [block.branch for block in model.backbone.blocks if isinstance(block.branch, KernelBranch)]


def _names(encodings: nn.ModuleList) -> list[str]:
    return [encoding.name for encoding in encodings if isinstance(encoding, PositionEncoding)]


def positional_parts(model: SASRecBase) -> list[str]:
    """The parts of a model: U, L and the branch unless they are the identity, then the names of its encodings."""
    kernels: dict[str, nn.Module] = {}
    inside: list[str] = []
    for attention in attentions_of(model)[:1]:
        kernels |= {part: getattr(attention, name) for part, name in KERNEL_PARTS.items()}
        inside = _names(attention.encodings)
    for branch in branches_of(model)[:1]:
        kernels[BRANCH_PART] = branch.kernel
    mixing = [part for part, kernel in kernels.items() if not isinstance(kernel, IdentityKernel)]
    return [*mixing, *_names(model.backbone.input_encodings), *inside]


@contextmanager
def switched_off(model: SASRecBase, parts: Sequence[str]) -> Iterator[None]:
    """The model without some of its parts, in all layers, within the context."""
    with ExitStack() as stack:
        stack.enter_context(_without_encodings(model.backbone, "input_encodings", parts))
        for attention in attentions_of(model):
            stack.enter_context(switched_off_in(attention, parts))
        for branch in branches_of(model) if BRANCH_PART in parts else ():
            _keep_diagonal(stack, branch, "kernel")
        yield


@contextmanager
def switched_off_in(attention: PositionKernelAttention, parts: Sequence[str]) -> Iterator[None]:
    """The attention of one layer without some of its parts, within the context."""
    with ExitStack() as stack:
        for part in set(KERNEL_PARTS) & set(parts):
            _keep_diagonal(stack, attention, KERNEL_PARTS[part])
        stack.enter_context(_without_encodings(attention, "encodings", parts))
        yield


def _keep_diagonal(stack: ExitStack, module: nn.Module, name: str) -> None:
    """Put the diagonal of a module's kernel in the kernel's place until the stack is closed."""
    kernel = getattr(module, name)
    if not isinstance(kernel, IdentityKernel):
        stack.callback(setattr, module, name, kernel)
        setattr(module, name, DiagonalKernel(kernel))


@contextmanager
def _without_encodings(module: nn.Module, name: str, parts: Sequence[str]) -> Iterator[None]:
    encodings = getattr(module, name)
    setattr(module, name, nn.ModuleList(encoding for encoding in encodings if encoding.name not in parts))
    try:
        yield
    finally:
        setattr(module, name, encodings)


class DiagonalKernel(PositionKernel):
    """The diagonal of another kernel, which mixes no positions.

    Args:
        kernel: The other kernel.
    """

    def __init__(self, kernel: PositionKernel) -> None:
        super().__init__(kernel.max_length, kernel.n_groups)
        self.kernel = kernel
        self.lag_only = kernel.lag_only

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return torch.diag_embed(self.kernel.diagonal(length))

    def _mix(self, x: Tensor) -> Tensor:
        return self.kernel.diagonal(x.shape[-2]).unsqueeze(-1) * x

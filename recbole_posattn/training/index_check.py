"""Indices that are out of bounds raise an ``IndexError`` on every device.

On a CPU, PyTorch checks indices and raises. On a GPU, the CUDA kernel aborts, and the process can no longer use that
GPU, even if it catches the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_BY_DIMENSION = (_aten.index, _aten._unsafe_index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_)
_ALONG_DIMENSION = (
    *(_aten.gather, _aten.index_select, _aten.index_add, _aten.index_add_, _aten.index_copy, _aten.index_copy_),
    *(_aten.scatter, _aten.scatter_, _aten.scatter_add, _aten.scatter_add_, _aten.scatter_reduce),
)


class IndicesChecked(TorchDispatchMode):
    """While the block runs, each index of a lookup, gather or scatter is compared with the size before it is used.

    A check waits for the device, so this is for a few batches only.

    Raises:
        IndexError: If an index is out of bounds.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Check, then compute."""
        for index, lowest, size in _indices(func.overloadpacket, args):
            if index.numel() and (int(index.min()) < lowest or int(index.max()) >= size):
                raise IndexError(f"{func}: indices from {int(index.min())} to {int(index.max())}, size {size}")
        return func(*args, **(kwargs or {}))


def _indices(operation: Any, args: tuple) -> Iterator[tuple[Tensor, int, int]]:
    """The index tensors of an operation, each with the lowest index allowed and the size of its dimension."""
    if operation == _aten.embedding:
        yield args[1], 0, len(args[0])
    elif operation in _ALONG_DIMENSION and args[0].dim() > 0:
        yield args[2], 0, args[0].shape[args[1]]
    elif operation in _BY_DIMENSION:
        dimension = 0
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):  # a mask, whose shape PyTorch checks
                dimension += index.dim()
                continue
            if index is not None:
                yield index, -args[0].shape[dimension], args[0].shape[dimension]
            dimension += 1

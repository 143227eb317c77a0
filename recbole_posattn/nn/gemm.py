"""Float32 matrix products on a CPU with the faster of PyTorch's two libraries, MKL and oneDNN.

On x86 CPUs, PyTorch multiplies float32 matrices with Intel's MKL, which does not use AVX-512 on AMD CPUs. oneDNN, which
PyTorch uses for bfloat16 and in compiled models, does, and is 1.2 to 2.5 times as fast there for large matrices
(``python -m benchmarks.roofline``). The results are equal up to rounding.

Shape keys: m rows, k inner size, n columns of the product.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Multiplications m · k · n from which oneDNN is used: it generates code for each new shape, which takes about 0.4 ms.
MIN_MULTIPLICATIONS = 2**23


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than PyTorch does by itself: on AMD CPUs with AVX-512."""
    cpu = Path("/proc/cpuinfo")
    vendor = cpu.read_text(encoding="utf-8", errors="replace") if cpu.is_file() else platform.processor()
    has_libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    if not has_libraries or "AuthenticAMD" not in vendor or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    x = torch.arange(6.0).view(2, 3)
    try:  # the operation is not part of PyTorch's documented interface
        return torch.equal(_by_onednn(x, x, None), x @ x.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b; x of shape (…, k), W of shape (n, k)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether x Wᵀ is to be computed by oneDNN; arguments as in :func:`linear`."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * len(weight) >= MIN_MULTIPLICATIONS
        and onednn_is_faster()
    )


def times_transposed(x: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """x Wᵀ without a gradient.

    Args:
        x: Shape (m, k).
        weight: W, shape (n, k).
        out: Memory that may be used for the result, shape (m, n).

    Returns:
        Shape (m, n).
    """
    return _by_onednn(x, weight) if suits_onednn(x, weight) else torch.mm(x, weight.T, out=out)


def add_transposed_times(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total += xᵀ y, in place and without a gradient.

    Args:
        total: Shape (m, n); fastest for oneDNN if its columns are contiguous.
        x: Shape (k, m).
        y: Shape (k, n).
    """
    if suits_onednn(y.T, x.T):
        total.T.add_(_by_onednn(y.T, x.T))
    else:
        total.addmm_(x.T, y)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as ``torch.nn.functional.linear``.

    Args:
        x: Shape (…, k).
        weight: W, shape (n, k).
        bias: b, shape (n,).

    Returns:
        Shape (…, n).
    """
    if _is_traced(x) or torch.is_autocast_enabled(x.device.type) or not suits_onednn(x, weight):
        return F.linear(x, weight, bias)
    product: Callable[..., Tensor] = _Linear.apply
    return product(x.contiguous(), weight, bias)


def _is_traced(x: Tensor) -> bool:
    """Whether an exporter or compiler records the operations, or x is a tensor of another kind."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in (Tensor, nn.Parameter)


class _Linear(torch.autograd.Function):
    """See :func:`linear`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes as in :func:`linear`."""
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """g W, gᵀ x and the sum of g over all rows."""
        x, weight = ctx.saved_tensors
        rows, inputs = grad.contiguous().view(-1, grad.shape[-1]), x.view(-1, x.shape[-1])
        grad_x = times_transposed(rows, weight.T).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_weight = _by_onednn(rows.T, inputs.T) if ctx.needs_input_grad[1] else None
        grad_bias = rows.sum(dim=0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


class Linear(nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """See :func:`linear`."""
        if _is_traced(input) or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        return linear(input, self.weight, self.bias)

"""Cross-entropy over all items, computed in chunks that never hold all scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_posattn.nn.gemm import add_transposed_times, suits_onednn, times_transposed
from recbole_posattn.nn.losses.base import ItemLoss, target_chunks, targets_per_chunk

Precision = Literal["float32", "bfloat16"]

# Elements of the logits of a chunk, c · n. Measured on a CPU core, forward and backward, float32: from 2^20 to 2^22,
# the time changes by 5 % for 1,683 and 12,102 items. Smaller chunks add more often to the gradients of all items, and
# threads wait for each other at every operation; larger ones leave the cache. The value for GPUs, not measured, is
# large enough to keep them busy.
LOGIT_ELEMENTS = {"cpu": 2**21, "cuda": 2**27}

# Targets of the smallest part of a chunk for oneDNN, which generates code for each new shape: what does not fill a
# chunk is computed in halves, so that few shapes occur.
SMALLEST_PART = 16

# Types of the products with the item embeddings.
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

# Fewest targets of a chunk, however many items there are: each chunk reads all embeddings and adds to all their
# gradients. With this many targets, a chunk has about as many logits as the embeddings have elements.
MIN_CHUNK_SIZE = 64


class CrossEntropy(ItemLoss):
    """Cross-entropy over all items, −s⁺ + log Σ_i exp(s_i), and with label smoothing
    −(1 − ε) s⁺ − ε mean_i s_i + log Σ_i exp(s_i), as ``torch.nn.functional.cross_entropy`` computes it.

    As in RecBole's SASRec, the padding item is included. In chunks, the loss and its gradients are exact, but only the
    scores of c targets are in memory at a time, and nothing is computed twice: the forward pass replaces the scores of
    a chunk with their gradients.

    Args:
        chunk_size: c; ``auto`` for c · n to be about :data:`LOGIT_ELEMENTS` but c not below :data:`MIN_CHUNK_SIZE`,
            ``None`` for all targets at once by PyTorch's own operations, which allow second derivatives.
        label_smoothing: ε in [0, 1) (Szegedy et al., arXiv 1512.00567, §7): the share of the target's probability that
            is spread evenly over all items.
        precision: Type in which the products with the item embeddings are computed: ``float32`` for the type of the
            operands, or autocast's if it is on; ``bfloat16``. The softmax and sums over chunks are in float32 at least.

    Raises:
        ValueError: If ``chunk_size`` is neither of these nor a positive integer, ``label_smoothing`` not in [0, 1), or
            ``precision`` unknown or ``bfloat16`` without chunks.
    """

    def __init__(
        self,
        chunk_size: int | Literal["auto"] | None = "auto",
        label_smoothing: float = 0.0,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if chunk_size not in (None, "auto") and not (isinstance(chunk_size, int) and chunk_size >= 1):
            raise ValueError(f"chunk_size must be a positive integer, 'auto' or None, got {chunk_size!r}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if precision not in PRECISIONS or (precision == "bfloat16" and chunk_size is None):
            raise ValueError(f"precision must be one of {PRECISIONS}, and float32 without chunks, got {precision!r}")
        self.chunk_size = chunk_size
        self.label_smoothing = label_smoothing
        self.precision = precision

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        if self.chunk_size is None:
            return F.cross_entropy(hidden @ item_weight.T, target, label_smoothing=self.label_smoothing)
        chunk_size = self.chunk_size
        if chunk_size == "auto":
            chunk_size = max(MIN_CHUNK_SIZE, targets_per_chunk(LOGIT_ELEMENTS, len(item_weight), hidden.device))
        product_dtype = (hidden[:0] @ item_weight[:0].T).dtype  # autocast's if it is on
        if self.precision == "bfloat16":
            product_dtype = torch.bfloat16
        loss: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
        return loss(
            hidden, target, item_weight, chunk_size, self.label_smoothing, product_dtype, torch.is_grad_enabled()
        )

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"chunk_size={self.chunk_size}, label_smoothing={self.label_smoothing}, precision={self.precision}"


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over all items, chunk by chunk, with the gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        target: Tensor,
        item_weight: Tensor,
        chunk_size: int,
        label_smoothing: float,
        product_dtype: torch.dtype,
        grad_enabled: bool,  # outside; in here gradients are always off
    ) -> Tensor:
        """See :class:`CrossEntropy`; products are computed in ``product_dtype``, the softmax in float32 at least."""
        with torch.autocast(hidden.device.type, enabled=False):
            needs_hidden = grad_enabled and ctx.needs_input_grad[0]
            needs_weight = grad_enabled and ctx.needs_input_grad[2]
            x, weight = hidden.to(product_dtype).contiguous(), item_weight.to(product_dtype).contiguous()
            n_targets, n_items = len(x), len(weight)
            wide_dtype = torch.promote_types(product_dtype, torch.float32)
            narrow = wide_dtype != product_dtype
            by_onednn = suits_onednn(x[:chunk_size], weight)
            chunks = _halving_chunks if by_onednn else target_chunks
            # One buffer for all chunks: fresh memory is slow.
            products = x.new_empty(min(chunk_size, n_targets), n_items)
            wide = torch.empty_like(products, dtype=wide_dtype) if narrow else products
            losses = x.new_empty(n_targets, dtype=wide_dtype)
            grad_hidden = torch.empty_like(x) if needs_hidden else None
            grad_weight = _zeros_like(weight, wide_dtype, by_columns=by_onednn) if needs_weight else None

            for rows in chunks(n_targets, chunk_size):
                label = target[rows]
                product = times_transposed(x[rows], weight, out=products[: len(label)])
                logits = wide[: len(label)].copy_(product) if narrow else product
                row = torch.arange(len(label), device=label.device)
                highest, at_label = logits.amax(dim=1), logits[row, label]
                # The softmax is in place. With it, log Σ exp(s) = max s − log max p takes only two cheap maxima.
                probability = torch.softmax(logits, dim=1, out=logits)
                losses[rows] = highest - probability.amax(dim=1).log() - (1 - label_smoothing) * at_label
                if grad_hidden is None and grad_weight is None:
                    continue
                probability[row, label] -= 1 - label_smoothing
                grad_logits = product.copy_(probability) if narrow else probability
                if grad_hidden is not None:
                    grad_hidden[rows] = times_transposed(grad_logits, weight.T)
                if grad_weight is not None and narrow:
                    grad_weight += grad_logits.T @ x[rows]  # a sum of many chunks is inexact in a narrow type
                elif grad_weight is not None:
                    add_transposed_times(grad_weight, grad_logits, x[rows])

            if label_smoothing:
                _smooth(label_smoothing, x, weight, losses, grad_hidden, grad_weight)
            ctx.n_targets = n_targets
            ctx.save_for_backward(
                None if grad_hidden is None else grad_hidden.to(hidden.dtype),
                None if grad_weight is None else grad_weight.to(item_weight.dtype).contiguous(),
            )
            return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass has saved."""
        scale = grad_loss / ctx.n_targets
        grad_hidden, grad_weight = (None if grad is None else grad * scale for grad in ctx.saved_tensors)
        return grad_hidden, None, grad_weight, None, None, None, None


def _zeros_like(weight: Tensor, dtype: torch.dtype, by_columns: bool) -> Tensor:
    """Zeros of the shape of ``weight``, with the columns contiguous or the rows."""
    zeros = weight.new_zeros(weight.shape[::-1] if by_columns else weight.shape, dtype=dtype)
    return zeros.T if by_columns else zeros


def _halving_chunks(n_targets: int, chunk_size: int) -> Iterator[slice]:
    """Chunks like :func:`target_chunks`, where the rest is cut into a half, a quarter, … of a chunk."""
    first = 0
    while first < n_targets:
        while chunk_size > max(SMALLEST_PART, n_targets - first):
            chunk_size = max(SMALLEST_PART, chunk_size // 2)
        yield slice(first, min(first + chunk_size, n_targets))
        first += chunk_size


def _smooth(
    label_smoothing: float,
    x: Tensor,
    weight: Tensor,
    losses: Tensor,
    grad_hidden: Tensor | None,
    grad_weight: Tensor | None,
) -> None:
    """Subtract ε mean_i s_i from the losses, and its gradients, in place.

    mean_i s_i = x · mean_i w_i: no pass over the scores is needed.
    """
    x = x.to(losses.dtype)
    mean_weight = weight.mean(dim=0, dtype=losses.dtype)
    losses.sub_(label_smoothing * (x @ mean_weight))
    if grad_hidden is not None:
        grad_hidden.sub_(label_smoothing * mean_weight)
    if grad_weight is not None:
        grad_weight.sub_(label_smoothing / len(weight) * x.sum(dim=0))

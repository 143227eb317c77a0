"""Cross-entropy over all items, computed in chunks that never hold all scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_posattn.nn.losses.base import ItemLoss, target_chunks, targets_per_chunk

# Elements of the logits of a chunk, c · n. Measured on two CPU cores, forward and backward, d = 64, float32: on idle
# cores, 2^18 to 2^20 fit into the cache and are about a third faster; but on busy cores, threads wait for each other
# at every operation, and many small chunks are slower than all logits at once. The value for GPUs, not measured, is
# large enough to keep them busy.
LOGIT_ELEMENTS = {"cpu": 2**23, "cuda": 2**27}

# Fewest targets of a chunk, however many items there are: each chunk reads all embeddings and adds to all their
# gradients. With this many targets, a chunk has about as many logits as the embeddings have elements.
MIN_CHUNK_SIZE = 64


class CrossEntropy(ItemLoss):
    """Cross-entropy over all items, −s⁺ + log Σ_i exp(s_i).

    As in RecBole's SASRec, the padding item is included. In chunks, the loss and its gradients are exact, but only the
    scores of c targets are in memory at a time, and nothing is computed twice: the forward pass replaces the scores of
    a chunk with their gradients.

    Args:
        chunk_size: c; ``auto`` for c · n to be about :data:`LOGIT_ELEMENTS` but c not below :data:`MIN_CHUNK_SIZE`,
            ``None`` for all targets at once by PyTorch's own operations, which allow second derivatives.

    Raises:
        ValueError: If ``chunk_size`` is neither of these nor a positive integer.
    """

    def __init__(self, chunk_size: int | Literal["auto"] | None = "auto") -> None:
        super().__init__()
        if chunk_size not in (None, "auto") and not (isinstance(chunk_size, int) and chunk_size >= 1):
            raise ValueError(f"chunk_size must be a positive integer, 'auto' or None, got {chunk_size!r}")
        self.chunk_size = chunk_size

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        if self.chunk_size is None:
            return F.cross_entropy(hidden @ item_weight.T, target)
        chunk_size = self.chunk_size
        if chunk_size == "auto":
            chunk_size = max(MIN_CHUNK_SIZE, targets_per_chunk(LOGIT_ELEMENTS, len(item_weight), hidden.device))
        product_dtype = (hidden[:0] @ item_weight[:0].T).dtype  # autocast's if it is on
        loss: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
        return loss(hidden, target, item_weight, chunk_size, product_dtype, torch.is_grad_enabled())

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"chunk_size={self.chunk_size}"


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over all items, chunk by chunk, with the gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        target: Tensor,
        item_weight: Tensor,
        chunk_size: int,
        product_dtype: torch.dtype,
        grad_enabled: bool,  # outside; in here gradients are always off
    ) -> Tensor:
        """See :class:`CrossEntropy`; products are computed in ``product_dtype``, the softmax in float32 at least."""
        with torch.autocast(hidden.device.type, enabled=False):
            needs_hidden = grad_enabled and ctx.needs_input_grad[0]
            needs_weight = grad_enabled and ctx.needs_input_grad[2]
            x, weight = hidden.to(product_dtype), item_weight.to(product_dtype)
            n_targets, n_items = len(x), len(weight)
            wide_dtype = torch.promote_types(product_dtype, torch.float32)
            narrow = wide_dtype != product_dtype
            # One buffer for all chunks: fresh memory is slow.
            products = x.new_empty(min(chunk_size, n_targets), n_items)
            wide = torch.empty_like(products, dtype=wide_dtype) if narrow else products
            losses = x.new_empty(n_targets, dtype=wide_dtype)
            grad_hidden = torch.empty_like(x) if needs_hidden else None
            grad_weight = torch.zeros_like(weight, dtype=wide_dtype) if needs_weight else None

            for rows in target_chunks(n_targets, chunk_size):
                label = target[rows]
                product = torch.mm(x[rows], weight.T, out=products[: len(label)])
                logits = wide[: len(label)].copy_(product) if narrow else product
                row = torch.arange(len(label), device=label.device)
                highest, at_label = logits.amax(dim=1), logits[row, label]
                # The softmax is in place. With it, log Σ exp(s) = max s − log max p takes only two cheap maxima.
                probability = torch.softmax(logits, dim=1, out=logits)
                losses[rows] = highest - probability.amax(dim=1).log() - at_label
                if grad_hidden is None and grad_weight is None:
                    continue
                probability[row, label] -= 1
                grad_logits = product.copy_(probability) if narrow else probability
                if grad_hidden is not None:
                    torch.mm(grad_logits, weight, out=grad_hidden[rows])
                if grad_weight is not None and narrow:
                    grad_weight += grad_logits.T @ x[rows]  # a sum of many chunks is inexact in a narrow type
                elif grad_weight is not None:
                    grad_weight.addmm_(grad_logits.T, x[rows])

            ctx.n_targets = n_targets
            ctx.save_for_backward(
                None if grad_hidden is None else grad_hidden.to(hidden.dtype),
                None if grad_weight is None else grad_weight.to(item_weight.dtype),
            )
            return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass has saved."""
        scale = grad_loss / ctx.n_targets
        grad_hidden, grad_weight = (None if grad is None else grad * scale for grad in ctx.saved_tensors)
        return grad_hidden, None, grad_weight, None, None, None

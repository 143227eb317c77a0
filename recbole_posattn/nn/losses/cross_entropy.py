"""Cross-entropy over all items, computed in chunks that never hold all scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_posattn.nn.gemm import add_transposed_times, suits_onednn, times_transposed
from recbole_posattn.nn.losses.base import ItemLoss, target_chunks, targets_per_chunk
from recbole_posattn.nn.losses.histories import TargetHistories

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

# The same with histories, whose items are scattered over the logits: these fit into the cache. The targets of a chunk
# then also have histories of nearly the same length.
ELEMENTS_WITH_HISTORIES = {"cpu": 2**18, "cuda": 2**27}

# Fewest targets of a chunk, however many items there are: each chunk reads all embeddings and adds to all their
# gradients. With this many targets, a chunk has about as many logits as the embeddings have elements.
MIN_CHUNK_SIZE = 64


class CrossEntropy(ItemLoss):
    """Cross-entropy over all items, −s⁺ + log Σ_i exp(s_i), and with label smoothing
    −(1 − ε) s⁺ − ε mean_i s_i + log Σ_i exp(s_i), as ``torch.nn.functional.cross_entropy`` computes it. With histories,
    a :class:`HistoryBias` adds to the scores of a target's history items, and a :class:`HistoryMask` leaves these items
    out of both sums.

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

    def forward(
        self, hidden: Tensor, target: Tensor, item_weight: Tensor, histories: TargetHistories | None = None
    ) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        if self.chunk_size is None:
            return self._at_once(hidden @ item_weight.T, target, histories)
        chunk_size, elements = self.chunk_size, LOGIT_ELEMENTS
        if histories is not None:
            order, histories = histories.by_length()
            hidden, target, elements = hidden.index_select(0, order), target[order], ELEMENTS_WITH_HISTORIES
        if chunk_size == "auto":
            chunk_size = max(MIN_CHUNK_SIZE, targets_per_chunk(elements, len(item_weight), hidden.device))
        product_dtype = (hidden[:0] @ item_weight[:0].T).dtype  # autocast's if it is on
        if self.precision == "bfloat16":
            product_dtype = torch.bfloat16
        loss: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
        table = None if histories is None else histories.table
        options = (histories, chunk_size, self.label_smoothing, product_dtype, torch.is_grad_enabled())
        return loss(hidden, target, item_weight, table, *options)

    def _at_once(self, logits: Tensor, target: Tensor, histories: TargetHistories | None) -> Tensor:
        """The loss from all scores, shape (m, n)."""
        if histories is None:
            return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        item, added = histories.added(slice(None), target)
        logits = logits.scatter_add(1, item, added.to(logits.dtype))
        loss = F.cross_entropy(logits, target)
        if not self.label_smoothing:
            return loss
        kept = logits > -math.inf  # F.cross_entropy would spread probability over the others as well
        spread = logits.log_softmax(dim=1).masked_fill(~kept, 0.0).sum(dim=1) / kept.sum(dim=1)
        return (1 - self.label_smoothing) * loss - self.label_smoothing * spread.mean()

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
        table: Tensor | None,  # that of the histories
        histories: TargetHistories | None,
        chunk_size: int,
        label_smoothing: float,
        product_dtype: torch.dtype,
        grad_enabled: bool,  # outside; in here gradients are always off
    ) -> Tensor:
        """See :class:`CrossEntropy`; products are computed in ``product_dtype``, the softmax in float32 at least."""
        with torch.autocast(hidden.device.type, enabled=False):
            needs_hidden, _, needs_weight, needs_table = (grad_enabled and needs for needs in ctx.needs_input_grad[:4])
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
            grad_table = torch.zeros_like(table, dtype=wide_dtype) if table is not None and needs_table else None

            for rows in chunks(n_targets, chunk_size):
                label = target[rows]
                product = times_transposed(x[rows], weight, out=products[: len(label)])
                logits = wide[: len(label)].copy_(product) if narrow else product
                if histories is not None:
                    at, added = histories.added(rows, label)
                    logits.scatter_add_(1, at, added.to(wide_dtype))
                losses[rows], gradient = _loss_and_gradient(logits, label, label_smoothing, histories is not None)
                if grad_table is not None and histories is not None:
                    histories.add_gradient(grad_table, rows, gradient.gather(1, at))
                if grad_hidden is None and grad_weight is None:
                    continue
                grad_logits = product.copy_(gradient) if narrow else gradient
                if grad_hidden is not None:
                    grad_hidden[rows] = times_transposed(grad_logits, weight.T)
                if grad_weight is not None and narrow:
                    grad_weight += grad_logits.T @ x[rows]  # a sum of many chunks is inexact in a narrow type
                elif grad_weight is not None:
                    add_transposed_times(grad_weight, grad_logits, x[rows])

            if label_smoothing and histories is None:
                _smooth(label_smoothing, x, weight, losses, grad_hidden, grad_weight)
            ctx.n_targets = n_targets
            grads = zip((grad_hidden, grad_weight, grad_table), (hidden, item_weight, table))
            ctx.save_for_backward(
                *(None if grad is None or of is None else grad.to(of.dtype).contiguous() for grad, of in grads)
            )
            return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass has saved."""
        scale = grad_loss / ctx.n_targets
        grad_hidden, grad_weight, grad_table = (None if grad is None else grad * scale for grad in ctx.saved_tensors)
        return grad_hidden, None, grad_weight, grad_table, None, None, None, None, None


def _loss_and_gradient(logits: Tensor, label: Tensor, label_smoothing: float, smooth: bool) -> tuple[Tensor, Tensor]:
    """The loss of each target of a chunk, and the gradients of its scores, which take the place of the scores.

    Args:
        logits: Scores, −∞ for items that are left out; shape (c, n).
        label: The targets' items, shape (c,).
        label_smoothing: ε.
        smooth: Whether to spread ε over the items that are not left out here; :func:`_smooth` does it without a pass
            over the scores, but over all items.
    """
    row = torch.arange(len(label), device=label.device)
    highest, at_label = logits.amax(dim=1), logits[row, label]
    kept = logits > -math.inf if smooth and label_smoothing else None
    if kept is not None:
        n_kept = kept.sum(dim=1, dtype=logits.dtype)
        mean = logits.masked_fill(~kept, 0.0).sum(dim=1) / n_kept
    # The softmax is in place. With it, log Σ exp(s) = max s − log max p takes only two cheap maxima.
    gradient = torch.softmax(logits, dim=1, out=logits)
    losses = highest - gradient.amax(dim=1).log() - (1 - label_smoothing) * at_label
    gradient[row, label] -= 1 - label_smoothing
    if kept is not None:
        losses -= label_smoothing * mean
        gradient -= kept * (label_smoothing / n_kept)[:, None]
    return losses, gradient


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

"""Losses of next-item prediction, over all items or over sampled negatives.

All have one interface, :class:`ItemLoss`: hidden states, their target items and the item embeddings go in, the mean
over the targets comes out. A new loss is a class here and a line in :data:`LOSSES`.

Shape keys: m targets, d hidden size, n items (row 0 is the padding item), k negatives, c targets of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Distribution = Literal["uniform", "popularity"]

DISTRIBUTIONS = ("uniform", "popularity")

# Elements of the logits of a chunk, c · n. Measured on two CPU cores, forward and backward, d = 64, float32: with a
# core to itself 2^18 to 2^20 stay in the cache and are about a third faster, but where other work takes turns on the
# cores, threads wait for each other at every operation, and many small chunks cost more than all logits at once. A GPU
# (not measured) is kept busy.
LOGIT_ELEMENTS = {"cpu": 2**23, "cuda": 2**27}

# But no fewer targets than this, however many items there are: each chunk reads all embeddings and adds to all their
# gradients. So many targets have about as many logits as these have elements.
MIN_CHUNK_SIZE = 64

# Elements of the item embeddings that are gathered at a time, c · k · d. On a CPU, 2^17 to 2^20 take the same time;
# with more, every chunk needs fresh memory. A GPU (not measured) is kept busy.
GATHERED_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}

# Parts into which the probabilities of items are cut: with no more than 2^53, float64 draws each of them exactly.
PROBABILITY_PARTS = 2**52


class NegativeItems(nn.Module):
    """A distribution of negative items, the same as that of RecBole's samplers.

    ``uniform`` takes all items but the padding alike, ``popularity`` in proportion to count^α. Items that never occur
    in training are drawn by the first and never by the second.

    Every item owns an interval of the integers 0 … ``total`` − 1, as long as it is probable. A draw is an integer, and
    a target is kept out of its own negatives by drawing from a range that is shorter by its interval: no draw has to be
    repeated, however probable the target is.

    Args:
        distribution: ``uniform`` or ``popularity``.
        item_counts: How often each item occurs in training, integers of shape (n,).
        alpha: α, with ``popularity`` only: 1 follows the counts, 0 takes all items that occur alike.

    Attributes:
        n_items: n.

    Raises:
        ValueError: If ``distribution`` is unknown, or if fewer than two items can be drawn.
    """

    def __init__(self, distribution: Distribution, item_counts: Tensor, alpha: float = 1.0) -> None:
        super().__init__()
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
        drawable = item_counts > 0 if distribution == "popularity" else torch.ones_like(item_counts, dtype=torch.bool)
        drawable[0] = False
        if drawable.sum() < 2:
            raise ValueError(
                f"negative items need two items to draw from, but distribution {distribution} finds "
                f"{int(drawable.sum())} among {len(item_counts)} items"
            )
        self.distribution = distribution
        self.alpha = alpha
        self.n_items = len(item_counts)
        length = drawable.long()
        if distribution == "popularity":
            # By the largest count, so that a power neither overflows nor leaves nothing but zeros.
            weight = torch.where(drawable, item_counts.double() / item_counts[drawable].max(), 1.0) ** alpha
            probability = weight / weight[drawable].sum()
            length = length * (probability * PROBABILITY_PARTS).round().long().clamp(min=1)
        self.total = int(length.sum())
        # Item i owns bounds[i] … bounds[i + 1] − 1. Integers stay as they are where a model is cast to half precision.
        self.register_buffer("bounds", F.pad(length.cumsum(0), (1, 0)), persistent=False)

    def sample(self, target: Tensor, k: int) -> Tensor:
        """k independent negatives for each target, which differ from it.

        Args:
            target: Items of shape (m,).
            k: Negatives of each.

        Returns:
            Items of shape (m, k).
        """
        first = self.bounds[target].unsqueeze(-1)
        length = self.bounds[target + 1].unsqueeze(-1) - first
        draw = self._draw((len(target), k), self.total - length)
        return self._owner(draw + length * (draw >= first))

    def sample_shared(self, k: int) -> Tensor:
        """k independent items, shape (k,); targets may be among them."""
        return self._owner(self._draw((k,), self.total))

    def log_probability(self, items: Tensor) -> Tensor:
        """The log-probability with which :meth:`sample_shared` draws each of some items, float64 of their shape."""
        return (self.bounds[items + 1] - self.bounds[items]).double().log() - math.log(self.total)

    def _draw(self, shape: tuple[int, ...], total: int | Tensor) -> Tensor:
        return (torch.rand(shape, dtype=torch.float64, device=self.bounds.device) * total).long()

    def _owner(self, draw: Tensor) -> Tensor:
        if self.distribution == "uniform":
            return draw + 1
        return torch.searchsorted(self.bounds, draw, right=True) - 1

    def extra_repr(self) -> str:
        """The distribution and its size, for ``print(model)``."""
        alpha = f", alpha={self.alpha}" if self.distribution == "popularity" else ""
        return f"{self.distribution}, n_items={self.n_items}{alpha}"


class ItemLoss(nn.Module):
    """The interface of all losses. The score of item i for target j is s = ``hidden[j]`` · ``item_weight[i]``."""

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """The mean loss of some targets.

        Args:
            hidden: What predicts each target, shape (m, d). There must be a target: the mean over none is not a number.
            target: Items of shape (m,).
            item_weight: Embeddings of all items, shape (n, d).

        Returns:
            Scalar.
        """
        raise NotImplementedError


class CrossEntropy(ItemLoss):
    """Cross-entropy over all items, −s⁺ + log Σ_i exp(s_i).

    Like in RecBole's SASRec, the padding item takes part. In chunks, the loss and its gradients are exact but no more
    than the scores of c targets exist at a time, and nothing is computed twice: the scores of a chunk turn into its
    gradients in the forward pass.

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
            chunk_size = max(MIN_CHUNK_SIZE, _chunk_size(LOGIT_ELEMENTS, len(item_weight), hidden.device))
        product_dtype = (hidden[:0] @ item_weight[:0].T).dtype  # that of autocast where it is on
        return _ChunkedCrossEntropy.apply(
            hidden, target, item_weight, chunk_size, product_dtype, torch.is_grad_enabled()
        )

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"chunk_size={self.chunk_size}"


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over all items, chunk by chunk, with the gradients made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        target: Tensor,
        item_weight: Tensor,
        chunk_size: int,
        product_dtype: torch.dtype,
        grad_enabled: bool,  # it is off in here, whatever it is outside
    ) -> Tensor:
        """See :class:`CrossEntropy`; products are made in ``product_dtype``, the softmax in float32 at least."""
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

            for rows in _chunks(n_targets, chunk_size):
                label = target[rows]
                product = torch.mm(x[rows], weight.T, out=products[: len(label)])
                logits = wide[: len(label)].copy_(product) if narrow else product
                row = torch.arange(len(label), device=label.device)
                highest, at_label = logits.amax(dim=1), logits[row, label]
                # Row by row, so in place; log Σ exp(s) = max s − log max p then costs two cheap maxima.
                probability = torch.softmax(logits, dim=1, out=logits)
                losses[rows] = highest - probability.amax(dim=1).log() - at_label
                if not (needs_hidden or needs_weight):
                    continue
                probability[row, label] -= 1
                grad_logits = product.copy_(probability) if narrow else probability
                if needs_hidden:
                    torch.mm(grad_logits, weight, out=grad_hidden[rows])
                if needs_weight and narrow:
                    grad_weight += grad_logits.T @ x[rows]  # many chunks: the sum would suffer in a narrow type
                elif needs_weight:
                    grad_weight.addmm_(grad_logits.T, x[rows])

            ctx.n_targets = n_targets
            ctx.save_for_backward(
                grad_hidden.to(hidden.dtype) if needs_hidden else None,
                grad_weight.to(item_weight.dtype) if needs_weight else None,
            )
            return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass has saved."""
        scale = grad_loss / ctx.n_targets
        grad_hidden, grad_weight = (None if grad is None else grad * scale for grad in ctx.saved_tensors)
        return grad_hidden, None, grad_weight, None, None, None


class SampledLoss(ItemLoss):
    """Common part of the losses with sampled negatives.

    Args:
        negatives: Distribution of the negatives.
        n_negatives: k.

    Raises:
        ValueError: If ``n_negatives`` is below 1.
    """

    def __init__(self, negatives: NegativeItems, n_negatives: int) -> None:
        super().__init__()
        if n_negatives < 1:
            raise ValueError(f"n_negatives must be a positive integer, got {n_negatives}")
        self.negatives = negatives
        self.n_negatives = n_negatives

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"n_negatives={self.n_negatives}"


class SampledSoftmax(SampledLoss):
    """Cross-entropy against k drawn items, which all targets share: −s⁺ + log(exp(s⁺) + Σ_j exp(s_j) / (k q_j)).

    Importance sampling (Bengio & Senécal, IEEE Transactions on Neural Networks 19(4), 2008): j are the drawn items but
    the target, and q_j their probability, so that the sum estimates that over all items but the target without bias.
    Subtracting log q from the scores of the negatives is the logQ correction (Yi et al., RecSys 2019); the target,
    which is there with certainty, is not corrected. With growing k, loss and gradient approach those of the
    cross-entropy over the items that can be drawn and the target; with ``popularity`` items that never occur in
    training are not among them, and the loss does not push their scores down.

    The arguments are those of :class:`SampledLoss`.
    """

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        negative = self.negatives.sample_shared(self.n_negatives)
        scores = hidden @ F.embedding(negative, item_weight).T
        expected = self.negatives.log_probability(negative) + math.log(self.n_negatives)
        corrected = scores - expected.to(torch.promote_types(scores.dtype, torch.float32))
        corrected = corrected.masked_fill(negative == target.unsqueeze(-1), -math.inf)
        positive = (hidden * F.embedding(target, item_weight)).sum(dim=-1)
        return F.softplus(corrected.logsumexp(dim=-1) - positive).mean()


class TargetNegativesLoss(SampledLoss):
    """Common part of the losses in which each target has k negatives of its own.

    The arguments are those of :class:`SampledLoss`.
    """

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        negative = self.negatives.sample(target, self.n_negatives)
        items = torch.cat([target.unsqueeze(-1), negative], dim=-1)
        dtype = torch.promote_types(hidden.dtype, item_weight.dtype)
        chunk_size = _chunk_size(GATHERED_ELEMENTS, items.shape[1] * hidden.shape[1], hidden.device)
        scores = _ItemScores.apply(hidden.to(dtype), items, item_weight.to(dtype), chunk_size)
        return self.of_scores(scores[:, 0], scores[:, 1:]).mean()

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss of each target, shape (m,), from its score, shape (m,), and its negatives', shape (m, k)."""
        raise NotImplementedError


class BinaryCrossEntropy(TargetNegativesLoss):
    """−(log σ(s⁺) + Σ_j log(1 − σ(s_j))) / (k + 1).

    With k = 1 the loss of SASRec (arXiv 1808.09781, §III-E), but for the factor 1/2. The arguments are those of
    :class:`SampledLoss`.
    """

    positive_power = 1.0

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """See :meth:`TargetNegativesLoss.of_scores`."""
        log_likelihood = self.positive_power * F.logsigmoid(positive) + F.logsigmoid(-negative).sum(dim=-1)
        return -log_likelihood / (self.n_negatives + 1)


class GeneralizedBinaryCrossEntropy(BinaryCrossEntropy):
    """gBCE (arXiv 2308.07192): binary cross-entropy with σ(s⁺)^β in place of σ(s⁺).

    β = α (t (1 − 1/α) + 1/α) makes up for the negatives that are left out. α = k / (n − 2) is the share of the
    possible negatives, all real items but the target, that are drawn; drawing more than there are counts as all.

    Args:
        negatives: Distribution of the negatives.
        n_negatives: k.
        calibration: t: 0 is plain binary cross-entropy, 1 makes σ(s⁺) a calibrated probability.

    Raises:
        ValueError: If ``n_negatives`` is below 1 or ``calibration`` is not in [0, 1].
    """

    def __init__(self, negatives: NegativeItems, n_negatives: int, calibration: float) -> None:
        super().__init__(negatives, n_negatives)
        if not 0 <= calibration <= 1:
            raise ValueError(f"calibration must be in [0, 1], got {calibration}")
        self.calibration = calibration
        alpha = min(1.0, n_negatives / (negatives.n_items - 2))
        self.positive_power = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"{super().extra_repr()}, calibration={self.calibration}"


class BayesianPersonalizedRanking(TargetNegativesLoss):
    """BPR (arXiv 1205.2618): the mean of −log σ(s⁺ − s_j) over the negatives.

    The arguments are those of :class:`SampledLoss`.
    """

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """See :meth:`TargetNegativesLoss.of_scores`."""
        return -F.logsigmoid(positive.unsqueeze(-1) - negative).mean(dim=-1)


class _ItemScores(torch.autograd.Function):
    """Scores of some items for each target: the embeddings, shape (m, k, d), are never gathered all at once.

    Chunks of plain operations would make a gradient of shape (n, d) each; here, all add to one.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, item_weight: Tensor, chunk_size: int) -> Tensor:
        """Scores of shape (m, k) of items of that shape; see :meth:`ItemLoss.forward` for the others."""
        ctx.save_for_backward(hidden, items, item_weight)
        ctx.chunk_size = chunk_size
        scores = hidden.new_empty(items.shape)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in _chunks(len(hidden), chunk_size):
                torch.bmm(item_weight[items[rows]], hidden[rows].unsqueeze(-1), out=scores[rows].unsqueeze(-1))
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor | None, ...]:
        """Σ_j g_j W_j for each target, and Σ g h for each item over the targets it was scored for."""
        hidden, items, item_weight = ctx.saved_tensors
        grad_hidden = grad_weight = None
        with torch.autocast(hidden.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_hidden = F.embedding_bag(items, item_weight, per_sample_weights=grad_scores, mode="sum")
            if ctx.needs_input_grad[2]:
                grad_weight = torch.zeros_like(item_weight)
                for rows in _chunks(len(hidden), ctx.chunk_size):
                    outer = grad_scores[rows].unsqueeze(-1) * hidden[rows].unsqueeze(1)
                    grad_weight.index_add_(0, items[rows].flatten(), outer.flatten(0, 1))
        return grad_hidden, None, grad_weight, None


def _chunk_size(elements: dict[str, int], elements_per_target: int, device: torch.device) -> int:
    """Targets whose elements together are about as many as the device likes; one at least."""
    return max(1, elements.get(device.type, elements["cuda"]) // elements_per_target)


def _chunks(n_targets: int, chunk_size: int) -> Iterator[slice]:
    """Slices of ``chunk_size`` targets, the last of what remains."""
    return (slice(start, start + chunk_size) for start in range(0, n_targets, chunk_size))


class LossOptions(NamedTuple):
    """What a loss is built from.

    Attributes:
        loss_type: A name of :data:`LOSSES`.
        chunk_size: Of ``CE``; see :class:`CrossEntropy`.
        n_negatives: Of the others: negatives, of each target or (``SSM``) shared by all.
        distribution: Of the negatives; see :class:`NegativeItems`.
        alpha: Of the distribution ``popularity``; see :class:`NegativeItems`.
        calibration: Of ``gBCE``; see :class:`GeneralizedBinaryCrossEntropy`.
    """

    loss_type: str
    chunk_size: int | Literal["auto"] | None = "auto"
    n_negatives: int = 256
    distribution: Distribution = "uniform"
    alpha: float = 1.0
    calibration: float = 0.75


LOSSES: dict[str, Callable[[LossOptions, Tensor], ItemLoss]] = {
    "CE": lambda o, counts: CrossEntropy(o.chunk_size),
    "SSM": lambda o, counts: SampledSoftmax(_negative_items(o, counts), o.n_negatives),
    "BCE": lambda o, counts: BinaryCrossEntropy(_negative_items(o, counts), o.n_negatives),
    "gBCE": lambda o, counts: GeneralizedBinaryCrossEntropy(_negative_items(o, counts), o.n_negatives, o.calibration),
    "BPR": lambda o, counts: BayesianPersonalizedRanking(_negative_items(o, counts), o.n_negatives),
}

# The losses that take negatives.
SAMPLED_LOSSES = frozenset(LOSSES) - {"CE"}


def build_loss(options: LossOptions, item_counts: Tensor | None) -> ItemLoss:
    """The loss of a model.

    Args:
        options: Its name and what it needs beside.
        item_counts: How often each item occurs in training, integers of shape (n,); not looked at by ``CE``.

    Raises:
        ValueError: If ``loss_type`` is unknown or an option of that loss is out of range.
    """
    if options.loss_type not in LOSSES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSSES)}, got {options.loss_type!r}")
    return LOSSES[options.loss_type](options, item_counts)


def _negative_items(options: LossOptions, item_counts: Tensor) -> NegativeItems:
    return NegativeItems(options.distribution, item_counts, options.alpha)

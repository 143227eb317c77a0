"""Losses of next-item prediction over sampled negatives.

All implement :class:`ItemLoss`: from hidden states, their target items and the item embeddings, they compute the mean
loss of the targets.

Shape keys: m targets, d hidden size, n items (row 0 is the padding item), k negatives, c targets of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_posattn.nn.losses.base import ItemLoss, LossOptions, target_chunks, targets_per_chunk
from recbole_posattn.nn.losses.histories import TargetHistories
from recbole_posattn.nn.losses.negatives import NegativeItems

# Elements of the item embeddings that are gathered at a time, c · k · d. On a CPU, 2^17 to 2^20 take the same time;
# with more, every chunk needs fresh memory. The value for GPUs, not measured, is large enough to keep them busy.
GATHERED_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}


def negative_items(options: LossOptions, item_counts: Tensor | None) -> NegativeItems:
    """The distribution of negatives that the options describe; ``item_counts`` as in :func:`build_loss`.

    Raises:
        ValueError: If ``item_counts`` is ``None``, or see :class:`NegativeItems`.
    """
    if item_counts is None:
        raise ValueError("a loss with sampled negatives needs item_counts")
    return NegativeItems(options.distribution, item_counts, options.alpha)


class SampledLoss(ItemLoss):
    """Base class of the losses with sampled negatives.

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

    @classmethod
    def from_options(cls, options: LossOptions, item_counts: Tensor | None) -> Self:
        """See :meth:`ItemLoss.from_options`."""
        return cls(negative_items(options, item_counts), options.n_negatives)

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"n_negatives={self.n_negatives}"


class SampledSoftmax(SampledLoss):
    """Cross-entropy against k drawn items, which all targets share: −s⁺ + log(exp(s⁺) + Σ_j exp(s_j) / (k q_j)).

    Importance sampling (Bengio & Senécal, IEEE Transactions on Neural Networks 19(4), 2008): j are the drawn items
    except the target, and q_j their probabilities; the sum is an unbiased estimate of that over all other items.
    Subtracting log q from the scores of the negatives is the logQ correction (Yi et al., RecSys 2019); the target,
    which is always included, is not corrected. With growing k, loss and gradient approach those of the
    cross-entropy over the items that can be drawn and the target; with ``popularity`` items that never occur in
    training are not among them, and the loss does not push their scores down.

    The arguments are those of :class:`SampledLoss`.
    """

    def forward(
        self, hidden: Tensor, target: Tensor, item_weight: Tensor, histories: TargetHistories | None = None
    ) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        negative = self.negatives.sample_shared(self.n_negatives)
        expected = self.negatives.log_probability(negative) + math.log(self.n_negatives)
        if histories is not None:  # which find a drawn item in one column
            negative, column, count = negative.unique(return_inverse=True, return_counts=True)
            expected = expected.new_empty(len(count)).scatter_(0, column, expected) - count.double().log()
        scores = hidden @ F.embedding(negative, item_weight).T
        corrected = scores - expected.to(torch.promote_types(scores.dtype, torch.float32))
        positive = (hidden * F.embedding(target, item_weight)).sum(dim=-1)
        if histories is not None:
            corrected = _with_histories(corrected, negative, len(item_weight), target, histories)
            positive = positive + histories.added_to(target[:, None], target)[:, 0]
        # Also what is −∞ already: if nothing else is left, the gradient would be NaN.
        left_out = (negative == target.unsqueeze(-1)) | (corrected == -math.inf)
        corrected = corrected.masked_fill(left_out, -math.inf)
        return F.softplus(corrected.logsumexp(dim=-1) - positive).mean()


def _with_histories(scores: Tensor, item: Tensor, n_items: int, target: Tensor, histories: TargetHistories) -> Tensor:
    """Scores of the same items for all targets, shape (m, k), with what histories add to them.

    Args:
        scores: Shape (m, k).
        item: The items, all different; shape (k,).
        n_items: n.
        target: The targets' items, shape (m,).
        histories: Those of the targets.
    """
    k = len(item)
    column = item.new_full((n_items,), k).index_put((item,), torch.arange(k, device=item.device))
    at, added = histories.added(slice(None), target)
    return F.pad(scores, (0, 1)).scatter_add(1, column[at], added.to(scores.dtype))[:, :k]


class TargetNegativesLoss(SampledLoss):
    """Base class of the losses in which each target has k negatives of its own.

    The arguments are those of :class:`SampledLoss`.
    """

    def forward(
        self, hidden: Tensor, target: Tensor, item_weight: Tensor, histories: TargetHistories | None = None
    ) -> Tensor:
        """See :meth:`ItemLoss.forward`."""
        negative = self.negatives.sample(target, self.n_negatives)
        items = torch.cat([target.unsqueeze(-1), negative], dim=-1)
        dtype = torch.promote_types(hidden.dtype, item_weight.dtype)
        chunk_size = targets_per_chunk(GATHERED_ELEMENTS, items.shape[1] * hidden.shape[1], hidden.device)
        weight = item_weight.to(dtype)
        score: Callable[..., Tensor] = _ItemScores.apply
        scores = score(hidden.to(dtype), items, weight, chunk_size)
        if histories is not None:
            scores = scores + histories.added_to(items, target)
            scores = scores if histories.outside is None else scores + histories.outside
        return self.of_scores(scores[:, 0], scores[:, 1:]).mean()

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss of each target, shape (m,), from its score, shape (m,), and its negatives', shape (m, k)."""
        raise NotImplementedError


class BinaryCrossEntropy(TargetNegativesLoss):
    """−(log σ(s⁺) + Σ_j log(1 − σ(s_j))) / (k + 1).

    With k = 1, this is SASRec's loss (arXiv 1808.09781, §III-E) times 1/2. The arguments are those of
    :class:`SampledLoss`.
    """

    positive_power = 1.0

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """See :meth:`TargetNegativesLoss.of_scores`."""
        log_likelihood = self.positive_power * F.logsigmoid(positive) + F.logsigmoid(-negative).sum(dim=-1)
        return -log_likelihood / (self.n_negatives + 1)


class GeneralizedBinaryCrossEntropy(BinaryCrossEntropy):
    """gBCE (arXiv 2308.07192): binary cross-entropy with σ(s⁺)^β in place of σ(s⁺).

    β = α (t (1 − 1/α) + 1/α) compensates for the negatives that are not drawn. α = k / (n − 2), at most 1, is the share
    of the possible negatives, all real items except the target, that are drawn.

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


class TargetSampledSoftmax(TargetNegativesLoss):
    """Cross-entropy against k negatives of the target's own: −s⁺ + log(exp(s⁺) + Σ_j exp(s_j)).

    The loss of HSTU (arXiv 2402.17152, with cosine scores) and of RecTools' ``sampled_softmax``. The scores are not
    corrected for the number and the probabilities of the negatives, as those of :class:`SampledSoftmax` are.

    The arguments are those of :class:`SampledLoss`.
    """

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """See :meth:`TargetNegativesLoss.of_scores`."""
        left_out = negative == -math.inf  # if nothing else is left, the gradient would be NaN
        return F.softplus(negative.masked_fill(left_out, -math.inf).logsumexp(dim=-1) - positive)


class BayesianPersonalizedRanking(TargetNegativesLoss):
    """BPR (arXiv 1205.2618): the mean of −log σ(s⁺ − s_j) over the negatives.

    The arguments are those of :class:`SampledLoss`.
    """

    def of_scores(self, positive: Tensor, negative: Tensor) -> Tensor:
        """See :meth:`TargetNegativesLoss.of_scores`."""
        return -F.logsigmoid(positive.unsqueeze(-1) - negative).mean(dim=-1)


class _ItemScores(torch.autograd.Function):
    """Scores of some items for each target; the embeddings, shape (m, k, d), are never in memory all at once.

    Chunks of plain operations would each make a gradient of shape (n, d); here, all chunks add to one.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, item_weight: Tensor, chunk_size: int) -> Tensor:
        """Scores of shape (m, k) of items of that shape; see :meth:`ItemLoss.forward` for the others."""
        ctx.save_for_backward(hidden, items, item_weight)
        ctx.chunk_size = chunk_size
        scores = hidden.new_empty(items.shape)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in target_chunks(len(hidden), chunk_size):
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
                for rows in target_chunks(len(hidden), ctx.chunk_size):
                    outer = grad_scores[rows].unsqueeze(-1) * hidden[rows].unsqueeze(1)
                    grad_weight.index_add_(0, items[rows].flatten(), outer.flatten(0, 1))
        return grad_hidden, None, grad_weight, None

"""A loss: cross-entropy that counts easy targets less."""

from torch import Tensor
from torch.nn import functional as F

from recbole_posattn.nn.losses.base import ItemLoss


class FocalCrossEntropy(ItemLoss):
    """−(1 − p) log p with the probability p of the target among all items (Lin et al., arXiv 1708.02002, with γ = 1).

    A loss over all items derives from ``ItemLoss`` and defines :meth:`forward`; one over sampled negatives derives from
    ``TargetNegativesLoss`` and defines ``of_scores``.
    """

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """The mean over the targets.

        Args:
            hidden: What predicts each target, shape (targets, channels).
            target: Items, shape (targets,).
            item_weight: Embeddings of all items, shape (items, channels).
        """
        log_p = -F.cross_entropy(hidden @ item_weight.T, target, reduction="none")
        return (-(1 - log_p.exp()) * log_p).mean()

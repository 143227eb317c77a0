"""The score of an item, from the hidden state of a sequence and the item's embedding.

Shape keys: d hidden size, n items.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

ITEM_SCORES = ("dot", "cosine")


class DotScore(nn.Module):
    """The dot product, s = h · w, as in SASRec (arXiv 1808.09781, §III-C)."""

    def operands(self, hidden: Tensor, item_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Two tensors of the given shapes, (…, d) and (n, d) for instance, whose dot products are the scores.

        Losses, rankings and exported models multiply them, whatever the score.
        """
        return hidden, item_weight


class CosineScore(DotScore):
    """The cosine over a temperature, s = h · w / (‖h‖ ‖w‖ τ), as in CORE (arXiv 2204.11067, §3.3).

    An embedding that is 0, as that of the padding item, has the score 0 and no gradient: it stays 0.

    Args:
        temperature: τ, above 0.

    Raises:
        ValueError: If ``temperature`` is not above 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def operands(self, hidden: Tensor, item_weight: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`DotScore.operands`."""
        return unit_vectors(hidden) / self.temperature, unit_vectors(item_weight)

    def extra_repr(self) -> str:
        """The temperature, for ``print(model)``."""
        return f"temperature={self.temperature}"


def item_score(name: str, temperature: float) -> DotScore:
    """The score of a name of :data:`ITEM_SCORES`.

    Args:
        name: ``dot`` or ``cosine``.
        temperature: τ of :class:`CosineScore`.

    Raises:
        ValueError: If the name is unknown, or see :class:`CosineScore`.
    """
    if name not in ITEM_SCORES:
        raise ValueError(f"score must be one of {', '.join(ITEM_SCORES)}, got {name!r}")
    return CosineScore(temperature) if name == "cosine" else DotScore()


def unit_vectors(x: Tensor) -> Tensor:
    """x / ‖x‖ along the last dimension; 0 stays 0 with the gradient 0.

    The gradient of ``F.normalize`` is 10¹² times as large at 0, which would spoil a clipped gradient norm.
    """
    norm = x.norm(dim=-1, keepdim=True)
    unit: Tensor = x / norm.masked_fill(norm == 0, math.inf)
    return unit

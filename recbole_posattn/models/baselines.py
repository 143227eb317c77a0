"""The positional encodings that PosKernelSASRec is compared with, each as a model on the same backbone and loss.

Each is SASRec without a kernel (U = L = I) and with one encoding; formulas and sources of the encodings are in
:mod:`recbole_posattn.nn.encodings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import recbole_posattn.compat  # noqa: F401

from recbole.config import Config

from recbole_posattn.models.sasrec import SASRecBase


class NoPESASRec(SASRecBase):
    """No positional encoding: the causal mask is the only source of order."""


class _SingleEncoding(SASRecBase):
    """SASRec with the one encoding that the subclass names."""

    encoding: ClassVar[str]

    def encoding_names(self, config: Config) -> Sequence[str]:
        """See :meth:`SASRecBase.encoding_names`."""
        return [self.encoding]


class APESASRec(_SingleEncoding):
    """Learned absolute positions added to the input: the classic SASRec (arXiv 1808.09781)."""

    encoding = "absolute"


class AllAPESASRec(_SingleEncoding):
    """Learned absolute positions added to the inputs of Q, K and V inside every block (arXiv 2602.21052)."""

    encoding = "all_absolute"


class SinusoidalSASRec(_SingleEncoding):
    """Fixed sines and cosines added to the input (arXiv 1706.03762)."""

    encoding = "sinusoidal"


class RoPESASRec(_SingleEncoding):
    """Rotary positions in queries and keys (arXiv 2104.09864)."""

    encoding = "rope"


class CAPESASRec(_SingleEncoding):
    """Contextual-aware positions, a bias of the logits (arXiv 2502.09027)."""

    encoding = "cape"


class ALiBiSASRec(_SingleEncoding):
    """Fixed linear penalties on distance, a bias of the logits (arXiv 2108.12409)."""

    encoding = "alibi"


class T5BiasSASRec(_SingleEncoding):
    """Learned biases of the logits by bucket of distances (arXiv 1910.10683)."""

    encoding = "t5_bias"


BASELINES = (
    NoPESASRec,
    APESASRec,
    AllAPESASRec,
    SinusoidalSASRec,
    RoPESASRec,
    CAPESASRec,
    ALiBiSASRec,
    T5BiasSASRec,
)

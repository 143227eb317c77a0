"""A kernel: one learned weight a group, however long the sequences are."""

import torch
from torch import Tensor, nn

from recbole_posattn.nn.kernels.by_lag import LagKernel


class PowerLawKernel(LagKernel):
    """Weights that decay with the lag k as a power law: g_k = (k + 1)^(−a), before normalization.

    A kernel that depends on the lag alone derives from ``LagKernel`` and defines :meth:`taps`; the products, for short
    and long sequences, come with it. The exponent a is learned, one for each group of channels, and starts at 1.
    """

    def __init__(self, max_length: int, n_groups: int = 1, normalization: str = "frobenius") -> None:
        super().__init__(max_length, n_groups, normalization)
        self.exponent = nn.Parameter(torch.ones(n_groups, 1))

    def taps(self) -> Tensor:
        """The weights g, shape (groups, lags), lag 0 first."""
        lag = torch.arange(self.max_length, device=self.exponent.device)
        return self._normalized((lag + 1.0) ** -self.exponent)

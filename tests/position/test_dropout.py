"""Dropout by 16 random bits an element."""

from __future__ import annotations

import pytest
import torch

from recbole_posattn.nn.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1 / 3])
@pytest.mark.parametrize("shape", [(400, 1001), (7, 11, 13, 401)])
def test_share_of_zeros_and_scale(p: float, shape: tuple) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, dtype=torch.float64)
    y = dropout(x, p)
    n = y.numel()
    assert abs((y == 0).double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5  # four standard errors
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)), rtol=2e-4, atol=0)
    assert y.shape == x.shape and y.dtype == x.dtype


def test_elements_are_zeroed_independently() -> None:
    """Also those that share 64 bits."""
    torch.manual_seed(0)
    zeroed = (dropout(torch.ones(100_000, 4), 0.3) == 0).double()
    covariance = torch.cov(zeroed.T)
    torch.testing.assert_close(covariance, 0.21 * torch.eye(4, dtype=torch.float64), rtol=0, atol=0.003)


def test_the_mean_is_kept_however_p_is_rounded() -> None:
    torch.manual_seed(0)
    for p in (1e-5, 0.2, 0.99999):
        kept = dropout(torch.ones(4_000_000, dtype=torch.float64), p)
        assert abs(kept.mean() - 1) < 5 * (p / (1 - p) / 4e6) ** 0.5 + 1e-4, p


def test_gradients_go_where_elements_went() -> None:
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.4)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_reproducible_by_seed_and_off_in_evaluation() -> None:
    module, x = Dropout(0.5), torch.randn(3, 5)
    torch.manual_seed(1)
    first = module(x)
    torch.manual_seed(1)
    assert torch.equal(module(x), first) and not torch.equal(module(x), first)
    assert torch.equal(module.eval()(x), x) and dropout(x, 0.0) is x
    assert dropout(torch.empty(0, 3), 0.5).shape == (0, 3)
    assert dropout(x.bfloat16(), 0.5).dtype == torch.bfloat16

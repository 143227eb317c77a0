"""Attention with dropout, in groups and blocks, against the plain formula with the same random numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recbole_posattn.nn import attention as attention_module
from recbole_posattn.nn import blocked_attention as module
from recbole_posattn.nn.attention import causal_attention
from recbole_posattn.nn.blocked_attention import blocked_attention
from recbole_posattn.nn.dropout import dropout


def plain(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, p: float) -> Tensor:
    """The formula, with all weights at once; padding attends to itself."""
    length = query.shape[-2]
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    if valid is not None:
        allowed = (allowed & valid[:, None, None]) | torch.eye(length, dtype=torch.bool)
    logits = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(~allowed, -math.inf)
    attended = dropout(torch.softmax(logits, dim=-1), p) @ value
    return attended if valid is None else attended.masked_fill(~valid[:, None, :, None], 0.0)


def operands(b: int, h: int, length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(b, h, length, 3, dtype=dtype, generator=generator).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("length", [1, 3, 8, 21])
def test_equals_the_formula_with_the_same_random_numbers(
    monkeypatch: pytest.MonkeyPatch, length: int, heads: int, padded: bool
) -> None:
    """In several groups of sequences, the last one smaller, and blocks of queries; and what is drawn next is equal."""
    monkeypatch.setattr(module, "GROUP_ELEMENTS", 4 * length**2)
    monkeypatch.setattr(module, "BLOCK_SIZE", 8)
    monkeypatch.setattr(attention_module, "BLOCKED_FROM", 1)
    query, key, value = operands(7, heads, length)
    first_item = torch.arange(7) % (length + 1)  # one row may be all padding
    valid = torch.arange(length) >= first_item[:, None] if padded else None
    results = []
    for attend in (plain, lambda *inputs: causal_attention(*inputs[:3], inputs[3], inputs[4])):
        torch.manual_seed(1)
        y = attend(query, key, value, valid, 0.4)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        results.append([y, *torch.autograd.grad((y * weights).sum(), [query, key, value]), torch.rand(3)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_gradients_are_the_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "BLOCKED_FROM", 1)
    valid = torch.tensor([[False, False, True, True, True], [True] * 5])

    def of_inputs(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        return causal_attention(*inputs, valid, 0.3)

    assert torch.autograd.gradcheck(of_inputs, operands(2, 2, 5))


def test_float32_is_close_to_float64_and_no_larger_than_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_ELEMENTS", 2**12)
    inputs = operands(6, 1, 100, torch.float32)
    results = []
    for tensors in (inputs, [x.detach().double().requires_grad_() for x in inputs]):
        torch.manual_seed(0)
        y = blocked_attention(*tensors, None, 0.5)
        results.append([y, *torch.autograd.grad((y**2).sum(), tensors)])
    for found, exact in zip(*results, strict=True):
        torch.testing.assert_close(found, exact.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["compiling", "autocast"])
def test_compilers_and_autocast_get_plain_operations(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    def never(*inputs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(attention_module, "blocked_attention", never)
    monkeypatch.setattr(attention_module, "BLOCKED_FROM", 1)
    inputs = operands(2, 1, 4, torch.float32)
    if mode == "compiling":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        assert causal_attention(*inputs, dropout=0.5).shape == (2, 1, 4, 3)
    monkeypatch.undo()

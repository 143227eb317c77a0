"""Positional-kernel attention against its formula, and what causality and padding demand of it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recbole_posattn.position.attention import PositionKernelAttention, causal_attention
from recbole_posattn.position.encodings import AbsolutePositionEncoding
from recbole_posattn.position.kernels import BANDED_STRUCTURES, STRUCTURES, build_kernel

MAX_LENGTH, HIDDEN_SIZE = 9, 8
PAIRS = list(itertools.product(STRUCTURES, repeat=2))


@st.composite
def attentions(draw: st.DrawFn, alignment: str | None = None) -> PositionKernelAttention:
    """An attention in float64 with random weights in every part."""
    n_heads = draw(st.sampled_from([1, 2]))
    n_groups = draw(st.sampled_from([1, n_heads, HIDDEN_SIZE]))
    normalization = draw(st.sampled_from(["frobenius", "none"]))
    alignment = alignment or draw(st.sampled_from(["end", "start"]))
    kernels = []
    for role, structure in zip("ul", draw(st.sampled_from(PAIRS))):
        bandwidth = draw(st.integers(1, MAX_LENGTH)) if structure in BANDED_STRUCTURES else None
        kernels.append(
            build_kernel(
                role,
                structure,
                MAX_LENGTH,
                n_groups=n_groups,
                bandwidth=bandwidth,
                normalization=normalization,
                alignment=alignment,
            )
        )
    attention = PositionKernelAttention(HIDDEN_SIZE, n_heads, *kernels).double()
    torch.manual_seed(draw(st.integers(0, 2**16)))
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    return attention


def inputs(length: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(batch, length, HIDDEN_SIZE, dtype=torch.float64) for _ in range(2))


def by_the_formula(attention: PositionKernelAttention, x_query: Tensor, x: Tensor) -> Tensor:
    """softmax(mask(Q Kᵀ U / √d_h)) L V with dense U and L, channel group by channel group.

    One kernel per channel has no U of its own for a head's logits: there, each channel adds its own q k U.
    """
    length, n_heads = x.shape[1], attention.n_heads
    d_h = HIDDEN_SIZE // n_heads
    upper = attention.u_kernel.dense(length).mT.double()
    lower = attention.l_kernel.dense(length).double()
    query = attention.query(x_query)
    key, value = x @ attention.key.weight.T, x @ attention.value.weight.T
    bias_k, bias_v = attention.key.bias, attention.value.bias  # not mixed
    future = torch.ones(length, length, dtype=torch.bool).triu(1)

    def matrix_of(matrices: Tensor, channel: int) -> Tensor:
        return matrices[channel * len(matrices) // HIDDEN_SIZE]

    out = torch.empty_like(x)
    for head in range(n_heads):
        channels = range(head * d_h, (head + 1) * d_h)
        logits = torch.zeros(len(x), length, length, dtype=x.dtype)
        for c in channels:
            logits += query[:, :, c, None] * key[:, None, :, c] @ matrix_of(upper, c)
            logits += (query[:, :, c] * bias_k[c])[:, :, None]
        weights = (logits / math.sqrt(d_h)).masked_fill(future, -math.inf).softmax(-1)
        for c in channels:
            out[:, :, c] = (weights @ (matrix_of(lower, c) @ value[:, :, c, None])).squeeze(-1) + bias_v[c]
    return out


@given(attention=attentions(), length=st.integers(1, MAX_LENGTH))
def test_equals_the_formula(attention: PositionKernelAttention, length: int) -> None:
    x_query, x = inputs(length)
    expected = by_the_formula(attention, x_query, x)
    torch.testing.assert_close(attention(x_query, x), expected, rtol=1e-9, atol=1e-10)
    everything = torch.ones(2, length, dtype=torch.bool)
    torch.testing.assert_close(attention(x_query, x, everything), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_one_kernel_equals_the_compact_formula(pair: tuple[str, str]) -> None:
    """The paper's own line, softmax(mask(Q Kᵀ U / √d_h)) L V, for one head and one kernel, biases off."""
    torch.manual_seed(0)
    kernels = [build_kernel(role, structure, MAX_LENGTH, bandwidth=3) for role, structure in zip("ul", pair)]
    attention = PositionKernelAttention(HIDDEN_SIZE, 1, *kernels).double()
    for projection in (attention.query, attention.key, attention.value):
        torch.nn.init.zeros_(projection.bias)
    x_query, x = inputs(MAX_LENGTH)
    u, l = kernels[0].dense()[0].mT.double(), kernels[1].dense()[0].double()  # noqa: E741
    q, k, v = attention.query(x_query), attention.key(x), attention.value(x)
    mask = torch.full((MAX_LENGTH, MAX_LENGTH), -math.inf).triu(1)
    expected = torch.softmax(q @ k.mT @ u / math.sqrt(HIDDEN_SIZE) + mask, dim=-1) @ l @ v
    torch.testing.assert_close(attention(x_query, x), expected, rtol=1e-9, atol=1e-10)


@given(attention=attentions(), t=st.integers(0, MAX_LENGTH - 1))
def test_strictly_causal(attention: PositionKernelAttention, t: int) -> None:
    x_query, x = inputs(MAX_LENGTH)
    before = attention(x_query, x)
    x_query[:, t] += 1.0
    x[:, t] -= 1.0
    torch.testing.assert_close(attention(x_query, x)[:, :t], before[:, :t], rtol=0, atol=1e-12)


@given(attention=attentions(alignment="end"), length=st.integers(1, MAX_LENGTH - 1), data=st.data())
def test_padding_in_front_changes_nothing(attention: PositionKernelAttention, length: int, data: st.DataObject) -> None:
    padding = data.draw(st.integers(1, MAX_LENGTH - length))
    x_query, x = inputs(length + padding)
    valid = torch.arange(length + padding).expand(2, -1) >= padding
    alone = attention(x_query[:, padding:], x[:, padding:])
    padded = attention(x_query, x, valid)
    torch.testing.assert_close(padded[:, padding:], alone, rtol=1e-9, atol=1e-10)
    assert (padded[:, :padding] == 0).all()


@given(attention=attentions(alignment="start"), length=st.integers(1, MAX_LENGTH - 1))
def test_padding_behind_changes_nothing(attention: PositionKernelAttention, length: int) -> None:
    x_query, x = inputs(MAX_LENGTH)
    alone = attention(x_query[:, :length], x[:, :length])
    torch.testing.assert_close(attention(x_query, x)[:, :length], alone, rtol=1e-9, atol=1e-10)
    valid = torch.arange(MAX_LENGTH).expand(2, -1) < length
    torch.testing.assert_close(attention(x_query, x, valid)[:, :length], alone, rtol=1e-9, atol=1e-10)


def test_identity_kernels_are_plain_attention() -> None:
    """No positions at all: permuting what came before does not change the newest item's output."""
    kernels = [build_kernel(role, "identity", MAX_LENGTH) for role in "ul"]
    attention = PositionKernelAttention(HIDDEN_SIZE, 2, *kernels).double()
    x_query, x = inputs(MAX_LENGTH)
    shuffled = torch.cat([torch.randperm(MAX_LENGTH - 1), torch.tensor([MAX_LENGTH - 1])])
    newest = attention(x_query, x)[:, -1]
    torch.testing.assert_close(attention(x_query[:, shuffled], x[:, shuffled])[:, -1], newest, rtol=1e-9, atol=1e-10)


@given(attention=attentions())
def test_gradients_reach_every_parameter(attention: PositionKernelAttention) -> None:
    x_query, x = inputs(MAX_LENGTH)
    valid = torch.arange(MAX_LENGTH).expand(2, -1) >= torch.tensor([[0], [3]])
    out = attention(x_query, x, valid)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in attention.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        if name == "key.bias" or parameter.numel() == 0:
            continue  # adds the same to all logits of a row: softmax does not see it
        alone = "kernel" in name and parameter.shape[1] == 1
        assert alone or (parameter.grad != 0).any(), name


@given(attention=attentions())
def test_saved_state_restores_the_output(attention: PositionKernelAttention) -> None:
    x_query, x = inputs(MAX_LENGTH)
    before = attention(x_query, x)
    state = {name: value.clone() for name, value in attention.state_dict().items()}
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
    attention.load_state_dict(state)
    torch.testing.assert_close(attention(x_query, x), before, rtol=0, atol=0)


def test_rows_with_nothing_to_attend_are_zero_not_nan() -> None:
    q, k, v = (torch.randn(2, 1, 4, 3, requires_grad=True) for _ in range(3))
    valid = torch.tensor([[False, False, True, True], [False, False, False, False]])
    out = causal_attention(q, k, v, valid)
    assert (out[0, :, :2] == 0).all() and (out[1] == 0).all() and (out[0, :, 2:] != 0).all()
    out.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))
    assert (v.grad[1] == 0).all() and (v.grad[0, :, :2] == 0).all()


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    kernels = [build_kernel(role, "toeplitz", MAX_LENGTH) for role in "ul"]
    attention = PositionKernelAttention(HIDDEN_SIZE, 1, *kernels, dropout=0.5).double()
    x_query, x = inputs(MAX_LENGTH)
    assert not torch.equal(attention(x_query, x), attention(x_query, x))
    attention.eval()
    assert torch.equal(attention(x_query, x), attention(x_query, x))


def test_refuses_heads_that_do_not_divide_the_channels() -> None:
    kernels = [build_kernel(role, "toeplitz", 4) for role in "ul"]
    with pytest.raises(ValueError, match="hidden_size must be a multiple of n_heads, got 8 and 3"):
        PositionKernelAttention(8, 3, *kernels)


@pytest.mark.parametrize(("alignment", "rows"), [("start", slice(0, 3)), ("end", slice(2, 5))])
def test_absolute_encoding_adds_the_aligned_rows(alignment: str, rows: slice) -> None:
    encoding = AbsolutePositionEncoding(5, 4, alignment)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(encoding(x), x + encoding.embedding.weight[rows])


def test_absolute_encoding_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="alignment must be one of"):
        AbsolutePositionEncoding(5, 4, "middle")
    with pytest.raises(ValueError, match=r"length must be at most 5 \(max_length\), got 6"):
        AbsolutePositionEncoding(5, 4)(torch.randn(1, 6, 4))

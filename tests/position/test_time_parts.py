"""Parts that read the times of items, on sequences with times of their own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recbole_posattn.nn.attention import ROWS, causal_attention
from recbole_posattn.nn.encoder import build_encoder
from recbole_posattn.nn.encodings.logit_bias import ForgettingEncoding
from recbole_posattn.nn.encodings.of_time import TimeBiasEncoding, TimeRotaryEncoding, weights_of
from recbole_posattn.nn.kernels import by_time
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel, decayed_sums
from recbole_posattn.nn.kernels.structures import build_kernel
from recbole_posattn.nn.times import Times
from tests import references
from tests.watch import LargestTensor

# Gaps that logs have: none, seconds, hours, days, years.
GAPS = st.sampled_from([0.0, 1.0, 2.5, 59.0, 3600.0, 86400.0, 604800.0, 4e7])


@st.composite
def times_of(draw: st.DrawFn, length: int, batch: int = 3) -> Tensor:
    rows = draw(st.lists(st.lists(GAPS, min_size=length, max_size=length), min_size=batch, max_size=batch))
    return torch.tensor(rows, dtype=torch.float64).cumsum(dim=1) - draw(st.sampled_from([0.0, -1.7e9]))


def kernel_of(n_groups: int, n_decays: int, normalization: str = "frobenius", seed: int = 0) -> TimeDecayKernel:
    torch.manual_seed(seed)
    options = KernelOptions("l", 12, n_groups, normalization, n_decays=n_decays, median_gap=3600.0)
    kernel = build_kernel("time_decay", options).double()
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.normal_()
    return kernel


# -- the kernel ------------------------------------------------------------------------------------------------------


@given(
    n_groups=st.sampled_from([1, 2, 4]),
    n_decays=st.integers(1, 3),
    normalization=st.sampled_from(["frobenius", "none"]),
    block_size=st.sampled_from([None, 1, 3, 32]),
    data=st.data(),
)
def test_decay_is_that_of_the_slow_matrix(
    n_groups: int, n_decays: int, normalization: str, block_size: int | None, data: st.DataObject
) -> None:
    """By the matrix, in blocks, and by the recurrence of kernels per channel; whole, in heads, and the last row."""
    kernel, length = kernel_of(n_groups, n_decays, normalization), data.draw(st.integers(1, 12))
    times, x = data.draw(times_of(length)), torch.randn(3, length, 4, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        if block_size is not None:
            patch.setattr(by_time, "DENSE_LENGTH", 0)
            patch.setattr(by_time, "BLOCK_SIZE", block_size)
        mixed = kernel(x, Times(times))
        in_heads = kernel(x.unflatten(-1, (2, 2)).transpose(1, 2), Times(times)) if n_groups != 1 else None
        last = kernel.last_row(length, Times(times))
    for row in range(3):
        matrices = references.time_decay(kernel, times[row].tolist())
        groups = x[row].chunk(n_groups, dim=-1)
        expected = torch.cat([matrix @ group for matrix, group in zip(matrices, groups)], dim=-1)
        torch.testing.assert_close(mixed[row], expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(last[row], matrices[:, -1], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(kernel.diagonal(length), matrices.diagonal(dim1=1, dim2=2), rtol=1e-9, atol=1e-12)
        if in_heads is not None:
            torch.testing.assert_close(in_heads[row].transpose(0, 1).flatten(1), expected, rtol=1e-9, atol=1e-10)


@given(
    length=st.integers(1, 40), groups=st.sampled_from([1, 2]), batch=st.sampled_from([1, 3]), seed=st.integers(0, 99)
)
def test_decayed_sums_are_the_recurrence(length: int, groups: int, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    decay = torch.rand(batch, groups, length, dtype=torch.float64).round(decimals=1).requires_grad_()  # 0 and 1 as well
    x = torch.randn(3, 2, length, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    h, rows = torch.zeros(3, 2, 2, dtype=torch.float64), []
    for t in range(length):
        h = decay[..., t, None] * h + x[:, :, t] if t else x[:, :, 0] + 0 * decay[..., 0, None]
        rows.append(h)
    expected = torch.stack(rows, dim=2)
    found = decayed_sums(decay, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(decayed_sums(decay, x), expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((y * weights).sum(), (decay, x)) for y in (found, expected)]
    for gradient, of_loop in zip(*gradients):
        torch.testing.assert_close(gradient, of_loop, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("n_groups", [1, 2, 8])
def test_decay_takes_linear_memory_and_agrees_in_single_precision(n_groups: int) -> None:
    length = 1500
    kernel = build_kernel("time_decay", KernelOptions("l", length, n_groups, median_gap=60.0))
    x = torch.randn(1, length, 8, requires_grad=True)
    times = Times(torch.rand(1, length, dtype=torch.float64).pow(8).mul(1e6).cumsum(dim=1))
    with LargestTensor() as largest:
        y = kernel(x, times)
        y.sum().backward()
    assert largest.elements <= 16 * length * 8 < length**2
    expected = kernel.at(times).detach() @ x.detach().view(1, length, n_groups, -1).transpose(1, 2)
    torch.testing.assert_close(y, expected.transpose(1, 2).flatten(-2), rtol=1e-4, atol=1e-4)


def test_decay_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    matrix = build_kernel("time_decay", KernelOptions("l", 50, 1, "none", median_gap=9.0)).dense()[0]
    assert (matrix.diagonal() > 1).all() and matrix.diagonal().max() < 1.2 and matrix.tril(-1).max() < 0.2
    kernel = build_kernel("time_decay", KernelOptions("l", 50, median_gap=9.0))
    constants = kernel.log_time_constant[0].exp().tolist()
    assert constants == pytest.approx([1.0, 50 ** (1 / 3), 50 ** (2 / 3), 50.0], rel=1e-5)
    kernel.start_near_zero()
    assert kernel.dense().abs().max() < 0.7 and kernel.itself.abs().max() < 0.1


def test_weights_by_gap_are_those_between_items() -> None:
    kernel = kernel_of(2, 3)
    times = torch.tensor([[0.0, 5000.0, 5000.0, 90000.0]], dtype=torch.float64)
    matrix = kernel.at(Times(times))[0]
    weights = kernel.weights_at(torch.tensor([5000.0, 0.0, 85000.0], dtype=torch.float64))
    torch.testing.assert_close(weights, torch.stack([matrix[:, 1, 0], matrix[:, 2, 1], matrix[:, 3, 2]], dim=-1))


# -- encodings -------------------------------------------------------------------------------------------------------


def test_buckets_are_hstus() -> None:
    gaps = [-5.0, 0.0, 1.0, 1.35, 1.36, 2.0, 60.0, 3600.0, 86400.0, 31536000.0, 1e30]
    expected = [0, 0, 0, 0, 1, 2, 13, 27, 37, 57, 128]
    assert TimeBiasEncoding.bucket(torch.tensor(gaps, dtype=torch.float64)).tolist() == expected
    assert [references.time_bucket(gap) for gap in gaps] == expected


@given(seconds=st.integers(0, 2**31))
def test_buckets_are_those_of_the_reference(seconds: int) -> None:
    (bucket,) = TimeBiasEncoding.bucket(torch.tensor([seconds], dtype=torch.float64)).tolist()
    share = math.log(max(1.0, seconds)) / 0.301
    assert bucket == math.floor(share) or abs(share - round(share)) < 1e-5


@given(positions=st.booleans(), length=st.integers(1, 8), data=st.data())
def test_time_bias_is_the_slow_loop(positions: bool, length: int, data: st.DataObject) -> None:
    torch.manual_seed(0)
    encoding, times = TimeBiasEncoding(2, 8, positions).double(), data.draw(times_of(length))
    with torch.no_grad():
        encoding.weight.normal_()
    query, x = torch.randn(3, 2, length, 4, dtype=torch.float64), torch.randn(3, length, 8, dtype=torch.float64)
    bias = encoding.of_batch(x, Times(times)).logit_bias(query, query, query, 0)
    for row in range(3):
        position = encoding.position.detach() if positions else None
        expected = references.time_bias(encoding.weight.detach(), position, times[row].tolist())
        torch.testing.assert_close(bias[row].tril(), expected)


def test_the_gradient_of_a_bias_is_the_sum_over_its_bucket() -> None:
    torch.manual_seed(0)
    weight = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    bucket, grad = torch.randint(0, 5, (3, 4, 4), dtype=torch.int32), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    found = weights_of(weight, bucket)
    torch.testing.assert_close(found, weight[:, bucket.long()].transpose(0, 1))
    gradients = [
        torch.autograd.grad((weights * grad).sum(), weight)[0]
        for weights in (found, weight[:, bucket.long()].transpose(0, 1))
    ]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(weights_of(weight, bucket), found)


def test_forgetting_is_the_papers_decay() -> None:
    """Gates σ(x_l) of 1/2, 2/3, 1/4: items lose the product of the gates after them."""
    encoding = ForgettingEncoding(1, 1, 3).double()
    with torch.no_grad():
        encoding.weight.fill_(1.0)
        encoding.bias.zero_()
    gates = torch.tensor([1 / 2, 2 / 3, 1 / 4], dtype=torch.float64)
    query = torch.zeros(1, 1, 3, 1, dtype=torch.float64)
    bias = encoding.of_batch(gates.logit()[None, :, None], None).logit_bias(query, query, query, 0)[0, 0]
    expected = torch.tensor([[1, 0, 0], [2 / 3, 1, 0], [1 / 6, 1 / 4, 1]], dtype=torch.float64)
    torch.testing.assert_close(bias.exp().tril(), expected)
    start = ForgettingEncoding(4, 2, 50).of_batch(torch.zeros(1, 50, 4), None)
    query = torch.zeros(1, 2, 50, 1)
    assert start.logit_bias(query, query, query, 0)[0, :, 49, 0].exp().tolist() == pytest.approx([0.38, 0.38], abs=0.01)


@given(length=st.integers(1, 8), base=st.sampled_from([10.0, 10000.0]), data=st.data())
def test_time_rope_is_complex_rotation_by_time(length: int, base: float, data: st.DataObject) -> None:
    encoding = TimeRotaryEncoding(6, base, 3600.0)
    times, x = data.draw(times_of(length)), torch.randn(3, 2, length, 6, dtype=torch.float64)
    times = times - times[:, -1:]  # as in a batch: relative to the newest
    of_batch = encoding.of_batch(x, Times(times))
    rotated = of_batch.rotate(x, 0)
    for row in range(3):
        expected = references.time_rotated(x[row], times[row].tolist(), base, 3600.0)
        torch.testing.assert_close(rotated[row], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(of_batch.rotate(x[:, :, -1:], length - 1), rotated[:, :, -1:], rtol=0, atol=0)


def test_equal_times_are_no_distance() -> None:
    """Simultaneous items look the same to each part: only their contents differ."""
    times = Times(torch.zeros(1, 5, dtype=torch.float64))
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    query = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    assert torch.equal(TimeRotaryEncoding(4).of_batch(x, times).rotate(query, 0), query)
    bias = TimeBiasEncoding(2, 5).double().of_batch(x, times).logit_bias(query, query, query, 0)
    assert (bias == bias[..., :1, :1]).all()
    matrix = kernel_of(1, 2).at(times)[0, 0]
    below = matrix.tril(-1)[torch.ones(5, 5).tril(-1) > 0]
    torch.testing.assert_close(below, below[:1].expand(10))


def test_long_sequences_make_no_square_matrix_with_times() -> None:
    length = 4 * ROWS
    times = Times(torch.rand(1, length, dtype=torch.float64).mul(1e5).cumsum(dim=1))
    bias = TimeBiasEncoding(1, length).of_batch(torch.zeros(1, length, 4), times).logit_bias
    query, key, value = (torch.randn(1, 1, length, 4, requires_grad=True) for _ in range(3))
    with LargestTensor() as largest:
        causal_attention(query, key, value, logit_bias=lambda q, k, first: bias(q, k, q, first)).sum().backward()
    assert largest.elements <= ROWS * length < length**2 and not times._shared.keys() - {("time_bias", 0, ROWS, ROWS)}


def test_an_encoder_takes_times() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(
        10, 8, 2, 2, "time_decay-toeplitz", ["time_bias", "time_rope"], kernel_branch="time_decay"
    ).eval()
    x, times = torch.randn(2, 6, 8), torch.tensor([[0.0, 0, 3, 9, 9, 50], [0, 1, 2, 3, 4, 5]], dtype=torch.float64)
    hidden = encoder(x, times=times)
    assert not torch.allclose(hidden[0], encoder(x)[0])
    torch.testing.assert_close(hidden[1], encoder(x)[1])  # a second apart, which is the median gap by default
    torch.testing.assert_close(encoder(x, None, True, times), hidden[:, -1:])
    with torch.no_grad():
        torch.testing.assert_close(encoder(x, None, True, times), hidden[:, -1:])

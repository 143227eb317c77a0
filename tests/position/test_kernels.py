"""Properties that hold for every kernel structure, size, grouping and normalization."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_posattn.nn import products
from recbole_posattn.nn.kernels import by_time
from recbole_posattn.nn.kernels.base import ALIGNMENTS, INIT_STD, NORMALIZATIONS, KernelOptions, PositionKernel
from recbole_posattn.nn.kernels.structures import (
    BANDED_STRUCTURES,
    STRUCTURES,
    build_kernel,
    parse_kernel_structure,
    positional_kernel,
)
from tests.watch import LargestTensor

LEARNED = tuple(structure for structure in STRUCTURES if structure != "identity")

# Free weights of a group by structure, for T positions, w lags, role u or l; every structure must be here.
PARAMETERS: dict[str, Callable[[KernelOptions], int]] = {
    "toeplitz": lambda o: o.max_length - (o.role == "u"),
    "banded_toeplitz": lambda o: o.bandwidth - (o.role == "u"),
    "full": lambda o: o.max_length * (o.max_length + 1) // 2,
    "banded": lambda o: o.max_length * o.bandwidth - o.bandwidth * (o.bandwidth - 1) // 2,
    "exponential": lambda o: 2 * o.n_decays,
    "lowrank": lambda o: 2 * o.max_length * o.rank,
    "time_variant": lambda o: 2 * o.max_length * o.rank,
    "adaptive_band": lambda o: o.max_length - (o.role == "u") + 1,
    "time_decay": lambda o: 2 * o.n_decays + 1,
    "dilated": lambda o: sum(lag == 0 or lag.bit_count() == 1 for lag in range(o.max_length)) - (o.role == "u"),
}


class Drawn(NamedTuple):
    """A kernel and what it was built from."""

    kernel: PositionKernel
    structure: str
    options: KernelOptions


def drawn_kernel(structure: str, options: KernelOptions, seed: int) -> PositionKernel:
    """A kernel in float64 whose free weights are drawn at random, away from their start."""
    kernel = build_kernel(structure, options).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.normal_()
    return kernel


@st.composite
def kernels(draw: st.DrawFn, structures: tuple[str, ...] = tuple(STRUCTURES), longest: int = 12) -> Drawn:
    max_length = draw(st.integers(1, longest))
    structure = draw(st.sampled_from(structures))
    options = KernelOptions(
        role=draw(st.sampled_from(["u", "l"])),
        max_length=max_length,
        n_groups=draw(st.sampled_from([1, 2, 4])),
        normalization=draw(st.sampled_from(NORMALIZATIONS)),
        alignment=draw(st.sampled_from(ALIGNMENTS)),
        bandwidth=draw(st.integers(1, max_length)) if structure in BANDED_STRUCTURES else None,
        n_decays=draw(st.integers(1, 3)),
        rank=draw(st.integers(1, 3)),
        median_gap=draw(st.sampled_from([1.0, 3600.0])),
    )
    return Drawn(drawn_kernel(structure, options, seed=draw(st.integers(0, 2**16))), structure, options)


def sequence_for(kernel: PositionKernel, length: int) -> torch.Tensor:
    return torch.randn(3, length, 4, dtype=torch.float64)


def apply_dense(kernel: PositionKernel, x: torch.Tensor) -> torch.Tensor:
    """M x, group by group, one plain product at a time."""
    matrices, groups = kernel.dense(x.shape[1]), x.chunk(kernel.n_groups, dim=-1)
    return torch.cat([matrix.to(x.dtype) @ group for matrix, group in zip(matrices, groups)], dim=-1)


@given(drawn=kernels(), data=st.data())
def test_applies_itself_as_its_dense_matrix(drawn: Drawn, data: st.DataObject) -> None:
    x = sequence_for(drawn.kernel, data.draw(st.integers(1, drawn.kernel.max_length)))
    torch.testing.assert_close(drawn.kernel(x), apply_dense(drawn.kernel, x), rtol=1e-10, atol=1e-12)


@given(drawn=kernels(), data=st.data())
def test_its_last_row_is_that_of_the_dense_matrix(drawn: Drawn, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, drawn.kernel.max_length))
    torch.testing.assert_close(drawn.kernel.last_row(length), drawn.kernel.dense(length)[:, -1], rtol=1e-10, atol=1e-12)


@given(drawn=kernels(longest=40), data=st.data())
def test_long_sequences_give_the_same_without_a_matrix(drawn: Drawn, data: st.DataObject) -> None:
    """The FFT, the blocks and the recurrence that long sequences take, on short ones; outputs and gradients."""
    kernel = drawn.kernel
    length = data.draw(st.integers(1, kernel.max_length))
    x = sequence_for(kernel, length).requires_grad_()
    weights = torch.randn(3, length, 4, dtype=torch.float64)
    inputs = [x, *kernel.parameters()]

    def gradients(y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True, materialize_grads=True)

    expected = apply_dense(kernel, x)
    expected_gradients = gradients(expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "DENSE_LENGTH", 0)
        patch.setattr(products, "DENSE_RECURRENCE_LENGTH", 0)
        patch.setattr(by_time, "DENSE_LENGTH", 0)
        patch.setattr(by_time, "BLOCK_SIZE", data.draw(st.sampled_from([1, 4, 64])))
        patch.setattr(products, "CHANNEL_DENSE_LENGTH", 0)
        patch.setattr(products, "BLOCKED_LAGS", data.draw(st.sampled_from([0, 3, 1000])))
        patch.setattr(products, "LENGTH_PER_LAG", 0)
        patch.setattr(products, "BLOCK_SIZE", data.draw(st.sampled_from([1, 4, 64])))
        mixed = kernel(x)
    torch.testing.assert_close(mixed, expected, rtol=1e-9, atol=1e-10)
    for gradient, of_dense in zip(gradients(mixed), expected_gradients):
        torch.testing.assert_close(gradient, of_dense, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("structure", LEARNED)
@pytest.mark.parametrize("n_groups", [1, 4])
def test_long_sequences_in_single_precision(structure: str, n_groups: int) -> None:
    """At lengths where the matrix is avoided in earnest, float32 agrees with the dense product to 1e-5."""
    torch.manual_seed(0)
    options = KernelOptions("l", 1000, n_groups, bandwidth=100)
    kernel = build_kernel(structure, options)
    x = torch.randn(2, 900, 8)
    torch.testing.assert_close(kernel(x), apply_dense(kernel, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("structure", [name for name in LEARNED if name not in ("full", "lowrank")])
def test_long_sequences_make_no_square_matrix(structure: str) -> None:
    """No tensor of T × T elements, forward or backward: the largest has O(T) times the channels."""
    length, channels = 2048, 8
    kernel = build_kernel(structure, KernelOptions("l", length, bandwidth=64))
    x = torch.randn(1, length, channels, requires_grad=True)
    with LargestTensor() as largest:
        kernel(x).sum().backward()
    assert length * channels <= largest.elements <= 64 * length * channels < length**2


@given(drawn=kernels(), n_heads=st.sampled_from([1, 2, 4]), data=st.data())
def test_heads_are_groups_of_channels(drawn: Drawn, n_heads: int, data: st.DataObject) -> None:
    kernel = drawn.kernel
    x = sequence_for(kernel, data.draw(st.integers(1, kernel.max_length)))
    heads = x.unflatten(-1, (n_heads, -1)).transpose(1, 2)
    if kernel.n_groups not in (1, n_heads, 4):
        with pytest.raises(ValueError, match="n_groups is 2"):
            kernel(heads)
        return
    mixed = kernel(heads)
    assert mixed.shape == heads.shape
    torch.testing.assert_close(mixed.transpose(1, 2).flatten(-2), apply_dense(kernel, x), rtol=1e-10, atol=1e-12)


@given(drawn=kernels(longest=40), data=st.data())
def test_never_looks_ahead(drawn: Drawn, data: st.DataObject) -> None:
    kernel = drawn.kernel
    length = data.draw(st.integers(1, kernel.max_length))
    t = data.draw(st.integers(0, length - 1))
    x = sequence_for(kernel, length)
    changed = x.clone()
    changed[:, t] += 1.0
    # The FFT spreads a change over all positions, but for rounding; the other ways must not.
    for dense_length, tolerance in ((384, 0.0), (0, 1e-12)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "DENSE_LENGTH", dense_length)
            patch.setattr(by_time, "DENSE_LENGTH", dense_length)
            before, after = kernel(x)[:, :t], kernel(changed)[:, :t]
        torch.testing.assert_close(after, before, rtol=0, atol=tolerance)


@given(drawn=kernels(), data=st.data())
def test_dense_is_lower_triangular_and_banded(drawn: Drawn, data: st.DataObject) -> None:
    kernel = drawn.kernel
    length = data.draw(st.integers(1, kernel.max_length))
    matrix = kernel.dense(length)
    assert matrix.shape == (kernel.n_groups, length, length)
    outside = torch.ones(length, length, dtype=torch.bool).triu(1)
    if drawn.structure in BANDED_STRUCTURES:
        outside |= torch.ones(length, length, dtype=torch.bool).tril(-drawn.options.bandwidth)
    assert (matrix[:, outside] == 0).all()
    torch.testing.assert_close(kernel.diagonal(length), matrix.diagonal(dim1=1, dim2=2), rtol=0, atol=0)


@given(drawn=kernels(), data=st.data())
def test_shorter_sequences_take_a_block_of_the_longest_matrix(drawn: Drawn, data: st.DataObject) -> None:
    kernel = drawn.kernel
    length = data.draw(st.integers(1, kernel.max_length))
    whole, part = kernel.dense(), kernel.dense(length)
    if kernel.lag_only or kernel.alignment == "start":
        torch.testing.assert_close(part, whole[:, :length, :length], rtol=1e-12, atol=1e-14)
    if kernel.lag_only or kernel.alignment == "end":
        torch.testing.assert_close(part, whole[:, -length:, -length:], rtol=1e-12, atol=1e-14)


@given(drawn=kernels(LEARNED))
def test_frobenius_normalization_divides_by_the_norm_of_the_weights(drawn: Drawn) -> None:
    def norm_of(kernel: PositionKernel) -> torch.Tensor:
        if kernel.lag_only:  # the last row holds every tap
            return kernel.dense()[:, -1].norm(dim=-1)
        return kernel.dense().flatten(1).norm(dim=-1)

    free = build_kernel(drawn.structure, drawn.options._replace(normalization="none")).double()
    free.load_state_dict(drawn.kernel.state_dict())
    norm = norm_of(drawn.kernel)
    if drawn.options.normalization == "none":
        torch.testing.assert_close(norm, norm_of(free), rtol=0, atol=0)
    else:
        torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-9, atol=1e-12)
        scaled = free.dense() / norm_of(free)[:, None, None]
        torch.testing.assert_close(drawn.kernel.dense(), scaled, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@given(drawn=kernels(LEARNED, longest=7))
@settings(max_examples=60)
def test_gradients_are_those_of_finite_differences(drawn: Drawn) -> None:
    kernel = drawn.kernel
    x = sequence_for(kernel, kernel.max_length).requires_grad_()
    names = [name for name, parameter in kernel.named_parameters() if parameter.numel()]
    values = [dict(kernel.named_parameters())[name].detach().clone().requires_grad_() for name in names]

    def mixed(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(kernel, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(mixed, (x, *values), atol=1e-5)


@pytest.mark.parametrize("structure", LEARNED)
@pytest.mark.parametrize("role", ["u", "l"])
def test_gradients_reach_every_free_weight(structure: str, role: str) -> None:
    """From the start of training on; taps behind the window of an adaptive band are out of reach until it widens."""
    torch.manual_seed(0)
    kernel = build_kernel(structure, KernelOptions(role, 12, 2, bandwidth=5)).double()
    x = sequence_for(kernel, 12)
    (kernel(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in kernel.named_parameters():
        reached = parameter.grad != 0
        if structure == "adaptive_band" and name == "free":
            reached = reached[:, : int(kernel.hard_width().min()) - (role == "u")]
        assert reached.all(), name


@given(drawn=kernels(LEARNED))
def test_parameters_are_exactly_the_free_weights(drawn: Drawn) -> None:
    per_group = PARAMETERS[drawn.structure](drawn.options)
    assert sum(p.numel() for p in drawn.kernel.parameters()) == drawn.options.n_groups * per_group


@given(drawn=kernels(LEARNED))
def test_saved_state_restores_the_matrix(drawn: Drawn) -> None:
    state = {name: value.clone() for name, value in drawn.kernel.state_dict().items()}
    kept = {"median_gap"} if drawn.structure == "time_decay" else set()
    assert set(state) == {name for name, _ in drawn.kernel.named_parameters()} | kept
    other = build_kernel(drawn.structure, drawn.options).double()
    other.load_state_dict(state)
    torch.testing.assert_close(other.dense(), drawn.kernel.dense(), rtol=0, atol=0)


@pytest.mark.parametrize("role", ["u", "l"])
@pytest.mark.parametrize("structure", ["toeplitz", "banded_toeplitz", "full", "banded", "adaptive_band", "dilated"])
def test_starts_near_the_identity(role: str, structure: str) -> None:
    """Diagonal one, |N(0, 0.02²)| below it, before normalization (the authors' start)."""
    torch.manual_seed(0)
    kernel = build_kernel(structure, KernelOptions(role, 60, 4, "none", bandwidth=20))
    matrix = kernel.dense()
    assert (matrix.diagonal(dim1=1, dim2=2) == 1).all() and (matrix >= 0).all()
    off_diagonal = kernel.free[kernel.free != 1]
    # the mean of |N(0, σ²)| is σ √(2/π) = 0.016
    assert off_diagonal.mean().item() == pytest.approx(0.016, rel=0.35)


def test_exponential_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    taps = build_kernel("exponential", KernelOptions("l", 60, 5, "none")).taps()
    assert (taps[:, 0] > 1).all() and (taps[:, 0] < 1.2).all()
    assert (taps[:, 1] < 0.05 + 6 * INIT_STD).all() and (taps[:, 2:] < 6 * INIT_STD).all()


def test_lowrank_starts_as_a_band_around_the_diagonal() -> None:
    torch.manual_seed(0)
    matrix = build_kernel("lowrank", KernelOptions("l", 60, 1, "none", rank=9)).dense()[0]
    by_lag = torch.stack([matrix.diagonal(-lag).mean() for lag in range(60)])
    assert by_lag[0].item() == pytest.approx(1.0, abs=0.1)
    assert by_lag.argmax() == 0 and by_lag[3] < 0.8 and (by_lag[60 // 9 + 1 : 50].abs() < 0.3).all()
    assert torch.linalg.matrix_rank(build_kernel("lowrank", KernelOptions("l", 60, rank=9)).factors(60)[0][0]) == 9


@pytest.mark.parametrize("structure", ["toeplitz", "adaptive_band", "dilated"])
def test_first_tap_of_u_is_fixed_and_of_l_learned(structure: str) -> None:
    for role, first in (("u", 1.0), ("l", 3.0)):
        kernel = build_kernel(structure, KernelOptions(role, 3, normalization="none"))
        with torch.no_grad():
            kernel.free.fill_(3.0)
        assert kernel.taps()[0, 0].item() == first


def test_exponential_weights_are_the_mixture() -> None:
    kernel = build_kernel("exponential", KernelOptions("l", 6, normalization="none", n_decays=2)).double()
    with torch.no_grad():
        kernel.amplitude.copy_(torch.tensor([[2.0, -0.5]]))
        kernel.decay_logit.copy_(torch.tensor([[0.5, 0.9]]).logit())
    expected = [2.0 * 0.5**k - 0.5 * 0.9**k for k in range(6)]
    assert kernel.taps()[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_lowrank_weights_are_products_of_the_factors() -> None:
    kernel = build_kernel("lowrank", KernelOptions("l", 5, normalization="none", rank=2)).double()
    expected = [[(kernel.u[0, t] @ kernel.v[0, s]).item() if s <= t else 0.0 for s in range(5)] for t in range(5)]
    torch.testing.assert_close(kernel.dense()[0], torch.tensor(expected, dtype=torch.float64))


def test_dilated_weights_stand_at_powers_of_two() -> None:
    taps = build_kernel("dilated", KernelOptions("l", 20)).taps()[0]
    assert taps.nonzero().flatten().tolist() == [0, 1, 2, 4, 8, 16]
    assert len(build_kernel("dilated", KernelOptions("l", 17)).lags) == 6
    assert len(build_kernel("dilated", KernelOptions("l", 16)).lags) == 5


def test_adaptive_band_is_taps_times_the_window() -> None:
    kernel = build_kernel("adaptive_band", KernelOptions("l", 16, normalization="none")).double()
    with torch.no_grad():
        kernel.free.fill_(2.0)
        kernel.width_logit.fill_(math.log(5 / 11))  # sigmoid: 5 / 16, five lags; the ramp is 2 lags long
    assert kernel.width_share().item() == pytest.approx(5 / 16)
    expected = [2.0] * 6 + [1.0]
    assert kernel.taps()[0].tolist() == pytest.approx(expected)
    assert kernel.hard_width().tolist() == [7]
    assert kernel.dense()[0].count_nonzero(dim=-1).tolist() == [min(t + 1, 7) for t in range(16)]


def test_adaptive_band_narrows_and_widens_by_its_gradient() -> None:
    """The width moves to where the wanted weight is, from either side."""
    for wanted_lag, start in ((1, 2.0), (12, -1.5)):
        torch.manual_seed(0)
        kernel = build_kernel("adaptive_band", KernelOptions("l", 16, normalization="none"))
        with torch.no_grad():
            kernel.width_logit.fill_(start)
            kernel.free.fill_(1.0)
        before = kernel.hard_width().item()
        optimizer = torch.optim.Adam([kernel.width_logit], lr=0.05)
        target = (torch.arange(16) <= wanted_lag).float()
        for _ in range(200):
            optimizer.zero_grad()
            ((kernel.window() - target) ** 2).sum().backward()
            optimizer.step()
        after = kernel.hard_width().item()
        assert abs(after - (wanted_lag + 1)) <= 2 < abs(before - (wanted_lag + 1))


def test_identity_mixes_nothing() -> None:
    kernel = build_kernel("identity", KernelOptions("u", 7))
    x = torch.randn(2, 5, 3)
    assert torch.equal(kernel(x), x)
    assert list(kernel.parameters()) == []


def test_positional_kernel_is_upper_times_lower() -> None:
    u_kernel = build_kernel("toeplitz", KernelOptions("u", 4)).double()
    l_kernel = build_kernel("full", KernelOptions("l", 4)).double()
    upper = u_kernel.dense()[0].T
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(positional_kernel(u_kernel, l_kernel)[0], upper @ l_kernel.dense()[0])


@pytest.mark.parametrize(
    ("structure", "options", "message"),
    [
        ("toplitz", {}, "structure must be one of"),
        ("banded", {}, "needs a bandwidth"),
        ("banded", {"bandwidth": 0}, "bandwidth must be in 1 … 5"),
        ("banded_toeplitz", {"bandwidth": 6}, "bandwidth must be in 1 … 5"),
        ("full", {"normalization": "l1"}, "normalization must be one of"),
        ("full", {"alignment": "middle"}, "alignment must be one of"),
        ("lowrank", {"alignment": "middle"}, "alignment must be one of"),
        ("lowrank", {"rank": 0}, "rank must be a positive integer"),
        ("exponential", {"n_decays": 0}, "n_decays must be a positive integer"),
        ("full", {"n_groups": 0}, "n_groups must be a positive integer"),
        ("full", {"max_length": 0}, "max_length must be a positive integer"),
    ],
)
def test_refuses_bad_arguments(structure: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_kernel(structure, KernelOptions(**{"role": "l", "max_length": 5, **options}))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_refuses_a_sequence_longer_than_its_length(structure: str) -> None:
    kernel = build_kernel(structure, KernelOptions("l", 5, bandwidth=2))
    with pytest.raises(ValueError, match=r"length must be in 1 … 5 \(max_length\), got 6"):
        kernel(torch.randn(1, 6, 4))
    with pytest.raises(ValueError, match="got 6"):
        kernel.dense(6)


@pytest.mark.parametrize("name", ["toeplitz", "toeplitz-toplitz", "full-full-full", "", "toeplitz_full", 3])
def test_structure_names_are_checked(name: object) -> None:
    with pytest.raises(ValueError, match="kernel_structure must be <U>-<L>"):
        parse_kernel_structure(name)


def test_structure_names_are_split() -> None:
    assert parse_kernel_structure("banded_toeplitz-full") == ("banded_toeplitz", "full")

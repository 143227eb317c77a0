"""Properties that hold for every kernel structure, size, grouping and normalization."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_posattn.position.kernels import (
    ALIGNMENTS,
    BANDED_STRUCTURES,
    NORMALIZATIONS,
    STRUCTURES,
    PositionKernel,
    build_kernel,
    parse_kernel_structure,
    positional_kernel,
)

LEARNED = tuple(structure for structure in STRUCTURES if structure != "identity")


@st.composite
def kernels(draw: st.DrawFn, structures: tuple[str, ...] = STRUCTURES) -> PositionKernel:
    """A kernel in float64 whose free weights are drawn at random, away from their start."""
    max_length = draw(st.integers(1, 12))
    structure = draw(st.sampled_from(structures))
    kernel = build_kernel(
        draw(st.sampled_from(["u", "l"])),
        structure,
        max_length,
        n_groups=draw(st.sampled_from([1, 2, 4])),
        bandwidth=draw(st.integers(1, max_length)) if structure in BANDED_STRUCTURES else None,
        normalization=draw(st.sampled_from(NORMALIZATIONS)),
        alignment=draw(st.sampled_from(ALIGNMENTS)),
    ).double()
    torch.manual_seed(draw(st.integers(0, 2**16)))
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.normal_()
    return kernel


def sequence_for(kernel: PositionKernel, length: int) -> torch.Tensor:
    return torch.randn(3, length, 4, dtype=torch.float64)


def apply_dense(kernel: PositionKernel, x: torch.Tensor) -> torch.Tensor:
    """M x, group by group, one plain product at a time."""
    matrices, groups = kernel.dense(x.shape[1]), x.chunk(kernel.n_groups, dim=-1)
    return torch.cat([matrix.to(x.dtype) @ group for matrix, group in zip(matrices, groups)], dim=-1)


@given(kernel=kernels(), data=st.data())
def test_applies_itself_as_its_dense_matrix(kernel: PositionKernel, data: st.DataObject) -> None:
    x = sequence_for(kernel, data.draw(st.integers(1, kernel.max_length)))
    torch.testing.assert_close(kernel(x), apply_dense(kernel, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("structure", BANDED_STRUCTURES)
@pytest.mark.parametrize("n_groups", [1, 2, 4])
@pytest.mark.parametrize("bandwidth", [1, 2, 5, 8])
def test_narrow_bands_give_the_same_without_a_matrix(
    structure: str, n_groups: int, bandwidth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass over the sequence for each lag, which long sequences take, against the product with the matrix."""
    kernel = build_kernel("l", structure, 8, n_groups=n_groups, bandwidth=bandwidth).double()
    x = sequence_for(kernel, 7)
    monkeypatch.setattr("recbole_posattn.position.kernels.POSITIONS_PER_LAG", 0.5)
    monkeypatch.setattr(type(kernel), "_mix_dense", None)
    torch.testing.assert_close(kernel(x), apply_dense(kernel, x), rtol=1e-10, atol=1e-12)


@given(kernel=kernels(), n_heads=st.sampled_from([1, 2, 4]), data=st.data())
def test_heads_are_groups_of_channels(kernel: PositionKernel, n_heads: int, data: st.DataObject) -> None:
    x = sequence_for(kernel, data.draw(st.integers(1, kernel.max_length)))
    heads = x.unflatten(-1, (n_heads, -1)).transpose(1, 2)
    if kernel.n_groups not in (1, n_heads, 4):
        with pytest.raises(ValueError, match="n_groups is 2"):
            kernel(heads)
        return
    mixed = kernel(heads)
    assert mixed.shape == heads.shape
    torch.testing.assert_close(mixed.transpose(1, 2).flatten(-2), apply_dense(kernel, x), rtol=1e-10, atol=1e-12)


@given(kernel=kernels(), data=st.data())
def test_never_looks_ahead(kernel: PositionKernel, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, kernel.max_length))
    t = data.draw(st.integers(0, length - 1))
    x = sequence_for(kernel, length)
    changed = x.clone()
    changed[:, t] += 1.0
    torch.testing.assert_close(kernel(changed)[:, :t], kernel(x)[:, :t], rtol=0, atol=0)


@given(kernel=kernels(), data=st.data())
def test_dense_is_lower_triangular_and_banded(kernel: PositionKernel, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, kernel.max_length))
    matrix = kernel.dense(length)
    bandwidth = getattr(kernel, "bandwidth", 1)
    assert matrix.shape == (kernel.n_groups, length, length)
    outside = torch.ones(length, length, dtype=torch.bool).triu(1)
    outside |= torch.ones(length, length, dtype=torch.bool).tril(-bandwidth)
    assert (matrix[:, outside] == 0).all()


@given(kernel=kernels(), data=st.data())
def test_shorter_sequences_take_a_block_of_the_longest_matrix(kernel: PositionKernel, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, kernel.max_length))
    whole, part = kernel.dense(), kernel.dense(length)
    if kernel.lag_only or kernel.alignment == "start":
        torch.testing.assert_close(part, whole[:, :length, :length], rtol=0, atol=0)
    if kernel.lag_only or kernel.alignment == "end":
        torch.testing.assert_close(part, whole[:, -length:, -length:], rtol=0, atol=0)


@given(kernel=kernels(LEARNED))
def test_frobenius_normalization_divides_by_the_norm_of_the_weights(kernel: PositionKernel) -> None:
    norm_of_rows = kernel.dense()[:, -1].norm(dim=-1)  # the last row holds every tap of a Toeplitz kernel
    norm = norm_of_rows if kernel.lag_only else kernel.dense().flatten(1).norm(dim=-1)
    if kernel.normalization == "frobenius":
        torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-10, atol=1e-12)
    else:
        unit = kernel.lag_only and kernel.unit_first_tap
        torch.testing.assert_close(norm**2, (kernel.free**2).sum(-1) + unit, rtol=1e-10, atol=1e-12)


@given(kernel=kernels(LEARNED))
def test_gradients_reach_every_free_weight(kernel: PositionKernel) -> None:
    x = sequence_for(kernel, kernel.max_length)
    (kernel(x) * torch.randn_like(x)).sum().backward()
    alone = kernel.free.shape[1] == 1 and not getattr(kernel, "unit_first_tap", False)
    if alone and kernel.normalization == "frobenius":  # divided by its own size: a sign, which cannot be learned
        torch.testing.assert_close(kernel.free.grad, torch.zeros_like(kernel.free), rtol=0, atol=1e-12)
    else:
        assert (kernel.free.grad != 0).all()


@given(kernel=kernels(LEARNED))
@settings(max_examples=25)
def test_gradients_are_those_of_finite_differences(kernel: PositionKernel) -> None:
    x = sequence_for(kernel, kernel.max_length).requires_grad_()
    free = kernel.free.detach().clone().requires_grad_()
    if not free.numel():
        return

    def mixed(free: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(kernel, {"free": free}, (x,))

    assert torch.autograd.gradcheck(mixed, (free, x), atol=1e-6)


@given(kernel=kernels(LEARNED))
def test_parameters_are_exactly_the_free_weights(kernel: PositionKernel) -> None:
    max_length, width = kernel.max_length, kernel.bandwidth
    per_group = max_length * width - width * (width - 1) // 2  # entries of a banded lower triangle
    if kernel.lag_only:
        per_group = width - kernel.unit_first_tap
    assert [p.numel() for p in kernel.parameters()] == [kernel.n_groups * per_group]


@given(kernel=kernels(LEARNED))
def test_saved_state_restores_the_matrix(kernel: PositionKernel) -> None:
    state = {name: value.clone() for name, value in kernel.state_dict().items()}
    assert list(state) == ["free"]
    dense = kernel.dense().detach().clone()
    kernel.reset_parameters()
    kernel.load_state_dict(state)
    torch.testing.assert_close(kernel.dense(), dense)


@pytest.mark.parametrize("role", ["u", "l"])
@pytest.mark.parametrize("structure", LEARNED)
def test_starts_near_the_identity(role: str, structure: str) -> None:
    """Diagonal one, |N(0, 0.02²)| below it, before normalization (the authors' start)."""
    torch.manual_seed(0)
    bandwidth = 20 if structure in BANDED_STRUCTURES else None
    kernel = build_kernel(role, structure, 60, bandwidth=bandwidth, normalization="none")
    matrix = kernel.dense()[0]
    assert (matrix.diagonal() == 1).all()
    off_diagonal = kernel.free[kernel.free != 1]
    assert (off_diagonal >= 0).all()
    # the mean of |N(0, σ²)| is σ √(2/π) = 0.016
    assert off_diagonal.mean().item() == pytest.approx(0.016, rel=0.35)


def test_first_tap_of_u_is_fixed_and_of_l_learned() -> None:
    u_kernel = build_kernel("u", "toeplitz", 5, normalization="none")
    l_kernel = build_kernel("l", "toeplitz", 5, normalization="none")
    with torch.no_grad():
        u_kernel.free.fill_(3.0)
        l_kernel.free.fill_(3.0)
    assert u_kernel.taps().tolist() == [[1.0, 3.0, 3.0, 3.0, 3.0]]
    assert l_kernel.taps().tolist() == [[3.0] * 5]


def test_identity_mixes_nothing() -> None:
    kernel = build_kernel("u", "identity", 7)
    x = torch.randn(2, 5, 3)
    assert kernel(x) is not None and torch.equal(kernel(x), x)
    assert list(kernel.parameters()) == []


def test_positional_kernel_is_upper_times_lower() -> None:
    u_kernel, l_kernel = build_kernel("u", "toeplitz", 4).double(), build_kernel("l", "full", 4).double()
    upper = u_kernel.dense()[0].T
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(positional_kernel(u_kernel, l_kernel)[0], upper @ l_kernel.dense()[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "toplitz"}, "structure must be one of"),
        ({"structure": "banded"}, "needs a bandwidth"),
        ({"structure": "banded", "bandwidth": 0}, "bandwidth must be in 1 … 5"),
        ({"structure": "banded_toeplitz", "bandwidth": 6}, "bandwidth must be in 1 … 5"),
        ({"structure": "full", "normalization": "l1"}, "normalization must be one of"),
        ({"structure": "full", "alignment": "middle"}, "alignment must be one of"),
        ({"structure": "full", "n_groups": 0}, "n_groups must be a positive integer"),
        ({"structure": "full", "max_length": 0}, "max_length must be a positive integer"),
    ],
)
def test_refuses_bad_arguments(arguments: dict, message: str) -> None:
    arguments = {"role": "l", "max_length": 5, **arguments}
    with pytest.raises(ValueError, match=message):
        build_kernel(**arguments)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_refuses_a_sequence_longer_than_its_length(structure: str) -> None:
    kernel = build_kernel("l", structure, 5, bandwidth=2)
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

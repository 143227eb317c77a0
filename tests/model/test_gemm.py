"""Matrix products by oneDNN against float64, and where they are not used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn import gemm
from recbole_posattn.nn.losses.cross_entropy import SMALLEST_PART, CrossEntropy, _halving_chunks


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple]]:
    """oneDNN for all sizes, whatever CPU this is; the shapes of its products."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch has no oneDNN here")
    seen: list[tuple] = []
    by_onednn = gemm._by_onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append((*x.shape, len(weight)))
        return by_onednn(x, weight, bias)

    monkeypatch.setattr(gemm, "MIN_MULTIPLICATIONS", 1)
    monkeypatch.setattr(gemm, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(gemm, "_by_onednn", counted)
    yield seen


def in_doubles(tensors: list[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.detach().double().requires_grad_(x.requires_grad) for x in tensors]


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (2, 3, 5, 12)], ids=str)
def test_a_linear_layer_and_its_gradients_are_those_in_float64(
    calls: list[tuple], shape: tuple[int, ...], has_bias: bool
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(9, 12, requires_grad=True)
    given_tensors = [x, weight, torch.randn(9, requires_grad=True) if has_bias else None]
    results = []
    for tensors in (given_tensors, in_doubles(given_tensors)):
        y = (gemm.linear if tensors is given_tensors else F.linear)(*tensors)
        swapped = y.transpose(0, -1)  # its gradient is not contiguous
        factor = torch.linspace(-1, 1, y.numel()).view(swapped.shape).to(y.dtype)
        wanted = [tensor for tensor in tensors if tensor is not None]
        results.append([y, *torch.autograd.grad((swapped * factor).sum(), wanted)])
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact.float(), rtol=1e-5, atol=1e-5)
    assert len(calls) == 3


def test_gradients_that_nobody_wants_are_not_computed(calls: list[tuple]) -> None:
    x, weight = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    (alone,) = torch.autograd.grad(gemm.linear(x.mT.contiguous().mT, weight).sum(), [weight])
    torch.testing.assert_close(alone, x.sum(dim=0).expand(5, -1))
    assert calls == [(4, 3, 5), (5, 4, 3)]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk_size", ["auto", 40, 100])
def test_cross_entropy_by_onednn_is_that_in_float64(
    calls: list[tuple], chunk_size: int | str, label_smoothing: float
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(93, 8, requires_grad=True), torch.randn(31, 8, requires_grad=True)
    target = torch.randint(31, (93,))
    results = []
    for h, w in ((hidden, weight), in_doubles([hidden, weight])):
        size = chunk_size if h is hidden else None
        loss = CrossEntropy(size, label_smoothing)(h, target, w)
        results.append([loss, *torch.autograd.grad(3 * loss, [h, w])])
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact.float(), rtol=1e-5, atol=1e-6)
        assert ours.is_contiguous()
    assert len(calls) % 3 == 0 and len(calls) >= 3


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")  # deprecated, but still used by other programs
def test_other_types_tracing_and_autocast_are_left_to_pytorch(calls: list[tuple]) -> None:
    layer = gemm.Linear(6, 4)
    x = torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == gemm.linear(x, layer.weight).dtype == torch.bfloat16
    program = torch.export.export(layer, (x,))
    traced, compiled = torch.jit.trace(layer, (x,), check_trace=False), torch.compile(layer, backend="eager")
    others = [program.module()(x), traced(x), compiled(x), layer.double()(x.double()).float()]
    assert calls == [] and "mkldnn" not in f"{program.graph} {traced.inlined_graph}"
    for found in others:
        torch.testing.assert_close(found, F.linear(x, layer.weight.float(), layer.bias.float()))


def test_small_products_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "onednn_is_faster", lambda: True)
    assert gemm.suits_onednn(torch.empty(2**11, 2**6), torch.empty(2**6, 2**6))
    assert not gemm.suits_onednn(torch.empty(2**11 - 1, 2**6), torch.empty(2**6, 2**6))
    assert not gemm.suits_onednn(*torch.empty(2, 2**11, 2**6, device="meta"))  # a device that is not the CPU


@pytest.mark.parametrize(
    ("cpu", "capability", "operation", "expected"),
    [
        ("vendor_id\t: AuthenticAMD\n", "AVX512", "there", True),
        ("vendor_id\t: AuthenticAMD\n", "AVX2", "there", False),
        ("vendor_id\t: GenuineIntel\n", "AVX512", "there", False),
        ("vendor_id\t: AuthenticAMD\n", "AVX512", "gone", False),
        ("vendor_id\t: AuthenticAMD\n", "AVX512", "wrong", False),
    ],
)
def test_the_cpu_decides(
    monkeypatch: pytest.MonkeyPatch, cpu: str, capability: str, operation: str, expected: bool
) -> None:
    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if operation == "gone":
            raise AttributeError
        return x @ weight.T + (operation == "wrong")

    monkeypatch.setattr(gemm.Path, "is_file", lambda self: True)
    monkeypatch.setattr(gemm.Path, "read_text", lambda self, **options: cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    monkeypatch.setattr(gemm, "_by_onednn", product)
    assert gemm.onednn_is_faster.__wrapped__() == expected


@given(n_targets=st.integers(0, 3000), chunk_size=st.integers(1, 700))
def test_chunks_hold_each_target_once_and_have_few_sizes(n_targets: int, chunk_size: int) -> None:
    chunks = list(_halving_chunks(n_targets, chunk_size))
    assert [i for chunk in chunks for i in range(chunk.start, chunk.stop)] == list(range(n_targets))
    sizes = {chunk.stop - chunk.start for chunk in chunks}
    assert max(sizes, default=0) <= max(chunk_size, SMALLEST_PART)
    halves = {max(SMALLEST_PART, chunk_size >> i) for i in range(12)} | {chunk_size}
    assert all(size in halves or size <= SMALLEST_PART for size in sizes)


def test_layers_of_the_models_keep_their_state() -> None:
    ours, theirs = gemm.Linear(3, 2), nn.Linear(3, 2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(ours(x), theirs(x)) and isinstance(ours, nn.Linear)

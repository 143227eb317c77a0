"""Positional-kernel attention against its formula, and what causality and padding demand of it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_posattn.nn import attention as attention_module
from recbole_posattn.nn.attention import PositionKernelAttention, causal_attention
from recbole_posattn.nn.encodings.at_input import AllAbsoluteEncoding
from recbole_posattn.nn.encodings.base import EncodingOptions
from recbole_posattn.nn.encodings.build import ENCODINGS, MEANINGLESS_TOGETHER, build_encodings
from recbole_posattn.nn.kernels.base import KernelOptions, PositionKernel
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, STRUCTURES, build_kernel
from recbole_posattn.nn.times import Times
from tests import references
from tests.watch import LargestTensor

MAX_LENGTH, HIDDEN_SIZE, ROPE_BASE, MEDIAN_GAP = 9, 8, 100.0, 600.0
INSIDE = [name for name in ENCODINGS if name not in ("absolute", "sinusoidal")]  # those that act in the attention


@st.composite
def encoding_names(draw: st.DrawFn) -> list[str]:
    """Any encodings that go together; none, one or several."""
    names = draw(st.lists(st.sampled_from(INSIDE), unique=True, max_size=3))
    return names if not any(set(pair) <= set(names) for pair in MEANINGLESS_TOGETHER) else names[:1]


@st.composite
def attentions(
    draw: st.DrawFn, alignment: str | None = None, names: st.SearchStrategy[list[str]] | None = None
) -> PositionKernelAttention:
    """An attention in float64 with any kernels, any encodings, and random weights in every part."""
    n_heads = draw(st.sampled_from([1, 2]))
    alignment = alignment or draw(st.sampled_from(["end", "start"]))
    kernels = []
    for role in "ul":
        structure = draw(st.sampled_from(list(STRUCTURES)))
        options = KernelOptions(
            role,
            MAX_LENGTH,
            n_groups=draw(st.sampled_from([1, n_heads, HIDDEN_SIZE])),
            normalization=draw(st.sampled_from(["frobenius", "none"])),
            alignment=alignment,
            bandwidth=draw(st.integers(1, MAX_LENGTH)) if structure in BANDED_STRUCTURES else None,
            n_decays=2,
            rank=2,
            median_gap=MEDIAN_GAP,
        )
        kernels.append(build_kernel(structure, options))
    options = EncodingOptions(
        MAX_LENGTH,
        HIDDEN_SIZE,
        n_heads,
        alignment,
        rope_base=ROPE_BASE,
        cape_positions=6,
        t5_buckets=4,
        t5_max_distance=6,
        time_bias_positions=draw(st.booleans()),
        time_rope_base=ROPE_BASE,
        median_gap=MEDIAN_GAP,
    )
    encodings = build_encodings(draw(names or encoding_names()), 1, options)[0]
    projects = draw(st.booleans())
    attention = PositionKernelAttention(
        HIDDEN_SIZE, n_heads, *kernels, encodings=encodings, output_projection=projects
    ).double()
    torch.manual_seed(draw(st.integers(0, 2**16)))
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    return attention


@st.composite
def sequences_of_times(draw: st.DrawFn, length: int, batch: int = 2) -> Tensor | None:
    """Times that never fall, with equal ones among them, from seconds to years apart; ``None`` for no times."""
    if draw(st.booleans()):
        return None
    gaps = st.sampled_from([0.0, 1.0, 2.5, 3600.0, 86400.0, 4e7])
    rows = draw(st.lists(st.lists(gaps, min_size=length, max_size=length), min_size=batch, max_size=batch))
    return torch.tensor(rows, dtype=torch.float64).cumsum(dim=1) - draw(st.sampled_from([0.0, 1.7e9]))


def inputs(length: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(batch, length, HIDDEN_SIZE, dtype=torch.float64) for _ in range(2))


def by_the_formula(
    attention: PositionKernelAttention, x_query: Tensor, x: Tensor, times: Tensor | None = None
) -> Tensor:
    """softmax(mask(R(Q) R(Uᵀ K)ᵀ / √d_h + B)) L V, sequence by sequence."""
    rows = range(len(x))
    of = [None if times is None else times[row].tolist() for row in rows]
    return torch.cat([of_one(attention, x_query[row : row + 1], x[row : row + 1], of[row]) for row in rows])


def of_one(attention: PositionKernelAttention, x_query: Tensor, x: Tensor, times: list[float] | None) -> Tensor:
    """The same for one sequence, with dense U and L, channel by channel, and slow encodings."""
    length, n_heads = x.shape[1], attention.n_heads
    d_h = HIDDEN_SIZE // n_heads
    for encoding in attention.encodings:
        if isinstance(encoding, AllAbsoluteEncoding):
            rows = encoding.embedding.weight
            rows = rows[:length] if encoding.alignment == "start" else rows[MAX_LENGTH - length :]
            x_query, x = x_query + rows, x + rows

    def in_heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (n_heads, d_h)).transpose(1, 2)

    def rotated(x: Tensor) -> Tensor:
        for encoding in attention.encodings:
            x = references.rotate(encoding, x, ROPE_BASE, times)
        return x

    def mixed(projected: Tensor, kernel: PositionKernel, bias: Tensor) -> Tensor:
        """M x channel by channel, the bias not mixed."""
        matrices = kernel.dense(length)
        if isinstance(kernel, TimeDecayKernel):
            matrices = references.time_decay(kernel, times or [MEDIAN_GAP * t for t in range(length)])
        columns = [
            (matrices[c * len(matrices) // HIDDEN_SIZE] @ projected[:, :, c, None]).squeeze(-1) + bias[c]
            for c in range(HIDDEN_SIZE)
        ]
        return in_heads(torch.stack(columns, dim=-1))

    query = in_heads(attention.query(x_query))
    key = mixed(x @ attention.key.weight.T, attention.u_kernel, attention.key.bias)
    value = mixed(x @ attention.value.weight.T, attention.l_kernel, attention.value.bias)
    logits = rotated(query) @ rotated(key).mT / math.sqrt(d_h)
    if attention.encodings:
        given = query[0], logits[0], x[0], times
        logits = logits + sum(references.logit_bias(encoding, *given) for encoding in attention.encodings)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    attended = (logits.masked_fill(future, -math.inf).softmax(-1) @ value).transpose(1, 2).flatten(-2)
    return attention.output(attended)


def timed(times: Tensor | None) -> Times | None:
    return None if times is None else Times(times)


@given(attention=attentions(), length=st.integers(1, MAX_LENGTH), data=st.data())
def test_equals_the_formula(attention: PositionKernelAttention, length: int, data: st.DataObject) -> None:
    x_query, x = inputs(length)
    times = data.draw(sequences_of_times(length))
    expected = by_the_formula(attention, x_query, x, times)
    torch.testing.assert_close(attention(x_query, x, None, timed(times)), expected, rtol=1e-7, atol=1e-9)
    everything = torch.ones(2, length, dtype=torch.bool)
    torch.testing.assert_close(attention(x_query, x, everything, timed(times)), expected, rtol=1e-7, atol=1e-9)


@given(attention=attentions(), data=st.data())
def test_blocks_of_rows_equal_the_whole(attention: PositionKernelAttention, data: st.DataObject) -> None:
    """What long sequences take: some queries at a time, computed again for the gradients."""
    length = data.draw(st.integers(1, MAX_LENGTH))
    x_query, x = (tensor.requires_grad_() for tensor in inputs(length))
    valid = None
    if data.draw(st.booleans()):
        valid = torch.arange(length).expand(2, -1) >= torch.tensor([[0], [length // 2]])
    times = timed(data.draw(sequences_of_times(length)))
    query, key, value, bias = attention.project(x_query, x, valid, times)
    bias = bias or (lambda query, key, first: query.new_zeros(()))  # a bias rules the fused kernels out
    weights = torch.randn_like(value)
    results = []
    for rows in (length, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention_module, "ROWS", rows)
            y = causal_attention(
                query, key, value, valid, logit_bias=bias or (lambda query, key, first: query.new_zeros(()))
            )
            gradients = torch.autograd.grad((y * weights).sum(), (x_query, x), retain_graph=True)
        results.append((y, *gradients))
    for whole, in_blocks in zip(*results):
        torch.testing.assert_close(in_blocks, whole, rtol=1e-9, atol=1e-10)


@given(attention=attentions(), data=st.data())
def test_the_last_positions_alone_get_what_they_get_among_all(
    attention: PositionKernelAttention, data: st.DataObject
) -> None:
    """With padding in front and without, with gradients and without, where one position takes another way."""
    length = data.draw(st.integers(1, MAX_LENGTH))
    first = data.draw(st.integers(0, length - 1))
    x_query, x = inputs(length)
    padded = data.draw(st.booleans())
    valid = torch.arange(length).expand(2, -1) >= torch.tensor([[0], [length // 2]]) if padded else None
    times = timed(data.draw(sequences_of_times(length)))
    expected = attention(x_query, x, valid, times)[:, first:]
    torch.testing.assert_close(attention(x_query[:, first:], x, valid, times), expected, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        newest = attention.eval()(x_query[:, first:], x, valid, times)
    torch.testing.assert_close(newest, expected, rtol=1e-9, atol=1e-10)


def test_dropout_in_blocks_is_that_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of one give each query its sum of kept weights, 1 on average; gradients see the same draw."""
    monkeypatch.setattr(attention_module, "ROWS", 8)
    torch.manual_seed(0)
    query, key = torch.randn(2, 64, 2, 40, 4).unbind()
    value = torch.ones(64, 2, 40, 4, requires_grad=True)
    y = causal_attention(query, key, value, dropout=0.5)
    assert y.mean().item() == pytest.approx(1.0, abs=0.05) and y.std() > 0.1
    y.sum().backward()
    torch.testing.assert_close(value.grad.sum(), y.sum())


def test_long_sequences_make_no_square_matrix() -> None:
    """With dropout, padding in front or a bias, forward or backward."""
    length, rows = 1024, attention_module.ROWS
    encoding = ENCODINGS["alibi"](EncodingOptions(length, 4))

    def alibi(query: Tensor, key: Tensor, first: int) -> Tensor:
        return encoding.logit_bias(query, key, query, first)

    valid = torch.arange(length)[None] >= 3
    for mask, bias, dropout in ((None, None, 0.5), (valid, None, 0.0), (None, alibi, 0.0), (None, None, 0.0)):
        query, key, value = (torch.randn(1, 1, length, 4, requires_grad=True) for _ in range(3))
        with LargestTensor() as largest:
            causal_attention(query, key, value, mask, dropout, bias).sum().backward()
        assert largest.elements <= rows * length < length**2


@pytest.mark.parametrize("pair", list(itertools.product(STRUCTURES, repeat=2)), ids="-".join)
def test_one_kernel_equals_the_compact_formula(pair: tuple[str, str]) -> None:
    """The paper's own line, softmax(mask(Q Kᵀ U / √d_h)) L V, for one head and one kernel, biases off."""
    torch.manual_seed(0)
    kernels = [build_kernel(name, KernelOptions(role, MAX_LENGTH, bandwidth=3)) for role, name in zip("ul", pair)]
    attention = PositionKernelAttention(HIDDEN_SIZE, 1, *kernels).double()
    for projection in (attention.query, attention.key, attention.value):
        torch.nn.init.zeros_(projection.bias)
    x_query, x = inputs(MAX_LENGTH)
    u, l = kernels[0].dense()[0].mT.double(), kernels[1].dense()[0].double()  # noqa: E741
    q, k, v = attention.query(x_query), attention.key(x), attention.value(x)
    mask = torch.full((MAX_LENGTH, MAX_LENGTH), -math.inf).triu(1)
    expected = torch.softmax(q @ k.mT @ u / math.sqrt(HIDDEN_SIZE) + mask, dim=-1) @ l @ v
    torch.testing.assert_close(attention(x_query, x), expected, rtol=1e-9, atol=1e-10)


@given(attention=attentions(), t=st.integers(0, MAX_LENGTH - 1), times=sequences_of_times(MAX_LENGTH))
def test_strictly_causal(attention: PositionKernelAttention, t: int, times: Tensor | None) -> None:
    """In items and in times: when later items come makes no difference."""
    x_query, x = inputs(MAX_LENGTH)
    before = attention(x_query, x, None, timed(times))
    x_query[:, t] += 1.0
    x[:, t] -= 1.0
    if times is not None:
        times = torch.cat([times[:, :t], times[:, t:] + 12345.0], dim=1)
    after = attention(x_query, x, None, timed(times))
    torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)


@given(attention=attentions(), times=sequences_of_times(MAX_LENGTH))
def test_only_differences_of_times_matter(attention: PositionKernelAttention, times: Tensor | None) -> None:
    x_query, x = inputs(MAX_LENGTH)
    if times is None:  # as for items at equal distances
        times = torch.arange(MAX_LENGTH, dtype=torch.float64).repeat(2, 1)
    moved = attention(x_query, x, None, Times(times - 86400.0 * 365))
    torch.testing.assert_close(attention(x_query, x, None, Times(times)), moved, rtol=1e-6, atol=1e-7)


@given(attention=attentions(alignment="end"), length=st.integers(1, MAX_LENGTH - 1), data=st.data())
def test_padding_in_front_changes_nothing(attention: PositionKernelAttention, length: int, data: st.DataObject) -> None:
    padding = data.draw(st.integers(1, MAX_LENGTH - length))
    x_query, x = inputs(length + padding)
    valid = torch.arange(length + padding).expand(2, -1) >= padding
    times = data.draw(sequences_of_times(length))
    alone = attention(x_query[:, padding:], x[:, padding:], None, timed(times))
    if times is not None:
        times = torch.cat([times[:, :1].expand(-1, padding), times], dim=1)
    padded = attention(x_query, x, valid, timed(times))
    torch.testing.assert_close(padded[:, padding:], alone, rtol=1e-9, atol=1e-10)
    assert (padded[:, :padding] == attention.output(torch.zeros(HIDDEN_SIZE).double())).all()


@given(attention=attentions(alignment="end"), length=st.integers(1, MAX_LENGTH - 1), data=st.data())
def test_attended_padding_has_the_biases_for_keys_and_values(
    attention: PositionKernelAttention, length: int, data: st.DataObject
) -> None:
    """Whatever stands there: as if its input were 0, which mixes nothing into the items."""
    padding = data.draw(st.integers(1, MAX_LENGTH - length))
    x_query, x = inputs(length + padding)
    valid = torch.arange(length + padding).expand(2, -1) >= padding
    expected = attention(x_query, x.masked_fill(~valid[..., None], 0.0)) if not _positions(attention) else None
    attention.attend_padding = True
    attended = attention(x_query, x, valid)
    if expected is not None:
        torch.testing.assert_close(attended[:, padding:], expected[:, padding:], rtol=1e-9, atol=1e-10)
    x[:, :padding] = torch.randn(2, padding, HIDDEN_SIZE, dtype=torch.float64)
    torch.testing.assert_close(attention(x_query, x, valid), attended, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        newest = attention.eval()(x_query[:, -1:], x, valid)
    torch.testing.assert_close(newest, attended[:, -1:], rtol=1e-9, atol=1e-10)


def _positions(attention: PositionKernelAttention) -> bool:
    """Whether the inputs of keys and values get positions, which padding does not."""
    return any(isinstance(encoding, AllAbsoluteEncoding) for encoding in attention.encodings)


@given(
    attention=attentions(alignment="start"), length=st.integers(1, MAX_LENGTH - 1), times=sequences_of_times(MAX_LENGTH)
)
def test_padding_behind_changes_nothing(attention: PositionKernelAttention, length: int, times: Tensor | None) -> None:
    x_query, x = inputs(MAX_LENGTH)
    of_items = None if times is None else times[:, :length]
    alone = attention(x_query[:, :length], x[:, :length], None, timed(of_items))
    torch.testing.assert_close(attention(x_query, x, None, timed(times))[:, :length], alone, rtol=1e-9, atol=1e-10)
    valid = torch.arange(MAX_LENGTH).expand(2, -1) < length
    torch.testing.assert_close(attention(x_query, x, valid, timed(times))[:, :length], alone, rtol=1e-9, atol=1e-10)


def test_identity_kernels_are_plain_attention() -> None:
    """No positions at all: permuting what came before does not change the newest item's output."""
    kernels = [build_kernel("identity", KernelOptions(role, MAX_LENGTH)) for role in "ul"]
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
        if parameter.numel() == 0:
            continue
        assert torch.isfinite(parameter.grad).all(), name
        if name == "key.bias":
            continue  # adds the same to all logits of a row, unless rotated: softmax does not see it
        alone = "kernel" in name and parameter[0].numel() == 1
        window = "width_logit" in name or "decay_logit" in name  # flat where the window or the decay is at an end
        assert alone or window or (parameter.grad != 0).any(), name


@given(attention=attentions(), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_gradients_are_those_of_finite_differences(attention: PositionKernelAttention, seed: int) -> None:
    torch.manual_seed(seed)
    x_query, x = (tensor.requires_grad_() for tensor in inputs(4, batch=1))
    names, values = zip(*((name, value.detach()) for name, value in attention.named_parameters() if value.numel()))

    times = timed(torch.tensor([[0.0, 0.0, 600.0, 1000.0]], dtype=torch.float64) if seed % 2 else None)

    def attended(x_query: Tensor, x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(attention, dict(zip(names, values)), (x_query, x, None, times))

    leaves = [(0.3 * value).requires_grad_() for value in values]  # a soft softmax, whose differences can be taken
    assert torch.autograd.gradcheck(attended, (x_query, x, *leaves), atol=1e-5, fast_mode=True)


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
    kernels = [build_kernel("toeplitz", KernelOptions(role, MAX_LENGTH)) for role in "ul"]
    attention = PositionKernelAttention(HIDDEN_SIZE, 1, *kernels, dropout=0.5).double()
    x_query, x = inputs(MAX_LENGTH)
    assert not torch.equal(attention(x_query, x), attention(x_query, x))
    attention.eval()
    assert torch.equal(attention(x_query, x), attention(x_query, x))


def test_refuses_heads_that_do_not_divide_the_channels() -> None:
    kernels = [build_kernel("toeplitz", KernelOptions(role, 4)) for role in "ul"]
    with pytest.raises(ValueError, match="hidden_size must be a multiple of n_heads, got 8 and 3"):
        PositionKernelAttention(8, 3, *kernels)

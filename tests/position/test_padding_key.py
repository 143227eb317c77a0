"""One key for all attended padding, against sequences that are padded in full."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recbole_posattn.nn import attention as attention_module
from recbole_posattn.nn import blocked_attention as blocked_module
from recbole_posattn.nn.attention import PositionKernelAttention, causal_attention
from recbole_posattn.nn.dropout import dropout
from recbole_posattn.nn.encoder import count_padding
from recbole_posattn.nn.encodings.base import EncodingOptions
from recbole_posattn.nn.encodings.build import build_encodings
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.structures import STRUCTURES, build_kernel
from recbole_posattn.nn.padding_key import padding_factor

T, D = 12, 8
STRUCTURE = st.sampled_from(sorted(STRUCTURES.keys() - {"time_decay"}))


def attention_of(
    structure: str, n_heads: int, n_groups: int, encodings: tuple[str, ...] = ()
) -> PositionKernelAttention:
    options = EncodingOptions(T, D, n_heads)
    kernels = [build_kernel(structure, KernelOptions(role, T, n_groups, bandwidth=3)) for role in "ul"]
    attention = PositionKernelAttention(
        D, n_heads, *kernels, encodings=build_encodings(encodings, 1, options)[0], attend_padding=True
    ).double()
    for projection in (attention.query, attention.key, attention.value):
        torch.nn.init.normal_(projection.bias)
    return attention


def padded_in_full(attention: PositionKernelAttention, x_query: Tensor, x: Tensor, n: int) -> Tensor:
    """One sequence with n positions of padding in front: every weight by itself."""
    x_query, x = (torch.cat([tensor.new_zeros(1, n, D), tensor], dim=1) for tensor in (x_query, x))
    x = x.clone()
    for encoding in attention.encodings:
        x_query, x = encoding.at_attention_input(x_query, 0), encoding.at_attention_input(x)
    x = torch.cat([x.new_zeros(1, n, D), x[:, n:]], dim=1)
    in_heads = [1, T, attention.n_heads, -1]
    query = attention.query(x_query).view(in_heads).transpose(1, 2)
    mixed = []
    for projection, kernel in ((attention.key, attention.u_kernel), (attention.value, attention.l_kernel)):
        projected = kernel((x @ projection.weight.T).view(in_heads).transpose(1, 2))
        mixed.append(projected + projection.bias.view(attention.n_heads, 1, -1))
    logits = query @ mixed[0].mT / math.sqrt(D // attention.n_heads)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = logits.masked_fill(future, -math.inf).softmax(dim=-1)
    return (weights @ mixed[1]).transpose(1, 2).flatten(-2)[:, n:]


@given(
    structure=STRUCTURE, n_heads=st.sampled_from([1, 2]), channels=st.booleans(), absolute=st.booleans(), data=st.data()
)
def test_equals_sequences_padded_in_full(
    structure: str, n_heads: int, channels: bool, absolute: bool, data: st.DataObject
) -> None:
    """Outputs and all gradients, for cut sequences of several lengths; the newest position alone, too."""
    torch.manual_seed(0)
    attention = attention_of(structure, n_heads, D if channels else 1, ("all_absolute",) if absolute else ())
    attention.padded_length = T
    lengths = data.draw(st.lists(st.integers(1, T), min_size=1, max_size=3))
    s = max(lengths)
    x_query, x = torch.randn(2, len(lengths), s, D, dtype=torch.float64).unbind()
    valid = torch.arange(s) >= s - torch.tensor(lengths)[:, None]
    y = attention(x_query, x, None if all(length == s for length in lengths) else valid)
    items = [(row, s - length) for row, length in enumerate(lengths)]
    found = torch.cat([y[row, first:] for row, first in items])
    one_by_one = [
        padded_in_full(attention, x_query[row : row + 1, first:], x[row : row + 1, first:], T - s + first)
        for row, first in items
    ]
    expected = torch.cat([outputs[0] for outputs in one_by_one])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    weights, parameters = torch.randn_like(found), list(attention.parameters())
    gradients = [
        torch.autograd.grad((output * weights).sum(), parameters, allow_unused=True, materialize_grads=True)
        for output in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    with torch.no_grad():
        newest = attention.eval()(x_query[:, -1:], x, valid)
    torch.testing.assert_close(newest, y[:, -1:].detach(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("encoding", ["rope", "alibi", "cape"])
def test_encodings_that_tell_padding_apart_keep_all_of_it(encoding: str) -> None:
    attention = attention_of("toeplitz", 1, 1, (encoding,))
    assert attention.tells_padding_apart() and attention._n_padding(torch.zeros(2, 5, D), None) is None


def operands(n_padding: Tensor, s: int, n_heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(s)
    sizes = (s, s + 1, s + 1)
    return [
        torch.randn(len(n_padding), n_heads, size, 3, dtype=torch.float64, generator=generator).requires_grad_()
        for size in sizes
    ]


def plain(query: Tensor, key: Tensor, value: Tensor, valid: Tensor, p: float, n_padding: Tensor) -> Tensor:
    """The formula, with all weights at once."""
    b, n_heads, s, _ = query.shape
    itself = torch.eye(s, dtype=torch.bool)
    allowed = torch.cat([torch.ones(s, 1, dtype=torch.bool), torch.ones(s, s, dtype=torch.bool).tril()], dim=1)
    allowed = (allowed & valid[:, None, None]) | torch.cat([torch.zeros(s, 1, dtype=torch.bool), itself], dim=1)
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    logits = torch.cat([logits[..., :1] + n_padding.double().log()[:, None, None, None], logits[..., 1:]], dim=-1)
    weights = logits.masked_fill(~allowed, -math.inf).softmax(dim=-1)
    factor = padding_factor(n_padding[:, None, None].expand(b, n_heads, s), p, weights.dtype)
    dropped = torch.cat([weights[..., :1] * factor[..., None], dropout(weights, p)[..., 1:]], dim=-1)
    return (dropped @ value).masked_fill(~valid[:, None, 1:, None], 0.0)


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_blocks_of_queries_equal_the_formula(monkeypatch: pytest.MonkeyPatch, p: float) -> None:
    """Each block has the padding key; with dropout, whose draw differs, gradients are the finite differences."""
    monkeypatch.setattr(attention_module, "ROWS", 5)
    n_padding = torch.tensor([0, 1, 4])
    valid = torch.cat([(n_padding > 0)[:, None], torch.arange(7) >= torch.tensor([[0], [2], [6]])], dim=1)
    inputs = operands(n_padding, 7)
    if p == 0.0:
        found = causal_attention(*inputs, valid, n_padding=n_padding)
        torch.testing.assert_close(found, plain(*inputs, valid, p, n_padding), rtol=1e-10, atol=1e-12)

    def of_inputs(*tensors: Tensor) -> Tensor:
        torch.manual_seed(0)
        return causal_attention(*tensors, valid, p, n_padding=n_padding)

    assert torch.autograd.gradcheck(of_inputs, inputs)


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("n_heads", [1, 2])
@pytest.mark.parametrize("s", [1, 8, 21])
def test_dropout_equals_the_formula_with_the_same_random_numbers(
    monkeypatch: pytest.MonkeyPatch, s: int, n_heads: int, blocked: bool
) -> None:
    monkeypatch.setattr(blocked_module, "GROUP_ELEMENTS", 4 * s**2)
    monkeypatch.setattr(blocked_module, "BLOCK_SIZE", 8)
    monkeypatch.setattr(attention_module, "BLOCKED_FROM", 1 if blocked else s + 1)
    n_padding = torch.arange(7) * 3 % 8
    first_item = torch.arange(7) % s
    valid = torch.cat([(n_padding > 0)[:, None], torch.arange(s) >= first_item[:, None]], dim=1)
    inputs = operands(n_padding, s, n_heads)
    results = []
    for attend in (plain, lambda *a: causal_attention(*a[:5], n_padding=a[5])):
        torch.manual_seed(1)
        y = attend(*inputs, valid, 0.4, n_padding)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        results.append([y, *torch.autograd.grad((y * weights).sum(), inputs), torch.rand(3)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_dropout_of_one_key_is_distributed_as_that_of_all() -> None:
    """The share that is kept of n equal weights: each of its values as often as among n keys of their own."""
    torch.manual_seed(0)
    n, p, draws = 5, 0.3, 200_000
    share = padding_factor(torch.full((draws,), n), p, torch.float64) * (1 - p) * n
    kept = torch.bincount(share.round().long(), minlength=n + 1) / draws
    expected = torch.tensor([math.comb(n, k) * (1 - p) ** k * p ** (n - k) for k in range(n + 1)])
    torch.testing.assert_close(kept, expected, rtol=0, atol=0.004)  # more than three standard deviations
    assert padding_factor(torch.tensor([0, 3]), 0.0, torch.float32).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_models_cut_padding_off_and_lose_nothing(build: Callable, objective: str) -> None:
    """Loss, gradients and scores of the paper's preset, cut in three buckets and padded in full; dropout off."""
    settings = {"preset": "paper", "MAX_ITEM_LIST_LENGTH": 24, "train_objective": objective, "last_window_only": False}
    losses, gradients, scores = [], [], []
    for cuts in (False, True):
        model, (train, _, _) = build(**settings, hidden_size=16)
        assert model.cuts_padding and model.padded_length == model.counted_length == 24
        model.counted_length = 24 if cuts else None
        batch = train._dataset[torch.arange(len(train._dataset))]
        assert len(model._buckets(batch["item_length"])) == (3 if cuts else 1)
        loss = model.calculate_loss(batch)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        with torch.no_grad():
            scores.append(model.full_sort_predict(batch))
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(*scores, rtol=1e-9, atol=1e-10)


def test_models_with_rope_are_padded_in_full(build: Callable) -> None:
    model, _ = build(attend_padding=True, position_encoding=["rope"])
    assert not model.cuts_padding and model._align(torch.ones(1, 2), torch.tensor([2])).shape[1] == model.max_seq_length


def test_attention_from_elsewhere_is_padded_in_full(build: Callable) -> None:
    """One that has a way of its own to the weights, and a model that sets its length itself."""

    class Own(PositionKernelAttention):
        def forward(self, x_query: Tensor, x: Tensor, valid: Tensor | None = None, times: None = None) -> Tensor:
            return super().forward(x_query, x, valid, times)

    model, _ = build(preset="paper")
    assert model.cuts_padding and count_padding(model.backbone, 10)
    model.padded_length = 9
    assert not model.cuts_padding
    model.backbone.blocks[1].attention.__class__ = Own
    assert not count_padding(model.backbone, 10)

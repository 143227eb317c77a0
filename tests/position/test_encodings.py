"""Each encoding against an independent reading of its paper, and the properties they share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.nn.encodings.at_input import AbsoluteEncoding, AddedPositions, SinusoidalEncoding
from recbole_posattn.nn.encodings.base import EncodingOptions
from recbole_posattn.nn.encodings.build import ENCODINGS, build_encodings, check_encodings
from recbole_posattn.nn.encodings.logit_bias import ALiBiEncoding, CAPEEncoding, T5BiasEncoding
from recbole_posattn.nn.encodings.rotary import RotaryEncoding
from tests import references


def heads(length: int, n_heads: int = 2, head_size: int = 6, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, n_heads, length, head_size, dtype=torch.float64)


# -- rotary ----------------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 64), head_size=st.sampled_from([2, 4, 10, 64]), base=st.sampled_from([10.0, 10000.0]))
def test_rope_is_complex_rotation(length: int, head_size: int, base: float) -> None:
    encoding = RotaryEncoding(64, head_size, base)
    x = heads(length, head_size=head_size).float()
    torch.testing.assert_close(encoding.rotate(x).double(), references.rotated(x, base), rtol=0, atol=2e-6)
    unrounded = references.rotated(x.double(), base)
    torch.testing.assert_close(encoding.rotate(x.double()), unrounded, rtol=0, atol=1e-12)


@given(shift=st.integers(1, 40), t=st.integers(0, 20), s=st.integers(0, 20))
def test_rope_depends_on_relative_position_only(shift: int, t: int, s: int) -> None:
    encoding = RotaryEncoding(64, 8)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    rotated_query, rotated_key = (encoding.rotate(x.expand(64, -1)) for x in (query, key))
    moved = rotated_query[t + shift] @ rotated_key[s + shift]
    torch.testing.assert_close(rotated_query[t] @ rotated_key[s], moved, rtol=0, atol=1e-12)
    if t != s:
        assert abs(rotated_query[t] @ rotated_key[s] - query @ key) > 1e-9


def test_rope_leaves_the_norm_and_position_zero() -> None:
    x = heads(16, head_size=8)
    rotated = RotaryEncoding(16, 8).rotate(x)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=1e-12)
    assert torch.equal(rotated[..., 0, :], x[..., 0, :])


# -- biases of the logits --------------------------------------------------------------------------------------------


def test_alibi_is_the_hand_computed_matrix() -> None:
    query = heads(3, n_heads=2)
    bias = ALiBiEncoding(2).logit_bias(query, query, query, 0)
    slopes = 1 / 16, 1 / 256  # 2^(−8 / 2), 2^(−16 / 2)
    expected = [[[0, 0, 0], [-m, 0, 0], [-2 * m, -m, 0]] for m in slopes]
    torch.testing.assert_close(bias[0].tril(), torch.tensor(expected), rtol=0, atol=0)


def test_alibi_slopes_are_the_papers() -> None:
    assert ALiBiEncoding(8).slope.tolist() == [2.0**-i for i in range(1, 9)]
    assert ALiBiEncoding(1).slope.tolist() == [2.0**-8]
    assert ALiBiEncoding(1, slope_exponent=1.0).slope.tolist() == [0.5]


def test_t5_buckets_are_the_hand_computed_ones() -> None:
    encoding = T5BiasEncoding(n_heads=1, n_buckets=8, max_distance=32)
    # exact up to 3; then 4 · 8^(j / 4): 4, 6.7, 11.3, 19.0, and all from there on
    first_lag_of_bucket = [0, 1, 2, 3, 4, 7, 12, 20]
    lags = torch.arange(100)
    expected = torch.tensor([sum(lag >= first for first in first_lag_of_bucket) - 1 for lag in range(100)])
    assert torch.equal(encoding.bucket(lags), expected)
    # at T5's own sizes, 16 · 8^(j / 16): 16, 18.2, 20.7, 23.6, 26.9 …, 112.3
    default = T5BiasEncoding(n_heads=1).bucket(torch.tensor([15, 16, 18, 19, 20, 21, 23, 24, 26, 27, 112, 113, 5000]))
    assert default.tolist() == [15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 30, 31, 31]


def test_t5_is_the_hand_computed_matrix() -> None:
    encoding = T5BiasEncoding(n_heads=2, n_buckets=4, max_distance=4)  # lags 0, 1, 2 (to 2 √2), 3 and above
    with torch.no_grad():
        encoding.bias.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]))
    query = heads(5)
    bias = encoding.logit_bias(query, query, query, 0)[0].tril()
    first = [[0, 0, 0, 0, 0], [2, 0, 0, 0, 0], [4, 2, 0, 0, 0], [6, 4, 2, 0, 0], [6, 6, 4, 2, 0]]
    assert bias[0].tolist() == first
    second = [[1, 0, 0, 0, 0], [3, 1, 0, 0, 0], [5, 3, 1, 0, 0], [7, 5, 3, 1, 0], [7, 7, 5, 3, 1]]
    assert bias[1].tolist() == second


@given(n_buckets=st.integers(2, 40), spread=st.integers(1, 200))
def test_t5_buckets_are_those_of_the_reference(n_buckets: int, spread: int) -> None:
    max_distance = n_buckets // 2 + spread
    encoding = T5BiasEncoding(1, n_buckets, max_distance)
    expected = [references.t5_bucket(lag, n_buckets, max_distance) for lag in range(300)]
    assert encoding.bucket(torch.arange(300)).tolist() == expected


@given(length=st.integers(1, 12), n_positions=st.integers(1, 14), seed=st.integers(0, 99))
def test_cape_is_the_slow_loop(length: int, n_positions: int, seed: int) -> None:
    torch.manual_seed(seed)
    query, key = heads(length), heads(length)
    encoding = CAPEEncoding(6, n_positions).double()
    with torch.no_grad():
        encoding.position.normal_()
    bias = encoding.logit_bias(query, key, query, 0)[0]
    logits = (query @ key.mT / math.sqrt(6))[0]
    for head in range(2):
        expected = references.cape_bias(encoding.position.detach(), query[0, head], logits[head])
        torch.testing.assert_close(bias[head].tril(), expected, rtol=1e-9, atol=1e-10)


def test_cape_positions_are_clamped_and_interpolated() -> None:
    """Dissimilar keys (gate 1) count one each; at p = 0, 1, 2 the learned logits, at the last one from there on."""
    encoding = CAPEEncoding(2, 3).double()
    with torch.no_grad():
        encoding.position.copy_(torch.tensor([[10.0, 20.0, 40.0], [0.0, 0.0, 0.0]]))
    query = torch.tensor([1.0, 100.0], dtype=torch.float64).expand(1, 1, 5, 2)
    far = torch.tensor([0.0, -100.0], dtype=torch.float64).expand(1, 1, 5, 2)  # logit −∞: each gate is 1
    assert encoding.logit_bias(query, far, query, 0)[0, 0, 4].tolist() == pytest.approx([40, 40, 40, 40, 20])
    even = torch.zeros(1, 1, 5, 2, dtype=torch.float64)  # logit 0: each gate is one half
    assert encoding.logit_bias(query, even, query, 0)[0, 0, 4].tolist() == pytest.approx([40, 40, 30, 20, 15])


@pytest.mark.parametrize("name", ["alibi", "t5_bias", "cape"])
def test_biases_under_autocast_are_those_of_the_rounded_inputs(name: str) -> None:
    """At 200 positions, a sum of gates in bfloat16 would be wrong by up to one half."""
    torch.manual_seed(0)
    encoding = ENCODINGS[name](EncodingOptions(max_length=200, hidden_size=16, n_heads=2))
    for parameter in encoding.parameters():
        torch.nn.init.normal_(parameter)
    query, key = (heads(200, head_size=8).bfloat16() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = encoding.logit_bias(query, key, query, 0)
    exact = encoding.double().logit_bias(query.double(), key.double(), query.double(), 0)
    assert ((found - exact).tril().square().mean() / exact.tril().square().mean()).sqrt() < 0.01


def test_the_forget_gate_keeps_small_steps_under_autocast() -> None:
    """Gates start near 1, so that the biases of neighbours are about −1 / T."""
    encoding = ENCODINGS["forgetting"](EncodingOptions(max_length=400, hidden_size=16, n_heads=2))
    x, query = torch.randn(1, 400, 16), torch.randn(1, 2, 400, 8)
    with torch.autocast("cpu", torch.bfloat16):
        bias = encoding.of_batch(x, None).logit_bias(query, query, query, 0)
    steps = bias.diagonal(-1, dim1=-2, dim2=-1)
    assert ((steps > -1.5 / 400) & (steps < -0.5 / 400)).all()


@pytest.mark.parametrize("name", ["alibi", "t5_bias", "cape"])
def test_biases_of_some_rows_are_rows_of_the_whole(name: str) -> None:
    torch.manual_seed(0)
    encoding = ENCODINGS[name](EncodingOptions(max_length=9, hidden_size=12, n_heads=2)).double()
    for parameter in encoding.parameters():
        torch.nn.init.normal_(parameter)
    query, key = heads(9), heads(9)
    whole = encoding.logit_bias(query, key, query, 0).tril()
    rows = encoding.logit_bias(query[:, :, 4:7], key[:, :, :7], query[:, :, 4:7], 4)
    torch.testing.assert_close(rows.tril(4), whole[..., 4:7, :7], rtol=1e-12, atol=1e-12)


# -- added to the input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alignment", "rows"), [("start", slice(0, 3)), ("end", slice(2, 5))])
@pytest.mark.parametrize("name", [name for name in ENCODINGS if name in ("absolute", "all_absolute", "sinusoidal")])
def test_added_positions_are_the_aligned_rows(name: str, alignment: str, rows: slice) -> None:
    encoding = ENCODINGS[name](EncodingOptions(max_length=5, hidden_size=4, alignment=alignment))
    x = torch.randn(2, 3, 4)
    expected = {"input": x, "attention_input": x, encoding.enters: x + encoding.table()[rows]}
    torch.testing.assert_close(encoding.at_input(x), expected["input"])
    torch.testing.assert_close(encoding.at_attention_input(x), expected["attention_input"])
    with pytest.raises(ValueError, match=r"length must be at most 5 \(max_length\), got 6"):
        (encoding.at_input if encoding.enters == "input" else encoding.at_attention_input)(torch.randn(1, 6, 4))


def test_sinusoidal_table_is_the_papers() -> None:
    table = SinusoidalEncoding(7, 6).table()
    for t in range(7):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert SinusoidalEncoding(7, 5).table().shape == (7, 5)
    assert list(SinusoidalEncoding(7, 5).parameters()) == []


# -- the interface ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_enters_at_one_place_only(name: str) -> None:
    encoding = ENCODINGS[name](EncodingOptions(max_length=9, hidden_size=8, n_heads=2))
    x, in_heads = torch.randn(2, 9, 8), torch.randn(2, 2, 9, 4)
    assert torch.equal(encoding.at_input(x), x) == (encoding.enters != "input")
    assert torch.equal(encoding.at_attention_input(x), x) == (encoding.enters != "attention_input")
    assert torch.equal(encoding.rotate(in_heads), in_heads) == (encoding.enters != "query_key")
    if encoding.enters == "logits":
        assert encoding.of_batch(x, None).logit_bias(in_heads, in_heads, in_heads, 0).shape[-3:] == (2, 9, 9)
    else:
        with pytest.raises(NotImplementedError):
            encoding.logit_bias(in_heads, in_heads, in_heads, 0)
    assert encoding.lag_only == (not isinstance(encoding, AddedPositions))


@pytest.mark.parametrize("name", ENCODINGS)
def test_saved_state_is_the_parameters(name: str) -> None:
    encoding = ENCODINGS[name](EncodingOptions(max_length=9, hidden_size=8))
    kept = {"median_gap"} if name == "time_rope" else set()  # the scale of times is that of the training data
    assert set(encoding.state_dict()) == {parameter for parameter, _ in encoding.named_parameters()} | kept


def test_layers_share_what_they_should() -> None:
    options = EncodingOptions(max_length=9, hidden_size=8)
    names = ["absolute", "rope", "cape", "t5_bias", "all_absolute"]
    first, second = build_encodings(names, 2, options)
    assert [a is b for a, b in zip(first, second)] == [True, True, False, True, False]
    first, second = build_encodings(["all_absolute"], 2, options._replace(all_absolute_sharing="shared"))
    assert first[0] is second[0]
    assert build_encodings([], 3, options) == [[], [], []]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rop"], "must hold any of absolute, .* got 'rop'"),
        (["rope", "rope"], "must hold 'rope' once"),
        (["sinusoidal", "absolute"], "makes no sense: of absolute and sinusoidal, both add a vector per position"),
        (["alibi", "rope", "t5_bias"], "makes no sense: of alibi and t5_bias, both add a bias per distance"),
    ],
)
def test_refuses_what_makes_no_sense(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_encodings(names)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AbsoluteEncoding(5, 4, "middle"), "alignment must be one of"),
        (lambda: RotaryEncoding(5, 3), "head_size must be even, since channels are rotated in pairs, got 3"),
        (lambda: CAPEEncoding(4, 0), "n_positions must be a positive integer, got 0"),
        (lambda: T5BiasEncoding(1, 1), "n_buckets must be at least 2, got 1"),
        (lambda: T5BiasEncoding(1, 32, 16), "max_distance must be above n_buckets / 2, 16, got 16"),
    ],
)
def test_refuses_bad_arguments(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

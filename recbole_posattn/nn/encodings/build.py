"""The encodings by name, and the encodings of each layer of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recbole_posattn.nn.encodings.at_input import AbsoluteEncoding, AllAbsoluteEncoding, SinusoidalEncoding
from recbole_posattn.nn.encodings.base import EncodingOptions, PositionEncoding
from recbole_posattn.nn.encodings.logit_bias import ALiBiEncoding, CAPEEncoding, ForgettingEncoding, T5BiasEncoding
from recbole_posattn.nn.encodings.of_time import TimeBiasEncoding, TimeRotaryEncoding
from recbole_posattn.nn.encodings.rotary import RotaryEncoding

ENCODINGS: dict[str, Callable[[EncodingOptions], PositionEncoding]] = {
    "absolute": lambda o: AbsoluteEncoding(o.max_length, o.hidden_size, o.alignment),
    "all_absolute": lambda o: AllAbsoluteEncoding(o.max_length, o.hidden_size, o.alignment),
    "sinusoidal": lambda o: SinusoidalEncoding(o.max_length, o.hidden_size, o.alignment),
    "rope": lambda o: RotaryEncoding(o.max_length, o.head_size, o.rope_base),
    "cape": lambda o: CAPEEncoding(o.head_size, o.cape_positions or o.max_length),
    "alibi": lambda o: ALiBiEncoding(o.n_heads, o.alibi_slope_exponent),
    "t5_bias": lambda o: T5BiasEncoding(o.n_heads, o.t5_buckets, o.t5_max_distance),
    "forgetting": lambda o: ForgettingEncoding(o.hidden_size, o.n_heads, o.max_length),
    "time_bias": lambda o: TimeBiasEncoding(o.n_heads, o.max_length, o.time_bias_positions),
    "time_rope": lambda o: TimeRotaryEncoding(o.head_size, o.time_rope_base, o.median_gap),
}

# Encodings that enter at the input, and so do without an attention.
AT_INPUT = {"absolute", "sinusoidal"}

# Encodings that each layer has its own copy of; the others are one module shared by all layers.
PER_LAYER = {"cape", "forgetting", "time_bias"}

# Encodings that read the times between items.
READS_TIME = {"time_bias", "time_rope"}

# Pairs of encodings that can express no more than one of them alone, with the reason.
MEANINGLESS_TOGETHER = {
    ("absolute", "sinusoidal"): (
        "both add a vector per position to the input, and a learned vector can represent the fixed one"
    ),
    ("alibi", "t5_bias"): "both add a bias per distance to the logits, of which only the sum matters",
}


def check_encodings(names: Sequence[str]) -> None:
    """Reject combinations of encodings that make no sense.

    Raises:
        ValueError: If a name is unknown, given twice, or in a pair of :data:`MEANINGLESS_TOGETHER`.
    """
    for name in names:
        if name not in ENCODINGS:
            raise ValueError(f"position_encoding must hold any of {', '.join(ENCODINGS)}, got {name!r}")
        if list(names).count(name) > 1:
            raise ValueError(f"position_encoding must hold {name!r} once, got {list(names)}")
    for pair, reason in MEANINGLESS_TOGETHER.items():
        if set(pair) <= set(names):
            raise ValueError(f"position_encoding {list(names)} makes no sense: of {' and '.join(pair)}, {reason}")


def build_encodings(names: Sequence[str], n_layers: int, options: EncodingOptions) -> list[list[PositionEncoding]]:
    """The encodings of each layer, in the order of their names.

    Each layer has its own CAPE and forget gate, since it has its own contents, and its own time bias, as in HSTU;
    ``all_absolute_sharing`` decides for ALL-APE; all others are one module shared by all layers (as T5's bias is).

    Raises:
        ValueError: See :func:`check_encodings`; or if an option is out of range.
    """
    check_encodings(names)
    per_layer = PER_LAYER | ({"all_absolute"} if options.all_absolute_sharing == "per_layer" else set())
    shared = {name: ENCODINGS[name](options) for name in names if name not in per_layer}
    return [[shared[name] if name in shared else ENCODINGS[name](options) for name in names] for _ in range(n_layers)]

"""Any interval keeps the rows that a plain count keeps, or is refused in one line that names its key."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.errors import SettingError
from recbole_posattn.training.load import prepare_data
from tests.fuzz.harness import cases, empty_folder, refused, write_data

# Users and items by how often they occur, from 1 to 8 times. Times differ by less than a float of 32 bits can hold.
TABLE = pd.DataFrame(
    [
        (
            f"u{user}",
            f"i{(user * step + step // 2) % 8}",
            (user + step) % 5 + 0.5,
            1_700_000_000 + 8 * step + user,
            kind,
        )
        for user in range(1, 9)
        for step, kind in zip(range(user), "abcabcab")
    ],
    columns=["user_id", "item_id", "rating", "timestamp", "kind"],
)
TABLE.loc[::7, "rating"] = math.nan
PRICES = {f"i{item}": math.nan if item == 5 else item / 2 for item in range(8)}
LOADED = {"inter": list(TABLE), "item": ["item_id", "price"], "user": ["user_id"]}


class Interval(NamedTuple):
    """An interval, and how it is written: as text, or as what YAML and Python make of it."""

    left: str
    low: float
    high: float
    right: str

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.left == "[" else value > self.low
        return above and (value <= self.high if self.right == "]" else value < self.high)

    def text(self) -> str:
        return f"{self.left}{self.low},{self.high}{self.right}"


class Given(NamedTuple):
    """What is given as a setting, and the intervals that it means; ``None`` if it means none."""

    value: Any
    means: list[Interval] | None


MALFORMED = [
    *(
        "[2,5",
        "2,5]",
        "[2;5]",
        "[]",
        "[,]",
        "[a,b]",
        "[nan,3]",
        "[3,nan]",
        "]1,3[",
        "[1,2,3]",
        "",
        ";",
        "[1,2];",
        "[5,3]",
    ),
    *([], [1], [1, 2, 3], [[1, 2]], [5, 3], (5, 3), [None, 3], [math.nan, 2], {"a": 1}, {1: 2}, 3, -0.5, True),
]


def intervals(bounds: list[float]) -> st.SearchStrategy[Given]:
    """Intervals of some bounds in each form that they can be given in; one in sixteen is none."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> Given:
        if draw(st.integers(0, 15)) == 15:
            return Given(draw(st.sampled_from(MALFORMED)), None)
        several = [
            Interval(draw(st.sampled_from("[(")), *sorted(draw(pairs)), draw(st.sampled_from("])")))
            for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3])))
        ]
        first = several[0]
        form = draw(st.sampled_from(["text", "text", "spaced", "plain"]))
        if form == "plain" and len(several) == 1 and first.left + first.right in ("[]", "()"):
            return Given([first.low, first.high] if first.left == "[" else (first.low, first.high), several)
        between = " ; " if form == "spaced" else ";"
        return Given(between.join(interval.text() for interval in several), several)

    pairs = st.tuples(st.sampled_from(bounds), st.sampled_from(bounds))
    return draw_one()


counts = st.none() | intervals([-math.inf, -1, 0, 1, 2, 2.5, 3, 4, 5.0, 8, math.inf])
ratings = intervals([-math.inf, 0, 0.5, 1, 1.5, 2.5, 4.5, 1e300, math.inf])
times = intervals([0, 1_700_000_009, 1_700_000_020.5, 1_700_000_043, math.inf])
prices = intervals([0, 0.5, 1.25, 3, math.inf])
by_value = st.fixed_dictionaries({}, optional={"rating": ratings, "timestamp": times, "price": prices})
tokens = st.none() | st.lists(st.sampled_from(["a", "b", "c", "nowhere"]), unique=True)


def within(values: pd.Series, setting: Given) -> pd.Series:
    return values.map(lambda value: any(value in interval for interval in setting.means)).astype(bool)


def kept(users: Given | None, items: Given | None, values: dict[str, Given], kinds: list[str] | None) -> pd.DataFrame:
    """The rows that remain: by value first, then by counts until nothing changes."""
    table = TABLE.assign(price=TABLE["item_id"].map(PRICES))
    for column, setting in values.items():
        table = table[within(table[column], setting)]
    if kinds is not None:
        table = table[table["kind"].isin(kinds)]
    while True:
        stays = pd.Series(True, index=table.index)
        for column, setting in {"user_id": users, "item_id": items}.items():
            if setting is not None:
                stays &= within(table[column].map(table[column].value_counts()), setting)
        if stays.all():
            return table
        table = table[stays]


def read(settings: dict[str, Any]) -> Counter[tuple[str, str]]:
    """How often each user has each item after the filters."""
    config = Config("GRU4Rec", "tiny", config_dict=settings, command_line=[])
    ensure_atomic_files(config)
    dataset, _ = prepare_data(config)
    users, sizes = dataset.sequence_users
    tokens = (
        dataset.id2token("user_id", users.repeat_interleave(sizes).numpy()),
        dataset.id2token("item_id", dataset.inter_feat.sequences["item_id_list"].numpy()),
    )
    return Counter(zip(*tokens))


@cases(15)
@given(counts, counts, by_value, tokens, st.booleans())
@example(Given("[4,inf);[1,2]", [Interval("[", 4, math.inf, "]"), Interval("[", 1, 2, "]")]), None, {}, None, True)
@example(None, Given("[4,inf);[1,2]", [Interval("[", 4, math.inf, "]"), Interval("[", 1, 2, "]")]), {}, None, True)
def test_rows_kept(
    users: Given | None,
    items: Given | None,
    values: dict[str, Given],
    kinds: list[str] | None,
    has_features: bool,
) -> None:
    if not has_features:
        values = {column: setting for column, setting in values.items() if column != "price"}
    by_value = {column: setting.value for column, setting in values.items()} | (
        {} if kinds is None else {"kind": kinds}
    )
    counted = {"user_inter_num_interval": users, "item_inter_num_interval": items}
    settings = {key: setting and setting.value for key, setting in counted.items()}
    settings |= {"val_interval": by_value or None, "load_col": LOADED, "data_path": "data", "state": "ERROR"}
    with empty_folder():
        header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tkind:token\n"
        write_data((header + TABLE.to_csv(sep="\t", index=False, header=False)).encode())
        if has_features:
            price_lines = pd.Series(PRICES).to_csv(sep="\t", header=False)
            write_data(f"item_id:token\tprice:float\n{price_lines}".encode(), suffix="item")
            write_data("\n".join(["user_id:token", *TABLE["user_id"].unique(), ""]).encode(), suffix="user")
        found, error = refused("intervals", lambda: read(settings))
    malformed = {key for key, setting in counted.items() if setting and setting.means is None}
    malformed |= {"val_interval" for setting in values.values() if setting.means is None}
    if malformed:
        assert isinstance(error, SettingError), (found, settings)
        assert any(key in str(error) for key in malformed)
        return
    rows = kept(users, items, values, kinds)
    if rows["user_id"].value_counts().max() >= 2:
        assert error is None, (error, settings)
        assert found == Counter(zip(rows["user_id"], rows["item_id"])), settings
    else:
        assert error is not None, (found, settings)

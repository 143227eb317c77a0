"""The figures of a data set, against figures counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_posattn import Config
from recbole_posattn.atomic_files.statistics import DataStatistics, Lengths, data_statistics, looks_like_unix, time_span
from recbole_posattn.atomic_files.statistics_figure import write_statistics
from recbole_posattn.errors import DataError
from tests.planted import write_atomic_file

# a has x twice and y once, b has x three times; one row has no item
ROWS = [("a", "x", 10), ("a", "y", 30), ("b", "x", 20), ("b", "x", 20), ("b", "x", 5), ("a", "x", 40), ("c", "", 99)]


def statistics(name: str = "mine", **settings: object) -> DataStatistics:
    return data_statistics(Config("Pop", name, config_dict=settings, command_line=[]))


def test_figures_are_those_counted_by_hand(empty_folder: Path) -> None:
    file = write_atomic_file(empty_folder / "dataset", "mine", ROWS)
    found = statistics()
    assert found.name == "mine" and found.file.samefile(file)
    assert (found.users, found.items, found.interactions, found.without_id) == (2, 2, 6, 1)
    assert found.density == 1.5
    assert found.of_user == Lengths(3, (3, 3, 3, 3, 3), 3, 3)
    assert found.of_item == Lengths(1, pytest.approx((1.2, 2, 3, 4, 4.8)), 5, 3)
    assert found.repeat_rate == pytest.approx(3 / 6) and found.repeat_median == 1  # of 2, 1 and 1 interactions
    assert found.suggested() == {"mask_history": "none", "history_partition": "auto"}
    assert (found.first, found.last, found.unix) == (5, 40, False)
    assert found.top_shares == pytest.approx({0.01: 5 / 6, 0.05: 5 / 6, 0.1: 5 / 6, 0.2: 5 / 6})
    assert found.top_items == [("x", 5), ("y", 1)]
    assert found.user_counts.tolist() == [3, 3] and found.item_counts.tolist() == [5, 1]
    assert sorted(found.times.tolist()) == [5, 10, 20, 20, 30, 40]


def test_figures_of_ml_100k_are_those_that_are_published() -> None:
    """100,000 ratings of 943 users on 1,682 items from September 19th, 1997 to April 22nd, 1998, 20 a user or more."""
    found = statistics("ml-100k")
    assert (found.users, found.items, found.interactions) == (943, 1682, 100_000)
    assert (found.of_user.min, found.of_user.max, found.repeat_rate, found.unix) == (20, 737, 0, True)
    assert found.repeat_median is None
    assert found.suggested() == {"mask_history": "all"}
    assert found.top_items[0] == ("50", 583)
    assert time_span(found.first, found.last) == "1997-09-20 to 1998-04-22, 214 days"
    table = pd.read_csv(found.file, sep="\t")
    counts = table["item_id:token"].value_counts().to_numpy()
    assert found.top_shares == pytest.approx(
        {0.01: counts[:17].sum() / 1e5, 0.05: counts[:84].sum() / 1e5, 0.1: counts[:168].sum() / 1e5}
        | {0.2: counts[:336].sum() / 1e5}
    )
    assert found.of_user.quantiles[2] == table["user_id:token"].value_counts().median()


def test_times_may_be_missing(empty_folder: Path) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", [("a", "x")], "user_id:token\titem_id:token")
    found = statistics()
    assert (found.first, found.last, found.unix, found.times) == (None, None, False, None)
    assert found.plain()["first"] is None


def test_dates_as_tokens_are_no_times(empty_folder: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:token"
    write_atomic_file(empty_folder / "dataset", "mine", [("a", "x", "2020-01-01"), ("a", "y", "2020-01-02")], header)
    assert statistics().times is None and statistics().interactions == 2


def test_other_columns_and_separators_are_those_of_the_settings(empty_folder: Path) -> None:
    file = write_atomic_file(empty_folder / "dataset", "mine", [])
    file.write_text("who:token;what:token;when:float\na;x;1.5\na;y;2.5\n", encoding="utf-8")
    names = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what", "TIME_FIELD": "when", "field_separator": ";"}
    found = statistics(**names, load_col={"inter": ["who", "what", "when"]})
    assert (found.users, found.items, found.first, found.last) == (1, 2, 1.5, 2.5)


def test_tokens_are_text(empty_folder: Path) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", [("01", "1", 1), ("1", "1.0", 1), ('"""q"', "01", 1)])
    found = statistics()
    assert (found.users, found.items) == (3, 3)


def test_plain_figures_are_json(empty_folder: Path) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", ROWS)
    plain = json.loads(json.dumps(statistics().plain()))
    assert (
        plain["users"] == 2 and plain["of_user"]["quantiles"]["0.5"] == 3 and plain["top_items"] == [["x", 5], ["y", 1]]
    )
    assert not {"times", "user_counts", "item_counts"} & set(plain)
    assert plain["suggested"]["mask_history"] == "none" and plain["repeat_median"] == 1


def test_repeats_are_counted_in_time_order_or_in_that_of_the_file(empty_folder: Path) -> None:
    """x comes again 1 and 3 interactions later by time, 4 and 1 by the lines."""
    rows = [("a", "x", 1), ("b", "y", 9), ("a", "y", 3), ("a", "z", 4), ("a", "w", 7), ("a", "x", 2), ("a", "x", 5)]
    write_atomic_file(empty_folder / "dataset", "mine", rows)
    assert statistics().repeat_median == 2.0
    untimed = [row[:2] for row in rows]
    write_atomic_file(empty_folder / "dataset", "mine", untimed, "user_id:token\titem_id:token")
    assert statistics().repeat_median == 2.5


def test_a_missing_data_set_is_reported(empty_folder: Path) -> None:
    with pytest.raises(DataError, match="data set 'mine' not found"):
        statistics()
    file = write_atomic_file(empty_folder / "dataset", "mine", [("", "x", 1)])
    with pytest.raises(DataError, match=r"mine.inter has no interactions"):
        statistics()
    file.write_text("user_id:token\titem_id:token\ttimestamp:float\na\tx\tsoon\n")
    with pytest.raises(DataError, match=r"mine.inter cannot be read: could not convert string to float"):
        statistics()


def test_unix_times_are_recognized() -> None:
    assert looks_like_unix(874724710, 893286638)
    assert not looks_like_unix(0, 26_000_000)
    assert not looks_like_unix(874724710000, 893286638000)
    assert time_span(0, 1.5) == "0 to 1.5, not Unix times"


@pytest.mark.parametrize("header", ["user_id:token\titem_id:token\ttimestamp:float", "user_id:token\titem_id:token"])
def test_picture_is_a_file(empty_folder: Path, header: str) -> None:
    n = header.count(":")
    write_atomic_file(empty_folder / "dataset", "m$x$", [("a", "x", 3)[:n], ("b", "y", 10**9)[:n]], header)
    found = statistics("m$x$")
    assert write_statistics(found, empty_folder / "out") == empty_folder / "out" / "m$x$-stats.png"
    assert (empty_folder / "out" / "m$x$-stats.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "times", [[1.6e15] * 3, [1.6e15, 1.6e15 + 1, 1.6e15 + 3], [3.4e38] * 3, [1e9, 1e9, 1e9 + 1e-6], [5.0] * 3, [0] * 3]
)
def test_picture_shows_times_that_are_close(empty_folder: Path, times: list[float]) -> None:
    """Where floats do not tell 40 bars apart; the axis shows all bars at the times that they stand for."""
    from recbole_posattn.atomic_files.statistics_figure import draw_statistics

    write_atomic_file(empty_folder / "dataset", "mine", [("a", f"x{n}", f"{t:.17g}") for n, t in enumerate(times)])
    found = statistics()
    figure = draw_statistics(found)
    figure.canvas.draw()
    over_time = figure.axes[2]
    bars = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in over_time.patches]
    assert sum(height for *_, height in bars) == 3 and all(begin < end for begin, end, _ in bars)
    unit = 86_400 if found.unix else 1
    low, high = over_time.get_xlim()
    assert low <= bars[0][0] <= min(times) / unit and max(times) / unit <= bars[-1][1] <= high
    assert bars[-1][1] - bars[0][0] > 0.8 * (high - low)
    full = [(begin, end) for begin, end, height in bars if height]
    assert all(any(begin <= time / unit <= end for begin, end in full) for time in times)


def test_picture_shows_what_was_counted(empty_folder: Path) -> None:
    from recbole_posattn.atomic_files.statistics_figure import draw_statistics

    found = statistics("ml-100k")
    lengths, popularity, over_time, share = draw_statistics(found).axes
    assert sum(bar.get_height() for bar in lengths.patches) == found.users
    assert popularity.lines[0].get_ydata().tolist() == found.item_counts.tolist()
    assert share.lines[0].get_ydata()[335] == pytest.approx(100 * found.top_shares[0.2])
    assert sum(bar.get_height() for bar in over_time.patches) == found.interactions
    assert np.isclose(over_time.patches[0].get_x(), found.first / 86_400)  # days, as Matplotlib counts dates

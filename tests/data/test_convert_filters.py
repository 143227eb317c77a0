"""What is left out of converted interactions, against slow readings of the rules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.atomic_files.convert.convert import convert
from recbole_posattn.atomic_files.convert.filters import Filters, apply_filters, k_core
from recbole_posattn.atomic_files.convert.interactions import Interactions
from recbole_posattn.atomic_files.convert.shapes import ReadOptions
from recbole_posattn.cli.main import main
from recbole_posattn.errors import DataError, SettingError

rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(1, 5)), max_size=40)
OWN = ReadOptions(user="u", item="i", time="t", rating="r")


def interactions(rows: list[tuple]) -> Interactions:
    user, item, time, rating = (np.array([row[column] for row in rows]) for column in range(4))
    names = [str(number) for number in range(6)]
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), time.astype(float), rating.astype(float), names, names
    )


def tuples(found: Interactions) -> list[tuple]:
    return list(zip(found.user.tolist(), found.item.tolist(), found.time.tolist(), found.rating.tolist()))


def slow_core(rows: list[tuple], min_user: int, min_item: int) -> list[tuple]:
    """One user or item at a time."""
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        scarce = [("user", user) for user, count in users.items() if count < min_user]
        scarce += [("item", item) for item, count in items.items() if count < min_item]
        if not scarce:
            return rows
        kind, number = scarce[0]
        rows = [row for row in rows if row[kind == "item"] != number]


@given(rows=rows, min_user=st.integers(1, 4), min_item=st.integers(1, 4))
def test_k_core_is_that_of_leaving_out_one_after_the_other(rows: list[tuple], min_user: int, min_item: int) -> None:
    found, steps = apply_filters(
        interactions(rows), Filters(min_user_interactions=min_user, min_item_interactions=min_item)
    )
    assert tuples(found) == slow_core(rows, min_user, min_item)
    assert [step.interactions for step in steps] == ([len(found)] if max(min_user, min_item) > 1 else [])


def test_k_core_goes_on_until_nothing_more_falls() -> None:
    """A chain: each user leaves an item with too few, which leaves the next user with too few."""
    user, item = np.array([0, 1, 1, 2, 2, 3, 3]), np.array([0, 0, 1, 1, 2, 2, 3])
    left, n_rounds = k_core(user, item, 2, 2)
    assert len(left) == 0 and n_rounds == 4
    together = np.array([0, 0, 1, 1])
    left, n_rounds = k_core(together, np.array([0, 1, 0, 1]), 2, 2)
    assert left.tolist() == [0, 1, 2, 3] and n_rounds == 0


@given(rows=rows)
def test_repetitions_are_those_of_a_slow_reading(rows: list[tuple]) -> None:
    by_time = sorted(range(len(rows)), key=lambda index: (rows[index][2], index))
    keys = {
        "exact": (list(range(len(rows))), lambda row: row[:3]),
        "first": (by_time, lambda row: row[:2]),
        "last": (by_time[::-1], lambda row: row[:2]),
    }
    for which, (order, key) in keys.items():
        chosen: dict[tuple, int] = {}
        for index in order:
            chosen.setdefault(key(rows[index]), index)
        found, _ = apply_filters(interactions(rows), Filters(deduplicate=which))
        assert tuples(found) == [rows[index] for index in sorted(chosen.values())], which


@given(rows=rows, least=st.integers(0, 6))
def test_low_ratings_go_first(rows: list[tuple], least: int) -> None:
    found, steps = apply_filters(interactions(rows), Filters(least, "first", 2))
    good = [row for row in rows if row[3] >= least]
    assert steps[0] == (f"rating of {least} or more", len(good))
    distinct, _ = apply_filters(interactions(good), Filters(deduplicate="first"))
    assert tuples(found) == slow_core(tuples(distinct), 2, 1)
    assert [step.interactions for step in steps] == [len(good), len(distinct), len(found)]


def test_a_conversion_tells_its_steps(empty_folder: Path) -> None:
    Path("a.csv").write_text("u,i,t,r\na,x,1,5\na,x,1,5\na,y,2,1\nb,x,3,4\nb,z,4,4\nc,x,5,5\n")
    done = convert("a.csv", "mine", OWN, Filters(2, "exact", 1, 2))
    assert done.steps == [
        ("read", 6),
        ("rating of 2 or more", 5),
        ("without repetitions (exact)", 4),
        ("1 a user, 2 an item or more (1 round)", 3),
    ]
    assert (done.users, done.items) == (3, 1)
    assert done.file.read_text().split("\n")[1:] == ["a\tx\t5\t1", "b\tx\t4\t3", "c\tx\t5\t5", ""]
    with pytest.raises(DataError, match=r"no interaction of a.csv is left \(read: 6; rating of 9 or more: 0\)"):
        convert("a.csv", "nothing", OWN, Filters(9))
    assert not Path("dataset/nothing").exists()


def test_blanks_around_names_are_told(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("a.csv").write_text("u,i,t,r\na, x,1,5\na,x ,2,5\na,x,3,1\nb ,x,4,4\nc , z,5,1\n")
    assert convert("a.csv", "mine", OWN, Filters(2)).padded == 3  # c and z are left out
    columns = ["--user=u", "--item=i", "--time=t"]
    assert main(["data", "convert", "a.csv", "--name=other", *columns]) == 0
    assert (
        "blanks: 5 users and items begin or end with a blank, which is part of their names" in capsys.readouterr().out
    )
    Path("b.csv").write_text("u,i,t\na,x,1\n")
    assert main(["data", "convert", "b.csv", "--name=third", *columns]) == 0
    assert "blanks" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(deduplicate="all"), "deduplicate must be one of none, exact, first, last; got 'all'"),
        (Filters(min_user_interactions=0), "must be positive integers; got 0 and 1"),
        (Filters(min_rating=3), "min_rating needs ratings; name their column with --rating"),
    ],
)
def test_filters_that_cannot_be_applied_are_refused(empty_folder: Path, filters: Filters, message: str) -> None:
    Path("a.csv").write_text("u,i,t\na,x,1\n")
    with pytest.raises(SettingError, match=message):
        convert("a.csv", "mine", ReadOptions(user="u", item="i", time="t"), filters)


def test_rows_without_times_cannot_be_equal_in_time(empty_folder: Path) -> None:
    Path("a.csv").write_text("u,i\na,x\na,x\n")
    reading = ReadOptions(user="u", item="i", time_format="order")
    with pytest.raises(SettingError, match="exact compares times, and there are none with --time_format=order; use"):
        convert("a.csv", "mine", reading, Filters(deduplicate="exact"))
    assert convert("a.csv", "mine", reading, Filters(deduplicate="first")).steps[-1].interactions == 1

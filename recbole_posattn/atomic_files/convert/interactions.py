"""Collects interactions from batches of a dump, in a few bytes each, and rejects bad records one by one.

Shape keys: n records of a batch, N interactions.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recbole_posattn.atomic_files.convert.rejects import Rejects
from recbole_posattn.atomic_files.convert.times import ORDER, TimeFormat, numbers
from recbole_posattn.data.text import LARGEST, READ_AS_MISSING

_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Batch(NamedTuple):
    """Some records of a dump.

    Attributes:
        number: Number of each record's line, from 1; int64, shape (n,).
        user: Each record's user as text, null if missing; shape (n,).
        item: Each record's item, likewise; shape (n,).
        time: Texts, numbers or Arrow's times, shape (n,); ``None`` if there are no times.
        rating: Texts or numbers, shape (n,); ``None`` if there are no ratings.
        text: Returns the line of a record, given its index in the batch.
        done: How much of the file has been read.
    """

    number: np.ndarray
    user: pa.Array
    item: pa.Array
    time: pa.Array | None
    rating: pa.Array | None
    text: Callable[[int], str]
    done: int


@dataclass(frozen=True)
class Interactions:
    """Interactions in the order of their file.

    Attributes:
        user: Number of each interaction's user, from 0; int32, shape (N,).
        item: Number of each interaction's item, from 0; int32, shape (N,).
        time: Seconds, or the position among the user's interactions; float64, shape (N,).
        rating: Ratings; float64, shape (N,); ``None`` if there are none.
        users: The tokens of the users, by number.
        items: The tokens of the items, by number.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    users: list[str]
    items: list[str]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray) -> Interactions:
        """Select interactions by indices or by a mask."""
        rating = None if self.rating is None else self.rating[index]
        return replace(self, user=self.user[index], item=self.item[index], time=self.time[index], rating=rating)


class _Column(NamedTuple):
    """A column of a batch.

    Attributes:
        role: ``user``, ``item``, ``time`` or ``rating``.
        given: The values in the dump; shape (n,).
        values: The numbers that are kept for them; shape (n,).
        good: Whether each value can be used; boolean, shape (n,).
        problem: Returns what is wrong with a value that cannot be used.
    """

    role: str
    given: pa.Array
    values: np.ndarray
    good: np.ndarray
    problem: Callable[[Any], str | None]


class Gatherer:
    """Collects the interactions of batches.

    Args:
        time_format: The format of times.
        has_rating: Whether there are ratings.
        rejects: Where bad records go.
    """

    def __init__(self, time_format: TimeFormat, has_rating: bool, rejects: Rejects) -> None:
        self.time_format, self.rejects = time_format, rejects
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._kept: dict[str, array[Any]] = {"user": array("i"), "item": array("i")}
        if time_format.name != ORDER:
            self._kept["time"] = array("d")
        if has_rating:
            self._kept["rating"] = array("d")

    def add(self, batch: Batch) -> None:
        """Keep the good records of a batch and reject the others, each with its first problem."""
        columns = [_token_column("user", batch.user, self._users), _token_column("item", batch.item, self._items)]
        if "time" in self._kept:
            time = self.time_format.seconds(batch.time)
            columns.append(_number_column("time", batch.time, time, self.time_format.problem))
        if "rating" in self._kept:
            columns.append(_number_column("rating", batch.rating, numbers(batch.rating), "is not a number"))
        good = np.logical_and.reduce([column.good for column in columns])
        for index in np.flatnonzero(~good).tolist():
            bad = next(column for column in columns if not column.good[index])
            reason = f"{bad.role} {bad.problem(plain_value(bad.given[index]))}"
            self.rejects.add(int(batch.number[index]), reason, batch.text(index))
        for column in columns:
            self._kept[column.role].frombytes(column.values[good].tobytes())

    def __len__(self) -> int:
        return len(self._kept["user"])

    def finish(self) -> Interactions:
        """The collected interactions, of which there must be at least one."""
        kept = {role: np.frombuffer(column, dtype=column.typecode) for role, column in self._kept.items()}
        time = kept.get("time")
        if time is None:
            time = _positions(kept["user"])
        return Interactions(kept["user"], kept["item"], time, kept.get("rating"), list(self._users), list(self._items))


def plain_value(value: pa.Scalar) -> Any:
    """A value as Python has it; a time out of Python's range as its number."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return value.value


def _token_column(role: str, texts: pa.Array, known: dict[str, int]) -> _Column:
    """Texts as numbers; new tokens get the next numbers, and a text that cannot be a token gets −1."""
    encoded = texts.dictionary_encode()
    tokens = encoded.dictionary.to_pylist()
    for token in tokens:
        if token not in known and _problem(token) is None:
            known[token] = len(known)
    of_tokens = np.array([*(known.get(token, -1) for token in tokens), -1], dtype=np.int32)
    values = of_tokens[encoded.indices.fill_null(-1).to_numpy()]
    return _Column(role, texts, values, values >= 0, _problem)


def _problem(token: str | None) -> str | None:
    """Why a text cannot be a token; ``None`` if it can."""
    if token is None or not token.strip():
        return "is missing"
    if not token.isprintable() and _UNWRITABLE.search(token):
        return "has a control character, which an atomic file cannot hold"
    return "is a word that RecBole reads as a missing value" if token in READ_AS_MISSING else None


def _number_column(role: str, given: pa.Array, values: np.ndarray, problem: str) -> _Column:
    return _Column(role, given, values, ~np.isnan(values), lambda value: _number_problem(value, problem))


def _number_problem(value: Any, problem: str) -> str:
    """Why a value cannot be a time or a rating; ``problem`` if it is no number."""
    if value in (None, ""):
        return "is missing"
    with suppress(TypeError, ValueError, OverflowError):
        if LARGEST < abs(float(value)) < math.inf:
            return "is beyond 3.4e38, the limit of RecBole's 32-bit floats"
    return problem


def _positions(user: np.ndarray) -> np.ndarray:
    """The position of each interaction among its user's, from 1; float64, shape (N,)."""
    order = np.argsort(user, kind="stable")
    of_user = np.bincount(user)
    start = np.repeat(np.cumsum(of_user) - of_user, of_user)
    position = np.empty(len(user))
    position[order] = np.arange(len(user)) - start + 1
    return position


def quoted(text: str) -> str:
    """A text; quoted if it begins with a quote, which pandas would read as the beginning of a quoted field."""
    return '"{}"'.format(text.replace('"', '""')) if text.startswith('"') else text

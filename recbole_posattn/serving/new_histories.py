"""Requests for histories that the user gives, of users who need not be in the data set.

Shape keys: n requests, N interactions.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype, is_string_dtype

from recbole_posattn.data.tokens import as_tokens
from recbole_posattn.errors import DataError, shown
from recbole_posattn.serving.requests import Requests, numbers_of, of_counts, report_skipped
from recbole_posattn.serving.tables import plain_columns


def new_histories(
    histories: pd.DataFrame | Mapping[object, Sequence[object]] | pd.Series,
    known: Mapping[str, int],
    timed_for: str | None = None,
) -> Requests:
    """Requests for users who need not be in the data set.

    Args:
        histories: Rows with the columns ``user`` and ``item`` (tokens) and, unless the rows are in order, ``time``; or
            the items of each user, oldest first, as a mapping or a Series with the users as its index.
        known: The numbers of the items in the data set by token, 0 for padding; other items are skipped.
        timed_for: Name of a model that reads times, for which each interaction needs one, in seconds or as a date.

    Raises:
        DataError: If a column or value is missing, a time is invalid, or no user has a known item.
    """
    given = _from_table(histories) if isinstance(histories, pd.DataFrame) else _from_mapping(histories)
    if timed_for is not None and not given.timed:
        raise DataError(
            f"histories have no column 'time'; {timed_for} reads the times between interactions: give rows of user, "
            "item and time, in the unit of the data set (usually Unix seconds) or as dates"
        )
    number = numbers_of(known, given.item)
    kept = number > 0
    user, count = given.user, np.bincount(given.of[kept], minlength=len(given.user))
    skipped = report_skipped("interactions have an item that the model does not know", given.item[~kept], len(kept))
    nothing = "and get no recommendations"
    skipped += report_skipped("users have no item that it knows", user[count == 0], len(user), nothing)
    if not count.any():
        raise DataError("; ".join(("no history has an item that the model knows", *skipped)))
    order = np.lexsort((given.time[kept], given.of[kept]))  # stable
    item = torch.from_numpy(number[kept][order].astype(np.int64))
    time = None if timed_for is None else torch.from_numpy(given.seconds[kept][order])
    past = of_counts(item, torch.from_numpy(count[count > 0]), time)
    return Requests(user[count > 0], None, past, skipped=skipped)


class _Given(NamedTuple):
    """Given interactions.

    Attributes:
        user: Tokens of the users; shape (n,).
        of: The user's index of each interaction, shape (N,), as all that follow.
        item: Tokens.
        time: Numbers, or dates as numpy's ``datetime64`` in UTC.
        timed: Whether times were given.
    """

    user: np.ndarray
    of: np.ndarray
    item: np.ndarray
    time: np.ndarray
    timed: bool

    @property
    def seconds(self) -> np.ndarray:
        """Times as float64: dates as Unix seconds, numbers as they are."""
        if self.time.dtype.kind != "M":
            return self.time.astype(np.float64)
        return self.time.astype("datetime64[us]").astype(np.int64) / 1e6


def _from_table(table: pd.DataFrame) -> _Given:
    for column in ("user", "item"):
        if column not in table:
            raise DataError(f"histories have no column {column!r}; they have {', '.join(map(str, table.columns))}")
    if (twice := table.columns[table.columns.duplicated()].intersection(["user", "item", "time"])).size:
        raise DataError(f"histories have the column {twice[0]!r} more than once")
    columns = [column for column in ("user", "item", "time") if column in table]
    table = plain_columns(table[columns])
    for column in columns:
        missing = table[column].isna() | _is_empty_text(table[column])
        if missing.any():
            row = int(np.flatnonzero(missing)[0])
            raise DataError(f"histories: row {row + 1} has no {column}, and each row needs one")
        if column != "time" and not (is_string_dtype(table[column]) or is_numeric_dtype(table[column])):
            strange = next(value for value in table[column] if not isinstance(value, str))
            raise DataError(f"histories: column {column!r} must hold strings or numbers; got {shown(strange)}")
        # numpy drops a NUL at the end of a string
        if column != "time" and is_string_dtype(table[column]) and table[column].str.contains("\0", regex=False).any():
            raise DataError(f"histories: column {column!r} has a NUL byte, which tokens cannot contain")
    time = table["time"] if "time" in table else pd.Series(np.arange(len(table)))
    if time.dtype == object and pd.api.types.infer_dtype(time) in ("date", "datetime"):
        time = pd.Series(np.array([_in_utc(each) for each in time], dtype="datetime64[us]"))
    elif isinstance(time.dtype, pd.DatetimeTZDtype):
        time = time.dt.tz_convert("UTC").dt.tz_localize(None)
    if not len(time):
        time = pd.Series(np.arange(0))  # an empty table has columns of no certain type
    if not (pd.api.types.is_numeric_dtype(time) or pd.api.types.is_datetime64_any_dtype(time)):
        raise DataError(f"histories: times must be numbers or dates; got {shown(time.iloc[0])}")
    if pd.api.types.is_float_dtype(time) and not np.isfinite(time).all():
        row = int(np.flatnonzero(~np.isfinite(time))[0])
        raise DataError(f"histories: row {row + 1} has the time {time.iloc[row]}, and times must be finite")
    of, user = pd.factorize(as_tokens(table["user"]))
    return _Given(user, of, as_tokens(table["item"]), time.to_numpy(), "time" in table)


def _in_utc(time: datetime.date) -> datetime.date:
    """A date or time in UTC, without a time zone."""
    if isinstance(time, datetime.datetime) and time.tzinfo is not None:
        return time.astimezone(datetime.UTC).replace(tzinfo=None)
    return time


def _is_empty_text(column: pd.Series) -> pd.Series:
    if is_numeric_dtype(column):
        return pd.Series(False, index=column.index)
    return column.map(lambda value: isinstance(value, str) and not value).astype(bool)  # values may be lists


def _from_mapping(items_of: Mapping[object, Iterable[object]] | pd.Series) -> _Given:
    if isinstance(items_of, pd.Series):
        if not items_of.index.is_unique:
            twice = items_of.index[items_of.index.duplicated()][0]
            raise DataError(f"histories: user {twice!r} has more than one list of items")
        items_of = dict(items_of.items())
    if not isinstance(items_of, Mapping):
        raise DataError(
            "histories must be a DataFrame of user and item, or a mapping of each user to a list of items, oldest "
            f"first; got {shown(items_of)}"
        )
    lists = [_listed(user, items) for user, items in items_of.items()]
    user = as_tokens(list(items_of))
    of = np.arange(len(user)).repeat([len(items) for items in lists])
    item = as_tokens([item for items in lists for item in items])
    return _Given(user, of, item, np.arange(len(item)), timed=False)


def _listed(user: object, items: Iterable[object]) -> list[object]:
    if isinstance(items, (str, Set)) or not isinstance(items, Iterable):
        raise DataError(f"histories: user {user!r} needs a list of items, oldest first; got {shown(items)}")
    return list(items)

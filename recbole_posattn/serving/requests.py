"""Requests for recommendations: users of the data set, or new histories.

Shape keys: n requests, N interactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype, is_string_dtype
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_posattn.atomic_files.convert.rejects import printable
from recbole_posattn.data.fields import EXACT_TIME_FIELD
from recbole_posattn.data.histories import Histories
from recbole_posattn.data.prefixes import LazyPrefixes
from recbole_posattn.data.presplit import laid_out_with_times
from recbole_posattn.data.tokens import as_tokens
from recbole_posattn.errors import DataError, SettingError, shown
from recbole_posattn.settings.choices import SPLITS
from recbole_posattn.training.load import Loaded

Split = Literal["all", "valid", "test"]

# Maximum number and length of the tokens that a report names.
_NAMED, _LONGEST_NAME = 5, 120


@dataclass(frozen=True)
class Requests:
    """Requests for recommendations.

    Attributes:
        user: Tokens; shape (n,).
        user_id: Their numbers in the data set, int64, shape (n,); ``None`` for new histories.
        histories: Their histories.
        have_targets: Whether each history ends before a known target.
        skipped: A line on each kind of skipped input.
    """

    user: np.ndarray
    user_id: Tensor | None
    histories: Histories
    have_targets: bool = False
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, index: Tensor) -> Requests:
        """The requests at the given indices."""
        user_id = None if self.user_id is None else self.user_id[index]
        return replace(self, user=self.user[index.numpy()], user_id=user_id, histories=self.histories[index])


def numbers_of(known: Mapping[str, int], tokens: np.ndarray) -> np.ndarray:
    """The numbers of tokens; 0, as for padding, if unknown."""
    return np.fromiter((known.get(token, 0) for token in tokens.tolist()), dtype=np.int64, count=len(tokens))


def report_skipped(kind: str, tokens: np.ndarray, total: int, consequence: str = "skipped") -> tuple[str, ...]:
    """A line on skipped tokens; empty if there are none."""
    if not len(tokens):
        return ()
    names = [printable(str(name), _LONGEST_NAME) for name in dict.fromkeys(tokens.tolist())]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return (f"{len(tokens):,} of {total:,} {kind}, {consequence}: {', '.join(names[:_NAMED])}{more}",)


# -- users of the data set -------------------------------------------------------------------------------------------


def known_users(loaded: Loaded, users: Sequence[object] | None = None, split: Split = "all") -> Requests:
    """Users of the data set with their histories.

    Args:
        loaded: A trained model and its data.
        users: Tokens; all users by default, in the order of the data set.
        split: ``all`` for whole histories; ``valid`` or ``test`` for one request per target of that split, with
            the interactions before it.

    Raises:
        SettingError: If ``split`` is unknown.
        DataError: If none of the users is in the data set, or the split has no targets.
    """
    if split not in SPLITS:
        raise SettingError(f"split must be one of {', '.join(SPLITS)}; got {split!r}.")
    dataset = loaded.dataset
    user_id, histories = _whole(dataset) if split == "all" else _before_targets(loaded, split)
    requests = Requests(_tokens(dataset, user_id), user_id, histories, have_targets=split != "all")
    if users is not None:
        requests = _only(requests, as_tokens(token_list("users", users)))
    if not len(requests):
        raise no_users(loaded, requests, split)
    return requests


def token_list(name: str, tokens: Iterable[object]) -> list[object]:
    """Tokens of users or items; a single string, whose letters are no tokens, is refused."""
    if isinstance(tokens, str):
        raise SettingError(f"{name} must be a list of tokens; got {shown(tokens)}.")
    return list(tokens)


def no_users(loaded: Loaded, requests: Requests, split: Split = "all") -> DataError:
    """The error for requests of no users, which says why."""
    where = f"data set {loaded.config['dataset']!r}" + ("" if split == "all" else f", {split} split")
    return DataError(f"{where}: " + ("; ".join(requests.skipped) or "there are no users to recommend to"))


def _tokens(dataset: Dataset, user_id: Tensor) -> np.ndarray:
    return as_tokens(dataset.id2token(dataset.uid_field, user_id.numpy()))


def _only(requests: Requests, users: np.ndarray) -> Requests:
    """The requests of some users, in their order."""
    places = pd.Series(np.arange(len(requests))).groupby(requests.user, sort=False).indices
    unknown = np.array([user not in places for user in users], dtype=bool)
    chosen = [places[user] for user in dict.fromkeys(users[~unknown].tolist())]
    index = torch.from_numpy(np.concatenate(chosen)) if chosen else torch.empty(0, dtype=torch.int64)
    skipped = report_skipped("users are not in the data", users[unknown], len(users))
    return replace(requests.rows(index), skipped=skipped)


def _whole(dataset: Dataset) -> tuple[Tensor, Histories]:
    """All users with interactions, and their whole histories."""
    rows, suffix, time = dataset.inter_feat, dataset.config["LIST_SUFFIX"], None
    listed = dataset.iid_field + suffix
    if isinstance(rows, LazyPrefixes) and not dataset.written_lists:
        user, count = dataset.sequence_users
        return user, _of_counts(rows.sequences[listed], count, rows.sequences.get(EXACT_TIME_FIELD + suffix))
    if listed in rows:
        user, item, time = _laid_out(dataset, rows)
    else:
        order = _in_time(dataset, rows)
        user, item = rows[dataset.uid_field][order], rows[dataset.iid_field][order]
    user, count = torch.unique_consecutive(user, return_counts=True)
    return user, _of_counts(item, count, time)


def _of_counts(item: Tensor, count: Tensor, time: Tensor | None = None) -> Histories:
    """Consecutive histories with the given numbers of items."""
    end = count.cumsum(0)
    return Histories(item, end - count, end, time)


def _in_time(dataset: Dataset, rows: Interaction) -> Tensor:
    """The order of interactions by user, then by time if the data set has times."""
    by_time = dataset.time_field in rows
    order = torch.argsort(rows[dataset.time_field], stable=True) if by_time else torch.arange(len(rows))
    return order[torch.argsort(rows[dataset.uid_field][order], stable=True)]


def _laid_out(dataset: Dataset, rows: Interaction) -> tuple[Tensor, Tensor, Tensor | None]:
    """User, item and exact time of the interactions of rows that come with their histories."""
    user = rows[dataset.uid_field]
    item, position, time = laid_out_with_times(dataset, rows)
    position, order = position.sort()
    return user[order][torch.searchsorted(position, torch.arange(len(item)))], item, time


def _before_targets(loaded: Loaded, split: Split) -> tuple[Tensor, Histories]:
    """The user of each target of a split, and the history before it."""
    loader = loaded.valid_data if split == "valid" else loaded.test_data
    part, dataset = loader._dataset, loaded.dataset
    rows, listed = part.inter_feat, dataset.iid_field + dataset.config["LIST_SUFFIX"]
    if getattr(part, "histories", None) is not None:
        return rows[dataset.uid_field], part.histories
    if isinstance(rows, LazyPrefixes):
        return rows[dataset.uid_field], dataset.histories_before(rows, dataset.inter_feat)
    if loaded.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        length = rows[dataset.item_list_length_field]
        written = torch.arange(rows[listed].shape[1]) < length[:, None]
        timed = EXACT_TIME_FIELD + dataset.config["LIST_SUFFIX"]
        time = rows[timed][written] if timed in rows else None
        return rows[dataset.uid_field], _of_counts(rows[listed][written], length, time)
    if not hasattr(loader, "uid2history_item"):
        raise SettingError(f"split {split!r} needs full ranking for {loaded.config['model']} (eval_args, mode full).")
    items = [loader.uid2history_item[user] for user in loader.uid_list.tolist()]
    return loader.uid_list, _of_counts(torch.cat(items), torch.tensor([len(each) for each in items]))


# -- new histories ---------------------------------------------------------------------------------------------------


def new_histories(
    histories: pd.DataFrame | Mapping[object, Sequence[object]], known: Mapping[str, int], timed_for: str | None = None
) -> Requests:
    """Requests for users who need not be in the data set.

    Args:
        histories: Rows with the columns ``user`` and ``item`` (tokens) and, unless the rows are in order, ``time``; or
            the items of each user, oldest first.
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
    time = None if timed_for is None else torch.from_numpy(_seconds(given.time)[kept][order])
    past = _of_counts(item, torch.from_numpy(count[count > 0]), time)
    return Requests(user[count > 0], None, past, skipped=skipped)


def _seconds(time: np.ndarray) -> np.ndarray:
    """Times as float64: dates as Unix seconds, numbers as they are; shape (n,)."""
    if pd.api.types.is_numeric_dtype(time):
        return time.astype(np.float64)
    since_1970 = pd.to_datetime(pd.Series(time), utc=True) - pd.Timestamp(0, tz="UTC")
    return since_1970.dt.total_seconds().to_numpy()


class _Given(NamedTuple):
    """Given interactions: tokens of the users, the user's index, item and time of each; whether times were given."""

    user: np.ndarray
    of: np.ndarray
    item: np.ndarray
    time: np.ndarray
    timed: bool


def _from_table(table: pd.DataFrame) -> _Given:
    for column in ("user", "item"):
        if column not in table:
            raise DataError(f"histories have no column {column!r}; they have {', '.join(map(str, table.columns))}")
    for column in table.columns.intersection(["user", "item", "time"]):
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
    kind = pd.api.types.infer_dtype(time) if time.dtype == object else None  # Python objects, not pandas types
    if kind == "date":
        time = pd.Series(np.array(time, dtype="datetime64[s]"))
    elif kind == "datetime":
        time = pd.to_datetime(time, utc=True)
    if not (pd.api.types.is_numeric_dtype(time) or pd.api.types.is_datetime64_any_dtype(time)):
        raise DataError(f"histories: times must be numbers or dates; got {shown(time.iloc[0])}")
    if pd.api.types.is_float_dtype(time) and not np.isfinite(time).all():
        row = int(np.flatnonzero(~np.isfinite(time))[0])
        raise DataError(f"histories: row {row + 1} has the time {time.iloc[row]}, and times must be finite")
    of, user = pd.factorize(as_tokens(table["user"]))
    return _Given(user, of, as_tokens(table["item"]), time.to_numpy(), "time" in table)


def _is_empty_text(column: pd.Series) -> pd.Series:
    if is_numeric_dtype(column):
        return pd.Series(False, index=column.index)
    return column.map(lambda value: isinstance(value, str) and not value).astype(bool)  # values may be lists


def _from_mapping(items_of: Mapping[object, Iterable[object]]) -> _Given:
    lists = [_listed(user, items) for user, items in items_of.items()]
    user = as_tokens(list(items_of))
    of = np.arange(len(user)).repeat([len(items) for items in lists])
    item = as_tokens([item for items in lists for item in items])
    return _Given(user, of, item, np.arange(len(item)), timed=False)


def _listed(user: object, items: Iterable[object]) -> list[object]:
    if isinstance(items, (str, Set)) or not isinstance(items, Iterable):
        raise DataError(f"histories: user {user!r} needs a list of items, oldest first; got {shown(items)}")
    return list(items)

"""Requests for recommendations, and those for users of the data set.

Shape keys: n requests, N interactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor
from torch.nn import functional as F

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
        cut: Whether histories may lack their oldest items.
        skipped: A line on each kind of skipped input.
    """

    user: np.ndarray
    user_id: Tensor | None
    histories: Histories
    have_targets: bool = False
    cut: bool = False
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    def history_mask(self, exclude_history: bool) -> str:
        """The value of the key ``mask_history`` that leaves out the histories, or does not.

        Raises:
            SettingError: If they are to be left out, and may lack items.
        """
        if exclude_history and self.cut:
            raise SettingError(
                "exclude_history (--history=exclude) needs the whole history before a target, and lazy_prefixes: False "
                "keeps only the newest items of it; leave the flag out, or train with lazy_prefixes: True."
            )
        return "all" if exclude_history else "none"

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
    cut = split != "all" and loaded.config["lazy_prefixes"] is False  # RecBole keeps what its models read
    requests = Requests(_tokens(dataset, user_id), user_id, histories, have_targets=split != "all", cut=cut)
    if users is not None:
        requests = _only(requests, as_tokens(token_list("users", users)))
    if not len(requests):
        raise no_users(loaded, requests, split)
    return requests


def token_list(name: str, tokens: Iterable[object]) -> list[object]:
    """Tokens of users or items; a single string is refused: its letters are not tokens."""
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
    rows, suffix = dataset.inter_feat, dataset.config["LIST_SUFFIX"]
    listed = dataset.iid_field + suffix
    if isinstance(rows, LazyPrefixes) and not dataset.written_lists:
        user, count = dataset.sequence_users
        return user, of_counts(rows.sequences[listed], count, rows.sequences.get(EXACT_TIME_FIELD + suffix))
    if listed in rows:
        return _written_whole(dataset, rows)
    order = _in_time(dataset, rows)
    user, item = rows[dataset.uid_field][order], rows[dataset.iid_field][order]
    user, count = torch.unique_consecutive(user, return_counts=True)
    return user, of_counts(item, count)


def of_counts(item: Tensor, count: Tensor, time: Tensor | None = None) -> Histories:
    """Consecutive histories with the given numbers of items."""
    end = count.cumsum(0)
    return Histories(item, end - count, end, time)


def _in_time(dataset: Dataset, rows: Interaction) -> Tensor:
    """The order of interactions by user, then by time if the data set has times."""
    by_time = dataset.time_field in rows
    order = torch.argsort(rows[dataset.time_field], stable=True) if by_time else torch.arange(len(rows))
    return order[torch.argsort(rows[dataset.uid_field][order], stable=True)]


def _written_whole(dataset: Dataset, rows: Interaction) -> tuple[Tensor, Histories]:
    """The users of rows that come with their histories, and the whole history of each.

    A row whose history does not continue the row before it, as after a gap, has all items of that row in its own
    history. The whole history of a user begins with the last such row.
    """
    item, position, _, time = laid_out_with_times(dataset, rows)
    position, order = position.sort()
    user = rows[dataset.uid_field][order]
    begin = F.pad(position[:-1] + 1, (1, 0))  # of what a row adds: its target, behind its history if that starts anew
    start = torch.where(position > begin, begin, -1).cummax(0).values  # each user's first row starts anew
    last = F.pad(user[1:] != user[:-1], (0, 1), value=True)
    return user[last], Histories(item, start[last], position[last] + 1, time)


def _before_targets(loaded: Loaded, split: Split) -> tuple[Tensor, Histories]:
    """The user of each target of a split, and the history before it.

    Models without sequences are evaluated by user unless there is ``mask_history``: each user once, with all earlier
    interactions.
    """
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
        return rows[dataset.uid_field], of_counts(rows[listed][written], length, time)
    if not hasattr(loader, "uid2history_item"):
        raise SettingError(f"split {split!r} needs full ranking for {loaded.config['model']} (eval_args, mode full).")
    items = [loader.uid2history_item[user] for user in loader.uid_list.tolist()]
    length = torch.tensor([len(each) for each in items], dtype=torch.int64)
    return loader.uid_list.to(torch.int64), of_counts(torch.cat([length.new_empty(0), *items]), length)

"""Recommendations of a trained model, for users of its data set and for new histories.

Shape keys: n requests, b requests of a batch, k items of a list, L = MAX_ITEM_LIST_LENGTH.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_posattn.data.tokens import as_tokens
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.serving.ranking import best_items
from recbole_posattn.serving.requests import (
    Requests,
    Split,
    known_users,
    new_histories,
    no_users,
    numbers_of,
    report_skipped,
)
from recbole_posattn.serving.scores import all_scores, model_input, reads_sequences, reads_times
from recbole_posattn.serving.user_histories import UserHistories
from recbole_posattn.training.load import Loaded, load

SCHEMA = pa.schema({"user": pa.string(), "rank": pa.int32(), "item": pa.string(), "score": pa.float32()})

# Maximum number of scores (requests × items) and of requests in a batch; on a CPU, about what fits into the cache.
SCORES_PER_BATCH = {"cpu": 2**23, "cuda": 2**26}
REQUESTS_PER_BATCH = {"cpu": 512, "cuda": 4096}

# Requests per returned table. Within it, requests of similar length are batched together.
REQUESTS_PER_BLOCK = 4096


class Recommender:
    """Recommends the items that a trained model scores highest.

    Args:
        loaded: The result of :func:`recbole_posattn.load`.
        report: Called with a line on each kind of skipped input; by default a warning is logged.

    Attributes:
        loaded: Settings, model and data.
    """

    def __init__(self, loaded: Loaded, report: Callable[[str], None] | None = None) -> None:
        self.loaded = loaded
        self._report = report or logging.getLogger(__name__).warning
        self._token = as_tokens(loaded.dataset.field2id_token[loaded.dataset.iid_field])
        self._known_items = {token: number for number, token in enumerate(self._token)}
        self._item = pa.array(self._token)
        self._histories: UserHistories | None = None  # of all users, once they are asked for

    @classmethod
    def load(cls, checkpoint: str | Path, report: Callable[[str], None] | None = None, **options: Any) -> Recommender:
        """Load a trained model with its settings and data.

        Args:
            checkpoint: A file written by :func:`recbole_posattn.run`.
            report: See :class:`Recommender`.
            options: Of :func:`recbole_posattn.load`.

        Raises:
            CheckpointError, DataError, SettingError: As :func:`recbole_posattn.load` does.
        """
        return cls(load(checkpoint, **options), report)

    def recommend(
        self,
        histories: pd.DataFrame | Mapping[object, Sequence[object]],
        k: int = 10,
        *,
        exclude_history: bool | None = None,
        restrict_to: Sequence[object] | None = None,
        exclude: Sequence[object] = (),
    ) -> pd.DataFrame:
        """Recommend items to users with given histories, whom the data set need not know.

        Args:
            histories: Rows with the columns ``user``, ``item`` (tokens of the data set) and, unless they are in order,
                ``time``; or the items of each user, oldest first. A model that reads time needs ``time``, in the unit
                of the data set (as a rule Unix seconds) or as dates. Items that the model does not know are skipped, as
                are users with no other items. The model reads the newest ``MAX_ITEM_LIST_LENGTH`` items.
            k: Number of items per user.
            exclude_history: Whether to leave out all items of the user's history. By default as in the model's
                evaluation: by the key ``mask_history``; without it, sequential models may recommend items of the
                history and all others may not, as in RecBole.
            restrict_to: The only items to recommend; all by default.
            exclude: Items not to recommend.

        Returns:
            Columns ``user``, ``rank`` (1 for the best), ``item`` and ``score``; users in the order of the
            histories, with fewer than k rows if fewer items remain. Items with equal scores are in the order of their
            numbers in the data set.

        Raises:
            SettingError: If ``k`` is out of range, or none of ``restrict_to`` is known.
            DataError: If the histories cannot be used.
            CheckpointError: If the model does not read histories, reads other fields than items, or returns NaN.
        """
        lists = self._lists(self.new_histories(histories), k, exclude_history, restrict_to, exclude)
        return pd.concat([self._frame(*each) for each in lists], ignore_index=True)

    def recommend_users(
        self,
        users: Sequence[object] | None = None,
        k: int = 10,
        *,
        split: Split = "all",
        exclude_history: bool | None = None,
        restrict_to: Sequence[object] | None = None,
        exclude: Sequence[object] = (),
    ) -> pd.DataFrame:
        """Recommend items to users of the data set.

        Args:
            users: Tokens; all users by default. Unknown ones are skipped.
            k: See :meth:`recommend`.
            split: ``all`` to recommend on all interactions; ``valid`` or ``test`` for one list per target of that
                split, on the interactions before it, as in an evaluation.
            exclude_history: See :meth:`recommend`.
            restrict_to: See :meth:`recommend`.
            exclude: See :meth:`recommend`.

        Returns:
            See :meth:`recommend`.

        Raises:
            SettingError: If ``k`` or ``split`` is out of range, or none of ``restrict_to`` is known.
            DataError: If none of the users is known, or the split has no targets.
            CheckpointError: If the model reads other fields than users and items, or returns NaN.
        """
        lists = self._lists(self.known_users(users, split), k, exclude_history, restrict_to, exclude)
        return pd.concat([self._frame(*each) for each in lists], ignore_index=True)

    def known_users(self, users: Sequence[object] | None = None, split: Split = "all") -> Requests:
        """Users of the data set, as :meth:`recommend_users` takes them, for :meth:`blocks`."""
        if split != "all":
            return known_users(self.loaded, users, split)
        requests = self._all_histories().requests(users)
        if not len(requests):
            raise no_users(self.loaded, requests)
        return requests

    def _all_histories(self) -> UserHistories:
        if self._histories is None:
            self._histories = UserHistories(known_users(self.loaded))
        return self._histories

    def add_interactions(self, interactions: pd.DataFrame | Mapping[object, Sequence[object]]) -> None:
        """Take in new interactions, which follow those of the data set, without reading it again.

        From then on, they are part of their users' histories in :meth:`recommend_users` and :meth:`known_users`, except
        with a split. Users whom the data set does not know are added if the model reads histories. Nothing is trained,
        and the data set itself does not change.

        Args:
            interactions: As the histories of :meth:`recommend`: rows of ``user``, ``item`` and, unless they are in
                order, ``time``, or the items of each user, oldest first. All are newer than what is known of the user.

        Raises:
            DataError: If they cannot be used.
        """
        given, histories = self._given(interactions), self._all_histories()
        skipped = given.skipped
        if not reads_sequences(self.loaded):
            known = np.array([user in histories for user in given.user], dtype=bool)
            skipped += report_skipped("users are not in the data", given.user[~known], len(given))
            given = given.rows(torch.from_numpy(np.flatnonzero(known)))
        for line in skipped:
            self._report(line)
        if len(given):
            histories.append(given)

    def new_histories(self, histories: pd.DataFrame | Mapping[object, Sequence[object]]) -> Requests:
        """New histories, as :meth:`recommend` takes them, for :meth:`blocks`."""
        if not reads_sequences(self.loaded):
            raise CheckpointError(
                f"{self.loaded.config['model']} does not read histories: it knows only the users of its data set"
            )
        return self._given(histories)

    def _given(self, histories: pd.DataFrame | Mapping[object, Sequence[object]]) -> Requests:
        timed_for = self.loaded.config["model"] if reads_times(self.loaded) else None
        return new_histories(histories, self._known_items, timed_for)

    def blocks(
        self,
        requests: Requests,
        k: int = 10,
        *,
        exclude_history: bool | None = None,
        restrict_to: Sequence[object] | None = None,
        exclude: Sequence[object] = (),
        show_progress: bool = False,
    ) -> Iterator[pa.Table]:
        """Recommend block by block, in bounded memory.

        Args:
            requests: The result of :meth:`known_users` or :meth:`new_histories`.
            k: See :meth:`recommend`.
            exclude_history: See :meth:`recommend`.
            restrict_to: See :meth:`recommend`.
            exclude: See :meth:`recommend`.
            show_progress: Whether to show a progress bar.

        Returns:
            Tables of :data:`SCHEMA`, of :data:`REQUESTS_PER_BLOCK` requests each.

        Raises:
            SettingError, CheckpointError: As :meth:`recommend` does.
        """
        lists = self._lists(requests, k, exclude_history, restrict_to, exclude, show_progress)
        return (self._table(*each) for each in lists)

    def _lists(
        self,
        requests: Requests,
        k: int,
        exclude_history: bool | None,
        restrict_to: Sequence[object] | None,
        exclude: Sequence[object],
        show_progress: bool = False,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """User, item (its number) and score of each row of the blocks; arguments and errors as of :meth:`blocks`."""
        n_items = self.loaded.dataset.item_num - 1
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n_items:
            raise SettingError(f"k must be an integer from 1 to {n_items}, the number of items; got {k!r}.")
        for line in requests.skipped:
            self._report(line)
        left_out = self._left_out(restrict_to, exclude)
        mask = self._history_mask(requests, exclude_history)
        return self._rows(requests, k, left_out, mask, show_progress)

    # -- what is not recommended -------------------------------------------------------------------------------------

    def _left_out(self, restrict_to: Sequence[object] | None, exclude: Sequence[object]) -> Tensor:
        """The items that are never recommended, including the padding item; int64."""
        dataset = self.loaded.dataset
        allowed = np.ones(dataset.item_num, dtype=bool)
        if restrict_to is not None:
            allowed[:] = False
            allowed[self._numbers("restrict_to", restrict_to)] = True
        allowed[self._numbers("exclude", exclude)] = False
        allowed[0] = False
        if not allowed.any():
            raise SettingError("restrict_to and exclude leave no item of the data set to recommend.")
        return torch.from_numpy(np.flatnonzero(~allowed)).to(self.loaded.config["device"])

    def _numbers(self, name: str, tokens: Sequence[object]) -> np.ndarray:
        names = as_tokens(list(tokens))
        number = numbers_of(self._known_items, names)
        for line in report_skipped(f"items of {name} are not in the data set", names[number == 0], len(names)):
            self._report(line)
        return number

    def _history_mask(self, requests: Requests, exclude_history: bool | None) -> str:
        """Which items of the histories are left out, as a value of the key ``mask_history``."""
        if exclude_history is not None:
            return "all" if exclude_history else "none"
        mask = self.loaded.config["mask_history"] or ("none" if reads_sequences(self.loaded) else "all")
        return "all" if mask == "except_target" and not requests.have_targets else mask

    # -- scores ------------------------------------------------------------------------------------------------------

    def _rows(
        self, requests: Requests, k: int, left_out: Tensor, mask: str, show_progress: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        with tqdm(total=len(requests), desc="recommending", unit=" users", disable=not show_progress) as progress:
            for index in torch.arange(len(requests)).split(REQUESTS_PER_BLOCK):
                block = requests.rows(index)
                scores, item = self._best(block, k, left_out, mask, progress)
                yield block.user, item, scores

    @torch.no_grad()
    def _best(
        self, block: Requests, k: int, left_out: Tensor, mask: str, progress: tqdm
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the k best items of each request, each of shape (n, k); −∞ if there are fewer."""
        device, n_items = self.loaded.config["device"], self.loaded.dataset.item_num
        size = min(REQUESTS_PER_BATCH[device.type], max(1, SCORES_PER_BATCH[device.type] // n_items))
        best = torch.empty(len(block), k)
        item = torch.empty(len(block), k, dtype=torch.int64)
        for rows in torch.argsort(block.histories.length, stable=True).split(size):
            batch = block.rows(rows)
            scores = all_scores(self.loaded, model_input(self.loaded, batch))
            scores.index_fill_(1, left_out, -torch.inf)
            done = batch.histories.masked(mask)
            if done is not None:
                scores[done] = -torch.inf
            best_scores, number = best_items(scores, k)
            if best_scores.isnan().any():
                raise CheckpointError(f"{self.loaded.config['model']} returns NaN: its training has diverged")
            best[rows], item[rows] = best_scores.float().cpu(), number.cpu()
            progress.update(len(rows))
        return best.numpy(), item.numpy()

    def _table(self, user: np.ndarray, item: np.ndarray, scores: np.ndarray) -> pa.Table:
        """The lists as a table, without what may not be recommended; shapes (n,), (n, k) and (n, k)."""
        valid = scores > -np.inf
        row, nth = np.nonzero(valid)
        return pa.table(
            {
                "user": pa.array(user).take(pa.array(row)),
                "rank": pa.array(nth + 1, pa.int32()),
                "item": self._item.take(pa.array(item[valid])),
                "score": pa.array(scores[valid]),
            },
            SCHEMA,
        )

    def _frame(self, user: np.ndarray, item: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """:meth:`_table` for pandas, which is faster for few rows."""
        valid = scores > -np.inf
        row, nth = np.nonzero(valid)
        rank = (nth + 1).astype(np.int32)
        return pd.DataFrame({"user": user[row], "rank": rank, "item": self._token[item[valid]], "score": scores[valid]})

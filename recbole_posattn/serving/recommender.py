"""Recommendations of a trained model, for users of its data set and for new histories.

Shape keys: n requests, b requests of a batch, k items of a list, L = MAX_ITEM_LIST_LENGTH.
"""

from __future__ import annotations

import functools
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
from recbole_posattn.serving.lists import Lists
from recbole_posattn.serving.new_histories import new_histories
from recbole_posattn.serving.ranking import best_items
from recbole_posattn.serving.requests import (
    Requests,
    Split,
    known_users,
    no_users,
    numbers_of,
    report_skipped,
    token_list,
)
from recbole_posattn.serving.scores import all_scores, model_input, reads_sequences, reads_times, serves_new_users
from recbole_posattn.serving.titles import read_titles
from recbole_posattn.serving.user_histories import UserHistories
from recbole_posattn.training.load import Loaded, load

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

    @classmethod
    def load(cls, checkpoint: str | Path, report: Callable[[str], None] | None = None, **options: Any) -> Recommender:
        """Load a trained model with its settings and data.

        Args:
            checkpoint: A file written by :func:`recbole_posattn.run`, or the folder of a run.
            report: See :class:`Recommender`.
            options: Keyword arguments of :func:`recbole_posattn.load`.

        Raises:
            CheckpointError, DataError, SettingError: As :func:`recbole_posattn.load` does.
        """
        return cls(load(checkpoint, **options), report)

    def recommend(
        self,
        histories: pd.DataFrame | Mapping[object, Sequence[object]] | pd.Series,
        k: int = 10,
        *,
        exclude_history: bool | None = None,
        restrict_to: Sequence[object] | None = None,
        exclude: Sequence[object] = (),
        titles: bool | str = False,
    ) -> pd.DataFrame:
        """Recommend items to users with given histories, who may be new to the data set.

        Args:
            histories: Rows with the columns ``user``, ``item`` (tokens of the data set) and, unless they are in order,
                ``time``; or the items of each user, oldest first. A model that reads time needs ``time``, in the unit
                of the data set (usually Unix seconds) or as dates. Unknown items are skipped, and so are users without
                known items. The model reads the newest ``MAX_ITEM_LIST_LENGTH`` items.
            k: Number of items per user.
            exclude_history: Whether to leave out all items of the user's history; by default they are left out.
            restrict_to: The only items to recommend; all by default.
            exclude: Items not to recommend.
            titles: Whether to add a column ``title``, from the data set's file of items; or the name of its column of
                titles there.

        Returns:
            Columns ``user``, ``rank`` (1 for the best), ``item``, ``title`` if requested, and ``score``; users in the
            order of the histories, with fewer than k rows if fewer items remain. Items with equal scores are in the
            order of their numbers in the data set.

        Raises:
            SettingError: If ``k`` is out of range, or none of ``restrict_to`` is known.
            DataError: If the histories cannot be used, or there are no titles.
            CheckpointError: If the model does not read histories, reads other fields than items, or returns NaN.
        """
        requests = self.new_histories(histories)
        return self._frame(requests, k, exclude_history, restrict_to, exclude, titles)

    def recommend_users(
        self,
        users: Sequence[object] | None = None,
        k: int = 10,
        *,
        split: Split = "all",
        exclude_history: bool | None = None,
        restrict_to: Sequence[object] | None = None,
        exclude: Sequence[object] = (),
        titles: bool | str = False,
    ) -> pd.DataFrame:
        """Recommend items to users of the data set.

        Args:
            users: Tokens; all users by default. Unknown ones are skipped.
            k: See :meth:`recommend`.
            split: ``all`` to recommend on all interactions; ``valid`` or ``test`` for one list per target of that
                split, on the interactions before it, as in an evaluation.
            exclude_history: See :meth:`recommend`. By default, lists of ``valid`` and ``test`` are those of the model's
                evaluation: by the key ``mask_history``; without it, sequential models may recommend items of the
                history and all others may not, as in RecBole.
            restrict_to: See :meth:`recommend`.
            exclude: See :meth:`recommend`.
            titles: See :meth:`recommend`.

        Returns:
            See :meth:`recommend`.

        Raises:
            SettingError: If ``k`` or ``split`` is out of range, or none of ``restrict_to`` is known.
            DataError: If none of the users is known, the split has no targets, or there are no titles.
            CheckpointError: If the model reads other fields than users and items, or returns NaN.
        """
        requests = self.known_users(users, split)
        return self._frame(requests, k, exclude_history, restrict_to, exclude, titles)

    def known_users(self, users: Sequence[object] | None = None, split: Split = "all") -> Requests:
        """Users of the data set for :meth:`blocks`; arguments and errors as in :meth:`recommend_users`."""
        if split != "all":
            return known_users(self.loaded, users, split)
        requests = self._histories.requests(users)
        if not len(requests):
            raise no_users(self.loaded, requests)
        return requests

    @functools.cached_property
    def _histories(self) -> UserHistories:
        return UserHistories(known_users(self.loaded))

    def add_interactions(self, interactions: pd.DataFrame | Mapping[object, Sequence[object]] | pd.Series) -> None:
        """Add new interactions, which follow those of the data set, without reading it again.

        From then on, they are part of their users' histories in :meth:`recommend_users` and :meth:`known_users`, except
        with a split. Users whom the data set does not know are added if the model reads histories and no users, as HGN
        does. Nothing is trained, and the data set itself does not change.

        Args:
            interactions: As the histories of :meth:`recommend`: rows of ``user``, ``item`` and, unless they are in
                order, ``time``, or the items of each user, oldest first. They follow the user's known interactions.

        Raises:
            DataError: If they cannot be used.
        """
        given = self._given(interactions)
        if not serves_new_users(self.loaded, given):
            given = self._histories.of_known_users(given)
        for line in given.skipped:
            self._report(line)
        self._histories.append(given)

    def new_histories(self, histories: pd.DataFrame | Mapping[object, Sequence[object]] | pd.Series) -> Requests:
        """New histories for :meth:`blocks`; argument and errors as in :meth:`recommend`."""
        if not reads_sequences(self.loaded):
            raise CheckpointError(
                f"{self.loaded.config['model']} does not read histories: it knows only the users of its data set"
            )
        return self._given(histories)

    def _given(self, histories: pd.DataFrame | Mapping[object, Sequence[object]] | pd.Series) -> Requests:
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
        titles: bool | str = False,
        show_progress: bool = False,
    ) -> Iterator[pa.Table]:
        """Recommend block by block, in bounded memory.

        Args:
            requests: The result of :meth:`known_users` or :meth:`new_histories`.
            k: See :meth:`recommend`.
            exclude_history: See :meth:`recommend_users`.
            restrict_to: See :meth:`recommend`.
            exclude: See :meth:`recommend`.
            titles: See :meth:`recommend`.
            show_progress: Whether to show a progress bar.

        Returns:
            Tables, see :meth:`recbole_posattn.serving.lists.Lists.table`, of :data:`REQUESTS_PER_BLOCK` requests each.

        Raises:
            SettingError, DataError, CheckpointError: As :meth:`recommend` does.
        """
        lists = self._lists(requests, k, exclude_history, restrict_to, exclude, show_progress)
        of_items = self._titles(titles)
        return (each.table(self._item, of_items) for each in lists)

    def _frame(
        self,
        requests: Requests,
        k: int,
        exclude_history: bool | None,
        restrict_to: Sequence[object] | None,
        exclude: Sequence[object],
        titles: bool | str,
    ) -> pd.DataFrame:
        """The rows of :meth:`blocks`."""
        lists = self._lists(requests, k, exclude_history, restrict_to, exclude)
        of_items = self._titles(titles)
        return pd.concat([each.frame(self._token, of_items) for each in lists], ignore_index=True)

    def _lists(
        self,
        requests: Requests,
        k: int,
        exclude_history: bool | None,
        restrict_to: Sequence[object] | None,
        exclude: Sequence[object],
        show_progress: bool = False,
    ) -> Iterator[Lists]:
        """The lists of each block; arguments and errors as of :meth:`blocks`."""
        n_items = self.loaded.dataset.item_num - 1
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n_items:
            raise SettingError(f"k must be an integer from 1 to {n_items}, the number of items; got {k!r}.")
        for line in requests.skipped:
            self._report(line)
        left_out = self._left_out(restrict_to, exclude)
        mask = self._history_mask(requests, exclude_history)
        return self._rows(requests, k, left_out, mask, show_progress)

    def leaves_out_history(self, requests: Requests, exclude_history: bool | None = None) -> bool:
        """Whether the lists of some requests leave out items of the users' histories; see :meth:`blocks`."""
        return self._history_mask(requests, exclude_history) != "none"

    def _titles(self, titles: bool | str) -> pa.Array | None:
        """The title of each item by its number, null where there is none; ``None`` if they are not asked for."""
        if not titles:
            return None
        found = read_titles(self.loaded.config, titles if isinstance(titles, str) else None)
        return pa.array(found.reindex(self._token), pa.string(), from_pandas=True)

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
        number = numbers_of(self._known_items, names := as_tokens(token_list(name, tokens)))
        for line in report_skipped(f"items of {name} are not in the data set", names[number == 0], len(names)):
            self._report(line)
        return number

    def _history_mask(self, requests: Requests, exclude_history: bool | None) -> str:
        """Which items of the histories are left out, as a value of the key ``mask_history``."""
        if exclude_history is not None:
            return requests.history_mask(exclude_history)
        if not requests.have_targets:
            return "all"
        return self.loaded.config["mask_history"] or ("none" if reads_sequences(self.loaded) else "all")

    # -- scores ------------------------------------------------------------------------------------------------------

    def _rows(self, requests: Requests, k: int, left_out: Tensor, mask: str, show_progress: bool) -> Iterator[Lists]:
        with tqdm(total=len(requests), desc="recommending", unit=" users", disable=not show_progress) as progress:
            for index in torch.arange(len(requests)).split(REQUESTS_PER_BLOCK):
                yield self._best(requests.rows(index), k, left_out, mask, progress)

    @torch.no_grad()
    def _best(self, block: Requests, k: int, left_out: Tensor, mask: str, progress: tqdm) -> Lists:
        """The k best items of each request of a block."""
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
        return Lists(block.user, item.numpy(), best.numpy())

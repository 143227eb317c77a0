"""The best items of a trained model, for users of its data set and for histories from outside.

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
from recbole_posattn.serving.requests import Requests, Split, known_users, new_histories, numbers_of, report_skipped
from recbole_posattn.serving.scores import all_scores, model_input, reads_sequences
from recbole_posattn.training.load import Loaded, load

SCHEMA = pa.schema({"user": pa.string(), "rank": pa.int32(), "item": pa.string(), "score": pa.float32()})

# Scores of a batch, requests times items, and the most requests of a batch: what a CPU's cache has about room for.
SCORES_PER_BATCH = {"cpu": 2**23, "cuda": 2**26}
REQUESTS_PER_BATCH = {"cpu": 512, "cuda": 4096}

# Requests whose lists are handed on together. Batches are made of those of about the same length among them.
REQUESTS_PER_BLOCK = 4096


class Recommender:
    """Recommends the items that a trained model scores highest.

    Args:
        loaded: What :func:`recbole_posattn.load` returned.
        report: Told, in a line, what of the input was skipped; by default a warning is logged.

    Attributes:
        loaded: Settings, model and data.
    """

    def __init__(self, loaded: Loaded, report: Callable[[str], None] | None = None) -> None:
        self.loaded = loaded
        self._report = report or logging.getLogger(__name__).warning
        self._known_items = pd.Index(as_tokens(loaded.dataset.field2id_token[loaded.dataset.iid_field]))
        self._item = pa.array(self._known_items)

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
                ``time``; or the items of each user, oldest first. Items that the model does not know are skipped, and
                users without any other. Of longer histories the model reads the newest ``MAX_ITEM_LIST_LENGTH`` items.
            k: Items for each user.
            exclude_history: Whether to leave out what the user's whole history has. By default as the model was
                evaluated: by the key ``mask_history``; without it sequential models recommend from the history as well
                and all others do not, as in RecBole.
            restrict_to: The only items to recommend; all by default.
            exclude: Items not to recommend.

        Returns:
            Columns ``user``, ``rank`` (1 for the best), ``item`` and ``score``; the users in the order of the
            histories, fewer than k rows for one to whom fewer items are left. Of items with equal scores, the one that
            the data set numbers first is ahead.

        Raises:
            SettingError: If ``k`` is out of range, or none of ``restrict_to`` is known.
            DataError: If the histories cannot be used.
            CheckpointError: If the model reads no histories or more than items, or scores with NaN.
        """
        options = {"exclude_history": exclude_history, "restrict_to": restrict_to, "exclude": exclude}
        return pa.concat_tables(self.blocks(self.new_histories(histories), k, **options)).to_pandas()

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
            split: ``all`` to recommend on all interactions; ``valid`` or ``test`` for a list a target of that split, on
                what its user did before, as the model is evaluated.
            exclude_history: See :meth:`recommend`.
            restrict_to: See :meth:`recommend`.
            exclude: See :meth:`recommend`.

        Returns:
            See :meth:`recommend`.

        Raises:
            SettingError: If ``k`` or ``split`` is out of range, or none of ``restrict_to`` is known.
            DataError: If none of the users is known, or the split has no targets.
            CheckpointError: If the model reads more than users and items, or scores with NaN.
        """
        options = {"exclude_history": exclude_history, "restrict_to": restrict_to, "exclude": exclude}
        return pa.concat_tables(self.blocks(self.known_users(users, split), k, **options)).to_pandas()

    def known_users(self, users: Sequence[object] | None = None, split: Split = "all") -> Requests:
        """Users of the data set, as :meth:`recommend_users` takes them, for :meth:`blocks`."""
        return known_users(self.loaded, users, split)

    def new_histories(self, histories: pd.DataFrame | Mapping[object, Sequence[object]]) -> Requests:
        """Histories from outside, as :meth:`recommend` takes them, for :meth:`blocks`."""
        if not reads_sequences(self.loaded):
            raise CheckpointError(
                f"{self.loaded.config['model']} reads no histories: it knows the users of its data set only"
            )
        return new_histories(histories, self._known_items)

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
            requests: What :meth:`known_users` or :meth:`new_histories` returned.
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
        n_items = self.loaded.dataset.item_num - 1
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n_items:
            raise SettingError(f"k must be an integer from 1 to {n_items}, the number of items; got {k!r}.")
        for line in requests.skipped:
            self._report(line)
        left_out = self._left_out(restrict_to, exclude)
        mask = self._history_mask(requests, exclude_history)
        return self._blocks(requests, k, left_out, mask, show_progress)

    # -- what is not recommended -------------------------------------------------------------------------------------

    def _left_out(self, restrict_to: Sequence[object] | None, exclude: Sequence[object]) -> Tensor:
        """The items that nobody is recommended, the padding item among them; int64."""
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
        tokens = as_tokens(list(tokens))
        number = numbers_of(self._known_items, tokens)
        for line in report_skipped(f"items of {name} are not in the data set", tokens[number == 0], len(tokens)):
            self._report(line)
        return number

    def _history_mask(self, requests: Requests, exclude_history: bool | None) -> str:
        """What of the histories is left out, as the key ``mask_history`` says it."""
        if exclude_history is not None:
            return "all" if exclude_history else "none"
        mask = self.loaded.config["mask_history"] or ("none" if reads_sequences(self.loaded) else "all")
        return "all" if mask == "except_target" and not requests.have_targets else mask

    # -- scores ------------------------------------------------------------------------------------------------------

    def _blocks(
        self, requests: Requests, k: int, left_out: Tensor, mask: str, show_progress: bool
    ) -> Iterator[pa.Table]:
        with tqdm(total=len(requests), desc="recommending", unit=" users", disable=not show_progress) as progress:
            for index in torch.arange(len(requests)).split(REQUESTS_PER_BLOCK):
                block = requests.rows(index)
                scores, item = self._best(block, k, left_out, mask, progress)
                yield self._table(block.user, item, scores)

    @torch.no_grad()
    def _best(
        self, block: Requests, k: int, left_out: Tensor, mask: str, progress: tqdm
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the k best items of each request, each of shape (n, k); −∞ where there are fewer."""
        device, n_items = self.loaded.config["device"], self.loaded.dataset.item_num
        size = min(REQUESTS_PER_BATCH[device.type], max(1, SCORES_PER_BATCH[device.type] // n_items))
        best = torch.empty(len(block), k)
        item = torch.empty(len(block), k, dtype=torch.int64)
        for rows in torch.argsort(block.histories.length, stable=True).split(size):
            batch = block.rows(rows)
            scores = all_scores(self.loaded, model_input(self.loaded, batch))
            scores.index_fill_(1, left_out, -torch.inf)
            done = batch.histories.left_out(mask)
            if done is not None:
                scores[done] = -torch.inf
            found, number = best_items(scores, k)
            if found.isnan().any():
                raise CheckpointError(f"{self.loaded.config['model']} scores with NaN: its training has diverged")
            best[rows], item[rows] = found.float().cpu(), number.cpu()
            progress.update(len(rows))
        return best.numpy(), item.numpy()

    def _table(self, user: np.ndarray, item: np.ndarray, scores: np.ndarray) -> pa.Table:
        there = scores > -np.inf
        row, nth = np.nonzero(there)
        return pa.table(
            {
                "user": pa.array(user).take(pa.array(row)),
                "rank": pa.array(nth + 1, pa.int32()),
                "item": self._item.take(pa.array(item[there])),
                "score": pa.array(scores[there]),
            },
            SCHEMA,
        )

"""The histories of a data set's users by token, to which new interactions can be appended.

Shape keys: n users, N interactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_posattn.data.histories import Histories
from recbole_posattn.data.splits import count_up
from recbole_posattn.data.tokens import as_tokens
from recbole_posattn.serving.requests import Requests, report_skipped, token_list


class UserHistories:
    """All users with their interactions, oldest first.

    A user's interactions stand together in one tensor. New ones move them all to its end; the places they leave are
    reclaimed when it is full, so that adding takes time in proportion to the user's history.

    Args:
        known: The users of the data set with their whole histories; each user once.
    """

    def __init__(self, known: Requests) -> None:
        self._user, self._user_id = known.user, known.user_id
        self._place = {user: place for place, user in enumerate(known.user)}
        histories = known.histories
        self._item, self._time = histories.item, histories.time
        self._start, self._length = histories.start, histories.length
        self._end = len(self._item)

    def __len__(self) -> int:
        return len(self._user)

    def requests(self, users: Sequence[object] | None = None) -> Requests:
        """Requests for some users, in their order; for all users by default.

        Args:
            users: Tokens. Unknown ones are skipped, and a user who is named twice is taken once.
        """
        if users is None:
            return self._requests(torch.arange(len(self)))
        users = token_list("users", users)
        tokens = dict.fromkeys(map(str, users))
        places = [self._place[token] for token in tokens if token in self._place]
        unknown = as_tokens([user for user in map(str, users) if user not in self._place])
        skipped = report_skipped("users are not in the data", unknown, len(users))
        return self._requests(torch.tensor(places, dtype=torch.int64), skipped)

    def _requests(self, place: Tensor, skipped: tuple[str, ...] = ()) -> Requests:
        histories = self._histories(place)
        known = self._user_id  # users who were added have no number in the data set
        user_id = None if known is None or bool((place >= len(known)).any()) else known[place]
        return Requests(self._user[place.numpy()], user_id, histories, skipped=skipped)

    def of_known_users(self, new: Requests) -> Requests:
        """The requests of users who are here; the others are skipped."""
        known = np.array([user in self._place for user in new.user], dtype=bool)
        unknown = report_skipped("users are not in the data", new.user[~known], len(new))
        return replace(new.rows(torch.from_numpy(np.flatnonzero(known))), skipped=new.skipped + unknown)

    def append(self, new: Requests) -> None:
        """Put the histories of requests behind those of their users; users who are not there are added."""
        if len(set(new.user)) < len(new):  # tokens may be equal where what was given is not, such as 1 and "1"
            for row in torch.arange(len(new)).split(1):
                self.append(new.rows(row))
            return
        place = torch.tensor([self._place.setdefault(user, len(self._place)) for user in new.user], dtype=torch.int64)
        n_added = len(self._place) - len(self._user)
        if n_added:
            self._user = np.concatenate([self._user, as_tokens(list(self._place)[-n_added:])])
            self._start, self._length = (F.pad(each, (0, n_added)) for each in (self._start, self._length))
        total = self._length[place] + new.histories.length
        self._make_room(int(total.sum()))
        start = self._end + total.cumsum(0) - total
        before = self._histories(place)
        for histories, first in ((before, start), (new.histories, start + before.length)):
            self._copy(histories, first)
        self._start[place], self._length[place] = start, total
        self._end += int(total.sum())

    def _make_room(self, n: int) -> None:
        """Make room for n items behind the last one, in a new tensor if this one is full."""
        if self._end + n <= len(self._item):
            return
        live = self._histories(torch.arange(len(self._start)))
        self._start = self._length.cumsum(0) - self._length
        self._end = int(self._length.sum())
        size = 2 * (self._end + n)
        self._item = self._item.new_zeros(size)  # requests made before keep the old one
        if self._time is not None:
            self._time = self._time.new_zeros(size)
        self._copy(live, self._start)

    def _histories(self, place: Tensor) -> Histories:
        return Histories(self._item, self._start[place], self._start[place] + self._length[place], self._time)

    def _copy(self, histories: Histories, first: Tensor) -> None:
        """Copy histories to the places from ``first`` on, shape (n,)."""
        row, nth = torch.repeat_interleave(histories.length), count_up(histories.length)
        source, place = histories.start[row] + nth, first[row] + nth
        self._item[place] = histories.item[source].to(self._item.dtype)
        if self._time is not None and histories.time is not None:
            self._time[place] = histories.time[source]

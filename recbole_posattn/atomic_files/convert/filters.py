"""Filters of converted interactions: low ratings, repetitions, and users and items with few interactions."""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np

from recbole_posattn.atomic_files.convert.interactions import Interactions
from recbole_posattn.atomic_files.convert.shapes import ORDER
from recbole_posattn.errors import SettingError, counted
from recbole_posattn.settings.choices import Deduplicate


class Filters(NamedTuple):
    """What is left out. The filters are applied in this order.

    Attributes:
        min_rating: Interactions with a lower rating are left out.
        deduplicate: ``exact`` leaves out interactions that equal an earlier one in user, item and time; ``first`` and
            ``last`` keep only the first or the last of a user's interactions with the same item, by time, then by the
            order of the file.
        min_user_interactions: Users with fewer interactions are left out; this and the next filter are repeated until
            every user and every item has enough (the k-core).
        min_item_interactions: Items with fewer interactions are left out.
    """

    min_rating: float | None = None
    deduplicate: Deduplicate = "none"
    min_user_interactions: int = 1
    min_item_interactions: int = 1


class Step(NamedTuple):
    """The result of a filter.

    Attributes:
        name: Name of the filter.
        interactions: Number of interactions it left.
    """

    name: str
    interactions: int


def check_filters(filters: Filters, has_rating: bool, has_time: bool) -> None:
    """Refuse filters that cannot be applied.

    Raises:
        SettingError: If a filter has a value that is not allowed, or there are no ratings or times to filter by.
    """
    if filters.min_rating is not None and not has_rating:
        raise SettingError("min_rating needs ratings; name their column with --rating.")
    if filters.deduplicate not in get_args(Deduplicate):
        raise SettingError(
            f"deduplicate must be one of {', '.join(get_args(Deduplicate))}; got {filters.deduplicate!r}."
        )
    if filters.deduplicate == "exact" and not has_time:
        raise SettingError(
            f"deduplicate exact compares times, and there are none with --time_format={ORDER}; use first or last, or "
            "leave it out."
        )
    if min(filters.min_user_interactions, filters.min_item_interactions) < 1:
        raise SettingError(
            "min_user_interactions and min_item_interactions must be positive integers; "
            f"got {filters.min_user_interactions} and {filters.min_item_interactions}."
        )


def apply_filters(interactions: Interactions, filters: Filters) -> tuple[Interactions, list[Step]]:
    """The interactions that are left, in their order, and how many each filter left."""
    steps = []
    if filters.min_rating is not None and interactions.rating is not None:  # see check_filters
        interactions = interactions.take(interactions.rating >= filters.min_rating)
        steps.append(Step(f"rating of {filters.min_rating:g} or more", len(interactions)))
    if filters.deduplicate != "none":
        interactions = interactions.take(_distinct(interactions, filters.deduplicate))
        steps.append(Step(f"without repetitions ({filters.deduplicate})", len(interactions)))
    if max(filters.min_user_interactions, filters.min_item_interactions) > 1:
        kept, rounds = k_core(
            interactions.user, interactions.item, filters.min_user_interactions, filters.min_item_interactions
        )
        interactions = interactions.take(kept)
        least = f"{filters.min_user_interactions} a user, {filters.min_item_interactions} an item"
        steps.append(Step(f"{least} or more ({counted(rounds, 'round')})", len(interactions)))
    return interactions, steps


def _distinct(interactions: Interactions, which: Deduplicate) -> np.ndarray:
    """Mask of the interactions that are not repetitions; boolean, shape (N,)."""
    # lexsort is stable: equal times keep the order of the file
    order = np.lexsort((interactions.time, interactions.item, interactions.user))
    user, item, time = interactions.user[order], interactions.item[order], interactions.time[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    if which == "exact":
        begins[1:] |= time[1:] != time[:-1]
    kept = np.roll(begins, -1) if which == "last" else begins
    distinct = np.zeros(len(order), dtype=bool)
    distinct[order[kept]] = True
    return distinct


def k_core(user: np.ndarray, item: np.ndarray, min_user: int, min_item: int) -> tuple[np.ndarray, int]:
    """The largest set of interactions in which every user and every item has enough.

    Args:
        user: Number of each interaction's user, from 0; int, shape (N,).
        item: Number of each interaction's item, from 0; int, shape (N,).
        min_user: Least number of interactions per user.
        min_item: Least number of interactions per item.

    Returns:
        The indices of the interactions that are left, ascending, and the number of rounds that removed some.
    """
    left, rounds = np.arange(len(user)), 0
    while len(left):
        users, items = user[left], item[left]
        enough = (np.bincount(users)[users] >= min_user) & (np.bincount(items)[items] >= min_item)
        if enough.all():
            break
        left, rounds = left[enough], rounds + 1
    return left, rounds

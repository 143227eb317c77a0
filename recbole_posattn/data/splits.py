"""RecBole's splits of grouped rows, the same rows in the same order, without a Python loop over interactions.

Shape keys: n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_posattn.data.ordering import grouped_by_first_row


@dataclass(frozen=True)
class GroupedRows:
    """Rows group by group: groups in the order in which they first occur, each with its rows in their order.

    Attributes:
        row: Index of the row; int64, shape (n,).
        nth: How many rows of the same group come before; int64, shape (n,).
        size: Rows in the group; int64, shape (n,).
    """

    row: Tensor
    nth: Tensor
    size: Tensor

    @classmethod
    def by(cls, key: Tensor) -> GroupedRows:
        """Group rows by a key of shape (n,)."""
        row, size = map(torch.from_numpy, grouped_by_first_row(key.numpy()))
        return cls(row.long(), count_up(size), torch.repeat_interleave(size, size))

    def parts(self, part: Tensor, n_parts: int) -> list[Tensor]:
        """The rows of each part, from the part of each row in the order of :attr:`row`, shape (n,)."""
        return [self.row[part == p] for p in range(n_parts)]


def count_up(counts: Tensor) -> Tensor:
    """0, 1, …, count − 1 for each count, one after the other; int64."""
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return torch.arange(len(start)) - start


def leave_out_last(key: Tensor, n_left_out: int) -> list[Tensor]:
    """Part 0 with all rows but the last ``n_left_out`` of each group, which go to parts 1, 2, …, one each.

    As in RecBole, a group keeps its first row in part 0; if it has too few others, the last parts get them first.

    Args:
        key: The group of each row; shape (n,).
        n_left_out: How many rows of a group are left out.

    Returns:
        The rows of each part, in the order of :class:`GroupedRows`; int64.
    """
    row, size = map(torch.from_numpy, grouped_by_first_row(key.numpy()))
    last = size.cumsum(0) - 1
    kept = torch.ones(len(row), dtype=torch.bool)
    parts = []
    for from_end in reversed(range(n_left_out)):
        left_out = (last - from_end)[size > from_end + 1]
        kept[left_out] = False
        parts.append(row[left_out].long())
    return [row[kept].long(), *parts]


def ratio_part(rows: GroupedRows, split_points: Callable[[int], list[int]]) -> Tensor:
    """Part by position in the group; ``split_points(size)`` gives the first positions of parts 1, 2, ….

    It is called once for each group size.
    """
    sizes, which = torch.unique(rows.size, return_inverse=True)
    points = torch.tensor([split_points(size) for size in sizes.tolist()])
    return (rows.nth[:, None] >= points[which]).sum(dim=1)


def time_part(rows: GroupedRows, time: np.ndarray, ratios: list[float]) -> Tensor:
    """Part 2 for rows later than a quantile of all times; the rest of each group is divided into part 0 and part 1.

    Args:
        rows: Rows in time order in each group.
        time: Time of each row, before grouping; shape (n,).
        ratios: Shares of the three parts, of sum 1.
    """
    boundary = np.percentile(time, 100 * (1 - ratios[-1]))
    early = torch.from_numpy(time <= boundary)[rows.row]
    begin = torch.arange(len(early)) - rows.nth
    total = torch.cat([torch.zeros(1, dtype=torch.int64), early.cumsum(0)])
    n_early = total[begin + rows.size] - total[begin]
    n_first = (n_early.double() * (ratios[0] / (1 - ratios[2]))).long()
    return torch.where(early, (rows.nth >= n_first).long(), 2)


@dataclass(frozen=True)
class TimeSplit:
    """A split at two cuts in time, ``TQ``: training up to the first cut, validation up to the second, then the test.

    Attributes:
        quantiles: Quantiles of the two cuts, in (0, 1).
        second_of: Times over which the second quantile is taken: ``all``, or the ``rest`` after the first cut.
        method: Interpolation of the quantiles, a ``method`` of ``numpy.quantile``.
        tie: The part that gets interactions exactly at the time of a cut: ``earlier`` or ``later``.
        max_valid_rows: Maximum number of validation rows; if there are more, the first cut moves towards the second.
            ``None`` for no limit.
    """

    quantiles: tuple[float, float]
    second_of: str = "all"
    method: Any = "linear"
    tie: str = "earlier"
    max_valid_rows: int | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> TimeSplit | None:
        """The split that the settings of a run ask for; ``None`` for RecBole's splits."""
        quantiles = time_quantiles(settings["eval_args"])
        if quantiles is None:
            return None
        return cls(
            (quantiles[0], quantiles[1]),
            settings["time_split_second_of"],
            settings["time_split_method"],
            settings["time_split_tie"],
            settings["max_valid_rows"],
        )

    def part(self, time: np.ndarray, all_times: np.ndarray) -> np.ndarray:
        """The part of each time: 0 for training, 1 for validation, 2 for the test.

        Args:
            time: Shape (n,).
            all_times: Of all interactions, shape (N,).

        Returns:
            int64, shape (n,).
        """
        return self._side(self._cuts(all_times), time)

    def _side(self, cuts: np.ndarray, time: np.ndarray) -> np.ndarray:
        return np.searchsorted(cuts, time, side="left" if self.tie == "earlier" else "right")

    def _cuts(self, times: np.ndarray) -> np.ndarray:
        first, second = self._first_quantile(len(times)), self.quantiles[1]
        cut = np.quantile(times, first, method=self.method)
        rest = times if self.second_of == "all" else times[self._side(np.array([cut]), times) > 0]
        return np.array([cut, np.quantile(rest, second, method=self.method) if len(rest) else cut])

    def _first_quantile(self, n_rows: int) -> float:
        """The first quantile, so high that at most ``max_valid_rows`` of ``n_rows`` are expected in validation."""
        first, second = self.quantiles
        share_of_valid = second - first if self.second_of == "all" else (1 - first) * second
        if self.max_valid_rows is None or n_rows * share_of_valid <= self.max_valid_rows:
            return first
        largest_share = self.max_valid_rows / n_rows
        return second - largest_share if self.second_of == "all" else 1 - largest_share / second


def parts_from_a_common_time(eval_args: Mapping[str, Any]) -> tuple[int, ...]:
    """Which held-out parts begin at the same time for all users: 1 (validation), 2 (test).

    In RecBole, those of ``RS`` in time order without groups, and the test of ``TS``. Other parts begin user by user.

    Args:
        eval_args: The resolved ``eval_args``.
    """
    split = eval_args["split"]
    if "TS" in split:
        return (2,)
    in_groups = str(eval_args["group_by"]).lower() != "none"
    return (1, 2) if "RS" in split and eval_args["order"] == "TO" and not in_groups else ()


def time_quantiles(eval_args: Mapping[str, Any]) -> list[float] | None:
    """The quantiles of a split ``TQ``; ``None`` for RecBole's own splits."""
    split = eval_args["split"]
    return split.get("TQ") if isinstance(split, dict) else None

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
        row = torch.argsort(key, stable=True)
        _, size = torch.unique_consecutive(key[row], return_counts=True)
        begin = size.cumsum(0) - size
        order = torch.argsort(row[begin])  # groups by their first row
        size = size[order]
        nth = count_up(size)
        return cls(
            row=row[torch.repeat_interleave(begin[order], size) + nth],
            nth=nth,
            size=torch.repeat_interleave(size, size),
        )

    def parts(self, part: Tensor, n_parts: int) -> list[Tensor]:
        """The rows of each part, from the part of each row in the order of :attr:`row`, shape (n,)."""
        return [self.row[part == p] for p in range(n_parts)]


def count_up(counts: Tensor) -> Tensor:
    """0, 1, …, count − 1 for each count, one after the other; int64."""
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return torch.arange(len(start)) - start


def leave_one_out_part(rows: GroupedRows, n_left_out: int) -> Tensor:
    """Part 0, except for the last ``n_left_out`` rows of each group, which go to parts 1, 2, …, one each.

    As in RecBole, a group keeps its first row in part 0; if it has too few others, the last parts get them first.
    """
    from_end = rows.size - 1 - rows.nth
    left_out = from_end < (rows.size - 1).clamp(max=n_left_out)
    return torch.where(left_out, n_left_out - from_end, 0)


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


def time_quantiles(eval_args: Mapping[str, Any]) -> list[float] | None:
    """The quantiles of a split ``TQ``; ``None`` for RecBole's own splits."""
    split = eval_args["split"]
    return split.get("TQ") if isinstance(split, dict) else None


def quantile_parts(time: np.ndarray, all_times: np.ndarray, quantiles: list[float]) -> list[np.ndarray]:
    """Which times are up to the first quantile of all times, which are after it and up to the second, and so on.

    Args:
        time: Shape (n,).
        all_times: Of all interactions, shape (N,).
        quantiles: Ascending, in (0, 1).

    Returns:
        One more boolean array of shape (n,) than there are quantiles.
    """
    part = np.searchsorted(np.quantile(all_times, quantiles), time, side="left")
    return [part == p for p in range(len(quantiles) + 1)]

"""Statistics of a data set before any filtering: sizes, lengths, repetitions, popularity, times.

Shape keys: N interactions.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_posattn.data.sources import file_of, is_parquet
from recbole_posattn.errors import DataError, counted

if TYPE_CHECKING:  # importing it takes seconds
    from recbole_posattn.settings.config import Config

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP_SHARES = (0.01, 0.05, 0.1, 0.2)
N_TOP_ITEMS = 10

# Below this share of repeats, a target that the user had before is an exception.
FEW_REPEATS = 0.02

# Times between these are read as Unix seconds: 1980 and 2100.
_UNIX = (315_532_800, 4_102_444_800)


class Lengths(NamedTuple):
    """A summary of numbers of interactions.

    Attributes:
        min: The smallest number.
        quantiles: The quantiles at :data:`QUANTILES`, with linear interpolation.
        max: The largest number.
        mean: The mean.
    """

    min: int
    quantiles: tuple[float, ...]
    max: int
    mean: float


class DataStatistics(NamedTuple):
    """The result of :func:`data_statistics`.

    Attributes:
        name: Name of the data set.
        file: Its atomic file.
        users: Number of users.
        items: Number of items.
        interactions: Number of interactions, N.
        without_id: Number of rows without a user or an item, which RecBole drops and N does not count.
        density: Interactions / (users × items); above 1 only if users repeat items.
        of_user: Interactions per user.
        of_item: Interactions per item.
        repeat_rate: Share of interactions with an item that the user had before.
        repeat_median: Median number of the user's interactions from the item's last one to such a repeat: 1 is the same
            item twice in a row; ``None`` without repeats. Interactions are in time order, or in that of the file if
            there are no times.
        first: The earliest time; ``None`` if there are no times.
        last: The latest time; ``None`` if there are no times.
        unix: Whether the times look like seconds since 1970.
        top_shares: Share of the interactions that belong to the most popular items, by the share of items that are
            counted as such (at least one item).
        top_items: The most popular items and their numbers of interactions.
        user_counts: Interactions of each user, descending; int64, shape (users,).
        item_counts: Interactions of each item, descending; int64, shape (items,).
        times: The times; float64, shape (N,), or ``None``.
    """

    name: str
    file: Path
    users: int
    items: int
    interactions: int
    without_id: int
    density: float
    of_user: Lengths
    of_item: Lengths
    repeat_rate: float
    repeat_median: float | None
    first: float | None
    last: float | None
    unix: bool
    top_shares: dict[float, float]
    top_items: list[tuple[str, int]]
    user_counts: np.ndarray
    item_counts: np.ndarray
    times: np.ndarray | None

    def suggested(self) -> dict[str, str]:
        """What the share of repeats suggests for ``mask_history`` and the keys that go with it.

        If repeats are few, the history is better left out of the ranking. Otherwise, no repeat could be found without
        it, and the model can learn by ``history_partition`` how much to prefer it.
        """
        if self.repeat_rate < FEW_REPEATS:
            return {"mask_history": "all"}
        return {"mask_history": "none", "history_partition": "auto"}

    def plain(self) -> dict[str, Any]:
        """The figures that JSON can hold: all except the arrays."""
        arrays = ("user_counts", "item_counts", "times")
        figures = {key: value for key, value in self._asdict().items() if key not in arrays}
        figures["suggested"] = self.suggested()
        lengths = {
            key: {**figures[key]._asdict(), "quantiles": dict(zip(map(str, QUANTILES), figures[key].quantiles))}
            for key in ("of_user", "of_item")
        }
        shares = {str(share): value for share, value in self.top_shares.items()}
        return {**figures, **lengths, "file": str(self.file), "top_shares": shares}


def data_statistics(config: Config) -> DataStatistics:
    """Measure a data set.

    Args:
        config: Resolved settings, which give its path and the names of its columns; times are optional.
            A missing data set that RecBole knows is downloaded.

    Raises:
        DataError: If it is missing, or cannot be read as an atomic file.
    """
    from recbole_posattn.atomic_files.check import ensure_atomic_files  # imports RecBole, which time_span does not need

    ensure_atomic_files(config, allow_missing=True)  # missing ids are counted
    name = config["dataset"]
    file = file_of(Path(config["data_path"]) / f"{name}.inter")
    table = _read(file, config)
    user, item = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
    named = table.dropna(subset=[user, item])
    if named.empty:
        raise DataError(f"{file} has no interactions with a user and an item")
    users, items = (named[column].cat.remove_unused_categories() for column in (user, item))
    of_user, of_item = (np.bincount(column.cat.codes) for column in (users, items))
    pairs = np.unique(users.cat.codes.to_numpy(np.int64) * len(of_item) + items.cat.codes.to_numpy())
    times = named[config["TIME_FIELD"]].to_numpy() if config["TIME_FIELD"] in named else np.empty(0)
    known = bool(np.isfinite(times).any())
    popular = np.argsort(-of_item, kind="stable")
    in_order = of_item[popular]
    return DataStatistics(
        name=name,
        file=file,
        users=len(of_user),
        items=len(of_item),
        interactions=len(named),
        without_id=len(table) - len(named),
        density=len(named) / len(of_user) / len(of_item),
        of_user=_lengths(of_user),
        of_item=_lengths(of_item),
        repeat_rate=1 - len(pairs) / len(named),
        repeat_median=_repeat_median(users.cat.codes.to_numpy(), items.cat.codes.to_numpy(), times if known else None),
        first=float(np.nanmin(times)) if known else None,
        last=float(np.nanmax(times)) if known else None,
        unix=known and looks_like_unix(np.nanmin(times), np.nanmax(times)),
        top_shares={share: in_order[: max(1, round(share * len(in_order)))].sum() / len(named) for share in TOP_SHARES},
        top_items=[(items.cat.categories[code], int(of_item[code])) for code in popular[:N_TOP_ITEMS]],
        user_counts=-np.sort(-of_user),
        item_counts=in_order,
        times=times if known else None,
    )


def _repeat_median(user: np.ndarray, item: np.ndarray, times: np.ndarray | None) -> float | None:
    """See :attr:`DataStatistics.repeat_median`; numbers of users and items, shape (N,)."""
    order = np.lexsort((user,) if times is None else (times, user))  # stable
    user, item = user[order], item[order]
    by_item = np.lexsort((item, user))
    same = (np.diff(user[by_item]) == 0) & (np.diff(item[by_item]) == 0)
    gaps = np.diff(by_item)[same]
    return float(np.median(gaps)) if len(gaps) else None


def looks_like_unix(first: float, last: float) -> bool:
    """Whether times from ``first`` to ``last`` look like seconds since 1970."""
    return bool(_UNIX[0] <= first and last <= _UNIX[1])


def time_span(first: float, last: float) -> str:
    """A time span in words, with dates if the times look like Unix seconds."""
    if not looks_like_unix(first, last):
        return f"{first:.10g} to {last:.10g}, not Unix times"
    begin, end = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (first, last))
    return f"{begin:%Y-%m-%d} to {end:%Y-%m-%d}, {counted((end - begin).days, 'day')}"


def _read(file: Path, config: Config) -> pd.DataFrame:
    """Users, items and times (if there are any), as RecBole reads them."""
    fields = [config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]
    if is_parquet(file):
        from recbole_posattn.data.parquet import read_columns

        table = read_columns(file, fields, config)
        for field in fields[:2]:  # in the order of pandas' reader, which decides among equally popular items
            table[field] = table[field].cat.set_categories(sorted(table[field].cat.categories))
        return table
    separator, encoding = config["field_separator"], config["encoding"]
    options: dict[str, Any] = {"sep": separator, "encoding": encoding}
    options["engine"] = "c" if len(separator) == 1 else "python"
    wanted: dict[str, Any] = dict(zip(fields, ("category", "category", float)))
    try:
        header = pd.read_csv(file, nrows=0, **options).columns
        types = {column: wanted[field] for column in header if (field := _field(column)) in wanted}
        types = {column: kind for column, kind in types.items() if kind is not float or column.endswith(":float")}
        return pd.read_csv(file, usecols=list(types), dtype=types, **options).rename(columns=_field)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _field(column: str) -> str:
    return column.split(":")[0]


def _lengths(counts: np.ndarray) -> Lengths:
    quantiles = tuple(np.quantile(counts, QUANTILES).tolist())
    return Lengths(int(counts.min()), quantiles, int(counts.max()), float(counts.mean()))

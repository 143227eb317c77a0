"""Leaderboards side by side: how much each model gains over a common one, from the records of their runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.evaluation.target_ranks import RANK_METRICS, is_rank_metric
from recbole_posattn.experiments.leaderboard.board import FEW_SEEDS, SIGNIFICANCE
from recbole_posattn.experiments.leaderboard.paired_tests import p_values_against
from recbole_posattn.experiments.leaderboard.public import NAME, Recorded, read_records, readable
from recbole_posattn.experiments.leaderboard.runs import Run, finished_runs, metric_values, same_targets
from recbole_posattn.experiments.leaderboard.statistics import gains

# The model that others are compared with by default: SASRec without positional encoding.
BASELINE = "NoPE"

# Suffix of our model classes, which the leaderboards of this package leave out; it is part of these published names.
_SUFFIX = "SASRec"
_PUBLISHED = ("SASRec", "ESASRec", "TiSASRec")

GAIN_COLUMNS = [
    *("model", "row", "seeds", "mean", "difference", "low", "high", "share", "share_low", "share_high", "p"),
    *("parameters", "training_seconds"),
]


class Gains(NamedTuple):
    """The gains on one board.

    Attributes:
        folder: The folder of its leaderboard.
        dataset: Name of the data set.
        protocol: Name of the protocol.
        metric: The watched metric.
        baseline: The mean of the common model.
        seeds: Its number of seeds.
        n_users: Users with a test target.
        table: A row for each other model, the highest mean first, with the columns :data:`GAIN_COLUMNS`: its common
            name and its row, seeds, mean, the fields of
            :class:`~recbole_posattn.experiments.leaderboard.statistics.Gain` over the common model, the p-value of the
            paired test against it with Holm's correction for the rows of the board (missing with a single seed), and
            its costs.
        findings: What the board shows, in sentences.
        date: Of its runs.
        place: Where it is, if other boards have the same data set and protocol; otherwise empty.
    """

    folder: Path
    dataset: str
    protocol: str
    metric: str
    baseline: float
    seeds: int
    n_users: int
    table: pd.DataFrame
    findings: list[str]
    date: str
    place: str = ""

    @property
    def title(self) -> str:
        """Data set and protocol, and the place if these do not tell it from another board."""
        return f"{self.dataset}, {self.protocol}" + (f" ({self.place})" if self.place else "")

    def verdict(self, row: pd.Series) -> str:
        """``better`` or ``worse`` than the common model, a ``tie``, or empty without a test."""
        if pd.isna(row["p"]):
            return ""
        return "tie" if row["p"] >= SIGNIFICANCE else "better" if row["difference"] > 0 else "worse"

    def has_few_seeds(self, row: pd.Series) -> bool:
        """Whether a test of this row is weaker evidence."""
        return min(row["seeds"], self.seeds) < FEW_SEEDS


def common_name(row: str, model: str | None) -> str:
    """The name of a row that has the same model in all leaderboards: ``PosKernel`` for ``PosKernelSASRec`` itself."""
    return row.removesuffix(_SUFFIX) if row == model and row not in _PUBLISHED else row


def _rows_named(asked: str, names: Mapping[str, str]) -> list[str]:
    """The rows of a board that have a name, given each row's common name: as it is, or else as a model's other name."""
    exact = [row for row, name in names.items() if asked in (row, name)]
    return exact or [row for row, name in names.items() if common_name(asked, asked) == name]


def leaderboard_folders(given: Sequence[Path]) -> list[Path]:
    """The folders of leaderboards, each once: the given ones, or those in them.

    Raises:
        SettingError: If a given one is none and has none in it.
    """
    found: dict[Path, Path] = {}
    for folder in given:
        own = [folder] if (folder / NAME).is_file() else sorted(file.parent for file in folder.glob(f"*/{NAME}"))
        if not own:
            raise SettingError(f"no {NAME} in {folder} or the folders in it; a leaderboard writes it.")
        for each in own:
            found.setdefault(each.resolve(), each)
    return list(found.values())


def read_gains(
    folders: Sequence[Path], baseline: str = BASELINE, models: Sequence[str] = ()
) -> tuple[list[Gains], list[str]]:
    """The gains over a common model on all boards of some leaderboards.

    Args:
        folders: Of leaderboards with their records.
        baseline: The common model, by its row or its :func:`common_name`.
        models: The models to show, in the same way; all by default.

    Returns:
        The gains by board, and a line for each board or leaderboard that was left out, with the reason.

    Raises:
        DataError: If the leaderboards that cannot be read are all there are, or leave none with the common model.
        SettingError: If no board has the common model, or a named model is on none of them.
    """
    result: list[Gains] = []
    left_out: list[str] = []
    unreadable: list[str] = []
    for folder in folders:
        try:
            found_on = _gains_by_board(folder, baseline)
        except DataError as error:
            if len(folders) == 1:
                raise
            unreadable.append(f"{folder}: {error}")
            left_out.append(unreadable[-1])
            continue
        left_out += [f"{folder}: {name}: {found}" for name, found in found_on.items() if isinstance(found, str)]
        result += [found for found in found_on.values() if isinstance(found, Gains)]
    if not result and unreadable:
        more = f" ({len(unreadable) - 1} more cannot be read)" if len(unreadable) > 1 else ""
        raise DataError(f"no other leaderboard has the row {baseline}, and {unreadable[0]}{more}")
    if not result:
        raise SettingError(f"no leaderboard has the row {baseline} and another row; name a row with --reference=NAME.")
    result = _with_places(result)
    known = {baseline, *(str(name) for each in result for name in (*each.table["model"], *each.table["row"]))}
    shown = {model for model in models if any(len(_rows_of(board.table, [model])) for board in result)}
    for model in models:
        if model not in shown and common_name(model, model) != common_name(baseline, baseline):
            raise SettingError(
                f"models: {model!r} is in no leaderboard with {baseline}; there are {', '.join(sorted(known))}."
            )
    if not models:
        return result, left_out
    if not shown:
        raise SettingError(
            f"models: {baseline!r} is the reference; name others to compare with it, of "
            f"{', '.join(sorted(known - {baseline}))}."
        )
    chosen = [board._replace(table=_rows_of(board.table, models)) for board in result]
    left_out += [f"{board.folder}: {board.title}: it has none of the models" for board in chosen if board.table.empty]
    return [board for board in chosen if not board.table.empty], left_out


def _rows_of(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    names = dict(zip(table["row"], table["model"]))
    chosen = {row for asked in models for row in _rows_named(asked, names)}
    return table[table["row"].isin(chosen)].reset_index(drop=True)


def _with_places(boards: Sequence[Gains]) -> list[Gains]:
    """The boards; those of equal titles with the name of their folder, or its path if the names are equal, too."""
    titles = Counter(board.title for board in boards)
    names = Counter((board.title, board.folder.resolve().name) for board in boards)
    places = []
    for board in boards:
        name = board.folder.resolve().name
        place = name if names[board.title, name] == 1 else board.folder.as_posix()
        places.append(place if titles[board.title] > 1 else "")
    return [board._replace(place=place) for board, place in zip(boards, places)]


def _gains_by_board(folder: Path, baseline: str) -> dict[str, Gains | str]:
    """The gains on each board of a leaderboard by name, or why it is left out.

    Raises:
        DataError: If the leaderboard, or a record, cannot be read.
    """
    provenance, boards = read_records(folder)
    found: dict[str, Gains | str] = {}
    for recorded in boards:
        with readable(recorded):
            found[recorded.name] = _gains(folder, recorded, baseline, provenance.date)
    return found


def _gains(folder: Path, recorded: Recorded, baseline: str, date: str) -> Gains | str:
    """The gains on a board, or why it is left out."""
    runs = finished_runs(recorded.outcomes)
    names = {row: common_name(row, of_row[0].result["config"].get("model")) for row, of_row in runs.items()}
    of_names = Counter(names.values())
    names = {row: name if of_names[name] == 1 else row for row, name in names.items()}
    base = next(iter(_rows_named(baseline, names)), None)
    others = [row for row in names if row != base]
    if base is None or not others:
        return f"it has no row {baseline}, or no other one"
    metric = runs[base][0].watched
    if not is_rank_metric(metric):
        return f"its metric {metric} is none of {', '.join(RANK_METRICS)}"
    if _are_newer(runs, recorded.content["runs"], metric):
        return f"its sentences are older than its records; write them again with leaderboard --from={folder}"
    targets = same_targets(runs)
    values = metric_values(runs, metric)
    if not values[base].any():
        return f"its row {base} has the mean 0, so no gain has a percentage"
    users = targets["user"].to_numpy()
    p_values = p_values_against(base, values, users)
    found = gains([(row, base) for row in others], values, users)
    table = pd.DataFrame(
        [
            (names[row], row, len(runs[row]), float(values[row].mean()), *gain, p_values[row], *_costs(runs[row]))
            for row, gain in zip(others, found)
        ],
        columns=GAIN_COLUMNS,
    ).sort_values("mean", ascending=False, kind="stable", ignore_index=True)
    content = recorded.content
    return Gains(
        folder=folder,
        dataset=content["dataset"],
        protocol=content["protocol"],
        metric=metric,
        baseline=float(values[base].mean()),
        seeds=len(runs[base]),
        n_users=targets["user"].nunique(),
        table=table,
        findings=content.get("findings", []),
        date=date,
    )


def _are_newer(runs: Mapping[str, Sequence[Run]], written: Sequence[Mapping[str, Any]], metric: str) -> bool:
    """Whether a record has another score than the leaderboard was written with."""
    scores = {facts["fingerprint"]: (facts.get("test") or {}).get(metric) for facts in written}
    records = [run for of_row in runs.values() for run in of_row]
    return any(scores.get(run.fingerprint) not in (None, run.result["test_result"][metric]) for run in records)


def _costs(of_row: Sequence[Run]) -> tuple[int, float]:
    seconds = [run.result["seconds"]["training"] for run in of_row]
    return of_row[0].result["trainable_parameters"], float(np.mean(seconds))

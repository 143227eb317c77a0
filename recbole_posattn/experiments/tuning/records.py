"""What is known of a search, as files: what is searched (``search.json``) and each trial that has ended.

A line of ``trials.jsonl`` is a trial. A search that is taken up again reads them, so they are plain data, and a line
that was not written to its end is none.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError, UserError
from recbole_posattn.experiments.trials import read_result, remove_left_over, validated_epochs
from recbole_posattn.experiments.tuning.space import Space
from recbole_posattn.files import json_text, whole_file
from recbole_posattn.training.result import RESULT_NAME

RUNS, SEARCH_NAME, TRIALS_NAME = "runs", "search.json", "trials.jsonl"

# What has become of a trial. Only one whose process died is run again when its search is taken up.
FINISHED, PRUNED, FAILED, DIED = "finished", "pruned", "failed", "died"


class TrialRecord(NamedTuple):
    """A trial that has ended.

    Attributes:
        number: Counted from 0, in the order in which they started.
        state: ``finished``, ``pruned`` (stopped as hopeless), ``failed``, or ``died`` with its process.
        settings: Those that were drawn for it.
        curve: ``(epoch, score)`` of each epoch that was validated, counted from 1.
        seconds: From its start to its end.
        error: Why it failed.
    """

    number: int
    state: str
    settings: dict[str, Any]
    curve: list[tuple[int, float]]
    seconds: float = 0.0
    error: str | None = None

    def best(self, bigger: bool) -> float | None:
        """The best score of its epochs; ``None`` if it has none that is a number."""
        scores = (score for _, score in self.curve if math.isfinite(score))
        return (max if bigger else min)(scores, default=None)


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial's run is, once it is finished."""
    return folder / RUNS / f"{number:04d}"


def best_trial(records: Sequence[TrialRecord], bigger: bool) -> TrialRecord | None:
    """The best of the finished trials, the earlier one of equals; ``None`` if none is finished."""
    finished = [record for record in records if record.state == FINISHED and record.best(bigger) is not None]
    return (max if bigger else min)(finished, key=lambda record: record.best(bigger), default=None)


def next_number(records: Sequence[TrialRecord]) -> int:
    """The number of the first trial behind some others."""
    return max((record.number for record in records), default=-1) + 1


def n_failed(records: Sequence[TrialRecord]) -> int:
    """How many of some trials neither came to their end nor were stopped as hopeless."""
    return sum(record.state not in (FINISHED, PRUNED) for record in records)


def open_search(folder: Path, searched: Mapping[str, Any], space: Space, resume: bool) -> list[TrialRecord]:
    """Make the folder of a search, or find what is known of it.

    Args:
        folder: Of the search.
        searched: What is searched, as plain data.
        space: Its space.
        resume: Whether there is a search to go on with.

    Returns:
        The trials that have ended and are not to be run again, by number.

    Raises:
        SettingError: If there is a search and ``resume`` is not set, none and it is, or another one.
        UserError: If the folder cannot be written.
    """
    file = folder / SEARCH_NAME
    if file.is_file():
        if not resume:
            raise SettingError(f"{folder} holds a search already; go on with it by --resume, or give another --output.")
        before = json.loads(file.read_text(encoding="utf-8"))
        for key, value in json.loads(json_text(searched)).items():
            if before.get(key) != value:
                raise SettingError(
                    f"the search in {folder} has {key} {before.get(key)!r}, and not {value!r}; "
                    "go on with the same command, or give another --output."
                )
    elif resume:
        raise SettingError(f"there is no search in {folder} to go on with; leave --resume out.")
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        with whole_file(file) as incomplete:
            incomplete.write_text(json_text(searched, indent=2) + "\n", encoding="utf-8")
        remove_left_over(folder / RUNS)
        records = {record.number: record for record in read_records(folder)}
        for number, record in _unrecorded(folder, space, records).items():
            records[number] = record
            append_record(folder, record)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return [records[number] for number in sorted(records) if records[number].state != DIED]


def read_records(folder: Path) -> list[TrialRecord]:
    """The trials of a search that have ended, in that order."""
    file = folder / TRIALS_NAME
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    records = []
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:  # empty, or not written to its end
            continue
        curve = [(epoch, math.nan if score is None else score) for epoch, score in fields["curve"]]
        records.append(TrialRecord(**{**fields, "curve": curve}))
    return records


def append_record(folder: Path, record: TrialRecord) -> None:
    """Write a trial down; a torn line before it does not hurt it."""
    with open(folder / TRIALS_NAME, "a", encoding="utf-8") as file:
        file.write("\n" + json_text(record._asdict()))


def finished_curve(result: Mapping[str, Any]) -> list[tuple[int, float]]:
    """The curve of a finished run, from the content of its ``result.json``."""
    curve = [(epoch, score) for epoch, _, score in validated_epochs(result)]
    return curve or [(max(result["epochs"], 1), result["best_valid_score"])]


def _unrecorded(folder: Path, space: Space, recorded: Mapping[int, TrialRecord]) -> dict[int, TrialRecord]:
    """Runs that ended when the search was being killed, by number; what failed then is removed, to be run again."""
    found = {}
    for run in (folder / RUNS).iterdir():
        if not run.name.isdigit() or int(run.name) in recorded:  # a lock, or what another process holds
            continue
        number = int(run.name)
        if not (run / RESULT_NAME).is_file():
            shutil.rmtree(run)
            continue
        result = read_result(run)
        settings = space.drawn(result["config"])
        seconds = result["seconds"]["total"]
        found[number] = TrialRecord(number, FINISHED, settings, finished_curve(result), seconds)
    return found

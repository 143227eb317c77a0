"""The files of a search: its definition (``search.json``) and the trials that have ended (``trials.jsonl``).

Each line of ``trials.jsonl`` is a trial. A resumed search reads both files. A torn line is ignored.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError, UserError, typed
from recbole_posattn.experiments.records import INCOMPLETE, RUNS, ignore_all_but_records
from recbole_posattn.experiments.run_folders import DRAWN_NAME, remove_left_over
from recbole_posattn.experiments.run_results import read_result, validated_epochs
from recbole_posattn.experiments.tuning.space import Space
from recbole_posattn.files import json_text, write_json
from recbole_posattn.settings.keys import WITHOUT_EFFECT_ON_RESULT
from recbole_posattn.training.result import RESULT_NAME

SEARCH_NAME, TRIALS_NAME = "search.json", "trials.jsonl"

# States of a trial. A resumed search reruns only those whose process died.
FINISHED, PRUNED, FAILED, DIED = "finished", "pruned", "failed", "died"

# Seconds to wait for the process of a trial that is being stopped, or that a killed search left behind.
WAIT_FOR_ORPHANS = 10.0


class TrialRecord(NamedTuple):
    """A trial that has ended.

    Attributes:
        number: Counted from 0 in starting order.
        state: ``finished``, ``pruned`` (stopped early), ``failed``, or ``died`` (its process was killed).
        settings: Values of the searched keys.
        curve: ``(epoch, score)`` of each validated epoch, counted from 1.
        seconds: Duration.
        error: Why it failed.
        source: Folder of the earlier search that it was taken from; ``None`` if this one ran it.
    """

    number: int
    state: str
    settings: dict[str, Any]
    curve: list[tuple[int, float]]
    seconds: float = 0.0
    error: str | None = None
    source: str | None = None

    def best(self, bigger: bool) -> float | None:
        """The best score over its epochs; ``None`` if no score is finite."""
        scores = (score for _, score in self.curve if math.isfinite(score))
        return (max if bigger else min)(scores, default=None)


def trial_folder(folder: Path, number: int) -> Path:
    """The folder of a trial's finished run."""
    return folder / RUNS / f"{number:04d}"


def best_trial(records: Sequence[TrialRecord], bigger: bool) -> TrialRecord | None:
    """The best finished trial, the earliest of equals; ``None`` if no trial is finished."""
    best, best_score = None, None
    for record in records:
        score = record.best(bigger) if record.state == FINISHED else None
        if score is not None and (best_score is None or (score > best_score if bigger else score < best_score)):
            best, best_score = record, score
    return best


def next_number(records: Sequence[TrialRecord], folder: Path) -> int:
    """The next free trial number: no trial on record has it, nor a run that a killed search left in progress."""
    running = [int(name) for name in (run.stem for run in (folder / RUNS).glob(f"*{INCOMPLETE}")) if name.isdigit()]
    return max([*(record.number for record in records), *running], default=-1) + 1


def n_failed(records: Sequence[TrialRecord]) -> int:
    """How many trials were neither finished nor pruned."""
    return sum(record.state not in (FINISHED, PRUNED) for record in records)


def open_search(
    folder: Path,
    searched: Mapping[str, Any],
    space: Space,
    n_trials: int,
    resume: bool,
    identity: Mapping[str, Any] | None = None,
    data: str | None = None,
) -> list[TrialRecord]:
    """Create the folder of a search, or read the records of an existing one.

    The process of a trial can outlive a killed search by seconds; an existing search waits for it.

    Args:
        folder: Of the search.
        searched: The definition of the search, as plain data.
        space: Its space.
        n_trials: The number of its trials. Runs without a record count as trials up to this number; others are
            deleted.
        resume: Whether to continue an existing search.
        identity: What other searches are compared by, stored with the definition.
        data: Digest of the data of all trials; ``None`` if each may have its own.

    Returns:
        The trials that have ended and need no rerun, by number.

    Raises:
        SettingError: If a search exists and ``resume`` is not set, none exists and it is, or the existing one differs.
        UserError: If the folder cannot be written.
    """
    file = folder / SEARCH_NAME
    if file.is_file():
        if not resume:
            raise SettingError(f"{folder} already holds a search; continue it with --resume, or give another --output.")
        before = read_definition(file)
        if before is None:
            raise SettingError(f"{file} is damaged, so the search cannot be continued; give another --output.")
        for key, (old, new) in differing_fields(before, searched).items():
            raise SettingError(
                f"the search in {folder} has {key} {old!r}, and not {new!r}; "
                "continue it with the same command, or give another --output."
            )
    elif resume:
        raise SettingError(f"there is no search in {folder} to resume; leave --resume out.")
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        ignore_all_but_records(folder / RUNS)
        write_json(file, {**searched, "identity": identity} if identity is not None else searched)
        remove_left_over(folder / RUNS, wait=WAIT_FOR_ORPHANS)
        records = {record.number: record for record in read_records(folder)}
        ended = [record for record in records.values() if record.state != DIED]
        for record in records.values():
            if record.state == DIED:  # another trial may get its number, and must not find its failure
                shutil.rmtree(trial_folder(folder, record.number), ignore_errors=True)
        for record in _unrecorded(folder, space, records, data):
            if len(ended) < n_trials:
                ended.append(record)
                append_record(folder, record)
            else:
                shutil.rmtree(trial_folder(folder, record.number))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return sorted(ended, key=lambda record: record.number)


def read_definition(file: Path) -> dict[str, Any] | None:
    """The content of a ``search.json``; ``None`` if it cannot be read."""
    try:
        definition = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return definition if isinstance(definition, dict) else None


def differing_fields(before: Mapping[str, Any], searched: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two definitions of a search differ: the old and the new value by field.

    Settings without effect on the results, such as the folder of the data, may differ if the earlier definition has an
    identity, by which the data are compared; searches of early versions have none.
    """
    old, new = dict(before), json.loads(json_text(searched))
    if "identity" in old:
        for fields in (old, new):
            given = (fields.get("settings") or {}).items()
            fields["settings"] = {key: value for key, value in given if key not in WITHOUT_EFFECT_ON_RESULT}
    return {key: (old.get(key), value) for key, value in new.items() if old.get(key) != value}


def take_records(
    folder: Path, known: Sequence[TrialRecord], earlier: Sequence[TrialRecord], most: int
) -> list[TrialRecord]:
    """Add trials of earlier searches to a search, with numbers of their own.

    Args:
        folder: Of the search.
        known: Its trials.
        earlier: Trials of others; those with the settings of a known one are left out.
        most: The number of trials to add at most.

    Returns:
        The added trials.

    Raises:
        UserError: If the folder cannot be written.
    """
    settings, number = [record.settings for record in known], next_number(known, folder)
    new = [record for record in earlier if record.settings not in settings]
    numbered = [record._replace(number=number + nth) for nth, record in enumerate(new[:most])]
    try:
        for record in numbered:
            append_record(folder, record)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return numbered


def read_records(folder: Path) -> list[TrialRecord]:
    """The trials of a search that have ended, in the order of their ends."""
    file = folder / TRIALS_NAME
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    records = []
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:  # empty or torn
            continue
        curve = [(epoch, math.nan if score is None else score) for epoch, score in fields["curve"]]
        records.append(TrialRecord(**{**fields, "curve": curve}))
    return records


def append_record(folder: Path, record: TrialRecord) -> None:
    """Append a trial; the leading newline separates it from a torn line."""
    with open(folder / TRIALS_NAME, "a", encoding="utf-8") as file:
        file.write("\n" + json_text(record._asdict()))


def finished_curve(result: Mapping[str, Any]) -> list[tuple[int, float]]:
    """The curve of a finished run, from the content of its ``result.json``."""
    curve = [(epoch, score) for epoch, _, score in validated_epochs(result)]
    return curve or [(max(result["epochs"], 1), result["best_valid_score"])]


def _unrecorded(folder: Path, space: Space, recorded: Mapping[int, TrialRecord], data: str | None) -> list[TrialRecord]:
    """Runs that finished while the search was killed, by number.

    Runs that failed, that used data with another digest than ``data``, or whose drawn settings are not known, are
    deleted; the search runs other trials for them.
    """
    unrecorded = []
    for run in sorted((folder / RUNS).iterdir()):
        if not run.name.isdigit() or int(run.name) in recorded:  # a lock file, or a run in progress
            continue
        if not (run / RESULT_NAME).is_file():
            shutil.rmtree(run)
            continue
        result = read_result(run)
        try:
            if data is not None and result.get("data_digest") != data:
                raise ValueError("the data set has changed since it ran.")
            settings = _drawn(run, result["config"], space)
        except ValueError as error:
            logging.getLogger().warning(f"trial {int(run.name)} is left out: {error}")
            shutil.rmtree(run)
            continue
        seconds = result["seconds"]["total"]
        unrecorded.append(TrialRecord(int(run.name), FINISHED, settings, finished_curve(result), seconds))
    return unrecorded


def _drawn(run: Path, config: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The settings that were drawn for a finished run.

    Runs of earlier versions lack the file; their resolved settings, ``config``, need not be those that were drawn.

    Raises:
        ValueError: If they are not known; the message is the reason.
    """
    if (run / DRAWN_NAME).is_file():
        settings: dict[str, Any] = json.loads((run / DRAWN_NAME).read_text(encoding="utf-8"))
        return settings
    drawn = space.drawn(config)
    for dimension in space.dimensions:
        if dimension.key in drawn and not dimension.holds(drawn[dimension.key], config):
            raise ValueError(
                f"an earlier version ran it and did not keep the drawn {dimension.key}; "
                f"{typed(drawn[dimension.key])} is not in the search space."
            )
    return drawn


def trial_report(epoch: int, score: float, before: Sequence[Mapping[str, float]], mode: str) -> dict[str, float]:
    """What a trial reports to Ray after an epoch: its score and the best one so far, which is never NaN if any is not.

    Args:
        epoch: The epoch, from 1.
        score: Its validation score.
        before: The trial's earlier reports.
        mode: ``max`` or ``min``, the better scores.
    """
    known = [each for each in (score, *(last["best"] for last in before[-1:])) if not math.isnan(each)]
    best = (max if mode == "max" else min)(known, default=math.nan)
    return {"epoch": epoch, "score": score, "best": best}


def trial_reports(curve: Sequence[tuple[int, float]], mode: str) -> list[dict[str, float]]:
    """All reports of a trial with this curve, with the count that Ray adds; ``mode`` as in :func:`trial_report`."""
    reports: list[dict[str, float]] = []
    for epoch, score in curve:
        reports.append({**trial_report(epoch, score, reports, mode), "training_iteration": len(reports) + 1})
    return reports

"""The records of finished runs: small enough to be committed, and enough to make every table again.

A record is a folder, named by a fingerprint, with ``result.json`` and ``users.parquet``. The folder of a finished trial
is one; it may hold the weights as well, which the file ``.gitignore`` beside it keeps out of git.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from rich.console import Console

from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.identity import Identity
from recbole_posattn.files import json_lines, write_atomically
from recbole_posattn.reporting.page import write_files
from recbole_posattn.reporting.terminal import print_line
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.keys import NAMES_OF_SETTINGS, WITHOUT_EFFECT_ON_RESULT
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME, read_users

RUNS = "runs"

# Suffix of the folder of a run that is not complete.
INCOMPLETE = ".incomplete"

# Why records are not taken that have another version of the results.
OTHER_RESULTS = "they come from a version of this package that computes different results"

_GITIGNORE = f"""# {RESULT_NAME} and {USERS_NAME} are the record of a finished run; all else stays on this machine.
*
!*/
!.gitignore
!*/{RESULT_NAME}
!*/{USERS_NAME}
*{INCOMPLETE}/
"""

# Settings and entries of result.json that name places on the machine of the run.
_PLACES = ("data_path", "data_cache", "checkpoint_dir", "show_progress", "device")


def write_record(file: Path, settings: Mapping[str, Any], checkpoint: str | None) -> None:
    """Rewrite the ``result.json`` of a run as a record: without the places of this machine, a line for each epoch.

    Args:
        file: The file.
        settings: As they were given to the run. RecBole adds keys to the resolved ones while it runs.
        checkpoint: Name of the weights beside the file; ``None`` if they are not kept.
    """
    result = json.loads(file.read_text(encoding="utf-8"))
    result["config"] = Config(config_dict=settings, command_line=[]).plain()
    with write_atomically(file) as incomplete:
        incomplete.write_text(record_text(_without_places(result, checkpoint)), encoding="utf-8")


def _without_places(result: Mapping[str, Any], checkpoint: str | None) -> dict[str, Any]:
    config = {
        key: Path(value).name if key in NAMES_OF_SETTINGS and isinstance(value, str) else value
        for key, value in result["config"].items()
        if key not in _PLACES
    }
    kept = {key: value for key, value in result.items() if key != "command"}
    return {**kept, "config": config, "checkpoint": checkpoint}


def record_text(result: Mapping[str, Any]) -> str:
    """The content of a ``result.json`` as JSON with a line for each epoch."""
    return json_lines(result, width=1000)


def ignore_all_but_records(folder: Path) -> None:
    """Write the ``.gitignore`` with which a folder of runs can be committed as it is, if there is none.

    Raises:
        UserError: If it cannot be written.
    """
    if not (folder / ".gitignore").exists():
        write_files(folder, {".gitignore": _GITIGNORE})


def is_enough(result: Mapping[str, Any], max_minutes: float | None) -> bool:
    """Whether a finished run need not be continued: it came to its end, or had as much time as is given now."""
    return result.get("stopped_by") is None or had_enough_time(result["config"].get("max_minutes"), max_minutes)


def had_enough_time(then: float | None, now: float | None) -> bool:
    """Whether a run with ``max_minutes`` of ``then`` could train as long as one with ``now``; ``None`` is no limit."""
    return then is None or (now is not None and then >= now)


# What a report reads of every run; results of searches have no test.
_NEEDED: dict[str, Any] = {
    "config": dict,
    "epochs": int,
    "curve": list,
    "seconds": dict,
    "test_result": (dict, NoneType),
}


class Record(NamedTuple):
    """A record, with the content of its ``result.json`` but for the curve."""

    folder: Path
    result: dict[str, Any]


class Records:
    """The records in some folders.

    Args:
        folders: Folders of records, or folders with a folder ``runs`` of records in them.

    Attributes:
        taken: Number of records reused from each folder.
        outdated: Number of records of each folder that match except for their version of the results.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._records = [record for folder in folders for record in _records_in(folder)]
        self.taken: Counter[Path] = Counter()
        self.outdated: Counter[Path] = Counter()

    def take(self, identity: Identity, max_minutes: float | None, target: Path) -> bool:
        """Copy the record of a run, if there is one; return whether there is.

        A record beside the target, named by an older fingerprint of the same run, is renamed.

        Args:
            identity: Of the run.
            max_minutes: The time limit of the run.
            target: The folder to make; one that exists is replaced.

        Raises:
            OSError: If the folder cannot be written.
        """
        outdated = []
        for folder, result in self._records:
            if folder.resolve() == target.resolve() or not folder.is_dir():
                continue
            if not is_enough(result, max_minutes) or not identity.is_of(result) or not has_ranks(folder):
                continue
            if result["epochs"] > result["config"]["epochs"]:
                continue  # an earlier version resumed it with fewer epochs than it had
            if any(change["key"] not in WITHOUT_EFFECT_ON_RESULT for change in result.get("changes", [])):
                continue  # some of its epochs were trained with other settings
            if result.get("results_version") != identity.version:
                outdated.append(folder.parent)
                continue
            if folder.parent.resolve() == target.parent.resolve():
                shutil.rmtree(target, ignore_errors=True)  # of a run that failed or had less time
                folder.rename(target)
            else:
                _copy(folder, target)
                self.taken[folder.parent] += 1
            return True
        self.outdated.update(outdated)
        return False

    def report(self, console: Console) -> None:
        """Print a line for each folder that gave records, and for each with records of another version."""
        for folder, n in self.taken.items():
            print_line(console, f"{folder}: {n} finished runs are reused from this folder")
        for folder, n in self.outdated.items():
            print_line(console, f"{folder}: {n} finished runs are not reused: {OTHER_RESULTS}")


def has_ranks(folder: Path) -> bool:
    """Whether the results by target can be read."""
    try:
        return len(read_users(folder)) > 0
    except (OSError, ValueError, KeyError):  # pyarrow's errors are among them
        return False


def _records_in(folder: Path) -> list[Record]:
    records = []
    for file in sorted([*folder.glob(f"*/{RESULT_NAME}"), *folder.glob(f"{RUNS}/*/{RESULT_NAME}")]):
        if file.parent.name.startswith(".") or file.parent.name.endswith(INCOMPLETE):
            continue
        result = read_header(file)
        if result is not None and (file.parent / USERS_NAME).is_file():
            records.append(Record(file.parent, result))
    return records


def read_header(file: Path) -> dict[str, Any] | None:
    """The content of a ``result.json`` without the curve; ``None`` if it is damaged, incomplete or not of a run."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or not all(isinstance(result.get(key, ...), kind) for key, kind in _NEEDED.items()):
        return None
    return {key: value for key, value in result.items() if key != "curve"}


def _copy(source: Path, target: Path) -> None:
    """Copy a record, so that the target is a whole one or untouched."""
    copied = target.with_name(f".{target.name}")
    shutil.rmtree(copied, ignore_errors=True)  # of a copy that was killed
    copied.mkdir(parents=True)
    shutil.copyfile(source / USERS_NAME, copied / USERS_NAME)
    result = json.loads((source / RESULT_NAME).read_text(encoding="utf-8"))
    (copied / RESULT_NAME).write_text(record_text(_without_places(result, None)), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)  # of a run that failed or had less time
    copied.rename(target)


def records_folders(given: Sequence[Path], own: Path) -> list[Path]:
    """The folders to take finished runs from: the given ones, the own one, and those in ``results/``.

    Raises:
        SettingError: If a given folder does not exist.
    """
    for folder in given:
        if not os.path.isdir(folder):  # unlike Path.is_dir, it takes names of any length
            raise SettingError(f"runs must be a folder with the records of runs; there is no folder {folder}.")
    return [*given, own, *(folder.parent for folder in sorted(Path("results").glob(f"*/{RUNS}")))]

"""One training undisturbed, stopped and resumed: how it ends, what it leaves behind, and whether the results agree."""

from __future__ import annotations

import json
import re
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from recbole_posattn.errors import EXIT_USER_ERROR
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME, RunResult
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from tests.soak.cases import Case
from tests.soak.processes import Ended, new_folder, train_in_process

# Exit codes of a process that a signal stops: those of the commands, and those of Python before a command has begun.
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}

RESUME = "--resume=auto"

# The files that a run may leave below the working folder.
_OWN_FILES = re.compile(
    r"saved/[^/]+/(best\.pth|last\.pth|result\.json|users\.parquet|run\.lock|kernels/epoch-\d+\.pth)"
    r"|log/[^/]+/[^/]+\.log|log_tensorboard/.+/events[^/]+"
)
# Documented errors of runs with valid settings.
_DOCUMENTED = re.compile(r"the training loss is|cannot be trained with enable_amp|cannot sample negative")
_NOT_COMPARED = {"seconds", "checkpoint", "peak_mebibytes"}  # times and places


class Outcome(NamedTuple):
    """The outcome of a case.

    Attributes:
        row: Row of the table.
        faults: A line on each fault.
        ended: The end of the undisturbed run.
        stopped: The signals that stopped a run.
        compared: Whether a resumed run was compared with the undisturbed one.
    """

    row: list[str]
    faults: list[str]
    ended: Ended
    stopped: list[int]
    compared: bool


def soak(number: int, case: Case, data_path: Path) -> Outcome:
    """Train a case, undisturbed and disturbed, and check results and remaining files."""
    faults: list[str] = []
    stopped: list[int] = []
    compared, signals = False, []
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        calm = new_folder(Path(scratch) / "undisturbed")
        undisturbed = train_in_process(calm, case.arguments(data_path), case.fresh)
        faults += _wrong_end(undisturbed)
        for blow in case.blows:
            rough = new_folder(Path(scratch) / "disturbed")
            arguments = [*case.arguments(data_path), RESUME]
            ended = train_in_process(rough, arguments, case.fresh, blow, undisturbed.seconds)
            name = signal.Signals(blow.signum).name
            if ended.code in CODES[blow.signum]:
                stopped.append(blow.signum)
                signals.append(f"{name}{' twice' if blow.again else ''} at {blow.moment:.2f}")
                if "Traceback" in ended.output and not case.fresh:
                    faults.append(f"{name} ended in a traceback: {ended.output[-1500:]}")
                faults += [f"outlives {name}: {process}" for process in ended.remaining]
            else:
                signals.append(f"{name} at {blow.moment:.2f}: had ended")
                faults += _wrong_end(ended)
        if case.blows:
            resumed = train_in_process(rough, [*case.arguments(data_path), RESUME], case.fresh)
            faults += _wrong_end(resumed) + _unexpected_files(rough)
            compared = True
            faults += [f"resumed: {what}" for what in differences(calm, undisturbed, rough, resumed)]
        faults += _unexpected_files(calm)
    row = [
        str(number),
        case.settings["model"],
        case.settings["dataset"],
        f"{case.nproc} processes" if case.nproc > 1 else "launcher" if case.fresh else "fork",
        f"{undisturbed.seconds:.1f}",
        str(undisturbed.code),
        ", ".join(signals),
        ("differs" if any(fault.startswith("resumed: ") for fault in faults) else "equal") if compared else "",
        str(len(faults)),
    ]
    return Outcome(row, faults, undisturbed, stopped, compared)


def _wrong_end(ended: Ended) -> list[str]:
    """A run must end with code 0, or with code 2 and a documented line, and leave no process."""
    faults = [f"left behind: {process}" for process in ended.remaining]
    if ended.code == EXIT_USER_ERROR and _DOCUMENTED.search(ended.line) and "Traceback" not in ended.output:
        return faults
    return faults if ended.code == 0 else [*faults, f"exit code {ended.code}: {ended.output[-3000:]}"]


def _unexpected_files(folder: Path) -> list[str]:
    below = [file.relative_to(folder / "work").as_posix() for file in (folder / "work").rglob("*") if file.is_file()]
    unexpected = [f"left over: {file}" for file in below if not _OWN_FILES.fullmatch(file)]
    return unexpected + [f"left in the temporary folder: {file.name}" for file in (folder / "temp").iterdir()]


def differences(calm: Path, undisturbed: Ended, rough: Path, resumed: Ended) -> list[str]:
    """The differences between two runs with the same settings."""
    if undisturbed.code != resumed.code:
        return [f"exit code {resumed.code} instead of {undisturbed.code}: {resumed.output[-2000:]}"]
    if undisturbed.code:
        lines = [ended.line.partition(";")[0] for ended in (undisturbed, resumed)]  # followed by the run's folder
        return [] if lines[0] == lines[1] else [f"{lines[1]!r} instead of {lines[0]!r}"]
    (first,) = (calm / "work").glob(f"saved/*/{RESULT_NAME}")
    finished = sorted((rough / "work").glob(f"saved/*/{RESULT_NAME}"))
    if not finished or (len(finished) > 1 and list((rough / "work").glob(f"saved/*/{LAST_NAME}"))):
        return [f"{len(finished)} runs of the same settings have ended"]
    return [what for second in finished for what in _differences_of_results(first, second)]


def _differences_of_results(first: Path, second: Path) -> list[str]:
    results = [json.loads(file.read_text(encoding="utf-8")) for file in (first, second)]
    for result in results:
        for epoch in result["curve"]:
            del epoch["seconds"]
    different = [
        f"{key} {results[1][key]} instead of {results[0][key]}"
        for key in sorted(RunResult.__annotations__.keys() - _NOT_COMPARED)
        if json.dumps(results[0][key]) != json.dumps(results[1][key])  # as text, so that NaN equals NaN
    ]
    before, after = (read_checkpoint(file.with_name(BEST_NAME))["state_dict"] for file in (first, second))
    if before.keys() != after.keys():
        different.append("other weights")
    different += [f"weights {name}" for name in before if name in after and not torch.equal(before[name], after[name])]
    users = [file.with_name(USERS_NAME) for file in (first, second)]
    if users[0].exists() != users[1].exists():
        different.append(f"{USERS_NAME} is in one of the two folders only")
    elif users[0].exists() and users[0].read_bytes() != users[1].read_bytes():
        different.append(f"ranks in {USERS_NAME}")
    return different

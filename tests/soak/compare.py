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
from recbole_posattn.training.checkpoint import BEST_NAME, LAST_NAME, read_checkpoint
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME, RunResult
from tests.soak.cases import Case
from tests.soak.processes import Ended, new_folder, train_in_process

# How a process may end when a signal reaches it: as the commands do, or as Python does before they have begun.
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}

RESUME = "--resume=auto"

# All that a run may leave below the working folder.
_OWN_FILES = re.compile(
    r"saved/[^/]+/(best\.pth|last\.pth|result\.json|users\.parquet|run\.lock|kernels/epoch-\d+\.pth)"
    r"|log/[^/]+/[^/]+\.log|log_tensorboard/.+/events[^/]+"
)
# What may end a run that ``Config`` has accepted.
_DOCUMENTED = re.compile(r"the training loss is|cannot be trained with enable_amp|cannot sample negative")
_NO_MATTER = {"seconds", "checkpoint", "peak_mebibytes"}  # of a result: where and when it was made


class Outcome(NamedTuple):
    """What came of a case.

    Attributes:
        row: Of the table.
        faults: What must not be.
        ended: How the undisturbed run ended.
        stopped: Signals that found a run to stop.
        compared: Whether the resumed run was compared with it.
    """

    row: list[str]
    faults: list[str]
    ended: Ended
    stopped: list[int]
    compared: bool


def soak(number: int, case: Case, data_path: Path) -> Outcome:
    """Train a case, undisturbed and disturbed, and look at all that is left."""
    faults: list[str] = []
    stopped: list[int] = []
    compared, told = False, []
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
                told.append(f"{name}{' twice' if blow.again else ''} at {blow.moment:.2f}")
                if "Traceback" in ended.said and not case.fresh:
                    faults.append(f"{name} ended in a traceback: {ended.said[-1500:]}")
                faults += [f"outlives {name}: {process}" for process in ended.left]
            else:
                told.append(f"{name} at {blow.moment:.2f}: had ended")
                faults += _wrong_end(ended)
        if case.blows:
            resumed = train_in_process(rough, [*case.arguments(data_path), RESUME], case.fresh)
            faults += _wrong_end(resumed) + _strange_files(rough)
            compared = True
            faults += [f"resumed: {what}" for what in differences(calm, undisturbed, rough, resumed)]
        faults += _strange_files(calm)
    row = [
        str(number),
        case.settings["model"],
        case.settings["dataset"],
        f"{case.nproc} processes" if case.nproc > 1 else "launcher" if case.fresh else "fork",
        f"{undisturbed.seconds:.1f}",
        str(undisturbed.code),
        ", ".join(told),
        ("differs" if any(fault.startswith("resumed: ") for fault in faults) else "equal") if compared else "",
        str(len(faults)),
    ]
    return Outcome(row, faults, undisturbed, stopped, compared)


def _wrong_end(ended: Ended) -> list[str]:
    """A run may end well, or with code 2 and a line that the documentation knows; it leaves no process."""
    faults = [f"left behind: {process}" for process in ended.left]
    if ended.code == EXIT_USER_ERROR and _DOCUMENTED.search(ended.line) and "Traceback" not in ended.said:
        return faults
    return faults if ended.code == 0 else [*faults, f"exit code {ended.code}: {ended.said[-3000:]}"]


def _strange_files(folder: Path) -> list[str]:
    below = [file.relative_to(folder / "work").as_posix() for file in (folder / "work").rglob("*") if file.is_file()]
    strange = [f"left over: {file}" for file in below if not _OWN_FILES.fullmatch(file)]
    return strange + [f"left in the temporary folder: {file.name}" for file in (folder / "temp").iterdir()]


def differences(calm: Path, undisturbed: Ended, rough: Path, resumed: Ended) -> list[str]:
    """What is not the same in two runs of the same settings."""
    if undisturbed.code != resumed.code:
        return [f"exit code {resumed.code} instead of {undisturbed.code}: {resumed.said[-2000:]}"]
    if undisturbed.code:
        lines = [ended.line.partition(";")[0] for ended in (undisturbed, resumed)]  # behind it is the run's folder
        return [] if lines[0] == lines[1] else [f"{lines[1]!r} instead of {lines[0]!r}"]
    (first,) = (calm / "work").glob(f"saved/*/{RESULT_NAME}")
    finished = sorted((rough / "work").glob(f"saved/*/{RESULT_NAME}"))
    if not finished or (len(finished) > 1 and list((rough / "work").glob(f"saved/*/{LAST_NAME}"))):
        return [f"{len(finished)} runs of the same settings have ended"]
    return [what for second in finished for what in _differences_of_results(first, second)]


def _differences_of_results(first: Path, second: Path) -> list[str]:
    told = [json.loads(file.read_text(encoding="utf-8")) for file in (first, second)]
    for result in told:
        for epoch in result["curve"]:
            del epoch["seconds"]
    found = [
        f"{key} {told[1][key]} instead of {told[0][key]}"
        for key in sorted(RunResult.__annotations__.keys() - _NO_MATTER)
        if json.dumps(told[0][key]) != json.dumps(told[1][key])  # as text, in which nan is nan
    ]
    before, after = (read_checkpoint(file.with_name(BEST_NAME))["state_dict"] for file in (first, second))
    if before.keys() != after.keys():
        found.append("other weights")
    found += [f"weights {name}" for name in before if name in after and not torch.equal(before[name], after[name])]
    users = [file.with_name(USERS_NAME) for file in (first, second)]
    if users[0].exists() != users[1].exists():
        found.append(f"{USERS_NAME} is in one of the two folders only")
    elif users[0].exists() and users[0].read_bytes() != users[1].read_bytes():
        found.append(f"ranks in {USERS_NAME}")
    return found

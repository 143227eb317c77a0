"""Many short trainings with random settings, a third of them stopped at random moments and resumed.

    python -m tests.soak                  # 200 settings; writes results/soak.md and .csv
    python -m tests.soak --only 17        # one of them again, with its output

Settings are drawn from all keys, for our models and some of RecBole's, on several small data sets; refused settings are
drawn again. Each training runs undisturbed. Every third runs once more in another folder, where a
signal stops it at a uniformly random moment and ``--resume=auto`` continues it: metrics, curve, the weights of the best
epoch and the ranks of all users must equal those of the undisturbed run, bit by bit.

Each training has its own process. Most are forks of this one, which has imported everything and trained nothing. This
process has one thread (required: ``OMP_NUM_THREADS=1``), so that forks behave like newly started processes. Some
trainings, and all in two processes, start the launcher as a user does. Forks skip the second in which RecBole measures
the load of the CPU, as half of the signals would fall into it.

Finally, one process runs several trainings in sequence, as a notebook does; its memory, threads and open files are
measured.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from recbole_posattn.compat import anomaly_detection_unchanged

import torch
import torch._dynamo  # what the first optimizer imports: here once, and not in each fork

from benchmarks.common import RESULTS, markdown_table, report
from recbole_posattn.errors import EXIT_USER_ERROR
from recbole_posattn.settings.keys import LAUNCHER_ARGUMENTS
from tests.soak.cases import Case, accepted_case, write_data
from tests.soak.compare import Outcome, soak
from tests.soak.usage import (
    GROWTH,
    GROWTH_IN_PROCESS,
    N_DIFFERENT,
    N_ROUNDS,
    Usage,
    growth,
    other_threads,
    usage,
    usage_of_many,
    usage_text,
)

with anomaly_detection_unchanged():  # likewise RecBole's general and sequential models, and what these import
    import recbole.model.general_recommender
    import recbole.model.sequential_recommender  # noqa: F401


def main() -> int:
    """Run all trainings and write the page; the exit code is 1 if there were faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="number of settings (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rounds", type=int, default=N_ROUNDS, help=f"rounds of trainings in one process (default: {N_ROUNDS})"
    )
    parser.add_argument("--output", default=str(RESULTS / "soak"), help="path of the page, without suffix")
    parser.add_argument("--only", type=int, help="run only the training of this number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = usage()
    if others := other_threads():
        parser.error(
            f"this process has the threads {', '.join(others)}, which a fork does not inherit: set OMP_NUM_THREADS=1"
        )
    with tempfile.TemporaryDirectory(prefix="soak-data-") as folder:
        write_data(Path(folder))
        if options.only is not None:
            return _run_one(options.seed, options.only, Path(folder))
        return _soak_all(options, start, Path(folder))


def _run_one(seed: int, number: int, data_path: Path) -> int:
    case = accepted_case(seed, number, data_path, refused=[])
    print(json.dumps(case._asdict(), indent=1))
    outcome = soak(number, case, data_path)
    print(outcome.ended.output, outcome.row, *outcome.faults, sep="\n")
    return 1 if outcome.faults else 0


def _soak_all(options: argparse.Namespace, start: Usage, data_path: Path) -> int:
    began = time.perf_counter()
    data_files = _files_below(data_path)
    refused: list[str] = []
    cases = [accepted_case(options.seed, number, data_path, refused) for number in range(options.runs)]
    drawn = usage()
    outcomes, faults = [], []
    for number, case in enumerate(cases):  # no progress bar: forks would share its lock, killed ones too
        outcomes.append(soak(number, case, data_path))
        print(" ".join(outcomes[-1].row), flush=True)
        for fault in outcomes[-1].faults:
            faults.append(f"{number}: {fault}")
            print(faults[-1], flush=True)
    end = usage()
    faults += growth("this process", start, end, GROWTH)
    if _files_below(data_path) != data_files:
        faults.append("the files of the data sets have changed")

    alone = [
        case for case, outcome in zip(cases, outcomes) if case.nproc == 1 and outcome.ended.code == 0 and not case.fresh
    ]
    many = usage_of_many(alone[:N_DIFFERENT], options.rounds, data_path)
    first, last = many[min(N_DIFFERENT, len(alone)) - 1], many[-1]
    faults += growth("a process with several trainings", first, last, GROWTH_IN_PROCESS)

    summary = [
        ["settings drawn and trained", len(cases)],
        ["… refused by `Config` in one line, and drawn again", len(refused)],
        ["… ended with exit code 0", sum(outcome.ended.code == 0 for outcome in outcomes)],
        ["… ended with exit code 2 and one line", sum(outcome.ended.code == EXIT_USER_ERROR for outcome in outcomes)],
        ["processes started in all", sum(1 + len(case.blows) + bool(case.blows) for case in cases)],
        ["signals that stopped a run", _count_signals(outcomes)],
        ["signals that came too late", sum(len(c.blows) - len(o.stopped) for c, o in zip(cases, outcomes))],
        ["resumed runs compared with undisturbed ones", sum(outcome.compared for outcome in outcomes)],
        ["… of which differ", sum(outcome.row[-2] == "differs" for outcome in outcomes)],
        ["this process before, with all settings drawn, and at the end", usage_text(start, drawn, end)],
        [f"one process, after {min(N_DIFFERENT, len(alone))} and {len(many)} trainings", usage_text(first, last)],
        ["faults", len(faults)],
        ["minutes", f"{(time.perf_counter() - began) / 60:.1f}"],
    ]
    report(
        str(Path(options.output).resolve()),
        "Soak: random settings, random signals",
        _page(cases, outcomes, summary, refused, faults),
        ["number", "model", "data", "process", "s", "code", "signals at the share of its time", "resumed", "faults"],
        [outcome.row for outcome in outcomes],
    )
    return 1 if faults else 0


def _files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def _count_signals(outcomes: Sequence[Outcome]) -> str:
    counts = collections.Counter(signum for outcome in outcomes for signum in outcome.stopped)
    return ", ".join(f"{signal.Signals(signum).name} {n}" for signum, n in counts.most_common()) or "none"


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    """A paragraph with a bullet for each line, shortened; empty without lines."""
    short = [" ".join(re.sub(r"/tmp/[\w-]+/", "", line).split())[:200] for line in lines]
    return [title + "\n" + "".join(f"\n- {line}" for line in short)] if lines else []


def _page(
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
    summary: list[list],
    refused: Sequence[str],
    faults: Sequence[str],
) -> str:
    no_settings = LAUNCHER_ARGUMENTS | {"dataset", "model", "world_size"}
    given = collections.Counter(key for case in cases for key in case.settings if key not in no_settings)
    pairs = {case.settings["kernel_structure"] for case in cases if "kernel_structure" in case.settings}
    models = {case.settings["model"] for case in cases}
    ended = [
        f"{outcome.row[0]}: {outcome.ended.line.removeprefix('recbole-posattn: ')}"
        for outcome in outcomes
        if outcome.ended.code == EXIT_USER_ERROR
    ]
    return "\n\n".join(
        [
            "Short trainings with settings drawn from all keys, each in its own process and undisturbed; every third "
            "once more, stopped by signals at uniformly random moments and resumed with `--resume=auto`. Metrics, "
            "curve, best weights and the ranks of all users are compared bit by bit. Every run must end with code 0, "
            "or 2 and one line; no process, no unexpected file below the working folder and no temporary file may "
            f"remain. The process that starts all others may grow by {GROWTH} MiB, one that trains {N_DIFFERENT} "
            f"settings in several rounds by {GROWTH_IN_PROCESS} MiB after the first round, and neither by an open "
            "file, a thread or a tensor. `python -m tests.soak --only NUMBER` repeats one training.",
            markdown_table(["what", "figure"], summary),
            f"{len(models)} models, {len(pairs)} pairs of kernel structures. Settings given, and how often: "
            + ", ".join(f"{key} {n}" for key, n in sorted(given.items()))
            + ".",
            *_listed("Lines of runs that ended with code 2:", ended),
            *_listed("Lines of draws that were refused:", sorted(set(refused))),
            *_listed("Faults:", faults),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

"""Training speed of our models and of the same model in RecTools and RePlay, on the same data.

    python -m benchmarks.rivals_speed --rectools VENV/bin/python --replay VENV/bin/python

Writes results/rivals_speed.md, .csv and .png. Each library runs in an environment of its own, made as
``benchmarks/rivals/requirements-*.txt`` say, and only those given are measured. All take turns, one process at a time;
run nothing else meanwhile, since threads that wait for each other are slowed most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import recbole
from tqdm import tqdm

from benchmarks.common import bars, report

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "benchmarks" / "rivals"
BASELINE = "APESASRec"  # the same model as the rivals': absolute positions, the classic SASRec
OURS = (BASELINE, "NoPESASRec", "PosKernelSASRec")

TEXT = """
Seconds of one training epoch: d = 64, inner size 64, 2 layers, 1 head, dropout 0.2, cross-entropy over all items at
every position, Adam, batches of {batch_size} sequences of at most L items, float32, {threads} CPU threads. The data are
each user's interactions without the last two (leave-one-out). Users longer than L are cut into windows, the same for
all, so that each library learns the same targets; left to themselves, RecTools and RePlay learn the last L of a user
only. Medians over the epochs of {rounds} round(s) in which all take turns, {epochs} epoch(s) a round behind one that
is not timed; {part}reading and preparing the data, validation, checkpoints and logs are not timed either.

{versions}. What differs in the work:

- The attention of RecTools and RePlay (`nn.MultiheadAttention`) has an output projection, {projection} parameters in 2
  layers; that of the paper, which is ours, has none.
- RecTools, and RePlay with its loss CE, compute all L positions of every sequence, and their scores, padding or not. We
  score the labels only, and cut padding. "RePlay, LogInCE" has RePlay do likewise: its loss LogInCE, which with one
  label a position is the same cross-entropy, scores the labels only, and its LengthBucketedQueryEncoder encodes
  sequences of like length together.
- RecTools knows the items of its training data, RePlay and we all of the data set's: {items}.
- RecTools collates lists of Python numbers in every epoch; this is timed, as it is part of its training.
"""


class Variant(NamedTuple):
    """A model to be timed.

    Attributes:
        name: In the table.
        command: That runs its script, to which the options that all share are added.
    """

    name: str
    command: list[str]


def variants(rectools: str | None, replay: str | None) -> list[Variant]:
    """Our models, and those of the libraries whose Python interpreters are given."""
    ours = [sys.executable, "-m", "benchmarks.rivals.posattn_epoch"]
    found = [Variant(model, [*ours, f"--model={model}"]) for model in OURS]
    if rectools:
        found.append(Variant("RecTools", [rectools, "-I", str(SCRIPTS / "rectools_epoch.py")]))
    if replay:
        command = [replay, "-I", str(SCRIPTS / "replay_epoch.py")]  # -I: not what PYTHONPATH has
        found.append(Variant("RePlay", command))
        found.append(Variant("RePlay, LogInCE", [*command, "--loss=LogInCE", "--bucket_size=32"]))
    return found


def measure(variant: Variant, file: Path, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """What one run of a variant's script reports.

    Raises:
        RuntimeError: If the script fails, with the end of what it printed.
    """
    shared = {
        "interactions": file,
        "max_length": length,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "threads": options.threads,
    } | ({"batches": options.batches} if options.batches else {})
    command = variant.command + [f"--{name}={value}" for name, value in shared.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def epoch_seconds(run: dict[str, Any]) -> list[float]:
    """The time of an epoch over all targets, of each epoch that a run timed, whole or in part."""
    return [seconds * run["targets"] / trained for seconds, trained in zip(run["seconds"], run["trained"])]


def interactions_file(dataset: str, data_path: Path) -> Path:
    """The atomic file of a data set: in ``data_path``, or the one that RecBole brings along (ml-100k).

    Raises:
        FileNotFoundError: If there is none.
    """
    folders = [data_path, Path(recbole.__file__).parent / "dataset_example"]
    for folder in folders:
        file = folder / dataset / f"{dataset}.inter"
        if file.is_file():
            return file.resolve()
    raise FileNotFoundError(f"no {dataset}/{dataset}.inter in {' or '.join(map(str, folders))}; give --data_path")


def main() -> None:
    """Run all in turns, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rectools", metavar="PYTHON", help="interpreter of an environment with RecTools")
    parser.add_argument("--replay", metavar="PYTHON", help="interpreter of an environment with RePlay")
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "amazon-beauty"])
    parser.add_argument(
        "--data_path", type=Path, default=Path("dataset"), help="folder of data sets (default: dataset)"
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200], help="L (default: 50 200)")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs in each round (default: 3)")
    parser.add_argument("--rounds", type=int, default=2, help="(default: 2)")
    parser.add_argument("--batches", type=int, help="random batches timed in each epoch (default: all)")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    files = {dataset: interactions_file(dataset, options.data_path) for dataset in options.datasets}
    compared = variants(options.rectools, options.replay)
    if os.getloadavg()[0] > 0.5:
        print(f"other programs are running (load {os.getloadavg()[0]:.1f}): what follows will be worth little")

    settings = [(dataset, length) for dataset in files for length in options.lengths]
    runs: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {
        setting: {variant.name: [] for variant in compared} for setting in settings
    }
    with tqdm(total=len(settings) * options.rounds * len(compared)) as progress:
        for dataset, length in settings:
            for _ in range(options.rounds):
                for variant in random.sample(
                    compared, len(compared)
                ):  # so that no function always runs after the same one
                    run = measure(variant, files[dataset], length, options)
                    runs[dataset, length][variant.name].append(run)
                    seconds = ", ".join(f"{value:.2f}" for value in epoch_seconds(run))
                    tqdm.write(f"{dataset}, L = {length}, {variant.name}: {seconds} s")
                    progress.update()

    rows, speeds = [], {}
    for (dataset, length), by_name in runs.items():
        speed = speeds[f"{dataset}, L = {length}"] = {}
        for name, rounds in by_name.items():  # the baseline comes first
            seconds = [value for run in rounds for value in epoch_seconds(run)]
            targets, parameters = rounds[0]["targets"], rounds[0]["parameters"]
            speed[name] = targets / statistics.median(seconds)
            times = [f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}–{max(seconds):.2f}"]
            ratio = f"{speed[name] / speed[BASELINE]:.2f}"
            rows.append(
                [dataset, length, name, *times, f"{targets:,}", f"{parameters:,}", f"{speed[name]:,.0f}", ratio]
            )
    bars("rivals_speed", speeds, "targets trained on per second", logarithmic=True)
    report(
        "rivals_speed",
        "Training speed beside RecTools and RePlay",
        text(runs, options) + "\n\n![targets per second](rivals_speed.png)",
        ["data", "L", "model", "s an epoch", "range", "targets", "parameters", "targets/s", f"× {BASELINE}"],
        rows,
    )


def text(runs: dict[tuple[str, int], dict[str, list[dict[str, Any]]]], options: argparse.Namespace) -> str:
    """The page's paragraphs, with the versions and the items that the runs report."""
    all_runs = [rounds[0] for by_name in runs.values() for rounds in by_name.values()]
    versions = dict.fromkeys(f"{run['library']} {run['version']} (torch {run['torch']})" for run in all_runs)
    items = []
    for (dataset, _), by_name in runs.items():
        known = {name: rounds[0]["settings"]["items"] for name, rounds in by_name.items()}
        items.append(f"{known.get('RecTools', known[BASELINE]):,} and {known[BASELINE]:,} of {dataset}")
    return TEXT.strip().format(
        **vars(options),
        versions=", ".join(versions),
        items="; ".join(dict.fromkeys(items)),
        part=f"of each epoch {options.batches} random batches, scaled by their targets; " if options.batches else "",
        projection=f"{2 * (64 * 64 + 64):,}",
    )


if __name__ == "__main__":
    main()

"""Time of a training epoch in one and in two processes on this machine.

    python -m benchmarks.process_scaling      # writes results/process_scaling.md, .csv and .png

The processes share the machine's cores, so this shows what the coordination costs, and not what a second machine gains.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.common import bars, report, scratch_folder

LAUNCHER = Path(__file__).parent.parent / "run_recbole_posattn.py"
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}


def epoch_seconds(model: str, n_processes: int, n_threads: int, epochs: int, port: int) -> list[float]:
    """Seconds of each epoch except the first, from the log."""
    command = [sys.executable, str(LAUNCHER), f"--model={model}", "--dataset=ml-100k", f"--epochs={epochs + 1}"]
    command += [f"--nproc={n_processes}", f"--port={port}", "--use_gpu=False", "--eval_step=0", "--show_progress=False"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return [float(seconds) for seconds in re.findall(r"training \[time: ([\d.]+)s", done.stderr)][1:]


def main() -> None:
    """Measure and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["PosKernelSASRec"])
    parser.add_argument("--epochs", type=int, default=4, help="timed epochs, after one warm-up epoch (default: 4)")
    parser.add_argument("--rounds", type=int, default=2, help="in which all ways take turns (default: 2)")
    parser.add_argument("--port", type=int, default=5678)
    options = parser.parse_args()
    rows, plotted = [], {}
    with scratch_folder():
        for model in options.models:
            rounds = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way, (n_processes, n_threads) in WAYS.items():
                    rounds[way] += epoch_seconds(model, n_processes, n_threads, options.epochs, options.port)
            plotted[model] = {way: statistics.median(values) for way, values in rounds.items()}
            slowest = next(iter(plotted[model].values()))
            rows += [[model, way, f"{value:.2f}", f"{slowest / value:.2f}"] for way, value in plotted[model].items()]
    bars("process_scaling", plotted, "seconds of an epoch")
    report(
        "process_scaling",
        "Training in one and two processes",
        "Seconds of one training epoch on ml-100k with the default settings, by the launcher's log; gloo, batches of "
        "128 windows in all, so that two processes take 64 each. All on one machine, whose cores they share: a gain "
        "over one process with as many threads can only come from a better use of them. Medians.\n\n"
        "![seconds](process_scaling.png)",
        ["model", "way", "s an epoch", "× 1 process, 1 thread"],
        rows,
    )


if __name__ == "__main__":
    main()

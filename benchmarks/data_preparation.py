"""Time and memory of data preparation, ours and RecBole's, on generated interactions.

    python -m benchmarks.data_preparation     # writes results/data_preparation.md and .csv

Each measurement is a process of its own, one after the other. It reads an atomic file with RecBole's own code, which is
the same for both, then makes the rows and the splits; what is measured is this second part, and the peak of the whole
process. With --iterate it goes once through the training batches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.common import bars, report, scratch_folder
from recbole_posattn.training.memory import peak_memory

N_ITEMS, INTERACTIONS_PER_USER = 27_000, 150  # like MovieLens-20M
MODES = {
    "RecBole": ("SASRec", {"lazy_prefixes": False}),
    "lazy prefixes": ("SASRec", {"lazy_prefixes": True}),
    "windows": ("NoPESASRec", {"lazy_prefixes": True}),
}


def generate(file: Path, n_interactions: int) -> None:
    """An atomic file: users of log-normal activity, items of a Zipf-like popularity, times in order."""
    random = np.random.default_rng(0)
    activity = random.lognormal(0, 1, n_interactions // INTERACTIONS_PER_USER)
    user = random.choice(len(activity), n_interactions, p=activity / activity.sum())
    item = (N_ITEMS ** random.random(n_interactions)).astype(np.int64)
    table = {"user_id:token": user, "item_id:token": item, "timestamp:float": np.arange(n_interactions) / 1000}
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(file, sep="\t", index=False)


class PeakMemory:
    """A context that notes the most memory of this process, resident, while it lasts; in bytes.

    ``peak_memory`` is the peak since the process began, which is that of reading the file.
    """

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = psutil.Process().memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.01):
            self.peak = max(self.peak, process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, psutil.Process().memory_info().rss)


def measure(mode: str, data_path: str, dataset: str, length: int, iterate: bool) -> dict:
    """Prepare a data set in this process; seconds, and bytes above what the read file takes."""
    from recbole.data import create_dataset, data_preparation

    from recbole_posattn import Config

    model, given = MODES[mode]
    given = {**given, "data_path": data_path, "MAX_ITEM_LIST_LENGTH": length, "train_neg_sample_args": None}
    given |= {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "use_gpu": False, "state": "ERROR"}
    config = Config(model, dataset, config_dict=given, command_line=[])
    start = time.perf_counter()
    interactions = create_dataset(config)
    read = time.perf_counter()
    with PeakMemory() as memory:
        loader, *_ = data_preparation(config, interactions)
        prepared = time.perf_counter()
    n_rows = sum(len(batch) for batch in loader) if iterate else 0
    iterated = time.perf_counter()
    return {
        "read": read - start,
        "prepare": prepared - read,
        "iterate": iterated - prepared if iterate else None,
        "rows": n_rows,
        "bytes": memory.peak - memory.before,
        "process": peak_memory(),
    }


def main() -> None:
    """Generate, measure in processes of their own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=200, help="MAX_ITEM_LIST_LENGTH (default: 200)")
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 20], help="of interactions (default: 1 20)")
    parser.add_argument("--recbole_up_to", type=float, default=3, help="millions that RecBole gets (default: 3)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return

    rows, preparation = [], {}
    with scratch_folder() as folder:
        for millions in sorted({*options.millions, options.recbole_up_to}):
            dataset = f"generated-{millions:g}m"
            generate(folder / dataset / f"{dataset}.inter", int(millions * 1e6))
            baseline = None
            for mode in MODES:
                if mode == "RecBole" and millions > options.recbole_up_to:
                    continue
                one = {"mode": mode, "data_path": str(folder), "dataset": dataset, "length": options.length}
                command = [sys.executable, "-m", "benchmarks.data_preparation", "--one"]
                command.append(json.dumps({**one, "iterate": mode != "RecBole"}))
                done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"{mode} with {millions:g} million failed:\n{done.stderr[-2000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                print(dataset, mode, found, flush=True)
                baseline = baseline or (found if mode == "RecBole" else None)
                ratios = [f"{baseline[key] / found[key]:.0f}" if baseline else "–" for key in ("prepare", "bytes")]
                iterate = f"{found['iterate']:.1f}" if found["iterate"] else "–"
                mebibytes, gigabytes = f"{found['bytes'] / 2**20:,.0f}", f"{found['process'] / 1e9:.2f}"
                figures = [f"{found['prepare']:.2f}", ratios[0], mebibytes, ratios[1]]
                rows.append([f"{millions:g} M", mode, f"{found['read']:.1f}", *figures, iterate, gigabytes])
                preparation.setdefault(f"{millions:g} M interactions", {})[mode] = found["prepare"]
            (folder / dataset / f"{dataset}.inter").unlink()
    bars("data_preparation", preparation, "seconds of preparation", logarithmic=True)
    report(
        "data_preparation",
        "Data preparation",
        f"Generated interactions of {N_ITEMS:,} items, {INTERACTIONS_PER_USER} a user in the mean, L = "
        f"{options.length}. Reading the file is RecBole's code in all rows, with pandas' C parser in ours. Preparation "
        "makes the rows (history → target) or windows and the leave-one-out split; its memory is what the process "
        "grows by at most meanwhile. Iterating is one epoch of training batches, and the process is all of it from "
        f"start to end. RecBole gets no more than {options.recbole_up_to:g} million: what it writes out grows with L "
        "and would not fit.\n\n"
        "![seconds](data_preparation.png)",
        ["data", "rows", "read, s", "prepare, s", "× faster", "MiB", "× smaller", "iterate, s", "process, GB"],
        rows,
    )


if __name__ == "__main__":
    main()

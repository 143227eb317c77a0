"""Time and memory from the file on disk to the first batch, ours and RecBole's, on generated interactions.

    python -m benchmarks.data_preparation     # writes results/data_preparation.md and .csv: an hour, 30 GB of disk
    python -m benchmarks.data_preparation --baseline=CLONE     # also measures another version of this package

Each measurement is a process of its own, one after the other: it checks and reads the file, makes the rows and
splits, builds the first batch, and goes on to the end of the epoch. ``--parquet_millions`` million interactions
(default 100) are generated as a Parquet file and read through memory-mapped files (``data_cache``), twice: the second
process reuses these files. RecBole does not check files; it is measured up to ``--recbole_up_to`` million interactions.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.common import bars, report, scratch_folder
from recbole_posattn.training.memory import peak_memory

N_ITEMS, INTERACTIONS_PER_USER = 27_000, 150  # like MovieLens-20M
BLOCK = 5_000_000
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "RecBole": ("SASRec", {"lazy_prefixes": False}),
    "prefixes": ("SASRec", {"lazy_prefixes": True}),
    "windows": ("NoPESASRec", {"lazy_prefixes": True}),
    "windows before": ("NoPESASRec", {"lazy_prefixes": True}),
    "windows, data_cache": ("NoPESASRec", {"data_cache": "cache"}),
    "windows, data_cache again": ("NoPESASRec", {"data_cache": "cache"}),
}
COLUMNS = ("user_id", "item_id", "timestamp")
HEADER = ["data", "rows", "check, read, split, s", "first batch, s", "sum, s", "× faster", "rest of the epoch, s"]


def tables(n_interactions: int) -> Iterator[pa.Table]:
    """Interactions some at a time: users of log-normal activity, items of a Zipf-like popularity, times in order."""
    random = np.random.default_rng(0)
    activity = random.lognormal(0, 1, n_interactions // INTERACTIONS_PER_USER)
    share = (activity / activity.sum()).cumsum()
    for begin in range(0, n_interactions, BLOCK):
        number = np.arange(begin, min(begin + BLOCK, n_interactions))
        user = np.searchsorted(share, random.random(len(number)) * share[-1])
        item = (N_ITEMS ** random.random(len(number))).astype(np.int64)
        yield pa.table([user, item, number / 1000], names=COLUMNS)


def generate(file: Path, n_interactions: int) -> None:
    """Write an atomic file, or a Parquet file if its name says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        writer: Any = None
        for table in tables(n_interactions):
            writer = writer or pa.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        writer.close()
        return
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t")
    with open(file, "wb") as lines:
        lines.write(b"user_id:token\titem_id:token\ttimestamp:float\n")
        for table in tables(n_interactions):
            pa.csv.write_csv(table, lines, options)


def measure(mode: str, data_path: str, dataset: str, length: int, iterate: bool) -> dict[str, float]:
    """Prepare a data set in this process: seconds, and bytes of the whole process at its peak."""
    from recbole.data import create_dataset, data_preparation

    from recbole_posattn import Config
    from recbole_posattn.atomic_files.check import ensure_atomic_files

    model, given = MODES[mode]
    given = {**given, "data_path": data_path, "MAX_ITEM_LIST_LENGTH": length, "train_neg_sample_args": None}
    given |= {"load_col": {"inter": [*COLUMNS]}, "use_gpu": False, "state": "ERROR"}
    config = Config(model, dataset, config_dict=given, command_line=[])
    start = time.perf_counter()
    if mode != "RecBole":
        keeps = "keeps" in inspect.signature(ensure_atomic_files).parameters  # an earlier version reads files twice
        ensure_atomic_files(config, **({"keeps": True} if keeps else {}))
    train_data, *_ = data_preparation(config, create_dataset(config))
    prepared = time.perf_counter()
    batches = iter(train_data)
    n_rows = len(next(batches))
    first = time.perf_counter()
    n_rows += sum(map(len, batches)) if iterate else 0
    end = time.perf_counter()
    return {
        "prepare": prepared - start,
        "first": first - prepared,
        "iterate": end - first,
        "rows": n_rows,
        "process": peak_memory(),
    }


def measured(mode: str, folder: Path, dataset: str, options: argparse.Namespace) -> dict[str, float]:
    """:func:`measure` in a process of its own, with the package of ``--baseline`` for the mode of that name."""
    one = {"mode": mode, "data_path": str(folder), "dataset": dataset, "length": options.length}
    one["iterate"] = mode.startswith("windows")
    root = Path(options.baseline if mode == "windows before" else Path(__file__).parent.parent).absolute()
    command = [sys.executable, str(Path(__file__).absolute()), "--one", json.dumps(one)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{mode} with {dataset} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(dataset, mode, found, flush=True)
    return found


def row(dataset: str, mode: str, found: dict[str, float], slowest: float | None) -> list[str]:
    """A row of the table."""
    total = found["prepare"] + found["first"]
    faster = "–" if slowest is None else f"{slowest / total:.1f}"
    seconds = [f"{found['prepare']:.2f}", f"{found['first']:.2f}", f"{total:.2f}"]
    iterate = f"{found['iterate']:.1f}" if mode.startswith("windows") else "–"
    return [dataset, mode, *seconds, faster, iterate, f"{found['process'] / 1e9:.2f}"]


def main() -> None:
    """Generate, measure in processes of their own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=200, help="MAX_ITEM_LIST_LENGTH (default: 200)")
    parser.add_argument("--millions", type=float, nargs="*", default=[1, 20], help="millions (default: 1 20)")
    parser.add_argument(
        "--parquet_millions", type=float, nargs="*", default=[100], help="millions in Parquet (default: 100)"
    )
    parser.add_argument("--recbole_up_to", type=float, default=3, help="most millions for RecBole (default: 3)")
    parser.add_argument("--baseline", help="a clone with another version of this package")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return

    rows, sums = [], {}
    with scratch_folder() as folder:
        for millions in sorted({*options.millions, options.recbole_up_to} - {0}):
            dataset = f"generated-{millions:g}m"
            generate(folder / dataset / f"{dataset}.inter", int(millions * 1e6))
            slowest = None
            for mode in ("RecBole", "windows before", "prefixes", "windows"):
                if (mode == "RecBole" and millions > options.recbole_up_to) or (
                    mode == "windows before" and options.baseline is None
                ):
                    continue
                found = measured(mode, folder, dataset, options)
                rows.append(row(f"{millions:g} M", mode, found, slowest))
                slowest = slowest or found["prepare"] + found["first"]
                sums.setdefault(f"{millions:g} M", {})[mode] = found["prepare"] + found["first"]
            shutil.rmtree(folder / dataset)
        for millions in options.parquet_millions:
            dataset = f"generated-{millions:g}m"
            generate(folder / dataset / f"{dataset}.inter.parquet", int(millions * 1e6))
            for mode in ("windows, data_cache", "windows, data_cache again"):
                found = measured(mode, folder, dataset, options)
                rows.append(row(f"{millions:g} M, Parquet", mode, found, None))
                sums.setdefault(f"{millions:g} M, Parquet", {})[mode] = found["prepare"] + found["first"]
            shutil.rmtree(folder / dataset)
    bars("data_preparation", sums, "seconds to the first batch", logarithmic=True)
    report(
        "data_preparation",
        "Data preparation",
        f"Generated interactions of {N_ITEMS:,} items, {INTERACTIONS_PER_USER} a user on average, L = "
        f"{options.length}, from the file on disk: it is checked (not by RecBole), read and split (leave one out), and "
        "the first training batch is built. × faster compares with the first row of the same data. *windows before* "
        "is the version of this package that --baseline names. The memory is that of the whole process at its peak, "
        f"mapped files included. RecBole is measured up to {options.recbole_up_to:g} million: the histories that it "
        "writes out grow with L, and more would not fit.\n\n"
        "![seconds](data_preparation.png)",
        [*HEADER, "process, GB"],
        rows,
    )


if __name__ == "__main__":
    main()

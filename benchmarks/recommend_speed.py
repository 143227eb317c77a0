"""Users per second served by ``recommend``, compared with a plain product and top-k; and the latency for one user.

python -m benchmarks.recommend_speed      # writes results/recommend_speed.md and .csv

Uses amazon-beauty if its file exists, otherwise random data with as many users and items and equally long histories.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from recbole.utils import init_seed
from tqdm import tqdm

from benchmarks.common import report, scratch_folder
from recbole_posattn import Config
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.serving.requests import Requests
from recbole_posattn.serving.scores import all_scores, model_input
from recbole_posattn.training.load import Loaded, prepare_data

MODELS = ("PosKernelSASRec", "NoPESASRec", "RoPESASRec")
LENGTH, K = 50, 10
N_USERS, N_ITEMS, MEAN_LENGTH = 22_363, 12_101, 8.9


def write_synthetic(folder: Path) -> str:
    """An atomic file with amazon-beauty's sizes and random items; returns the data set's name."""
    rng = np.random.default_rng(0)
    lengths = 4 + rng.geometric(1 / (MEAN_LENGTH - 4), N_USERS)
    user = np.repeat(np.arange(N_USERS), lengths)
    item = np.concatenate([np.arange(N_ITEMS), rng.integers(N_ITEMS, size=len(user) - N_ITEMS)])
    rng.shuffle(item)
    file = folder / "synthetic" / "synthetic.inter"
    file.parent.mkdir()
    rows = zip(user.tolist(), item.tolist(), range(len(user)))
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *(f"u{u}\ti{i}\t{t}" for u, i, t in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file.stem


def untrained(model: str, dataset: str, data_path: str) -> Loaded:
    """A model of the benchmark's size with its data."""
    sizes = {"MAX_ITEM_LIST_LENGTH": LENGTH, "hidden_size": 64, "n_layers": 2, "n_heads": 1}
    given = {**sizes, "data_path": data_path, "use_gpu": False, "state": "ERROR", "train_neg_sample_args": None}
    config = Config(model, dataset, config_dict=given, command_line=[])
    init_seed(config["seed"], config["reproducibility"])
    interactions, loaders = prepare_data(config)
    return Loaded(config, config.model_class(config, loaders[0]._dataset).eval(), interactions, *loaders)


def full_histories(recommender: Recommender, n: int) -> Requests:
    """Random histories of :data:`LENGTH` items."""
    dataset = recommender.loaded.dataset
    tokens = dataset.field2id_token[dataset.iid_field][1:]
    items = np.random.default_rng(1).choice(tokens, size=(n, LENGTH))
    return recommender.new_histories({f"u{user}": list(row) for user, row in enumerate(items)})


@torch.no_grad()
def plain(loaded: Loaded, requests: Requests) -> None:
    """Scores of all items and their top-k in batches of the evaluation's size, users as they come."""
    for rows in torch.arange(len(requests)).split(loaded.test_data.step):
        scores = all_scores(loaded, model_input(loaded, requests.rows(rows)))
        scores[:, 0] = -torch.inf
        torch.topk(scores, K)


def ways(recommender: Recommender, requests: Requests) -> dict[str, Callable[[], object]]:
    """The functions to compare, by name."""
    return {
        "plain": lambda: plain(recommender.loaded, requests),
        "recommend": lambda: sum(map(len, recommender.blocks(requests, K))),
    }


def measured(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds and CPU seconds of each function, all taking turns after a round that warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in tqdm(range(rounds + 1), leave=False):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(map(statistics.median, zip(*values[1:]))) for name, values in times.items()}


def waits(answer: Callable[[np.ndarray], object], n_items: int, calls: int) -> list[str]:
    """Milliseconds that one user waits, median and 99th percentile.

    Args:
        answer: Makes a list for the items of a history, by their numbers; shape (:data:`LENGTH`,).
        n_items: Number of items.
        calls: Calls that count.
    """
    rng, seconds = np.random.default_rng(2), []
    for _ in range(calls + 10):  # the first ones warm up
        history = rng.integers(1, n_items + 1, LENGTH)
        start = time.perf_counter()
        answer(history)
        seconds.append(time.perf_counter() - start)
    return [f"{1e3 * quantile:.2f}" for quantile in np.quantile(seconds[10:], [0.5, 0.99])]


def recommending(recommender: Recommender) -> Callable[[np.ndarray], object]:
    """``recommend`` for :func:`waits`."""
    dataset = recommender.loaded.dataset
    tokens = dataset.field2id_token[dataset.iid_field]
    return lambda history: recommender.recommend({"user": tokens[history].tolist()}, K)


def amazon_beauty(folder: Path, scratch: Path) -> tuple[Path, str]:
    """The folder of data sets and the name of the one to use: amazon-beauty, or a synthetic one if it is not there."""
    dataset = "amazon-beauty"
    if (folder / dataset / f"{dataset}.inter").is_file():
        return folder, dataset
    return scratch, write_synthetic(scratch)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="dataset", help="folder of amazon-beauty (default: dataset)")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--calls", type=int, default=300, help="calls for the wait of one user (default: 300)")
    options = parser.parse_args()
    given, rows = Path(options.data_path).absolute(), []
    with scratch_folder() as scratch:
        data_path, dataset = amazon_beauty(given, scratch)
        for model in options.models:
            loaded = untrained(model, dataset, str(data_path))
            recommender = Recommender(loaded)
            whom = {"full": full_histories(recommender, 8192), dataset: recommender.known_users()}
            wait = waits(recommending(recommender), N_ITEMS, options.calls)
            for histories, requests in whom.items():
                found = measured(ways(recommender, requests), options.rounds)
                for way, (seconds, cpu) in found.items():
                    speed = f"{len(requests) / seconds:,.0f}"
                    figures = [speed, f"{found['plain'][0] / seconds:.2f}", f"{1e6 * cpu / len(requests):.0f}"]
                    rows.append([model, histories, way, *figures, *(wait if way == "recommend" else ("", ""))])
    report(
        "recommend_speed",
        "Recommendations a second",
        f"The {K} best of {N_ITEMS:,} items, d = 64, 2 layers, L = {LENGTH}, for 8,192 histories of {LENGTH} items "
        f"(full) and for all {N_USERS:,} users with the histories of the data; histories stay in the ranking. "
        "`recommend` gives tables of tokens; `plain` is `full_sort_predict` in the evaluation's batches and "
        f"`torch.topk`, no tables. Medians of {options.rounds} rounds, taking turns in one process. The last columns: "
        f"one user's wait for `Recommender.recommend`, median and 99th percentile of {options.calls} calls with "
        f"histories of {LENGTH} items.",
        ["model", "histories", "way", "users/s", "× plain", "CPU µs a user", "wait ms, p50", "p99"],
        rows,
    )


if __name__ == "__main__":
    main()

"""Training steps of RecBole's sequential models with and without most of the padding (``trim_padding``).

    python -m benchmarks.trim_padding          # writes results/trim_padding.md and .csv

What the engine finds out about a model is applied: ``auto`` against ``False``, on the same batches and from the same
weights, taking turns in one process. A step is the loss of a batch, its gradients and a step of Adam.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType, init_seed
from tqdm import tqdm

from benchmarks.common import report, scratch_folder
from recbole_posattn import Config
from recbole_posattn.data.shorter import GROUP_COST, HistoryCutter
from recbole_posattn.models.lazy_scores import with_lazy_scores
from recbole_posattn.settings.properties import ML_100K, PROPERTIES, recbole_model_names
from recbole_posattn.settings.registry import find_model
from recbole_posattn.training.load import build_model, prepare_data
from recbole_posattn.training.trim_check import Found, find_trimming
from recbole_posattn.training.trimming import trimmed_loss
from tests.features import settings_of

# BERT4Rec's scores of one batch of RecBole's size, 2,048 × 10 × 12,102 numbers, take 1 GB four times.
BATCH_SIZES = {"BERT4Rec": 256}

TEXT = """
RecBole's sequential models with its default settings, batches of {batch_size:,} prefixes (BERT4Rec: 256) of at most
50 items, float32, {threads} CPU threads. Medians of {steps} training steps on random batches, loading not included;
both ways take turns on the same batches. *groups*: rows of similar length are computed together, each group cut to its
longest history. *batch*: the batch is cut to its longest history. *no*: nothing is trimmed, for the reason given.
amazon-beauty has histories of 8 items on average, ml-100k of 39. Where models need them, features of items are drawn at
random for amazon-beauty, and embeddings of entities for both.
"""


class Times(NamedTuple):
    """Median seconds of a training step."""

    padded: float
    trimmed: float


def sequential_models() -> list[str]:
    """RecBole's sequential models, sorted."""
    names = []
    for name in recbole_model_names():
        try:
            if find_model(name).type == ModelType.SEQUENTIAL:
                names.append(name)
        except ValueError:  # trees, whose packages are missing
            continue
    return names


def write_features(source: Path, dataset: str, folder: Path) -> None:
    """A copy of a data set with features of items and a knowledge graph, drawn at random where it has none."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for file in source.glob(f"{dataset}.*"):
        (folder / file.name.replace(dataset, folder.name, 1)).write_bytes(file.read_bytes())
    items = pd.read_csv(source / f"{dataset}.inter", sep="\t", dtype=str)["item_id:token"].unique()

    def write(suffix: str, columns: dict[str, object]) -> None:
        file = folder / f"{folder.name}.{suffix}"
        if not file.exists():
            pd.DataFrame(columns).to_csv(file, sep="\t", index=False)

    def vectors(n_rows: int) -> list[str]:
        return [" ".join(f"{value:.3f}" for value in row) for row in rng.normal(size=(n_rows, 64))]

    classes = [" ".join(f"c{number}" for number in sorted(set(row))) for row in rng.integers(0, 20, (len(items), 2))]
    entities = [f"e{item}" for item in items]
    write("item", {"item_id:token": items, "class:token_seq": classes})
    write("link", {"item_id:token": items, "entity_id:token": entities})
    write("kg", {"head_id:token": entities, "relation_id:token": "r", "tail_id:token": np.roll(entities, 1)})
    write("ent", {"ent_id:token": entities, "ent_emb:float_seq": vectors(len(items))})
    write("rel", {"rel_id:token": ["r"], "rel_emb:float_seq": vectors(1)})


def configured(model: str, dataset: str, folder: Path, batch_size: int) -> Config:
    """The settings of a model: RecBole's defaults."""
    given = {
        "data_path": str(folder),
        "MAX_ITEM_LIST_LENGTH": 50,
        "train_batch_size": BATCH_SIZES.get(model, batch_size),
        "use_gpu": False,
        **settings_of(model),
    }
    files = [PROPERTIES / "dataset" / f"{dataset}.yaml"]
    return Config(model, f"{dataset}-features", [file for file in files if file.is_file()], given, command_line=[])


def measure(config: Config, n_steps: int) -> tuple[Found, Times | None]:
    """What can be trimmed of a model, and the times of a step if its training can."""
    init_seed(config["seed"], config["reproducibility"])
    _, (loader, _, _) = prepare_data(config)
    model = build_model(config, loader)
    if config["model"] == "KSR":  # RecBole keeps them in float64, and fails
        model.relation_Matrix = model.relation_Matrix.float()
    cutter = HistoryCutter(config, loader._dataset)
    faster = with_lazy_scores(model.calculate_loss)
    found = find_trimming(model, cutter, loader, model.calculate_loss, faster)
    if found.trimming.training == "no":
        return found, None
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    losses = {
        "padded": model.calculate_loss,
        "trimmed": trimmed_loss(faster, found.trimming, cutter, GROUP_COST["cpu"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    model.train()
    for batch in itertools.islice(loader, n_steps + 1):  # the first one warms up
        for name, loss_func in losses.items():
            seconds[name].append(step(loss_func, optimizer, batch))
    return found, Times(**{name: statistics.median(values[1:]) for name, values in seconds.items()})


def step(loss_func: Callable, optimizer: torch.optim.Optimizer, batch: Interaction) -> float:
    """The seconds of a training step."""
    start = time.perf_counter()
    optimizer.zero_grad()
    losses = loss_func(batch)
    (sum(losses) if isinstance(losses, tuple) else losses).backward()
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=sequential_models())
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "amazon-beauty"])
    parser.add_argument(
        "--data_path", type=Path, default=Path("dataset"), help="folder of data sets (default: dataset)"
    )
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one warm-up step (default: 5)")
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--no_report", action="store_true", help="print the figures and write nothing")
    options = parser.parse_args()
    sources = {
        name: (ML_100K if name == "ml-100k" else options.data_path / name).resolve() for name in options.datasets
    }
    logging.disable(logging.WARNING)
    rows = []
    with scratch_folder() as folder:
        for dataset, source in sources.items():
            write_features(source, dataset, folder / "features" / f"{dataset}-features")
        for dataset, model in tqdm(list(itertools.product(sources, options.models))):
            if dataset == "amazon-beauty" and "threshold" in settings_of(model):
                continue  # it has no ratings
            config = configured(model, dataset, folder / "features", options.batch_size)
            found, times = measure(config, options.steps)
            reason = "; ".join(dict.fromkeys(filter(None, [found.why_not_groups, found.why_not_scores])))
            figures = ["", "", ""]
            if times is not None:
                figures = [f"{1000 * value:,.0f}" for value in times] + [f"{times.padded / times.trimmed:.1f}"]
            evaluated = "groups" if found.trimming.evaluation else "no"
            rows.append([dataset, model, found.trimming.training, evaluated, *figures, reason])
            tqdm.write(" ".join(map(str, rows[-1])))
    if not options.no_report:
        text = TEXT.format(**vars(options), threads=torch.get_num_threads())
        header = ["data", "model", "training", "evaluation", "ms padded", "ms trimmed", "× faster", "why not groups"]
        report("trim_padding", "RecBole's sequential models without most of the padding", text, header, rows)


if __name__ == "__main__":
    main()

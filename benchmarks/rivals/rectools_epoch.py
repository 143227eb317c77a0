"""Seconds of a training epoch of RecTools' SASRecModel, on a RecBole atomic file.

    python benchmarks/rivals/rectools_epoch.py --interactions ml-100k.inter --max_length 50

Stands alone, in an environment of its own (requirements-rectools.txt). The last line it prints is a JSON object.
RecTools trains on the newest L+1 items of a user. Here each window of a longer user is a user to it, so that it trains
on every target, as we do.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time

import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

HIDDEN_SIZE, N_LAYERS, N_HEADS, DROPOUT, LEARNING_RATE = 64, 2, 1, 0.2, 0.001


def training_windows(file: str, max_length: int) -> list[list[str]]:
    """Each user's items without the last two, oldest first, in windows of at most ``max_length`` next items to predict.

    Windows are cut from the newest item backwards; each begins with the item before its first target.
    """
    interactions = pd.read_csv(file, sep="\t", dtype={"user_id:token": str, "item_id:token": str})
    interactions = interactions.sort_values("timestamp:float", kind="stable")
    windows = []
    for _, items in interactions.groupby("user_id:token", sort=False)["item_id:token"]:
        sequence = items.tolist()[:-2]  # the last two are for validation and test
        for last in range(len(sequence) - 1, 0, -max_length):
            windows.append(sequence[max(0, last - max_length) : last + 1])
    return windows


class Stopwatch(Callback):
    """Times epochs and counts their labels, but for the first one, which warms up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.targets: list[int] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Start the clock."""
        self.counted = 0
        self.start = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Count the labels; 0 is padding."""
        self.counted += int((batch["y"] != 0).sum())

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Stop the clock."""
        if trainer.current_epoch > 0:
            self.seconds.append(time.perf_counter() - self.start)
            self.targets.append(self.counted)


def main() -> None:
    """Train for one epoch more than asked for, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", required=True, help="file <data set>.inter of RecBole")
    parser.add_argument("--max_length", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=128, help="windows in a batch")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs, after one warm-up epoch")
    parser.add_argument("--batches", type=int, help="random batches timed in each epoch (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seed_everything(0)

    windows = training_windows(options.interactions, options.max_length)
    rows = [(window, item, position) for window, items in enumerate(windows) for position, item in enumerate(items)]
    frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Datetime])
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
    frame[Columns.Weight] = 1.0

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=options.epochs + 1,
            limit_train_batches=options.batches or 1.0,
            callbacks=[Stopwatch()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=N_LAYERS,
        n_heads=N_HEADS,
        n_factors=HIDDEN_SIZE,  # and of the feed-forward networks, in its SASRecTransformerLayers
        dropout_rate=DROPOUT,
        session_max_len=options.max_length,
        loss="softmax",
        lr=LEARNING_RATE,
        batch_size=options.batch_size,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(frame))

    stopwatch = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, Stopwatch))
    report = {
        "library": "RecTools",
        "version": importlib.metadata.version("rectools"),
        "torch": torch.__version__,
        "seconds": stopwatch.seconds,
        "trained": stopwatch.targets,
        "targets": sum(len(window) - 1 for window in windows),
        "parameters": sum(p.numel() for p in model.torch_model.parameters() if p.requires_grad),
        "settings": {
            **vars(options),
            "model": "SASRecModel",
            "hidden_size": HIDDEN_SIZE,
            "inner_size": HIDDEN_SIZE,
            "n_layers": N_LAYERS,
            "n_heads": N_HEADS,
            "dropout": DROPOUT,
            "items": len(model.data_preparator.get_known_item_ids()),
            "windows": len(windows),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

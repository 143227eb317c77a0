"""Seconds of a training epoch of a model of ours, on a RecBole atomic file.

    python -m benchmarks.rivals.posattn_epoch --interactions ml-100k/ml-100k.inter --model APESASRec --max_length 50

The last line it prints is a JSON object, like that of the other scripts in this folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

import recbole_posattn
from recbole_posattn import Config
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.trainer import trainer_class

HIDDEN_SIZE, N_LAYERS, N_HEADS, DROPOUT, LEARNING_RATE = 64, 2, 1, 0.2, 0.001


class Counted:
    """The first batches of a loader, and the number of targets in those that were taken.

    Args:
        loader: The loader.
        n_batches: How many of its batches; ``None`` for all.
    """

    def __init__(self, loader: AbstractDataLoader, n_batches: int | None) -> None:
        self.loader, self.n_batches = loader, n_batches
        self.targets = 0

    def __iter__(self) -> Iterator[Interaction]:
        for batch in itertools.islice(self.loader, self.n_batches):
            self.targets += int((batch[TARGET_LIST_FIELD] > 0).sum())
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def main() -> None:
    """Train for one epoch more than asked for, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=Path, required=True, help="<data set>/<data set>.inter of RecBole")
    parser.add_argument("--model", default="APESASRec", help="(default: APESASRec)")
    parser.add_argument("--max_length", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=128, help="windows in a batch")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs, after one warm-up epoch")
    parser.add_argument("--batches", type=int, help="random batches timed in each epoch (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    file = options.interactions.resolve()
    settings = {
        "data_path": str(file.parent.parent),
        "MAX_ITEM_LIST_LENGTH": options.max_length,
        "train_batch_size": options.batch_size,
        "hidden_size": HIDDEN_SIZE,
        "inner_size": HIDDEN_SIZE,
        "n_layers": N_LAYERS,
        "n_heads": N_HEADS,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "learning_rate": LEARNING_RATE,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where RecBole's trainer puts its logs
        config = Config(options.model, file.stem, config_dict=settings, command_line=[])
        init_seed(config["seed"], config["reproducibility"])
        _, (train_data, _, _) = prepare_data(config)
        model = config.model_class(config, train_data._dataset)
        trainer = trainer_class(config)(config, model)
        targets = sum(int((batch[TARGET_LIST_FIELD] > 0).sum()) for batch in train_data)
        seconds, trained = [], []
        for epoch in range(options.epochs + 1):
            batches = Counted(train_data, options.batches)
            start = time.perf_counter()
            trainer._train_epoch(batches, epoch)
            seconds.append(time.perf_counter() - start)
            trained.append(batches.targets)
        os.chdir("/")

    report = {
        "library": "recbole-posattn",
        "version": recbole_posattn.__version__,
        "torch": torch.__version__,
        "seconds": seconds[1:],
        "trained": trained[1:],
        "targets": targets,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "settings": {
            **vars(options),
            "interactions": str(options.interactions),
            "hidden_size": HIDDEN_SIZE,
            "inner_size": HIDDEN_SIZE,
            "n_layers": N_LAYERS,
            "n_heads": N_HEADS,
            "dropout": DROPOUT,
            "items": model.n_items - 1,
            "windows": len(train_data._dataset),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

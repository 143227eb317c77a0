"""Seconds of a training epoch of RePlay's SasRec, on a RecBole atomic file.

    python benchmarks/rivals/replay_epoch.py --interactions ml-100k.inter --max_length 50

Stands alone, in an environment of its own (requirements-replay.txt). The last line it prints is a JSON object.
RePlay trains on the newest L+1 items of a row. Here each window of a longer user is a row, so that it trains on every
target, as we do. Its additional label at padding, the first item of a sequence shorter than L, is left out, as in ours.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
import time
from pathlib import Path

import lightning
import pandas as pd
import pyarrow
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.loss import LogInCE
from replay.nn.sequential import LengthBucketedQueryEncoder
from replay.nn.sequential.sasrec import SasRec
from replay.nn.transform import RenameTransform
from replay.nn.transform.template import make_default_sasrec_transforms

HIDDEN_SIZE, N_LAYERS, N_HEADS, DROPOUT, LEARNING_RATE = 64, 2, 1, 0.2, 0.001


def training_windows(file: str, max_length: int) -> tuple[list[list[int]], int]:
    """Each user's items without the last two, oldest first, in windows of at most ``max_length`` next items to predict.

    Windows are cut from the newest item backwards; each begins with the item before its first target.

    Returns:
        The windows, of items numbered from 0, and the number of items.
    """
    interactions = pd.read_csv(file, sep="\t", dtype={"user_id:token": str, "item_id:token": str})
    interactions = interactions.sort_values("timestamp:float", kind="stable")
    interactions["item"], items = pd.factorize(interactions["item_id:token"])
    windows = []
    for _, numbers in interactions.groupby("user_id:token", sort=False)["item"]:
        sequence = numbers.tolist()[:-2]  # the last two are for validation and test
        for last in range(len(sequence) - 1, 0, -max_length):
            windows.append(sequence[max(0, last - max_length) : last + 1])
    return windows, len(items)


class LabelsAtItems(torch.nn.Module):
    """A transform of a batch that leaves no label where the input is padding."""

    def forward(self, batch: dict) -> dict:
        """The batch with fewer labels; both masks have shape (b, L) here."""
        return {**batch, "target_padding_mask": batch["target_padding_mask"] & batch["padding_mask"]}


class Stopwatch(lightning.Callback):
    """Times epochs and counts their labels, but for the first one, which warms up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.targets: list[int] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Start the clock."""
        self.counted = 0
        self.start = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Count the labels."""
        self.counted += int(batch["target_padding_mask"].sum())

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
    parser.add_argument(
        "--loss",
        default="CE",
        choices=["CE", "LogInCE"],
        help="CE scores all positions; LogInCE, the same loss where there is one label, scores those with a label",
    )
    parser.add_argument("--bucket_size", type=int, default=0, help="windows of like length encoded at a time; 0: all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pyarrow.set_cpu_count(options.threads)
    lightning.seed_everything(0)

    windows, n_items = training_windows(options.interactions, options.max_length)
    schema = TensorSchema(
        TensorFeatureInfo(
            "item_id",
            feature_type=FeatureType.CATEGORICAL,
            is_seq=True,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
            cardinality=n_items,
            padding_value=n_items,
            embedding_dim=HIDDEN_SIZE,
        )
    )
    model = SasRec.from_params(
        schema,
        embedding_dim=HIDDEN_SIZE,
        num_heads=N_HEADS,
        num_blocks=N_LAYERS,
        max_sequence_length=options.max_length,
        dropout=DROPOUT,
        hidden_dim=HIDDEN_SIZE,
    )
    if options.loss == "LogInCE":
        model.loss = LogInCE(n_items, log_epsilon=0.0)
        model.loss.logits_callback = model.get_logits
    if options.bucket_size:
        model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, options.bucket_size, sequence_shift=0)
    transforms = make_default_sasrec_transforms(schema)["train"]
    masks_named = next(i for i, transform in enumerate(transforms) if isinstance(transform, RenameTransform))
    transforms.insert(masks_named + 1, LabelsAtItems())

    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "train.parquet"
        pd.DataFrame({"item_id": windows}).to_parquet(rows)
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=options.epochs + 1,
            limit_train_batches=options.batches or 1.0,
            callbacks=[stopwatch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,  # asks for validation data otherwise
        )
        data = ParquetModule(
            batch_size=options.batch_size,
            metadata={"train": {"item_id": {"shape": options.max_length + 1, "padding": n_items}}},
            transforms={"train": transforms},
            train_path=str(rows),
        )
        trainer.fit(LightningModule(model, OptimizerFactory("adam", LEARNING_RATE)), data)

    report = {
        "library": "RePlay",
        "version": importlib.metadata.version("replay-rec"),
        "torch": torch.__version__,
        "seconds": stopwatch.seconds,
        "trained": stopwatch.targets,
        "targets": sum(len(window) - 1 for window in windows),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "settings": {
            **vars(options),
            "model": "SasRec",
            "hidden_size": HIDDEN_SIZE,
            "inner_size": HIDDEN_SIZE,
            "n_layers": N_LAYERS,
            "n_heads": N_HEADS,
            "dropout": DROPOUT,
            "items": n_items,
            "windows": len(windows),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

"""What cosine scores, label smoothing, item dropout and averaged weights add to the time of a training step.

python -m benchmarks.recipe_cost        # writes results/recipe_cost.md and .csv
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.common import report, taking_turns
from recbole_posattn.nn.dropout import ItemDropout
from recbole_posattn.nn.encoder import build_encoder
from recbole_posattn.nn.item_scores import item_score
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy
from recbole_posattn.training.averaging import WeightAverage

# Items, sequences of a batch, and their length.
SIZES = {"amazon-beauty": (12_102, 64, 12), "ml-100k": (1_683, 64, 50)}
VARIANTS = ("default", "score: cosine", "label_smoothing: 0.1", "item_dropout_prob: 0.2", "weight_averaging: ema")


def training_step(variant: str, n_items: int, n_sequences: int, length: int) -> Callable[[], float]:
    """A step of a default model with one setting changed; returns the seconds of processor time it took."""
    torch.manual_seed(0)
    embedding = nn.Embedding(n_items, 64, padding_idx=0)
    encoder = build_encoder(50, 64, 2, dropout=0.5, attention_dropout=0.5).train()
    model = nn.ModuleList([embedding, encoder])
    optimizer = torch.optim.Adam(model.parameters())
    average = WeightAverage(model, "ema", decay=0.999, start_epoch=0) if variant == VARIANTS[4] else None
    item_dropout = ItemDropout(0.2 if variant == VARIANTS[3] else 0.0).train()
    score = item_score("cosine" if variant == VARIANTS[1] else "dot", temperature=0.07)
    loss = CrossEntropy("auto", 0.1 if variant == VARIANTS[2] else 0.0)
    items = torch.randint(1, n_items, (n_sequences, length))
    target = torch.randint(1, n_items, (n_sequences * length,))

    def step() -> float:
        started = time.process_time()
        optimizer.zero_grad()
        hidden = encoder(item_dropout(embedding(items), items)).flatten(0, 1)
        hidden, item_weight = score.operands(hidden, embedding.weight)
        loss(hidden, target, item_weight).backward()
        optimizer.step()
        if average is not None:
            average.after_step(0)
        return time.process_time() - started

    return step


def main() -> None:
    """Measure and write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, size in SIZES.items():
        steps = {variant: training_step(variant, *size) for variant in VARIANTS}
        seconds = {key: statistics.median(values[1:]) for key, values in taking_turns(steps, 30, name).items()}
        rows.append([name, f"{1e3 * seconds['default']:.1f}"])
        rows[-1] += [f"{seconds[variant] / seconds['default']:.2f}" for variant in VARIANTS[1:]]
    report(
        "recipe_cost",
        "Cost of scores, regularization and averages",
        "Processor time of a training step of 64 sequences on one thread, toeplitz-full, 2 layers, d = 64, "
        "cross-entropy over all items: milliseconds of the default, and the time with one setting changed as a "
        "multiple of it. Medians of 30 steps, taking turns. Sequences have 12 items on amazon-beauty, 50 on ml-100k.",
        ["items of", "default, ms", *VARIANTS[1:]],
        rows,
    )


if __name__ == "__main__":
    main()

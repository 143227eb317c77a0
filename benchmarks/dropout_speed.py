"""Time of dropout on a CPU: PyTorch's, and ours, which draws 16 bits an element.

python -m benchmarks.dropout_speed        # writes results/dropout_speed.md and .csv
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

from benchmarks.common import interleaved_medians, report
from recbole_posattn.nn.dropout import dropout

SHAPES = {"hidden states (128, 50, 64)": (128, 50, 64), "attention weights (128, 1, 200, 200)": (128, 1, 200, 200)}


def main() -> None:
    """Measure and write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for name, shape in SHAPES.items():
        x = torch.randn(shape)
        functions = {"torch": lambda x=x: F.dropout(x, 0.5), "ours": lambda x=x: dropout(x, 0.5)}
        seconds = interleaved_medians(functions, repeats=20)
        ratio = seconds["torch"] / seconds["ours"]
        rows.append([name, *(f"{1e9 * value / x.numel():.1f}" for value in seconds.values()), f"{ratio:.1f}"])
    report(
        "dropout_speed",
        "Dropout on a CPU",
        "Nanoseconds an element, p = 0.5, float32; medians, taking turns.",
        ["tensor", "torch.nn.functional.dropout", "recbole_posattn.nn.dropout", "× faster"],
        rows,
    )


if __name__ == "__main__":
    main()

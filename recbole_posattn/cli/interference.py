"""``recbole-posattn interference``: what each positional part of a trained model contributes."""

from __future__ import annotations

import argparse
import sys

from recbole_posattn.cli.checkpoint import add_checkpoint_arguments, add_output_argument, reading_options
from recbole_posattn.training.run_folder import checkpoint_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Switch off each positional part of a trained model (kernels, branch, encodings), one at a time and all but "
        "one, and measure the effect on the metrics, and layer by layer on the attention. See docs/interference.md."
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--split", choices=["valid", "test"], default="valid", help="rows to measure on (default: valid)"
    )
    add_output_argument(parser, "folder of the tables and the figure (default: the checkpoint's)")


def execute(options: argparse.Namespace) -> int:
    """Measure, print and write; returns the exit code."""
    from recbole_posattn.analysis.interference import interference
    from recbole_posattn.analysis.interference_figure import write_interference

    checkpoint = checkpoint_file(options.checkpoint)
    result = interference(checkpoint, options.split, show_progress=sys.stderr.isatty(), **reading_options(options))
    for table in (result.metrics, result.layers):
        if table.empty:
            continue
        print(table.to_string(index=False, float_format="{:.4f}".format), end="\n\n")
    for file in write_interference(result, options.output or checkpoint.parent):
        print(f"written: {file}")
    return 0

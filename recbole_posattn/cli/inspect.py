"""``recbole-posattn inspect``: what the kernels and the attention of a trained model have learned."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_posattn.cli.checkpoint import add_checkpoint_arguments, add_output_argument, reading_options
from recbole_posattn.training.run_folder import checkpoint_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Show what a trained model has learned about positions: its kernels U, L and C, their weights by lag, what "
        "positions add to the logits, attention maps by history length, and the kernels over training if the run "
        "kept them (--save_kernel_every). Writes inspect.html, figures as PNG and SVG, and tables as CSV. See "
        "docs/inspect.md."
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("other", type=Path, nargs="?", help="a second run or checkpoint, to compare")
    add_output_argument(parser, "folder of the report (default: inspect/ beside the checkpoint)")
    parser.add_argument("--max_users", type=int, default=2000, help="histories to measure on (default: 2000)")


def execute(options: argparse.Namespace) -> int:
    """Inspect, print how far the kernels reach, and write the report; returns the exit code."""
    from recbole_posattn.analysis.inspection import inspect_checkpoint
    from recbole_posattn.analysis.report import partition_text, reach_text, report_files
    from recbole_posattn.reporting.page import write_files

    checkpoints = [checkpoint_file(each) for each in (options.checkpoint, options.other) if each is not None]
    inspections = [inspect_checkpoint(each, options.max_users, **reading_options(options)) for each in checkpoints]
    files = write_files(options.output or checkpoints[0].parent / "inspect", report_files(inspections))
    for text in filter(None, (reach_text(inspections), partition_text(inspections))):
        print(text, end="\n\n")
    for file in files:
        print(f"written: {file}")
    return 0

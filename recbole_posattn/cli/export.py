"""``recbole-posattn export``: a trained model as a file for other runtimes."""

from __future__ import annotations

import argparse

from recbole_posattn.cli.checkpoint import add_checkpoint_arguments, add_output_argument, reading_options
from recbole_posattn.errors import counted
from recbole_posattn.settings.choices import MODEL_NAMES
from recbole_posattn.training.run_folder import checkpoint_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write a trained model as ONNX or as PyTorch's export format, with its item tokens and a description, and "
        "compare its scores with the model's own. See docs/recommend.md."
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--format", choices=list(MODEL_NAMES), default="onnx", help="format of the file (default: onnx)"
    )
    add_output_argument(parser, "folder of the files (default: export in the checkpoint's)")
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files")


def execute(options: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from recbole_posattn.serving.export import export

    checkpoint = checkpoint_file(options.checkpoint)
    folder = options.output or checkpoint.parent / "export"
    exported = export(checkpoint, options.format, folder, options.overwrite, **reading_options(options))
    for file in exported.files:
        print(f"written: {file}")
    comparison = exported.comparison
    if comparison is None:
        print("not compared with the model's own scores: onnxruntime is not installed")
        return 0
    ties = f", except for the order of items with equal scores in {comparison.ties} of them" if comparison.ties else ""
    print(
        f"largest difference from the model's own scores: {comparison.largest_difference:.1e}; "
        f"{counted(comparison.histories, 'list')} of {counted(comparison.list_length, 'item')} are the same{ties}"
    )
    return 0

"""Arguments of all commands that read a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recbole_posattn.cli.plugins import add_plugin_argument


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint and the options for reading it."""
    parser.add_argument("checkpoint", type=Path, help="the folder of a run below saved/, or a checkpoint in it")
    parser.add_argument("--data_path", type=Path, help="folder with the data set's folder (default: that of training)")
    parser.add_argument(
        "--allow_unsafe_checkpoint",
        action="store_true",
        help="read one of RecBole's own checkpoints, which RUNS any code in it; only for files from people you trust",
    )
    add_plugin_argument(parser)


def add_output_argument(parser: argparse.ArgumentParser, help: str, **options: Any) -> None:
    """Add ``--output``, which all commands call so; ``--out`` is an old name of one of them."""
    parser.add_argument("--output", "--out", help=help, **{"type": Path, **options})


def reading_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options for :func:`recbole_posattn.load` among those of a command."""
    return {"data_path": options.data_path, "allow_unsafe_checkpoint": options.allow_unsafe_checkpoint}

"""The flag ``--plugin`` of all commands that build a model."""

from __future__ import annotations

import argparse


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--plugin``, which may be repeated; the names are ``options.plugin``."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module that registers models, kernels, encodings or losses, such as my_package.my_module; "
        "may be repeated",
    )

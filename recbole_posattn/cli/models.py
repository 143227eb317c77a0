"""``recbole-posattn models``: the models that there are."""

from __future__ import annotations

import argparse

from recbole_posattn.cli.plugins import add_plugin_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "List the models of this package, of plugins and of RecBole, each with a line about it."
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    add_plugin_argument(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the list; returns the exit code."""
    from recbole_posattn.files import json_text
    from recbole_posattn.reporting.terminal import listing
    from recbole_posattn.settings.catalogue import model_entries

    entries = model_entries()
    if options.json:
        print(json_text([entry._asdict() for entry in entries], indent=2, ensure_ascii=False))
        return 0
    for title, recboles in (("Models of this package and of plugins", False), ("Models of RecBole", True)):
        rows = [(entry.name, entry.kind, entry.about) for entry in entries if entry.is_recboles == recboles]
        print(f"{title}\n\n{listing(rows)}\n")
    print("Train one with: recbole-posattn run --model=NAME. Its keys: recbole-posattn keys NAME")
    return 0

"""``recbole-posattn keys``: the settings of a model or of every run."""

from __future__ import annotations

import argparse

from recbole_posattn.cli.plugins import add_plugin_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "List the keys of a model and of every run, each with its default and a line about it. docs/settings.md "
        "also lists the allowed values."
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model (default: only the keys of every run)")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    add_plugin_argument(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the list; returns the exit code."""
    from recbole_posattn.files import json_text
    from recbole_posattn.reporting.terminal import listing
    from recbole_posattn.settings.catalogue import key_entries
    from recbole_posattn.settings.yaml import default_text

    entries = key_entries(options.model)
    if options.json:
        print(json_text([entry._asdict() for entry in entries], indent=2, ensure_ascii=False))
        return 0
    for title, of_model in ((f"Keys of {options.model}", True), ("Keys of every run", False)):
        rows = [
            (entry.name, default_text(entry.default), entry.about) for entry in entries if entry.is_of_model == of_model
        ]
        if rows:
            print(f"{title}\n\n{listing(rows)}\n")
    print("Give one as --key=value or in a YAML file: recbole-posattn run --config_files=FILE")
    return 0

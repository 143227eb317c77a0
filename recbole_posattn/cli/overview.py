"""``recbole-posattn overview``: leaderboards side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_posattn.cli.parser import names_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Put leaderboards side by side, from the records of their runs: how much each model gains over a common one on "
        "each data set and protocol, with intervals and tests. Writes overview.md, .html, .csv and .png. See "
        "docs/leaderboards.md."
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="*",
        default=[Path("results")],
        help="folders of leaderboards (default: all in results)",
    )
    parser.add_argument("--reference", default="NoPE", help="the row to compare with (default: NoPE)")
    parser.add_argument(
        "--models", default="", help="rows to show, separated by commas; in quotes if a name has one (default: all)"
    )
    parser.add_argument(
        "--output",
        "--out",
        type=Path,
        default=Path("leaderboards") / "overview",
        help="folder of the files (default: leaderboards/overview)",
    )


def execute(options: argparse.Namespace) -> int:
    """Print the gains and write the files; returns the exit code."""
    from recbole_posattn.experiments.leaderboard.overview import leaderboard_folders, read_gains
    from recbole_posattn.experiments.leaderboard.overview_report import gain_table, write_overview
    from recbole_posattn.experiments.leaderboard.terminal import print_cells
    from recbole_posattn.reporting.page import command_line
    from recbole_posattn.reporting.terminal import table_console

    folders, models = leaderboard_folders(options.folders), names_in(options.models)
    boards, left_out = read_gains(folders, options.reference, models)
    files = write_overview(boards, left_out, options.reference, command_line(), options.output)
    print_cells(*gain_table(boards), table_console())
    for line in left_out:
        print(f"not shown: {line}")
    for file in files:
        print(f"written: {file}")
    return 0

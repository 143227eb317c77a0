"""``recbole-posattn leaderboard``: compare models side by side, with spreads and tests."""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_posattn.cli.parser import names_in
from recbole_posattn.cli.plugins import add_plugin_argument
from recbole_posattn.cli.settings import checked_settings, parsed_settings, require_positive
from recbole_posattn.errors import EXIT_FAILURE, SettingError, counted, shown
from recbole_posattn.settings.choices import DEFAULT_TRIALS

if TYPE_CHECKING:
    from recbole_posattn.experiments.leaderboard.leaderboard import Report

_KEYS = ("models", "datasets", "protocols", "seeds", "reference", "published")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Train models on data sets under protocols with several seeds, each run in its own process, and write "
        "leaderboard.md, .csv, .tex, .html and .json. The same command continues a leaderboard that was stopped."
    )
    parser.epilog = "Any setting for all runs is given as --key=value, e.g. --epochs=20."
    parser.add_argument(
        "spec",
        nargs="?",
        help="one of properties/leaderboard, such as encodings, or a YAML file (default: the flags)",
    )
    parser.add_argument("--models", type=names_in, help="rows of the file or models, separated by commas")
    parser.add_argument("--datasets", type=names_in, help="data sets, separated by commas (default: ml-100k)")
    parser.add_argument("--protocols", type=names_in, help="protocols, separated by commas (default: leave_one_out)")
    parser.add_argument(
        "--seeds", type=_seeds, help="number of seeds, or a list such as 2020,2021 or [2020] (default: 3)"
    )
    parser.add_argument("--reference", help="the model that all others are tested against (default: the first)")
    _add_run_arguments(parser)
    parser.add_argument(
        "--published", type=names_in, help="files with published results in RecBoard's format, separated by commas"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        help="write the report of the leaderboard in this folder again, from its records alone",
    )
    parser.add_argument("--output", "--out", type=Path, help="folder of runs and report (default: leaderboards/<name>)")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how and where runs are made."""
    add_plugin_argument(parser)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time on this machine (default: 1)")
    parser.add_argument("--address", help="a Ray cluster, auto or ray://host:port (default: this machine)")
    parser.add_argument("--cpus", type=int, help="CPUs of a run (default: this machine's, shared by the jobs)")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of a run, may be fractional (default: 0)")
    parser.add_argument(
        "--tune", action="store_true", help="first tune every model, each with the same number of trials"
    )
    parser.add_argument("--num_samples", type=int, help=f"trials of each model with --tune (default: {DEFAULT_TRIALS})")
    parser.add_argument("--budget", type=float, help="minutes for all runs together (default: no limit)")
    parser.add_argument(
        "--runs",
        type=Path,
        action="append",
        default=[],
        help="a folder with the records of finished runs, or with searches; may be repeated (results/ is always read)",
    )


def _seeds(text: str) -> int | list[int]:
    """The number of seeds, such as ``3``, or a list, such as ``2020,2021`` or ``[2020]``."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]", text.strip())
    try:
        seeds = [int(seed) for seed in (bracketed[1] if bracketed else text).split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number of seeds, such as 3, or a list, such as 2020,2021 or [2020]; got {shown(text)}"
        ) from None
    return seeds if bracketed or len(seeds) > 1 else seeds[0]


def execute(options: argparse.Namespace) -> int:
    """Run what is missing, print and write the tables; returns the exit code."""
    if options.source is not None:
        return _remake(options)
    _check_numbers(options)
    flags = {key: getattr(options, key) for key in _KEYS if getattr(options, key) is not None}
    if options.plugin:
        flags["plugins"] = options.plugin
    settings = checked_settings(options.settings)
    from recbole_posattn.experiments.leaderboard.leaderboard import make_leaderboard
    from recbole_posattn.experiments.leaderboard.spec import read_spec
    from recbole_posattn.experiments.trials import Resources
    from recbole_posattn.settings.properties import named_file

    given = parsed_settings(settings)
    file = named_file("leaderboard", options.spec) if options.spec is not None else None
    spec = read_spec(file, flags, given)
    folder = options.output or Path("leaderboards") / (file.stem if file is not None else "own")
    where = Resources(options.jobs, options.address, options.cpus, options.gpus)
    try:
        report = make_leaderboard(
            spec,
            folder,
            where,
            (options.num_samples or DEFAULT_TRIALS) if options.tune else 0,
            runs=options.runs,
            minutes=options.budget,
        )
    except KeyboardInterrupt:
        print("recbole-posattn: finished runs are kept; the same command continues with the others", file=sys.stderr)
        raise
    _print(report)
    for message in report.not_tuned:
        print(f"recbole-posattn: {message}", file=sys.stderr)
    failed = [outcome for outcome in report.unfinished if outcome.started]
    for outcome in failed:
        name, seed = outcome.trial.name, outcome.trial.settings["seed"]
        print(f"recbole-posattn: {name}, seed {seed}, failed: {outcome.error}", file=sys.stderr)
    if len(report.unfinished) > len(failed):
        print(
            f"recbole-posattn: not started, as the budget of {options.budget:g} minutes was spent: "
            f"{counted(len(report.unfinished) - len(failed), 'run')}; the same command continues",
            file=sys.stderr,
        )
    return EXIT_FAILURE if failed or report.not_tuned else 0


def _check_numbers(options: argparse.Namespace) -> None:
    if options.jobs < 1 or (options.cpus is not None and options.cpus < 1) or not 0 <= options.gpus < math.inf:
        raise SettingError(
            "jobs and cpus must be positive integers and gpus a number of at least 0; "
            f"got jobs {options.jobs}, cpus {options.cpus}, gpus {options.gpus}."
        )
    if options.num_samples is not None and not options.tune:
        raise SettingError(f"num_samples {options.num_samples} is for --tune; give --tune as well, or leave it out.")
    require_positive(options, "num_samples")
    if options.budget is not None and not 0 <= options.budget < math.inf:
        raise SettingError(f"budget must be a number of minutes, at least 0; got {options.budget}.")


def _remake(options: argparse.Namespace) -> int:
    """Write the report of a finished leaderboard again; returns the exit code."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args([]))
    kept = {"spec", "source", "output"}
    others = [f"--{key}" for key, value in defaults.items() if key not in kept and getattr(options, key) != value]
    others += [text for text in (options.spec, *options.settings) if text]
    if others:
        raise SettingError(f"--from reads everything but --output from the leaderboard; leave out {' '.join(others)}.")
    from recbole_posattn.experiments.leaderboard.leaderboard import remake_leaderboard

    _print(remake_leaderboard(options.source, options.output or options.source))
    return 0


def _print(report: Report) -> None:
    """Print the tables and the names of the files."""
    from recbole_posattn.experiments.leaderboard.terminal import print_boards
    from recbole_posattn.reporting.terminal import table_console

    print_boards(report.boards, table_console())
    for written in report.files:
        print(f"written: {written}")

"""``recbole-posattn leaderboard``: compare models side by side, with spreads and tests."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from recbole_posattn.cli.plugins import add_plugin_argument
from recbole_posattn.cli.settings import checked_settings, parsed_settings, require_positive
from recbole_posattn.errors import EXIT_FAILURE, SettingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Train models on data sets under protocols with several seeds, each run in a process of its own, and write "
        "leaderboard.md, .csv, .tex and .html. The same command continues a leaderboard that was stopped."
    )
    parser.epilog = "Any setting for all runs is given as --key=value, e.g. --epochs=20."
    parser.add_argument(
        "spec",
        nargs="?",
        help="one of properties/leaderboard, such as encodings, or a YAML file (default: the flags)",
    )
    parser.add_argument("--models", type=_names, help="models, separated by commas")
    parser.add_argument("--datasets", type=_names, help="data sets, separated by commas (default: ml-100k)")
    parser.add_argument("--protocols", type=_names, help="protocols, separated by commas (default: leave_one_out)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 3)")
    parser.add_argument("--reference", help="the model that all others are tested against (default: the first)")
    add_plugin_argument(parser)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time on this machine (default: 1)")
    parser.add_argument("--address", help="a Ray cluster, auto or ray://host:port (default: this machine)")
    parser.add_argument("--cpus", type=int, help="CPUs of a run (default: this machine's, shared by the jobs)")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of a run, parts allowed (default: 0)")
    parser.add_argument(
        "--tune", action="store_true", help="first tune every model, each with the same number of trials"
    )
    parser.add_argument("--num_samples", type=int, default=20, help="trials of each model with --tune (default: 20)")
    parser.add_argument("--output", type=Path, help="folder of runs and report (default: leaderboards/<name>)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def execute(options: argparse.Namespace) -> int:
    """Run what is missing, print and write the tables; returns the exit code."""
    if options.jobs < 1 or (options.cpus is not None and options.cpus < 1) or not 0 <= options.gpus < math.inf:
        raise SettingError(
            "jobs and cpus must be positive integers and gpus a number of at least 0; "
            f"got jobs {options.jobs}, cpus {options.cpus}, gpus {options.gpus}."
        )
    require_positive(options, "num_samples")
    keys = ("models", "datasets", "protocols", "seeds", "reference")
    flags = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
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
        files, failed = make_leaderboard(spec, folder, where, options.num_samples if options.tune else 0)
    except KeyboardInterrupt:
        print("recbole-posattn: finished runs are kept; the same command continues with the others", file=sys.stderr)
        raise
    print(files[0].read_text(encoding="utf-8"))
    for written in files:
        print(f"written: {written}")
    for outcome in failed:
        name, seed = outcome.trial.name, outcome.trial.settings["seed"]
        print(f"recbole-posattn: {name}, seed {seed}, failed: {outcome.error}", file=sys.stderr)
    return EXIT_FAILURE if failed else 0

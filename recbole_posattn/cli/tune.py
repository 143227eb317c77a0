"""``recbole-posattn tune``: search the best settings of a model on validation data."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from recbole_posattn.cli.plugins import add_plugin_argument
from recbole_posattn.cli.settings import checked_settings, parsed_settings, require_positive
from recbole_posattn.errors import SettingError, counted
from recbole_posattn.settings.choices import ALGORITHMS, DEFAULT_DATASET, DEFAULT_MODEL, DEFAULT_TRIALS, SCHEDULERS

_GRACE_PERIOD = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Try settings of a model on validation data, stop poor trials early, and evaluate the best settings once "
        "on the test set. Writes best.yaml, trials.csv and report.html. See docs/tuning.md."
    )
    parser.epilog = "Any setting given as --key=value is fixed and not searched, e.g. --hidden_size=64."
    parser.add_argument("--model", "-m", help=f"name of the model (default: {DEFAULT_MODEL})")
    parser.add_argument("--dataset", "-d", help=f"data set (default: {DEFAULT_DATASET})")
    parser.add_argument("--config_files", default="", help="YAML files with settings, separated by spaces")
    add_plugin_argument(parser)
    spaces = parser.add_mutually_exclusive_group()
    spaces.add_argument(
        "--space",
        help="one of properties/tuning or a YAML file (default: that of the model or of the model it derives from)",
    )
    spaces.add_argument("--params_file", type=Path, help="a search space as a RecBole .hyper file")
    parser.add_argument(
        "--num_samples",
        type=int,
        help=f"number of settings to try (default: {DEFAULT_TRIALS}; a grid: all combinations)",
    )
    parser.add_argument(
        "--search", choices=ALGORITHMS, default=ALGORITHMS[0], help="how settings are drawn (default: tpe)"
    )
    parser.add_argument(
        "--scheduler", choices=SCHEDULERS, default=SCHEDULERS[0], help="how trials are pruned (default: asha)"
    )
    parser.add_argument(
        "--grace_period", type=int, help=f"epochs before a trial may be pruned (default: {_GRACE_PERIOD})"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time on this machine (default: 1)")
    parser.add_argument("--address", help="a Ray cluster, auto or ray://host:port (default: this machine)")
    parser.add_argument("--cpus", type=int, help="CPUs of a trial (default: this machine's, shared by the jobs)")
    parser.add_argument("--gpus", type=float, help="GPUs of a trial, may be fractional (default: 0)")
    parser.add_argument("--resources", help="CPUs and GPUs in one, such as cpu=2,gpu=0.5 (older form)")
    parser.add_argument("--resume", action="store_true", help="continue the search in the output folder")
    parser.add_argument(
        "--output", "--out", type=Path, help="folder of runs and report (default: tuning/<model>-<data set>)"
    )


def execute(options: argparse.Namespace) -> int:
    """Search, print the best and write the report; returns the exit code."""
    _check_numbers(options)
    checked = checked_settings(options.settings)
    from recbole_posattn.experiments.trials import Resources
    from recbole_posattn.experiments.tuning.space_files import read_hyper, read_space, space_of_model
    from recbole_posattn.experiments.tuning.spec import Search
    from recbole_posattn.experiments.tuning.tune import tune
    from recbole_posattn.reporting.names import setting_text
    from recbole_posattn.settings.keys import RUN_NAMES
    from recbole_posattn.settings.plugins import import_plugins, with_plugins
    from recbole_posattn.settings.properties import named_file
    from recbole_posattn.settings.yaml import read_yaml

    named = {key: name for key, name in (("model", options.model), ("dataset", options.dataset)) if name is not None}
    defaults, given = {"model": DEFAULT_MODEL, "dataset": DEFAULT_DATASET}, {**parsed_settings(checked), **named}
    plugins = {"plugins": options.plugin} if options.plugin else {}
    settings = with_plugins(defaults, *map(read_yaml, options.config_files.split()), given, plugins)
    if options.params_file is not None:
        space = read_hyper(options.params_file)
    elif options.space is not None:
        space = read_space(named_file("tuning", options.space))
    else:
        import_plugins(settings.get("plugins", ()))
        space = space_of_model(settings["model"], settings.get("preset"))
    if strange := sorted(RUN_NAMES & {*space.keys}):
        raise SettingError(f"search space: {strange[0]} cannot be searched; give it with --{strange[0]}=VALUE.")
    search = Search(
        settings, space.without(settings), options.num_samples, options.search, options.scheduler, options.grace_period
    )
    folder = options.output or Path("tuning") / f"{settings['model']}-{settings['dataset']}"
    where = Resources(options.jobs, options.address, **resources_of(options))
    try:
        result, files = tune(search, folder, where, options.resume)
    except KeyboardInterrupt:
        print(
            "recbole-posattn: finished trials are kept; the same command with --resume continues with the others",
            file=sys.stderr,
        )
        raise
    trials = counted(len(result.records), "trial")
    print(f"best of {trials}: {result.metric} {result.best.best(result.bigger):.4f} (validation)")
    for key, value in result.best.settings.items():
        print(f"  {key}: {setting_text(value)}")
    print("test: " + ", ".join(f"{metric} {value:.4f}" for metric, value in result.test_result.items()))
    for written in files:
        print(f"written: {written}")
    return 0


def _check_numbers(options: argparse.Namespace) -> None:
    if options.num_samples is not None and options.search == "grid":
        raise SettingError(
            f"num_samples {options.num_samples} is for the searches tpe and random; got grid, which tries every "
            "combination: leave it out."
        )
    if options.grace_period is not None and options.scheduler == "none":
        raise SettingError(
            f"grace_period {options.grace_period} is for the scheduler asha; got none, which prunes no trial: leave "
            "it out."
        )
    options.num_samples = DEFAULT_TRIALS if options.num_samples is None else options.num_samples
    options.grace_period = _GRACE_PERIOD if options.grace_period is None else options.grace_period
    require_positive(options, "num_samples", "grace_period", "jobs")


def resources_of(options: argparse.Namespace) -> dict[str, Any]:
    """``--cpus`` and ``--gpus``, or ``--resources``, as the fields of a trial's resources.

    Raises:
        SettingError: If one has a value that is not allowed, or is given twice.
    """
    amounts = _resources(options.resources)
    for name in ("cpus", "gpus"):
        given = getattr(options, name)
        if given is not None and name in amounts:
            raise SettingError(f"{name} was given twice, by --{name} and by --resources; give it once.")
        if given is not None:
            amounts[name] = given
    if amounts.get("cpus", 1) < 1 or not 0 <= amounts.get("gpus", 0) < math.inf:
        raise SettingError(
            f"cpus must be a positive integer and gpus a number of at least 0; got "
            f"{', '.join(f'{name} {amount}' for name, amount in amounts.items())}."
        )
    return amounts


def _resources(text: str | None) -> dict[str, Any]:
    """``cpu=2,gpu=0.5`` as the fields of :class:`~recbole_posattn.experiments.trials.Resources`."""
    from recbole_posattn.settings.yaml import parse_value

    amounts: dict[str, Any] = {}
    for part in text.split(",") if text else []:
        name, _, amount = part.strip().partition("=")
        value = parse_value(amount)
        allowed = {"cpu": type(value) is int and value >= 1, "gpu": type(value) in (int, float) and value >= 0}
        if not allowed.get(name) or f"{name}s" in amounts:
            raise SettingError(f"resources must be such as cpu=2,gpu=0.5, each once; got {text!r}.")
        amounts[f"{name}s"] = value
    return amounts

"""The commands of ``recbole-posattn``, and the launcher ``run_recbole_posattn.py``, which is its ``run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import recbole_posattn
from recbole_posattn.config import DEFAULT_DATASET, DEFAULT_MODEL, parse_value, read_yaml
from recbole_posattn.errors import EXIT_USER_ERROR, ProcessError, SettingError, UserError
from recbole_posattn.inspect.figures import write_interference
from recbole_posattn.inspect.interference import interference
from recbole_posattn.leaderboard.make import make_leaderboard
from recbole_posattn.leaderboard.spec import read_spec
from recbole_posattn.quick_start import run
from recbole_posattn.registry import named_file
from recbole_posattn.trials import Where
from recbole_posattn.tuning.make import tune
from recbole_posattn.tuning.search import ALGORITHMS, SCHEDULERS, Search
from recbole_posattn.tuning.space import read_hyper, read_space

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """``recbole-posattn COMMAND …``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="recbole-posattn", description=recbole_posattn.__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {recbole_posattn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run_arguments(commands.add_parser("run", help="train and evaluate a model", allow_abbrev=False))
    _add_interference_arguments(
        commands.add_parser("interference", help="what each positional part of a trained model contributes")
    )
    _add_leaderboard_arguments(
        commands.add_parser(
            "leaderboard", help="compare models side by side, with spreads and tests", allow_abbrev=False
        )
    )
    _add_tune_arguments(
        commands.add_parser("tune", help="search the best settings of a model on validation data", allow_abbrev=False)
    )
    options, settings = parser.parse_known_args(arguments)
    if options.command == "leaderboard":
        return _guarded(lambda: _leaderboard(options, settings))
    if options.command == "tune":
        return _guarded(lambda: _tune(options, settings))
    if options.command == "interference":
        if settings:
            parser.error(f"unrecognized arguments: {' '.join(settings)}")
        return _guarded(lambda: _interference(options))
    return _guarded(lambda: _run(options, settings))


def launch(arguments: Sequence[str] | None = None) -> int:
    """``run_recbole_posattn.py``, with the flags of RecBole's ``run_recbole.py``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="run_recbole_posattn.py", allow_abbrev=False)
    _add_run_arguments(parser)
    options, settings = parser.parse_known_args(arguments)
    return _guarded(lambda: _run(options, settings))


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train and evaluate a model, RecBole's own included."
    parser.epilog = "Any setting is given as --key=value and wins over the files, e.g. --hidden_size=128."
    parser.add_argument("--model", "-m", help="name of the model (default: PosKernelSASRec)")
    parser.add_argument("--dataset", "-d", help="name of the data set (default: ml-100k)")
    parser.add_argument("--config_files", default="", help="YAML files with settings, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes to train with on this machine (default: 1)")
    parser.add_argument("--ip", default="localhost", help="address of the master process")
    parser.add_argument("--port", default="5678", help="port of the master process")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines (default: nproc)")
    parser.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process")


def _parsed_settings(arguments: Sequence[str]) -> dict[str, Any]:
    given = dict(argument.removeprefix("--").split("=", 1) for argument in _checked_settings(arguments))
    return {key: parse_value(value) for key, value in given.items()}


def _checked_settings(arguments: Sequence[str]) -> Sequence[str]:
    for argument in arguments:
        if not argument.startswith("--") or "=" not in argument:
            raise SettingError(f"argument {argument!r} is not understood; give settings as --key=value")
    return arguments


def _run(options: argparse.Namespace, settings: Sequence[str]) -> int:
    named = {"model": options.model, "dataset": options.dataset}
    strongest = [f"--{key}={value}" for key, value in named.items() if value is not None]
    run(
        config_file_list=options.config_files.split(),
        command_line=[*strongest, *_checked_settings(settings)],
        nproc=options.nproc,
        world_size=options.world_size,
        ip=options.ip,
        port=options.port,
        group_offset=options.group_offset,
    )
    return 0


def _add_interference_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Switch off the kernels U and L and each encoding of a trained model, one after the other and all but one, "
        "and measure what that does to the metrics, and layer by layer to the attention. See docs/interference.md."
    )
    parser.add_argument("checkpoint", type=Path, help="a best.pth below saved/")
    parser.add_argument(
        "--split", choices=["valid", "test"], default="valid", help="rows to measure on (default: valid)"
    )
    parser.add_argument("--output", type=Path, help="folder of the tables and the figure (default: the checkpoint's)")


def _interference(options: argparse.Namespace) -> int:
    result = interference(options.checkpoint, options.split, show_progress=sys.stderr.isatty())
    for table in (result.metrics, result.layers):
        print(table.to_string(index=False, float_format="{:.4f}".format), end="\n\n")
    for file in write_interference(result, options.output or options.checkpoint.parent):
        print(f"written: {file}")
    return 0


def _add_leaderboard_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train models on data sets under protocols with several seeds, each run in a process of its own, and write "
        "leaderboard.md, .csv, .tex and .html. The same command goes on where an earlier one was stopped."
    )
    parser.epilog = "Any setting for all runs is given as --key=value, e.g. --epochs=20."
    parser.add_argument(
        "spec",
        nargs="?",
        help="one of properties/leaderboard, such as encodings, or a YAML file (default: what the flags say)",
    )
    parser.add_argument("--models", type=_names, help="models, separated by commas")
    parser.add_argument("--datasets", type=_names, help="data sets, separated by commas (default: ml-100k)")
    parser.add_argument("--protocols", type=_names, help="protocols, separated by commas (default: leave_one_out)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 3)")
    parser.add_argument("--reference", help="the model that all others are tested against (default: the first)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time on this machine (default: 1)")
    parser.add_argument("--address", help="a Ray cluster, auto or ray://host:port (default: this machine)")
    parser.add_argument("--cpus", type=int, help="CPUs of a run (default: this machine's, shared by the jobs)")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of a run, parts allowed (default: 0)")
    parser.add_argument("--tune", action="store_true", help="tune every model before, all by as many trials")
    parser.add_argument("--num_samples", type=int, default=20, help="trials of each model with --tune (default: 20)")
    parser.add_argument("--output", type=Path, help="folder of runs and report (default: leaderboards/<name>)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _leaderboard(options: argparse.Namespace, settings: Sequence[str]) -> int:
    if options.jobs < 1 or (options.cpus is not None and options.cpus < 1) or options.gpus < 0:
        raise SettingError(
            "jobs and cpus must be positive integers and gpus a number of at least 0; "
            f"got jobs {options.jobs}, cpus {options.cpus}, gpus {options.gpus}."
        )
    _require_positive(options, "num_samples")
    keys = ("models", "datasets", "protocols", "seeds", "reference")
    flags = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    given = _parsed_settings(settings)
    file = named_file("leaderboard", options.spec) if options.spec is not None else None
    spec = read_spec(file, flags, given)
    folder = options.output or Path("leaderboards") / (file.stem if file is not None else "own")
    where = Where(options.jobs, options.address, options.cpus, options.gpus)
    try:
        files, failed = make_leaderboard(spec, folder, where, options.num_samples if options.tune else 0)
    except KeyboardInterrupt:
        print("recbole-posattn: finished runs are kept; the same command goes on with the others", file=sys.stderr)
        raise
    print(files[0].read_text(encoding="utf-8"))
    for written in files:
        print(f"written: {written}")
    for outcome in failed:
        name, seed = outcome.trial.name, outcome.trial.settings["seed"]
        print(f"recbole-posattn: {name}, seed {seed}, failed: {outcome.error}", file=sys.stderr)
    return EXIT_FAILURE if failed else 0


def _add_tune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Try settings of a model on validation data, stop those that are behind, and evaluate the best one once on the "
        "test set. Writes best.yaml, trials.csv and report.html. See docs/tuning.md."
    )
    parser.epilog = "Any setting given as --key=value is fixed and not searched, e.g. --hidden_size=64."
    parser.add_argument("--model", "-m", default=DEFAULT_MODEL, help=f"name of the model (default: {DEFAULT_MODEL})")
    parser.add_argument("--dataset", "-d", default=DEFAULT_DATASET, help=f"data set (default: {DEFAULT_DATASET})")
    parser.add_argument("--config_files", default="", help="YAML files with settings, separated by spaces")
    spaces = parser.add_mutually_exclusive_group()
    spaces.add_argument("--space", help="one of properties/tuning or a YAML file (default: the model's)")
    spaces.add_argument("--params_file", type=Path, help="a search space as a .hyper file of RecBole's")
    parser.add_argument("--num_samples", type=int, default=20, help="settings to try (default: 20)")
    parser.add_argument("--search", choices=ALGORITHMS, default=ALGORITHMS[0], help="how they are drawn (default: tpe)")
    parser.add_argument(
        "--scheduler", choices=SCHEDULERS, default=SCHEDULERS[0], help="what stops hopeless trials (default: asha)"
    )
    parser.add_argument("--grace_period", type=int, default=5, help="epochs before one is stopped (default: 5)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time on this machine (default: 1)")
    parser.add_argument("--address", help="a Ray cluster, auto or ray://host:port (default: this machine)")
    parser.add_argument(
        "--resources", help="of a trial, such as cpu=2,gpu=0.5 (default: the CPUs of this machine, shared by the jobs)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search in the output folder")
    parser.add_argument("--output", type=Path, help="folder of runs and report (default: tuning/<model>-<data set>)")


def _tune(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    given = _parsed_settings(arguments)
    settings: dict[str, Any] = {}
    for file in options.config_files.split():
        settings.update(read_yaml(file))
    settings |= {**given, "model": options.model, "dataset": options.dataset}
    if options.params_file is not None:
        space = read_hyper(options.params_file)
    else:
        space = read_space(named_file("tuning", options.space or options.model))
    _require_positive(options, "num_samples", "grace_period", "jobs")
    search = Search(
        settings, space.without(settings), options.num_samples, options.search, options.scheduler, options.grace_period
    )
    folder = options.output or Path("tuning") / f"{options.model}-{options.dataset}"
    where = Where(options.jobs, options.address, **_resources(options.resources))
    try:
        found, files = tune(search, folder, where, options.resume)
    except KeyboardInterrupt:
        print(
            "recbole-posattn: trials that have ended are kept; the same command with --resume goes on with the others",
            file=sys.stderr,
        )
        raise
    print(f"best of {len(found.records)} trials: {found.metric} {found.best.best(found.bigger):.4f} (validation)")
    for key, value in found.best.settings.items():
        print(f"  {key}: {value}")
    print("test: " + ", ".join(f"{metric} {value:.4f}" for metric, value in found.test_result.items()))
    for written in files:
        print(f"written: {written}")
    return 0


def _require_positive(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) < 1:
            raise SettingError(f"{name} must be a positive integer; got {getattr(options, name)}.")


def _resources(text: str | None) -> dict[str, float]:
    """``cpu=2,gpu=0.5`` as the fields of :class:`Where`."""
    found: dict[str, float] = {}
    for part in text.split(",") if text else []:
        name, _, amount = part.strip().partition("=")
        value = parse_value(amount)
        allowed = {"cpu": type(value) is int and value >= 1, "gpu": type(value) in (int, float) and value >= 0}
        if not allowed.get(name):
            raise SettingError(f"resources must be such as cpu=2,gpu=0.5; got {text!r}.")
        found[f"{name}s"] = value
    return found


def _guarded(command: Callable[[], int]) -> int:
    """Run a command; what the user can mend ends in one line and exit code 2."""
    try:
        return command()
    except UserError as error:
        print(f"recbole-posattn: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except ProcessError as error:
        print(f"recbole-posattn: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("recbole-posattn: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED

"""``recbole-posattn run``: train and evaluate a model."""

from __future__ import annotations

import argparse

from recbole_posattn.cli.plugins import add_plugin_argument
from recbole_posattn.cli.settings import checked_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of RecBole's ``run_recbole.py``."""
    parser.description = "Train and evaluate a model, RecBole's own included."
    parser.epilog = (
        "Any setting is given as --key=value and overrides the files, e.g. --hidden_size=128. recbole-posattn models "
        "lists the models, recbole-posattn keys MODEL the settings of one."
    )
    parser.add_argument("--model", "-m", help="name of the model (default: PosKernelSASRec)")
    parser.add_argument("--dataset", "-d", help="name of the data set (default: ml-100k)")
    parser.add_argument("--config_files", default="", help="YAML files with settings, separated by spaces")
    add_plugin_argument(parser)
    parser.add_argument(
        "--resume",
        metavar="PATH|auto",
        help="continue the run in this folder, or (auto) the most advanced run with these settings",
    )
    parser.add_argument("--nproc", type=int, default=1, help="processes to train with on this machine (default: 1)")
    parser.add_argument("--ip", default="localhost", help="address of the master process")
    parser.add_argument("--port", default="5678", help="port of the master process")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines (default: nproc)")
    parser.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process")


def execute(options: argparse.Namespace) -> int:
    """Train and evaluate; returns the exit code."""
    settings = checked_settings(options.settings)
    from recbole_posattn import distributed
    from recbole_posattn.training.run import run

    named = {"model": options.model, "dataset": options.dataset}
    strongest = [f"--{key}={value}" for key, value in named.items() if value is not None]
    run(
        config_file_list=options.config_files.split(),
        command_line=[*strongest, *(f"--plugin={name}" for name in options.plugin), *settings],
        nproc=options.nproc,
        world_size=options.world_size,
        ip=options.ip,
        port=options.port,
        group_offset=options.group_offset,
        resume=options.resume,
        print_result=True,
    )
    if distributed.launched_outside():
        distributed.end_process()
    return 0

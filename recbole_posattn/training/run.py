"""Train and evaluate a model with one call."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import recbole_posattn.compat  # noqa: F401

import pandas as pd
import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, init_seed, set_color

from recbole_posattn import distributed
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.distributed import checked_layout
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training import interrupts
from recbole_posattn.training.checkpoint import (
    check_vocabulary,
    explain_checkpoint_errors,
    load_state,
    read_checkpoint,
)
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.environment import environment_table, start_watching, warn_of_busy_machine
from recbole_posattn.training.load import build_model, evaluate_trainer, prepare_data
from recbole_posattn.training.request import RunRequest
from recbole_posattn.training.result import (
    RunResult,
    best_epoch,
    inputs_of,
    peak_mebibytes_of,
    result_table,
    write_result,
    write_users,
)
from recbole_posattn.training.resume import AUTO, Resumed, config_to_resume, continued, resumed_run
from recbole_posattn.training.run_folder import LAST_NAME
from recbole_posattn.training.run_log import NOT_ON_SCREEN, run_logger
from recbole_posattn.training.same_run import check_data
from recbole_posattn.training.trainer import trainer_class


def run(
    model: str | type[AbstractRecommender] | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
    command_line: Sequence[str] | None = None,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str | int = "5678",
    group_offset: int = 0,
    test: bool = True,
    callback_fn: Callable[[int, float], None] | None = None,
    resume: str | Path | None = None,
    print_result: bool = False,
) -> RunResult | None:
    """Train a model, evaluate its best epoch on the test set, and write the results beside the checkpoint.

    Replaces ``recbole.quick_start.run`` and ``run_recbole``, also for RecBole's own models. A process started by
    ``torchrun`` trains together with the others of its job.

    Args:
        model: Name or class; by default that of the settings, else PosKernelSASRec.
        dataset: Name; by default that of the settings, else ml-100k.
        config_file_list: YAML files with settings.
        config_dict: Settings; they override the files.
        saved: Whether to save checkpoints and results. If not, the last epoch is tested, and a run writes only its logs
            and, as in RecBole, the checkpoint of a pretraining stage.
        command_line: Settings ``--key=value``, which override all others; none by default. Unlike RecBole's, this
            function does not read ``sys.argv``, which belongs to the calling program.
        nproc: Number of processes on this machine, with one GPU each or sharing the CPU.
        world_size: Number of processes in all groups (machines); by default ``nproc``.
        ip: Address of the machine with the first process.
        port: A free port there.
        group_offset: Rank of the first process here: the sum of ``nproc`` of the preceding groups.
        test: Whether to evaluate on the test set; :func:`evaluate_checkpoint` can do it later.
        callback_fn: Called after each validation with the number of the epoch, from 0, and its score, as by RecBole's
            trainers; must be picklable if there are several processes.
        resume: Continue an unfinished run: its folder, or ``auto`` for the run below ``checkpoint_dir`` that has the
            same settings and the most progress, or a new run if there is none. On a CPU, the weights and metrics are
            those of an uninterrupted run.
        print_result: Whether to print the table of results on standard output instead of logging it to the screen;
            the log file has it in both cases.

    Returns:
        The entries of :class:`~recbole_posattn.training.result.RunResult`; ``None`` if the first process runs on
        another machine.

    Raises:
        SettingError: If the key or value of a setting cannot be used.
        DataError: If the data set cannot be used.
        CheckpointError: If a checkpoint cannot be written, or the run to continue cannot be read.
        TrainingError: If memory runs out or the loss is not finite.
        ProcessError: If one of several processes fails for another reason.
    """
    layout = checked_layout(nproc, world_size, ip, port, group_offset)
    request = RunRequest(
        model,
        dataset,
        config_file_list,
        config_dict,
        saved,
        command_line or (),
        test,
        callback_fn,
        resume,
        print_result,
    )
    if layout.world_size == 1:
        return _run(request)
    return distributed.launch(_run, {"request": request}, layout)


@distributed.explain_timeouts()
def _run(request: RunRequest) -> RunResult:
    """:func:`run` in this process, one of several or the only one."""
    started = time.perf_counter()
    start_watching()
    resume = request.resume
    given = (request.model, request.dataset, request.config_file_list, request.config_dict, request.command_line)
    config = Config(*given) if resume in (None, AUTO) else config_to_resume(resume, lambda names: Config(*given, names))
    keys = set(config.plain())  # without those that training adds, which a run to continue has
    resumed = None if resume is None else resumed_run(resume, config)
    try:
        config = config if resumed is None else resumed.config
        with distributed.main_first():
            ensure_atomic_files(config, keeps=True)
            if request.saved:
                _require_writable(config, resumed)
        with (
            run_logger(config),
            interrupts.explained("nothing was trained; run the same command again") as interruption,
        ):
            logging.getLogger().info(sys.argv)
            if resume is not None and resumed is None:
                logging.getLogger().info("There is no run with these settings to continue: a new one starts")
            if resumed is not None:
                check_data(resumed.folder, resumed.content, config)
            keys |= config.given_keys()
            settings = {key: value for key, value in config.plain().items() if key in keys}
            result = _train_and_test(config, settings, resumed, started, request, interruption)
    finally:
        if resumed is not None:
            resumed.release()
    distributed.leave()
    return result


def _require_writable(config: Config, resumed: Resumed | None) -> None:
    """Check before training that checkpoints can be written, of a run to continue in its own folder.

    Raises:
        CheckpointError: If they cannot.
    """
    folder = Path(config["checkpoint_dir"]) if resumed is None else resumed.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what, advice = f"checkpoint_dir {folder}", "name another folder with --checkpoint_dir"
        if resumed is not None:
            what, advice = f"the run's folder {folder}", "copy it to a folder that can be written, and resume it there"
        raise CheckpointError(f"{what} cannot be written: {error.strerror or error}; {advice}") from error


def _train_and_test(
    config: Config,
    settings: Mapping[str, Any],
    resumed: Resumed | None,
    started: float,
    request: RunRequest,
    interruption: SimpleNamespace,
) -> RunResult:
    """A run whose settings are known.

    Args:
        config: The settings, to which training may add keys.
        settings: The settings to write with the result.
        resumed: The run to continue; ``None`` for a new one.
        started: Start of the run, a value of ``time.perf_counter()``.
        request: What else was asked for.
        interruption: See :func:`recbole_posattn.training.interrupts.explained`.
    """
    logging.getLogger().info(config)
    init_seed(config["seed"], config["reproducibility"])
    inputs = inputs_of(config) if request.saved and distributed.is_main() else {}
    interactions, (train_data, valid_data, test_data) = prepare_data(config)
    _require_items(config, interactions, valid_data, test_data)
    logging.getLogger().info(interactions)
    data_ready = time.perf_counter()

    trainer, recommender = _build_trainer(config, resumed, train_data)
    interruption.kept = trainer.kept
    before = getattr(trainer, "seconds_before", 0.0)
    options = {"callback_fn": request.callback_fn} if isinstance(trainer, EngineMixin) else {}  # trees have no epochs
    warn_of_busy_machine(config["device"])
    with trainer.wandblogger.finishing() as trackers:
        best_valid_score, best_valid_result = trainer.fit(
            train_data, valid_data, saved=request.saved, show_progress=config["show_progress"], **options
        )
        trained = time.perf_counter()
        test_result, users = (
            evaluate_trainer(trainer, test_data, load_best_model=request.saved) if request.test else (None, None)
        )
        if request.saved and test_result is None and hasattr(recommender, "learned") and distributed.is_main():
            load_state(recommender, read_checkpoint(trainer.saved_model_file, config["device"]))  # as a test does
        finished = time.perf_counter()
        trackers.summarize({"best_valid": best_valid_result, "test": test_result})

    curve = plain_data(getattr(trainer, "curve", []))
    result = RunResult(
        best_valid_score=plain_data(best_valid_score),
        valid_score_bigger=config["valid_metric_bigger"],
        best_valid_result=plain_data(best_valid_result),
        test_result=plain_data(test_result),
        checkpoint=trainer.saved_model_file if request.saved else None,
        epochs=len(trainer.train_loss_dict),
        best_epoch=-1 if best_valid_result is None else _best_epoch(trainer, curve, request.saved),
        seconds=_seconds((started, data_ready, trained, finished), before),
        trainable_parameters=_n_parameters(recommender),
        peak_mebibytes=peak_mebibytes_of(config["device"]),
        seen_targets=float(users["seen"].mean()) if users is not None and "seen" in users else None,
        curve=curve,
        learned=getattr(recommender, "learned", dict)(),
        changes=getattr(trainer, "changes", []),
        stopped_by=getattr(trainer, "stopped_by", None),
    )
    _report(config, settings, result, inputs, users, request.print_result)
    return result


def _best_epoch(trainer: Any, curve: Sequence[Mapping[str, Any]], saved: bool) -> int:
    """That of the kept checkpoint; without one, that of the scores."""
    return trainer.best_epoch if saved else best_epoch(curve, trainer.config)


def _seconds(times: tuple[float, float, float, float], before: float) -> dict[str, float]:
    """The seconds of each phase of a run, from their limits and the seconds of training before a resume."""
    started, data_ready, trained, finished = times
    seconds = {
        "data": data_ready - started,
        "training": trained - data_ready + before,
        "test": finished - trained,
        "total": finished - started + before,
    }
    return {phase: round(value, 2) for phase, value in seconds.items()}


def _build_trainer(
    config: Config, resumed: Resumed | None, train_data: AbstractDataLoader
) -> tuple[Trainer, AbstractRecommender]:
    """The trainer and its model, with the state of the run to continue if there is one."""
    recommender = build_model(config, train_data)
    logging.getLogger().info(recommender)
    with nullcontext() if resumed is None else continued(config, resumed):
        trainer = trainer_class(config)(config, recommender)
    if resumed is not None:
        try:
            with explain_checkpoint_errors(resumed.folder / LAST_NAME):
                check_vocabulary(resumed.content, train_data._dataset)
            trainer.resume(resumed)
        except BaseException:
            trainer.tensorboard.close()  # ends its thread
            raise
    return trainer, recommender


def _report(
    config: Config,
    settings: Mapping[str, Any],
    result: RunResult,
    inputs: Mapping[str, str | None],
    users: pd.DataFrame | None,
    print_result: bool,
) -> None:
    """Log or print the result and, if the run is saved, write it and the results by user beside the checkpoint."""
    logger = logging.getLogger()
    logger.info("The running environment of this training is as follows:\n" + environment_table(config))
    logger.info(set_color("best valid ", "yellow") + f": {result['best_valid_result']}")
    logger.info(set_color("test result", "yellow") + f": {result['test_result']}")
    if result["checkpoint"] is not None and distributed.is_main():
        folder = Path(result["checkpoint"]).parent
        if users is not None:
            write_users(users, folder)
        write_result(config, settings, result, inputs, folder)
    table = result_table(config, result)
    if print_result and distributed.is_main():
        print(table, flush=True)
    logger.info("\n" + table, extra={NOT_ON_SCREEN: print_result})


def _require_items(config: Config, dataset: Dataset, *evaluated: AbstractDataLoader) -> None:
    """Refuse lists longer than the catalogue, on which RecBole fails only after the first epoch."""
    n_items, longest = dataset.item_num - 1, max(config["topk"])
    if config["eval_type"] == EvaluatorType.RANKING and longest > n_items and any(evaluated):
        raise SettingError(
            f"topk must be at most {n_items}, the number of items in data set {config['dataset']!r}; got {longest}."
        )


def _n_parameters(model: AbstractRecommender) -> int:
    """The number of trainable weights; 0 for trees."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)

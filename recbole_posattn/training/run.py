"""Train and evaluate a model with one call, and load it again."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import recbole_posattn.before_recbole  # noqa: F401

import pandas as pd
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, ModelType, get_environment, init_seed, set_color
from texttable import Texttable

from recbole_posattn import distributed
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.compat import no_pickled_caches, run_logger, without_tensorboard
from recbole_posattn.distributed import checked_layout
from recbole_posattn.errors import CheckpointError, DataError, SettingError, UserError
from recbole_posattn.files import whole_file
from recbole_posattn.settings.config import Config, plain_data
from recbole_posattn.strict_json import json_text
from recbole_posattn.training.checkpoint import LAST_NAME, check_vocabulary, load_state, read_checkpoint, use_explained
from recbole_posattn.training.explained_errors import needs_explained, pretrained_explained
from recbole_posattn.training.memory import peak_memory
from recbole_posattn.training.request import RunRequest
from recbole_posattn.training.resume import AUTO, Resumed, names_of_run, resumed_run
from recbole_posattn.training.same_run import check_data
from recbole_posattn.training.trainer import EngineMixin, trainer_class
from recbole_posattn.training.trees import TREES, load_trees

RESULT_NAME, USERS_NAME = "result.json", "users.parquet"
_REPORTED_PACKAGES = ("recbole-posattn", "recbole", "torch", "numpy", "pandas", "scipy")


class RunResult(TypedDict):
    """What :func:`run` returns: RecBole's four results, then ours."""

    best_valid_score: float
    valid_score_bigger: bool
    best_valid_result: dict[str, float] | None
    test_result: dict[str, float] | None
    checkpoint: str | None
    epochs: int
    best_epoch: int
    seconds: dict[str, float]
    trainable_parameters: int
    peak_mebibytes: int
    seen_targets: float | None
    curve: list[dict[str, Any]]
    learned: dict[str, Any]
    changes: list[dict[str, Any]]


class Loaded(NamedTuple):
    """What :func:`load` returns, in the order of RecBole's ``load_data_and_model``."""

    config: Config
    model: AbstractRecommender
    dataset: Dataset
    train_data: AbstractDataLoader
    valid_data: AbstractDataLoader
    test_data: AbstractDataLoader


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
) -> RunResult | None:
    """Train a model, evaluate its best epoch on the test set, and write both beside the checkpoint.

    The successor of ``recbole.quick_start.run`` and ``run_recbole``, for RecBole's own models as well. A process that
    ``torchrun`` has started trains together with the others of its job.

    Args:
        model: Name or class; by default what the settings say, else PosKernelSASRec.
        dataset: Name; by default what the settings say, else ml-100k.
        config_file_list: YAML files with settings.
        config_dict: Settings, stronger than the files.
        saved: Whether to keep the best epoch. If not, the last epoch is the one tested, and nothing is written.
        command_line: Settings ``--key=value``, strongest of all; none by default. Unlike RecBole's, this function does
            not read ``sys.argv``, which belongs to the program that calls it.
        nproc: Processes to train with here, on a GPU each or sharing the CPU.
        world_size: Processes in all groups (machines); by default ``nproc``.
        ip: Address of the machine with the first process.
        port: A free port there.
        group_offset: Rank of the first process here: the sum of ``nproc`` of the groups before.
        test: Whether to evaluate on the test set, which :func:`evaluate_checkpoint` does later otherwise.
        callback_fn: Called with the number of each epoch, from 0, that was validated, and its score, as RecBole's
            trainers do; must be picklable where there are several processes.
        resume: Go on with a run that did not come to its end: its folder, or ``auto`` for the one below
            ``checkpoint_dir`` with the same settings that has come farthest, or a new run if there is none. On a CPU it
            ends with the weights and metrics that it would have had undisturbed.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result`` (``None``
        where a split has no rows, or is not evaluated), and: ``checkpoint`` (path, ``None`` unless saved), ``epochs``
        (trained), ``best_epoch`` (counted from 0), ``seconds`` (wall time of ``data``, ``training`` with validation,
        ``test`` and ``total``), ``trainable_parameters``, ``peak_mebibytes`` (of the process's memory, or of the GPU's
        where there is one), ``seen_targets`` (share of test targets that their user had before; ``None`` unless
        ``mask_history`` is given), ``curve`` (what each epoch told, see ``EngineMixin``) and ``learned`` (what a model
        of ours tells of itself, such as the ``kernel_widths`` of adaptive bands), ``changes`` (settings that became
        others when the run was resumed). ``None`` where the first process runs on another machine.

    Raises:
        SettingError: If a setting's key or value cannot be used.
        DataError: If the data set cannot.
        CheckpointError: If a checkpoint cannot be written, or the run to go on with cannot be read.
        TrainingError: If memory runs out or the loss is no number.
        ProcessError: If one of several processes fails for another reason.
    """
    layout = checked_layout(nproc, world_size, ip, port, group_offset)
    request = RunRequest(
        model, dataset, config_file_list, config_dict, saved, command_line or (), test, callback_fn, resume
    )
    if layout.world_size == 1:
        return _run(request)
    return distributed.launch(_run, {"request": request}, layout)


@distributed.waits_explained()
def _run(request: RunRequest) -> RunResult:
    """:func:`run` in this process, one of several or the only one."""
    started = time.perf_counter()
    resume = request.resume
    fallback = None if resume in (None, AUTO) else names_of_run(resume)
    config = Config(
        request.model, request.dataset, request.config_file_list, request.config_dict, request.command_line, fallback
    )
    resumed = None if resume is None else resumed_run(resume, config)
    try:
        config = config if resumed is None else resumed.config
        with distributed.main_first():
            ensure_atomic_files(config)
            if request.saved:
                _require_writable(Path(config["checkpoint_dir"]))
        with run_logger(config):
            logging.getLogger().info(sys.argv)
            if resume is not None and resumed is None:
                logging.getLogger().info("There is no run with these settings to go on with: a new one starts")
            if resumed is not None:
                check_data(resumed.folder, resumed.content, config)
            result = _train_and_test(config, resumed, started, request)
    finally:
        if resumed is not None:
            resumed.release()
    distributed.leave()
    return result


def _require_writable(folder: Path) -> None:
    """See that checkpoints can be written before anything is trained.

    Raises:
        CheckpointError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(
            f"checkpoint_dir {folder} cannot be written: {error.strerror or error}; name another folder with "
            "--checkpoint_dir"
        ) from error


def _train_and_test(config: Config, resumed: Resumed | None, started: float, request: RunRequest) -> RunResult:
    """A run whose settings are known.

    Args:
        config: The settings.
        resumed: The run to go on with, if it is not a new one.
        started: When, by ``time.perf_counter()``.
        request: What else is asked for.
    """
    logger = logging.getLogger()
    logger.info(config)
    init_seed(config["seed"], config["reproducibility"])
    interactions, (train_data, valid_data, test_data) = prepare_data(config)
    _require_items(config, interactions, valid_data, test_data)
    logger.info(interactions)
    data_ready = time.perf_counter()

    recommender = _build_model(config, train_data)
    logger.info(recommender)
    trainer = trainer_class(config)(config, recommender)
    if resumed is not None:
        with use_explained(resumed.folder / LAST_NAME):
            check_vocabulary(resumed.content, train_data._dataset)
        trainer.resume(resumed)
    before = getattr(trainer, "seconds_before", 0.0)
    options = {"callback_fn": request.callback_fn} if isinstance(trainer, EngineMixin) else {}  # trees have no epochs
    best_valid_score, best_valid_result = trainer.fit(
        train_data, valid_data, saved=request.saved, show_progress=config["show_progress"], **options
    )
    trained = time.perf_counter()
    test_result, users = _evaluate(trainer, test_data, load_best_model=request.saved) if request.test else (None, None)
    finished = time.perf_counter()

    result = RunResult(
        best_valid_score=plain_data(best_valid_score),
        valid_score_bigger=config["valid_metric_bigger"],
        best_valid_result=plain_data(best_valid_result),
        test_result=plain_data(test_result),
        checkpoint=trainer.saved_model_file if request.saved else None,
        epochs=len(trainer.train_loss_dict),
        best_epoch=getattr(trainer, "best_epoch", -1),
        seconds={
            "data": round(data_ready - started, 2),
            "training": round(trained - data_ready + before, 2),
            "test": round(finished - trained, 2),
            "total": round(finished - started + before, 2),
        },
        trainable_parameters=_n_parameters(recommender),
        peak_mebibytes=_peak_mebibytes(config["device"]),
        seen_targets=float(users["seen"].mean()) if users is not None and "seen" in users else None,
        curve=plain_data(getattr(trainer, "curve", [])),
        learned=getattr(recommender, "learned", dict)(),
        changes=getattr(trainer, "changes", []),
    )
    logger.info("The running environment of this training is as follows:\n" + get_environment(config).draw())
    logger.info(set_color("best valid ", "yellow") + f": {result['best_valid_result']}")
    logger.info(set_color("test result", "yellow") + f": {result['test_result']}")
    if request.saved and distributed.is_main():
        if users is not None:
            with whole_file(Path(result["checkpoint"]).with_name(USERS_NAME)) as incomplete:
                users.to_parquet(incomplete, index=False)
        _write_result(config, result)
    logger.info("\n" + result_table(config, result))
    return result


def _evaluate(
    trainer: Trainer, data: AbstractDataLoader, load_best_model: bool
) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
    """Metrics, and results by user where the trainer is one of ours and all items are ranked."""
    options = {"load_best_model": load_best_model, "show_progress": trainer.config["show_progress"]}
    if isinstance(trainer, EngineMixin):
        return trainer.evaluate_users(data, **options)
    return trainer.evaluate(data, **options), None


def evaluate_checkpoint(checkpoint: str | Path) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
    """Evaluate a trained model on its test set.

    Args:
        checkpoint: A file written by :func:`run`.

    Returns:
        The metrics by name, ``None`` for a split without rows, and the table of
        :func:`recbole_posattn.evaluation.target_ranks.user_results`, ``None`` unless all items are ranked.

    Raises:
        CheckpointError, DataError, SettingError: As :func:`load` does.
    """
    loaded = load(checkpoint)
    with run_logger(loaded.config):
        with without_tensorboard():
            trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
        result, users = _evaluate(trainer, loaded.test_data, load_best_model=False)
    return plain_data(result), users


def load(checkpoint: str | Path, data_path: str | Path | None = None, allow_unsafe_checkpoint: bool = False) -> Loaded:
    """Load a trained model with its settings and its data, prepared as they were for training.

    Args:
        checkpoint: A file written by :func:`run`. It is read as plain data; nothing in it is executed.
        data_path: The folder with the data set's folder in it, if it is not where it was in training.
        allow_unsafe_checkpoint: Whether to read a checkpoint that RecBole itself has written, which **runs whatever
            code is in it**; for files of people you trust.

    Returns:
        Settings, model (in evaluation mode), data set, and the loaders of the three splits.

    Raises:
        CheckpointError: If the file is missing, not one of ours, or does not fit the data set any more.
        DataError: If the data set cannot be read.
        SettingError: If the model is not registered here.
    """
    content = read_checkpoint(checkpoint, allow_unsafe_checkpoint=allow_unsafe_checkpoint)
    with use_explained(checkpoint):
        config = Config.from_plain(content["config"], data_path)
    ensure_atomic_files(config)
    init_seed(config["seed"], config["reproducibility"])
    interactions, loaders = prepare_data(config)
    model = _build_model(config, loaders[0])
    with use_explained(checkpoint):
        try:
            check_vocabulary(content, interactions)
            (load_trees if TREES in content else load_state)(model, content)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint}: {error}") from error
    if isinstance(model, torch.nn.Module):
        model.eval()
    return Loaded(config, model, interactions, *loaders)


def prepare_data(config: Config) -> tuple[Dataset, tuple[AbstractDataLoader, AbstractDataLoader, AbstractDataLoader]]:
    """Read, filter and split the configured data set.

    Returns:
        The data set, and the loaders of its training, validation and test split.

    Raises:
        DataError: If the rows cannot be read, or nothing is left to train on.
    """
    try:
        with no_pickled_caches(config):
            dataset = create_dataset(config)
            _require_sequences(config, dataset)
            loaders = data_preparation(config, dataset)
    except UserError:
        raise
    except (KeyError, UnicodeDecodeError, ValueError) as error:  # what RecBole and pandas raise for bad files
        raise DataError(f"data set {config['dataset']!r} in {config['data_path']}: {error}") from error
    if not loaders[0]:
        raise DataError(f"data set {config['dataset']!r}: no interactions are left in the training split")
    for name, loader in zip(("validation", "test"), loaders[1:]):
        if not loader:
            logging.getLogger().warning(f"The {name} split has no rows: there is nothing to evaluate on it.")
    return dataset, loaders


def _require_sequences(config: Config, dataset: Dataset) -> None:
    """RecBole drops a user's first interaction as a target, and fails if that leaves none at all."""
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL or config["benchmark_filename"] is not None:
        return
    if dataset.inter_feat[dataset.uid_field].value_counts().max() < 2:
        raise DataError(
            f"data set {config['dataset']!r} in {config['data_path']}: no user has two interactions, so there is no "
            "next item to learn from"
        )


def _require_items(config: Config, dataset: Dataset, *evaluated: AbstractDataLoader) -> None:
    """RecBole fails on a list that is longer than the catalogue, once it has trained for an epoch."""
    n_items, longest = dataset.item_num - 1, max(config["topk"])
    if config["eval_type"] == EvaluatorType.RANKING and longest > n_items and any(evaluated):
        raise SettingError(
            f"topk must be at most {n_items}, the number of items in data set {config['dataset']!r}; got {longest}."
        )


def _build_model(config: Config, train_data: AbstractDataLoader) -> AbstractRecommender:
    init_seed(config["seed"] + distributed.rank(), config["reproducibility"])
    with needs_explained(config), pretrained_explained(config):
        return config.model_class(config, train_data._dataset).to(config["device"])


def _n_parameters(model: AbstractRecommender) -> int:
    """How many numbers are trained; none of trees."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)


def _write_result(config: Config, result: RunResult) -> None:
    """``result.json`` beside the checkpoint: the result, and what it takes to get it again."""
    report = {
        **result,
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "command": sys.argv,
        "versions": versions(),
        "git_revision": _git_revision(),
        "config": config.plain(),
    }
    text = json_text(report, indent=2, ensure_ascii=False) + "\n"
    with whole_file(Path(result["checkpoint"]).with_name(RESULT_NAME)) as incomplete:
        incomplete.write_text(text, encoding="utf-8")


def _peak_mebibytes(device: torch.device) -> int:
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    return round(peak_memory() / 2**20)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "torch": torch.__version__}  # which names the build, +cpu say, where the package's does not


def _git_revision() -> str | None:
    """The commit of this package's checkout, ``+changes`` behind it if there are any; ``None`` outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def result_table(config: Config, result: RunResult) -> str:
    """The run on a few lines: each metric on validation and test, then epochs, seconds, parameters and checkpoint."""
    valid, test = result["best_valid_result"] or {}, result["test_result"] or {}
    metrics = Texttable()
    metrics.set_deco(Texttable.HEADER)
    metrics.set_cols_dtype(["t", "t", "t"])
    metrics.set_cols_align(["l", "r", "r"])
    metrics.header([f"{config['model']} on {config['dataset']}", "valid", "test"])
    for metric in valid or test:
        metrics.add_row([metric, *(_format(split.get(metric)) for split in (valid, test))])
    seconds, seen = result["seconds"], result["seen_targets"]
    facts = {
        "epochs": f"{result['epochs']} (best: {result['best_epoch']})",
        "seconds": ", ".join(f"{part} {seconds[part]:.1f}" for part in ("data", "training", "test", "total")),
        "parameters": f"{result['trainable_parameters']:,}",
        **({} if seen is None else {"seen before": f"{100 * seen:.1f} % of the test targets"}),
        **{name.replace("_", " "): str(value).replace("'", "") for name, value in result["learned"].items()},
        "checkpoint": result["checkpoint"] or "not saved",
    }
    width = max(map(len, facts))
    return "\n".join([metrics.draw(), "", *(f"{name:<{width}}  {fact}" for name, fact in facts.items())])


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"

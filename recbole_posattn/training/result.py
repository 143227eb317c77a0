"""The result of a run, as it is returned, printed and written."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import recbole_posattn.compat  # noqa: F401

import pandas as pd
import torch

from recbole_posattn.data.digest import data_digest
from recbole_posattn.data.splits import parts_from_a_common_time
from recbole_posattn.files import write_atomically, write_json
from recbole_posattn.reporting.terminal import text_table
from recbole_posattn.settings.checks import PRETRAINED, pretrained_file
from recbole_posattn.settings.config import Config
from recbole_posattn.training.memory import peak_memory
from recbole_posattn.version import RESULTS_VERSION

RESULT_NAME, USERS_NAME = "result.json", "users.parquet"
# The columns of the results by target that count something, and their types.
_COUNTS = {"rank": "Int64", "history_length": "int64", "item_count": "int64"}
# Users are all different where each has one target, and their names are alike; items are repeated.
_COMPRESSION: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 9,
    "use_dictionary": ["item"],
    "column_encoding": {"user": "DELTA_BYTE_ARRAY"},
}
_REPORTED_PACKAGES = ("recbole-posattn", "recbole", "torch", "numpy", "pandas", "scipy")


# Settings on which the digest of the inputs depends, beside the data set
INPUT_KEYS = {PRETRAINED, "train_stage", "train_method", "additional_feat_suffix"}


class RunResult(TypedDict):
    """The result of :func:`run`: RecBole's four entries, then ours.

    Attributes:
        best_valid_score: ``valid_metric`` of the best epoch.
        valid_score_bigger: Whether a larger score is better.
        best_valid_result: All metrics of that epoch on the validation set; ``None`` if that has no rows.
        test_result: All metrics on the test set; ``None`` if that has no rows or is not evaluated.
        checkpoint: Path of the best checkpoint; ``None`` unless saved.
        epochs: Number of epochs trained.
        best_epoch: Counted from 0, as in the log; −1 if no epoch was validated.
        seconds: Wall time of ``data``, ``training`` with validation, ``test`` and ``total``.
        trainable_parameters: Their number.
        peak_mebibytes: Peak memory of the process, or of the GPU if there is one.
        seen_targets: Share of the test targets in their user's history; ``None`` without ``mask_history`` or a test.
        curve: For each epoch: ``epoch`` (from 0), ``seconds``, ``loss``, ``learning_rate`` (of the last step, only with
            ``lr_scheduler``) and ``valid`` (the metrics, if it was validated); tree models have no ``loss``.
        learned: What our models report of themselves, such as the ``kernel_widths`` of adaptive bands.
        changes: The settings that were changed on resume.
        stopped_by: ``max_minutes`` if this setting ended the training.
    """

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
    stopped_by: str | None


def inputs_of(config: Config) -> dict[str, str | None]:
    """The data and the code of a run, for its record; read them before it trains, as both may change meanwhile."""
    return {"git_revision": _git_revision(), "data_digest": digest_of_inputs(config)}


def results_version(settings: Mapping[str, Any]) -> int:
    """The version of the results of a run, see :data:`recbole_posattn.version.RESULTS_VERSION`.

    It is at least 3 where the training part had first interactions of users who come after a cut in time.

    Args:
        settings: The resolved ones.
    """
    if settings["mask_history"] is None or settings["benchmark_filename"] is not None:
        return RESULTS_VERSION
    return max(RESULTS_VERSION, 3) if parts_from_a_common_time(settings["eval_args"]) else RESULTS_VERSION


def write_result(
    config: Config, settings: Mapping[str, Any], result: RunResult, inputs: Mapping[str, str | None], folder: Path
) -> None:
    """Write ``result.json`` into a folder: the result, and what is needed to reproduce it.

    Args:
        config: Of the run.
        settings: The resolved settings, without the keys that training added to ``config``.
        result: Of the run.
        inputs: :func:`inputs_of` the run.
        folder: Receives the file.
    """
    report = {
        **result,
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "command": sys.argv,
        "versions": versions(),
        **inputs,
        "results_version": results_version(settings),
        "threads": torch.get_num_threads(),
        "config": settings,
    }
    write_json(folder / RESULT_NAME, report, ensure_ascii=False)


def digest_of_inputs(config: Config) -> str:
    """The SHA-256 digest of the data set, and of the pretrained model if there is one: 64 hexadecimal digits."""
    return data_digest(config, pretrained_file(config["model"], config))


def write_users(users: pd.DataFrame, folder: Path) -> None:
    """Write ``users.parquet`` into a folder: the results by target, each number in the fewest bytes that hold all."""
    smallest = {
        column: pd.to_numeric(users[column], downcast="unsigned") for column in _COUNTS if column in users.columns
    }
    with write_atomically(folder / USERS_NAME) as incomplete:
        users.assign(**smallest).to_parquet(incomplete, index=False, **_COMPRESSION)


def read_users(folder: Path) -> pd.DataFrame:
    """The results by target in a folder, as :func:`recbole_posattn.evaluation.target_ranks.user_results` returns them.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a Parquet file.
    """
    users = pd.read_parquet(folder / USERS_NAME)
    return users.astype({column: kind for column, kind in _COUNTS.items() if column in users.columns})


def peak_mebibytes_of(device: torch.device) -> int:
    """The peak memory in MiB, of the GPU if the device is one, else of this process."""
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
    return {**found, "torch": torch.__version__}  # includes the build, such as +cpu


def _git_revision() -> str | None:
    """The commit of this package's checkout, with ``+changes`` if it is modified; ``None`` outside a checkout."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def best_epoch(curve: Sequence[Mapping[str, Any]], config: Config) -> int:
    """The epoch with the best validation score, counted from 0, of equal ones the last, as in RecBole.

    Args:
        curve: See :class:`RunResult`.
        config: With ``valid_metric`` and its direction.

    Returns:
        −1 if no epoch has a score.
    """
    metric, sign = config["valid_metric"].lower(), 1 if config["valid_metric_bigger"] else -1
    best, best_score = -1, -math.inf
    for point in curve:
        score = sign * point.get("valid", {}).get(metric, math.nan)
        if score >= best_score:  # never with NaN
            best, best_score = point["epoch"], score
    return best


def tested_epoch(result: Mapping[str, Any]) -> int:
    """The epoch whose weights were tested, counted from 1: the best one, or the last if none was validated.

    Args:
        result: The content of ``result.json``.
    """
    epoch: int = result["best_epoch"] + 1
    return epoch or result["epochs"]


def result_table(config: Config, result: RunResult) -> str:
    """A summary of the run: each metric on validation and test, then epochs, seconds, parameters and checkpoint."""
    valid, test = result["best_valid_result"] or {}, result["test_result"] or {}
    header = [f"{config['model']} on {config['dataset']}", "valid", "test"]
    metrics = [[metric, *(_format(split.get(metric)) for split in (valid, test))] for metric in valid or test]
    seconds, seen = result["seconds"], result["seen_targets"]
    best = f" (best: {result['best_epoch']})" if result["best_epoch"] >= 0 else ""
    stopped = f", stopped by {result['stopped_by']}" if result["stopped_by"] else ""
    facts = {
        "epochs": f"{result['epochs']}{best}{stopped}",
        "seconds": ", ".join(f"{part} {seconds[part]:.1f}" for part in ("data", "training", "test", "total")),
        "parameters": f"{result['trainable_parameters']:,}",
        **({} if seen is None else {"seen before": f"{100 * seen:.1f} % of the test targets"}),
        **{name.replace("_", " "): str(value).replace("'", "") for name, value in result["learned"].items()},
        "checkpoint": result["checkpoint"] or "not saved",
    }
    width = max(map(len, facts))
    return "\n".join([text_table(header, metrics), "", *(f"{name:<{width}}  {fact}" for name, fact in facts.items())])


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"

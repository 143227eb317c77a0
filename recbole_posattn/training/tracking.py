"""Weights & Biases and MLflow: each gets the settings and metrics of a run if its key is set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from recbole_posattn.settings.config import Config

# The most parameters that MLflow takes at a time, and the most characters of one.
_PARAMETERS, _LENGTH = 100, 500


class Tracker(Protocol):
    """A service that keeps the metrics of runs."""

    run_id: str

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of a step."""

    def summarize(self, metrics: Mapping[str, float]) -> None:
        """Log the final metrics."""

    def finish(self, ok: bool) -> None:
        """End the run, unless the calling program has started it."""


class WandbTracker:
    """A run of Weights & Biases; the run of the calling program if it has one, as in RecBole."""

    def __init__(self, config: Config, name: str, run_id: str | None) -> None:
        self._wandb: Any = import_module("wandb")
        self._is_ours = self._wandb.run is None
        if self._is_ours:
            continued = {} if run_id is None else {"id": run_id, "resume": "allow"}
            self._wandb.init(project=config["wandb_project"], name=name, config=config.plain(), **continued)
        self.run_id = str(self._wandb.run.id)
        for head in ("train", "valid"):
            self._wandb.define_metric(f"{head}/*", step_metric=f"{head}_step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See :class:`Tracker`."""
        head = next(iter(metrics)).partition("/")[0]
        self._wandb.log({**metrics, f"{head}_step": step})

    def summarize(self, metrics: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._wandb.run.summary.update(dict(metrics))

    def finish(self, ok: bool) -> None:
        """See :class:`Tracker`."""
        if self._is_ours:
            self._wandb.finish(exit_code=0 if ok else 1)


class MlflowTracker:
    """A run of MLflow, where ``MLFLOW_TRACKING_URI`` says; the run of the calling program if it has one."""

    def __init__(self, config: Config, name: str, run_id: str | None) -> None:
        self._mlflow: Any = import_module("mlflow")
        self._is_ours = self._mlflow.active_run() is None
        if self._is_ours:
            self._mlflow.start_run(**({"run_name": name} if run_id is None else {"run_id": run_id}))
        self.run_id = str(self._mlflow.active_run().info.run_id)
        if run_id is None:  # those of a run cannot be changed
            settings = [(key, str(value)[:_LENGTH]) for key, value in config.plain().items()]
            for begin in range(0, len(settings), _PARAMETERS):
                self._mlflow.log_params(dict(settings[begin : begin + _PARAMETERS]))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See :class:`Tracker`."""
        self._mlflow.log_metrics(_mlflow_names(metrics), step=step)

    def summarize(self, metrics: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._mlflow.log_metrics(_mlflow_names(metrics))

    def finish(self, ok: bool) -> None:
        """See :class:`Tracker`."""
        if self._is_ours:
            self._mlflow.end_run("FINISHED" if ok else "FAILED")


def _mlflow_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics under names that MLflow accepts: ``ndcg@10`` is ``ndcg_at_10``, as in its own metrics."""
    return {re.sub(r"[^\w\-./ ]", "_", name.replace("@", "_at_")): value for name, value in metrics.items()}


# The tracker of each key.
TRACKERS: dict[str, Callable[[Config, str, str | None], Tracker]] = {
    "log_wandb": WandbTracker,
    "log_mlflow": MlflowTracker,
}


class Trackers:
    """Takes the place of RecBole's ``WandbLogger`` in a trainer, and passes its metrics on to all trackers of a run.

    Attributes:
        active: The trackers by their keys; none until :meth:`start`.
        epoch: The epoch of the metrics that are logged, which the trainer sets.
    """

    def __init__(self) -> None:
        self.active: dict[str, Tracker] = {}
        self.epoch = 0

    def start(self, config: Config, name: str, run_ids: Mapping[str, str]) -> None:
        """Start the trackers whose keys are set.

        Args:
            config: The settings.
            name: The name of the run.
            run_ids: The runs of the trackers to continue, by key.
        """
        for key, tracker in TRACKERS.items():
            if config[key]:
                self.active[key] = tracker(config, name, run_ids.get(key))

    def run_ids(self) -> dict[str, str]:
        """The runs of the trackers by key, as plain data for a checkpoint."""
        return {key: tracker.run_id for key, tracker in self.active.items()}

    def log_metrics(self, metrics: Mapping[str, Any], head: str = "train", commit: bool = True) -> None:
        """Called by RecBole's trainers after each epoch and each validation."""
        # RecBole counts validations from 0 again in a resumed run
        numbers = {f"{head}/{name}": value for name, value in _numbers(metrics) if name != f"{head}_step"}
        for tracker in self.active.values():
            tracker.log(numbers, self.epoch)

    def log_eval_metrics(self, metrics: Mapping[str, Any], head: str = "eval") -> None:
        """Called by RecBole's trainers after each evaluation, of validation and test alike: see :meth:`summarize`."""

    def summarize(self, metrics: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Log the final metrics, by split."""
        numbers = {f"{head}/{name}": value for head, found in metrics.items() for name, value in _numbers(found or {})}
        for tracker in self.active.values():
            tracker.summarize(numbers)

    @contextmanager
    def finishing(self) -> Iterator[Trackers]:
        """End the runs of all trackers with the block, as failed if it fails."""
        ok = False
        try:
            yield self
            ok = True
        finally:
            for tracker in self.active.values():
                tracker.finish(ok)
            self.active = {}


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and numbers; each of several losses gets a number behind its name."""
    for name, value in metrics.items():
        if isinstance(value, (list, tuple)):
            yield from ((f"{name}_{index}", float(part)) for index, part in enumerate(value))
        elif value is not None:
            yield name, float(value)

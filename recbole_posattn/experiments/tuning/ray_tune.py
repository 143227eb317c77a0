"""The trials of a search on Ray Tune: Optuna draws settings, ASHA stops weak trials, Ray runs them.

A resumed search is a new Ray experiment. Optuna and ASHA first get the curves of the trials that have ended, so that
they regain their state. No state kept by Ray is needed, and nothing is unpickled.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from recbole_posattn.experiments.run_folders import FAILURE_NAME, run_in_folder
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.experiments.trials import Resources, end_of_run, from_anywhere, lacks_memory, start_run
from recbole_posattn.experiments.tuning.records import (
    DIED,
    FAILED,
    FINISHED,
    PRUNED,
    TrialRecord,
    append_record,
    finished_curve,
    next_number,
    trial_folder,
    trial_report,
    trial_reports,
)
from recbole_posattn.experiments.tuning.space import Space
from recbole_posattn.experiments.tuning.spec import Search
from recbole_posattn.settings.config import Config
from recbole_posattn.training.result import RESULT_NAME

RAY_FOLDER = "ray"

# ASHA keeps one in this many trials at each rung.
_REDUCTION_FACTOR = 3

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records are enough
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C stops this process itself at once
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class TrialError(Exception):
    """A trial failed; the message is the reason."""


def run_trials(
    search: Search,
    config: Config,
    folder: Path,
    where: Resources,
    known: Sequence[TrialRecord],
    on_end: Callable[[TrialRecord], None],
    data: str | None,
) -> list[TrialRecord]:
    """Run the remaining trials of a search.

    Args:
        search: The search.
        config: The settings of all keys without a search.
        folder: Of the search.
        where: Where to run the trials; Ray is already connected.
        known: Trials that have already ended.
        on_end: Called with each trial that ends.
        data: Digest of the data, which must not change before the last trial; ``None`` if each may have its own.

    Returns:
        All trials, including those already known.
    """
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a traceback for each trial that fails
    mode = "max" if config["valid_metric_bigger"] else "min"
    fixed, first = search.fixed(config), next_number(known, folder)
    recorder = _Recorder(folder, known, on_end, runs_again=where.jobs > 1 or where.address is not None)
    trainable = tune.with_parameters(
        _run_trial,
        settings=from_anywhere(search.settings),
        folder=str(folder.absolute()),
        n_threads=where.threads,
        working_folder=str(Path.cwd()),
        mode=mode,
        data=data,
    )
    if search.algorithm == "grid":
        points = _grid_points(search.space.grid(fixed), known, first)
        searcher, space, n_samples = None, {"trial": tune.grid_search(points)}, 1
    else:
        searcher = _optuna_search(search, fixed, known, first, mode, config["seed"])
        space, n_samples = {}, search.n_trials - len(known)
    scheduler = _scheduler(search, config, mode)
    _report_known(known, searcher, scheduler, mode)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": where.threads, "gpu": where.gpus}),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=n_samples,
            max_concurrent_trials=where.jobs if where.address is None else None,
            reuse_actors=False,  # a new process for each trial, so that nothing remains of the one before
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str((folder / RAY_FOLDER).absolute()),
            verbose=0,
            callbacks=[recorder],
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    for number, drawn in recorder.lacked_memory.items():
        recorder.record(_run_alone(number, drawn, search, folder, where, data))
    return recorder.records


def _run_alone(
    number: int, drawn: dict[str, Any], search: Search, folder: Path, where: Resources, data: str | None
) -> TrialRecord:
    """Rerun a trial that lacked memory, alone and without early stopping."""
    own, settings, started = trial_folder(folder, number), {**search.settings, **drawn}, time.monotonic()
    run = start_run(ray, settings, own, where, drawn=drawn, data=data, test=False)
    error, lacked_memory = end_of_run(ray, run, settings, own)
    state = FINISHED if error is None else DIED if lacked_memory else FAILED
    curve = finished_curve(read_result(own)) if error is None else []
    return TrialRecord(number, state, drawn, curve, round(time.monotonic() - started, 2), error)


def _scheduler(search: Search, config: Config, mode: str) -> TrialScheduler:
    if search.scheduler == "none":
        return FIFOScheduler()
    # A trial ends by itself: one that draws more epochs than the default would otherwise be stopped, and never win.
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="best",
        mode=mode,
        max_t=max(config["epochs"], search.grace_period) + 1,
        grace_period=search.grace_period,
        reduction_factor=_REDUCTION_FACTOR,
        stop_last_trials=False,
    )


def _optuna_search(
    search: Search, fixed: Mapping[str, Any], known: Sequence[TrialRecord], first: int, mode: str, seed: int
) -> Searcher:
    """Optuna's searcher, with the known trials first, then the defaults if the space contains them.

    New trials are numbered from ``first``. Without the defaults a short search may end with worse settings than they.
    """
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    points = [record.settings for record in known]
    defaults = search.space.defaults(fixed)
    if defaults is not None and defaults not in points:
        points.append(defaults)
    draw = functools.partial(_draw, space=search.space, fixed=dict(fixed), known=list(known), first=first)
    return OptunaSearch(
        space=draw,
        metric="best",
        mode=mode,
        points_to_evaluate=[search.space.parameters(settings) for settings in points],
        # a resumed search needs another seed: the same one would repeat its draws
        sampler=samplers[search.algorithm](seed=(seed + first) % 2**32),
    )


def _report_known(known: Sequence[TrialRecord], searcher: Searcher | None, scheduler: Any, mode: str) -> None:
    """Report the trials that have ended to Optuna and ASHA, as Ray reports those that it runs."""
    for record in known:
        # A scheduler reads only the id of a trial, and nothing of Ray's controller, which is None here
        trial = SimpleNamespace(trial_id=f"known_{record.number}")
        results = trial_reports(record.curve, mode)
        last = results[-1] if results else None
        if searcher is not None:
            searcher.suggest(trial.trial_id)  # draws its settings, as those of known trials come first
            for result in results:
                searcher.on_trial_result(trial.trial_id, result)
            searcher.on_trial_complete(trial.trial_id, None if record.state == FAILED else last, record.state == FAILED)
        scheduler.on_trial_add(None, trial)
        for result in results:
            scheduler.on_trial_result(None, trial, result)
        scheduler.on_trial_remove(None, trial)


def _draw(
    trial: optuna.Trial, space: Space, fixed: Mapping[str, Any], known: Sequence[TrialRecord], first: int
) -> dict[str, Any]:
    """The config that Ray passes to a trial: its number and settings."""
    settings = space.suggest(trial, fixed)
    nth = trial.number
    number = known[nth].number if nth < len(known) else first + nth - len(known)
    return {"trial": {"number": number, "settings": settings}}


def _grid_points(grid: Sequence[Mapping[str, Any]], known: Sequence[TrialRecord], first: int) -> list[dict[str, Any]]:
    """The configs that Ray passes to the trials of a grid: those that are not known, numbered from ``first``."""
    done = [record.settings for record in known]
    new = [settings for settings in grid if settings not in done]
    return [{"number": number, "settings": settings} for number, settings in enumerate(new, start=first)]


def _run_trial(
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: str,
    n_threads: int,
    working_folder: str,
    mode: str,
    data: str | None,
) -> None:
    """One trial, in its own process; reports the validation score of each epoch.

    Raises:
        TrialError: If the trial fails.
    """
    number, drawn = config["trial"]["number"], config["trial"]["settings"]
    reports: list[dict[str, float]] = []

    def report(epoch: int, score: float) -> None:
        reports.append(trial_report(epoch, score, reports, mode))
        tune.report(reports[-1])

    own = trial_folder(Path(folder), number)
    reason = run_in_folder(
        from_anywhere({**settings, **drawn}, working_folder),
        own,
        n_threads,
        working_folder,
        drawn=drawn,
        data=data,
        test=False,
        callback_fn=lambda epoch, score: report(epoch + 1, score),
    )
    if reason is not None:
        raise TrialError(reason)
    if not reports:  # a model without epochs
        for epoch, score in finished_curve(read_result(own)):
            report(epoch, score)


class _Recorder(tune.Callback):
    """Records each trial that ends.

    Attributes:
        records: All trials that have ended.
        lacked_memory: Settings, by number, of the trials to rerun alone.
    """

    def __init__(
        self,
        folder: Path,
        known: Sequence[TrialRecord],
        on_end: Callable[[TrialRecord], None],
        runs_again: bool,
    ) -> None:
        self.folder = folder
        self.records = list(known)
        self.on_end = on_end
        self.lacked_memory: dict[int, dict[str, Any]] = {}
        self._runs_again = runs_again
        self._started: dict[int, float] = {}
        self._curves: dict[int, list[tuple[int, float]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles callbacks for a restore, which is not used here; a progress display cannot be pickled

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Store the start time."""
        self._started.setdefault(trial.config["trial"]["number"], time.monotonic())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Store the score of an epoch."""
        curve = self._curves.setdefault(trial.config["trial"]["number"], [])
        if not curve or curve[-1][0] != result["epoch"]:
            curve.append((result["epoch"], result["score"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that finished or was pruned."""
        number = trial.config["trial"]["number"]
        complete = (trial_folder(self.folder, number) / RESULT_NAME).is_file()
        self._record(trial, FINISHED if complete else PRUNED, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that failed or whose process died."""
        number, settings = trial.config["trial"]["number"], trial.config["trial"]["settings"]
        file = trial_folder(self.folder, number) / FAILURE_NAME
        state, error = DIED, "the process of the trial died, possibly killed for lack of memory"
        if file.is_file():
            state, error = FAILED, read_result(file.parent, FAILURE_NAME)["error"]
        if self._runs_again and (state == DIED or lacks_memory(error)):
            logging.getLogger().warning(f"trial {number}: {error}; it runs once more, alone, after the others")
            self.lacked_memory[number] = settings
        else:
            self._record(trial, state, error)

    def _record(self, trial: Any, state: str, error: str | None) -> None:
        number, settings = trial.config["trial"]["number"], trial.config["trial"]["settings"]
        seconds = round(time.monotonic() - self._started.get(number, time.monotonic()), 2)
        self.record(TrialRecord(number, state, settings, self._curves.get(number, []), seconds, error))

    def record(self, record: TrialRecord) -> None:
        """Record a trial."""
        self.records.append(record)
        append_record(self.folder, record)
        self.on_end(record)

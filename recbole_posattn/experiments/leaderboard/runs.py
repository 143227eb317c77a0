"""The finished runs behind a board, read from their folders.

Shape keys: s seeds, n held-out targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recbole_posattn.errors import DataError
from recbole_posattn.evaluation.target_ranks import metric_by_target
from recbole_posattn.experiments.run_results import validated_epochs
from recbole_posattn.experiments.trials import Outcome
from recbole_posattn.training.result import tested_epoch

# What is said about a run: its row, seed and the name of its record; the class of the model; the epochs it trained and
# its best one, counted from 1; what stopped it, and its time limit; its seconds and threads; the revision of the code,
# the version of the results, the digest of the data and the versions of packages; its metrics.
RUN_FACTS = (
    *("row", "seed", "fingerprint", "model", "epochs", "best_epoch", "stopped_by", "max_minutes", "training_seconds"),
    *("threads", "revision", "results_version", "data_digest", "versions", "valid", "test"),
)


class Run:
    """A finished run.

    Attributes:
        seed: Its seed.
        fingerprint: The name of its folder.
        result: The content of ``result.json``.
        users: Its results by target, in the same order for all runs.
        watched: ``valid_metric``, in lower case.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.seed = outcome.trial.settings["seed"]
        self.fingerprint = outcome.folder.name
        self.result = outcome.result
        self.watched = self.result["config"]["valid_metric"].lower()
        users = outcome.users
        order = [column for column in ("user", "history_length", "item") if column in users]
        self.users = users.sort_values(order, kind="stable").reset_index(drop=True)

    def curve(self) -> list[dict[str, float]]:
        """The validated epochs."""
        return [{"epoch": epoch, "loss": loss, "valid": score} for epoch, loss, score in validated_epochs(self.result)]

    def facts(self, row: str) -> dict[str, Any]:
        """What a leaderboard says about the run, with the keys of :data:`RUN_FACTS`; ``None`` where it is unknown."""
        result, config = self.result, self.result["config"]
        values = (
            *(row, self.seed, self.fingerprint, config.get("model")),
            *(result.get("epochs"), tested_epoch(result), result.get("stopped_by"), config.get("max_minutes")),
            *(result["seconds"]["training"], result.get("threads"), result.get("git_revision")),
            *(result.get("results_version"), result.get("data_digest"), result.get("versions", {})),
            *(result.get("best_valid_result"), result["test_result"]),
        )
        return dict(zip(RUN_FACTS, values, strict=True))


def finished_runs(outcomes: Sequence[Outcome]) -> dict[str, list[Run]]:
    """The finished and stopped runs by row and, within a row, by seed, whatever the order of the outcomes."""
    runs: dict[str, list[Run]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.trial.name, outcome.trial.settings["seed"])):
        if outcome.has_result:
            runs.setdefault(outcome.trial.name, []).append(Run(outcome))
    return runs


def same_targets(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """The targets of all runs, without their ranks.

    Raises:
        DataError: If the runs were not evaluated on the same targets, or if they have different results versions.
    """
    (first_model, first), *others = [(model, run) for model, of_model in runs.items() for run in of_model]
    version = first.result.get("results_version")
    targets = first.users.drop(columns="rank")
    for model, run in others:
        if not run.users.drop(columns="rank").equals(targets):
            raise DataError(
                f"{model} (seed {run.seed}) was not evaluated on the same targets as {first_model}: they cannot be "
                "compared in one table. Give both the same protocol and mask_history."
            )
        if run.watched != first.watched:
            raise DataError(
                f"{model} (seed {run.seed}) has the valid_metric {run.watched}, and {first_model} has {first.watched}: "
                "they cannot be compared in one table. Give both the same one."
            )
        if run.result.get("results_version") != version:
            raise DataError(
                f"{model} (seed {run.seed}) has the results version {run.result.get('results_version')}, and "
                f"{first_model} has {version}: they cannot be compared in one table. Run the leaderboard again."
            )
    return targets


def metric_values(runs: Mapping[str, Sequence[Run]], metric: str) -> dict[str, np.ndarray]:
    """The contribution of each target to a metric, by model; shape (s, n).

    Raises:
        DataError: If the mean of a run is not the metric in its ``result.json``.
    """
    return {
        model: np.stack([_values_of_run(model, run, metric) for run in of_model]) for model, of_model in runs.items()
    }


def _values_of_run(model: str, run: Run, metric: str) -> np.ndarray:
    values = metric_by_target(run.users, metric)
    reported = run.result["test_result"].get(metric, np.nan)
    rounding = max(0.51 * 10.0 ** -run.result["config"].get("metric_decimal_place", 4), 1e-9)  # at least that of a sum
    if not abs(values.mean() - reported) <= rounding:  # nor is NaN the mean
        raise DataError(
            f"{model} (seed {run.seed}): the ranks of its targets give {metric} {values.mean():.6g}, and its "
            f"result.json has {reported:.6g}; run it again, with mask_history one of none, all, except_target."
        )
    return values

"""The results of a leaderboard on one data set under one protocol, gathered from its runs.

Shape keys: s seeds, n held-out targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from recbole_posattn.errors import DataError
from recbole_posattn.evaluation.target_ranks import RANK_METRICS, metric_by_target
from recbole_posattn.experiments.leaderboard.statistics import estimates, p_values_against
from recbole_posattn.experiments.run_results import validated_epochs
from recbole_posattn.experiments.trials import Outcome

# A corrected p-value below this counts as a difference.
SIGNIFICANCE = 0.05

# What is said about a run: its row, seed and the name of its record; the class of the model; the epochs it trained and
# its best one, counted from 1; what stopped it, and its time limit; its seconds and threads; the revision of the code,
# the version of the results, the digest of the data and the versions of packages; its metrics.
RUN_FACTS = (
    *("row", "seed", "fingerprint", "model", "epochs", "best_epoch", "stopped_by", "max_minutes", "training_seconds"),
    *("threads", "revision", "results_version", "data_digest", "versions", "valid", "test"),
)

# Number of equal groups of targets, by history length and by popularity of the item.
N_GROUPS = 5


@dataclass
class Board:
    """The results of all models on one data set under one protocol.

    Attributes:
        dataset: Name of the data set.
        protocol: Name of the protocol.
        reference: The model (row) that all others are tested against.
        metrics: Names such as ``ndcg@10``, the watched metric (of early stopping) first.
        scores: A row for each model and metric; columns ``model``, ``metric``, ``mean``, ``deviation`` (over seeds),
            ``low``, ``high`` (95 % interval), ``p`` (Holm-corrected against the reference; missing for the reference,
            where either has a single seed, and for metrics that are not means over targets, which have no interval
            either).
        costs: A row for each model; columns ``model``, ``seeds``, ``parameters``, ``seconds_per_epoch``, ``best_epoch``
            (epochs to the best one, mean over seeds), ``training_seconds``, ``peak_mebibytes``.
        curves: A row for each model, seed and validated epoch; columns ``model``, ``seed``, ``epoch``,
            ``loss``, ``valid`` (the watched metric).
        groups: A row for each model, ``kind`` (``history length`` or ``item popularity``) and group of targets; columns
            ``model``, ``kind``, ``group`` (such as ``20–31``), ``targets`` (their number), ``mean`` (of the watched
            metric).
        runs: The facts about each finished run, with the keys of :data:`RUN_FACTS`.
        failures: ``(model, seed, reason)`` of each run that failed.
        not_started: The same of each run that was not started.
        seen_targets: Share of test targets in their user's history; ``None`` if unknown.
        n_targets: Number of test targets.
        n_users: Number of users with a test target, the unit of intervals and tests.
    """

    dataset: str
    protocol: str
    reference: str
    metrics: list[str]
    scores: pd.DataFrame
    costs: pd.DataFrame
    curves: pd.DataFrame
    groups: pd.DataFrame
    runs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    not_started: list[tuple[str, int, str]] = field(default_factory=list)
    seen_targets: float | None = None
    n_targets: int = 0
    n_users: int = 0

    @property
    def models(self) -> list[str]:
        """Models with at least one finished run, the best first by the watched metric."""
        watched = self.scores[self.scores["metric"] == self.metrics[0]]
        return watched.sort_values("mean", ascending=False, kind="stable")["model"].tolist()

    def score(self, model: str, metric: str) -> pd.Series:
        """The row of :attr:`scores` of a model and a metric."""
        rows = self.scores[(self.scores["model"] == model) & (self.scores["metric"] == metric)]
        return rows.iloc[0]

    def verdict(self, model: str, metric: str) -> str:
        """``better`` or ``worse`` than the reference, a ``tie``, or empty if there was no test."""
        score = self.score(model, metric)
        if pd.isna(score["p"]):
            return ""
        if score["p"] >= SIGNIFICANCE:
            return "tie"
        return "better" if score["mean"] > self.score(self.reference, metric)["mean"] else "worse"

    @property
    def revisions(self) -> dict[str | None, list[str]]:
        """The models that were run by each revision of the code."""
        models: dict[str | None, list[str]] = {}
        for run in self.runs:
            models.setdefault(run["revision"], [])
            if run["row"] not in models[run["revision"]]:
                models[run["revision"]].append(run["row"])
        return models

    @property
    def of_one_seed(self) -> list[str]:
        """Models with a single finished run, which cannot be tested."""
        return self.costs[self.costs["seeds"] == 1]["model"].tolist()

    def best(self, metric: str) -> list[str]:
        """The models with the highest mean; several if they agree to four digits."""
        rows = self.scores[self.scores["metric"] == metric]
        highest = rows["mean"].round(4) == rows["mean"].round(4).max()
        return rows[highest]["model"].tolist()


def gather(outcomes: Sequence[Outcome], dataset: str, protocol: str, reference: str) -> Board | None:
    """The board of one data set and protocol.

    Args:
        outcomes: Outcomes of trials on this data set under this protocol, in any order; each name with its seeds.
        dataset: See :class:`Board`.
        protocol: See :class:`Board`.
        reference: See :class:`Board`; replaced by the best model if it has no finished run.

    Returns:
        The board; ``None`` if no run is finished.

    Raises:
        DataError: If the models were not evaluated on the same targets.
    """
    outcomes = sorted(
        outcomes, key=lambda o: (o.trial.name, o.trial.settings["seed"])
    )  # independent of the order in which they finished
    unfinished = [o for o in outcomes if o.error is not None]
    failures, not_started = (
        [(o.trial.name, o.trial.settings["seed"], str(o.error)) for o in unfinished if o.started is started]
        for started in (True, False)
    )
    runs: dict[str, list[Run]] = {}
    for outcome in outcomes:
        if outcome.error is None:
            runs.setdefault(outcome.trial.name, []).append(Run(outcome))
    if not runs:
        return None
    targets = _same_targets(runs)
    watched = next(iter(runs.values()))[0].watched
    metrics = sorted(next(iter(runs.values()))[0].result["test_result"], key=lambda metric: metric != watched)
    if reference not in runs:
        reference = max(runs, key=lambda model: np.mean([run.result["test_result"][watched] for run in runs[model]]))
    return Board(
        dataset=dataset,
        protocol=protocol,
        reference=reference,
        metrics=metrics,
        scores=pd.concat([_scores(runs, targets, metric, reference) for metric in metrics], ignore_index=True),
        costs=pd.DataFrame([_costs(model, of_model) for model, of_model in runs.items()]),
        curves=pd.DataFrame(
            [
                {"model": model, "seed": run.seed, **point}
                for model, of_model in runs.items()
                for run in of_model
                for point in run.curve()
            ],
            columns=["model", "seed", "epoch", "loss", "valid"],
        ),
        groups=_groups(runs, targets, watched),
        runs=[run.facts(model) for model, of_model in runs.items() for run in of_model],
        failures=failures,
        not_started=not_started,
        seen_targets=float(targets["seen"].mean()) if "seen" in targets else None,
        n_targets=len(targets),
        n_users=targets["user"].nunique(),
    )


class Run:
    """A finished run.

    Attributes:
        seed: Its seed.
        fingerprint: The name of its folder.
        result: The content of ``result.json``.
        users: Its results by target, in the same order for all runs.
        watched: The watched metric (of early stopping).
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
            *(result.get("epochs"), result["best_epoch"] + 1, result.get("stopped_by"), config.get("max_minutes")),
            *(result["seconds"]["training"], result.get("threads"), result.get("git_revision")),
            *(result.get("results_version"), result.get("data_digest"), result.get("versions", {})),
            *(result.get("best_valid_result"), result["test_result"]),
        )
        return dict(zip(RUN_FACTS, values, strict=True))


def _same_targets(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """The targets, which must be the same for all runs."""
    (first_model, first), *others = [(model, run) for model, of_model in runs.items() for run in of_model]
    targets = first.users.drop(columns="rank")
    for model, run in others:
        if not run.users.drop(columns="rank").equals(targets):
            raise DataError(
                f"{model} (seed {run.seed}) was not evaluated on the same targets as {first_model}: they cannot be "
                "compared in one table. Give both the same protocol and mask_history."
            )
    return targets


def _values(of_model: Sequence[Run], metric: str) -> np.ndarray:
    """The contribution of each target to a metric, shape (s, n)."""
    return np.stack([metric_by_target(run.users, metric) for run in of_model])


def _scores(runs: Mapping[str, Sequence[Run]], targets: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    if metric.partition("@")[0] in RANK_METRICS:
        values = {model: _values(of_model, metric) for model, of_model in runs.items()}
        users = targets["user"].to_numpy()
        p_values = p_values_against(reference, values, users)
        rows = [
            {"model": model, "metric": metric, **estimate._asdict(), "p": p_values.get(model, np.nan)}
            for model, estimate in estimates(values, users).items()
        ]
        return pd.DataFrame(rows)
    rows = []
    for model, of_model in runs.items():  # a metric of all lists, not a mean over targets: nothing to resample
        scores = np.array([run.result["test_result"][metric] for run in of_model])
        deviation = scores.std(ddof=1) if len(scores) > 1 else np.nan
        row = {"mean": scores.mean(), "deviation": deviation, "low": np.nan, "high": np.nan, "p": np.nan}
        rows.append({"model": model, "metric": metric, **row})
    return pd.DataFrame(rows)


def _costs(model: str, of_model: Sequence[Run]) -> dict[str, Any]:
    results = [run.result for run in of_model]
    epochs = [point["seconds"] for result in results for point in result["curve"]]
    return {
        "model": model,
        "seeds": len(results),
        "parameters": results[0]["trainable_parameters"],
        "seconds_per_epoch": float(np.mean(epochs)) if epochs else np.nan,
        "best_epoch": float(np.mean([result["best_epoch"] + 1 for result in results])),
        "training_seconds": float(np.mean([result["seconds"]["training"] for result in results])),
        "peak_mebibytes": max(result["peak_mebibytes"] for result in results),
    }


def _groups(runs: Mapping[str, Sequence[Run]], targets: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric by group of targets; empty if it is not a mean over targets or the groups are unknown."""
    rows = []
    columns = {"history length": "history_length", "item popularity": "item_count"}
    if metric.partition("@")[0] in RANK_METRICS:
        by_target = {model: _values(of_model, metric).mean(axis=0) for model, of_model in runs.items()}
        for kind, column in columns.items():
            if column in targets:
                # fewer groups if there are few different values
                bins = pd.qcut(targets[column], N_GROUPS, duplicates="drop")
                for _, index in targets.groupby(bins, observed=True).indices.items():
                    inside = targets[column].iloc[index]
                    group = f"{inside.min()}–{inside.max()}" if inside.min() < inside.max() else str(inside.min())
                    for model, values in by_target.items():
                        mean = float(values[index].mean())
                        row = {"model": model, "kind": kind, "group": group, "targets": len(index), "mean": mean}
                        rows.append(row)
    return pd.DataFrame(rows, columns=["model", "kind", "group", "targets", "mean"])

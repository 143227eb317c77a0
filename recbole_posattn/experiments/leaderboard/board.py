"""What a leaderboard says of one data set under one protocol, gathered from its runs.

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
from recbole_posattn.experiments.trials import Outcome, validated_epochs

# A corrected p-value below this counts as a difference.
SIGNIFICANCE = 0.05

# Targets are grouped into as many equal parts by the length of their history and by their item's popularity.
N_GROUPS = 5


@dataclass
class Board:
    """A table of models on one data set under one protocol, and what is behind it.

    Attributes:
        dataset: Name of the data set.
        protocol: Name of the protocol.
        reference: The model (a row) that all others are tested against.
        metrics: Names such as ``ndcg@10``, the one that early stopping watched first.
        scores: A row for each model and metric; columns ``model``, ``metric``, ``mean``, ``deviation`` (over seeds),
            ``low``, ``high`` (95 % interval), ``p`` (Holm-corrected against the reference; missing for the reference,
            where one of the two has a single seed, and for metrics that are no mean over targets, whose interval is
            missing as well).
        costs: A row for each model; columns ``model``, ``seeds``, ``parameters``, ``seconds_per_epoch``, ``best_epoch``
            (epochs to the best, the mean over seeds), ``training_seconds``, ``peak_mebibytes``.
        curves: A row for each model, seed and epoch that was validated; columns ``model``, ``seed``, ``epoch``,
            ``loss``, ``valid`` (the metric watched).
        groups: A row for each model, ``kind`` (``history length`` or ``item popularity``) and group of targets; columns
            ``model``, ``kind``, ``group`` (such as ``20–31``), ``targets`` (their number), ``mean`` (of the metric
            watched).
        failures: ``(model, seed, reason)`` of each run that failed.
        seen_targets: Share of test targets that their user had before; ``None`` if not known.
        n_targets: Number of test targets.
        n_users: Number of users that these are of, the unit of intervals and tests.
    """

    dataset: str
    protocol: str
    reference: str
    metrics: list[str]
    scores: pd.DataFrame
    costs: pd.DataFrame
    curves: pd.DataFrame
    groups: pd.DataFrame
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    seen_targets: float | None = None
    n_targets: int = 0
    n_users: int = 0

    @property
    def models(self) -> list[str]:
        """Models with at least one finished run, the best first by the metric watched."""
        watched = self.scores[self.scores["metric"] == self.metrics[0]]
        return watched.sort_values("mean", ascending=False, kind="stable")["model"].tolist()

    def score(self, model: str, metric: str) -> pd.Series:
        """The row of :attr:`scores` of a model and a metric."""
        rows = self.scores[(self.scores["model"] == model) & (self.scores["metric"] == metric)]
        return rows.iloc[0]

    def verdict(self, model: str, metric: str) -> str:
        """``better`` or ``worse`` than the reference, a ``tie`` with it, or empty where nothing was tested."""
        score = self.score(model, metric)
        if pd.isna(score["p"]):
            return ""
        if score["p"] >= SIGNIFICANCE:
            return "tie"
        return "better" if score["mean"] > self.score(self.reference, metric)["mean"] else "worse"

    @property
    def of_one_seed(self) -> list[str]:
        """Models with a single finished run, of which no other seeds can be told: their differences are not tested."""
        return self.costs[self.costs["seeds"] == 1]["model"].tolist()

    def best(self, metric: str) -> list[str]:
        """The models with the highest mean, as many as share it to four digits."""
        rows = self.scores[self.scores["metric"] == metric]
        highest = rows["mean"].round(4) == rows["mean"].round(4).max()
        return rows[highest]["model"].tolist()


def gather(outcomes: Sequence[Outcome], dataset: str, protocol: str, reference: str) -> Board | None:
    """The board of one data set and protocol.

    Args:
        outcomes: Of trials on this data set under this protocol, with several seeds by name; in any order.
        dataset: See :class:`Board`.
        protocol: See :class:`Board`.
        reference: See :class:`Board`; the best of the others takes its place if it has no finished run.

    Returns:
        ``None`` if no run is finished.

    Raises:
        DataError: If the models were not evaluated on the same targets.
    """
    outcomes = sorted(outcomes, key=lambda o: (o.trial.name, o.trial.settings["seed"]))  # not as they finished
    failures = [(o.trial.name, o.trial.settings["seed"], o.error) for o in outcomes if o.error is not None]
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
        failures=failures,
        seen_targets=float(targets["seen"].mean()) if "seen" in targets else None,
        n_targets=len(targets),
        n_users=targets["user"].nunique(),
    )


class Run:
    """A finished run as a board sees it.

    Attributes:
        seed: Its seed.
        result: The content of ``result.json``.
        users: Its results by target, ordered alike for all runs.
        watched: The metric that early stopping watched.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.seed = outcome.trial.settings["seed"]
        self.result = outcome.result
        self.watched = self.result["config"]["valid_metric"].lower()
        users = outcome.users
        order = [column for column in ("user", "history_length", "item") if column in users]
        self.users = users.sort_values(order, kind="stable").reset_index(drop=True)

    def curve(self) -> list[dict[str, float]]:
        """The epochs that were validated."""
        return [{"epoch": epoch, "loss": loss, "valid": score} for epoch, loss, score in validated_epochs(self.result)]


def _same_targets(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """The targets of all runs."""
    (first_model, first), *others = [(model, run) for model, of_model in runs.items() for run in of_model]
    targets = first.users.drop(columns="rank")
    for model, run in others:
        if not run.users.drop(columns="rank").equals(targets):
            raise DataError(
                f"{model} (seed {run.seed}) was not evaluated on the same targets as {first_model}: they cannot stand "
                "in one table. Give both the same protocol, and mask_history."
            )
    return targets


def _values(of_model: Sequence[Run], metric: str) -> np.ndarray:
    """What each target contributes to a metric, shape (s, n)."""
    return np.stack([metric_by_target(run.users, metric) for run in of_model])


def _scores(runs: Mapping[str, Sequence[Run]], targets: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    if metric.partition("@")[0] in RANK_METRICS:
        values = {model: _values(of_model, metric) for model, of_model in runs.items()}
        users = targets["user"].to_numpy()
        p_values = p_values_against(reference, values, users)
        rows = [
            {"model": model, "metric": metric, **found._asdict(), "p": p_values.get(model, np.nan)}
            for model, found in estimates(values, users).items()
        ]
        return pd.DataFrame(rows)
    rows = []
    for model, of_model in runs.items():  # of a whole set of lists: no mean over targets, so nothing to resample
        told = np.array([run.result["test_result"][metric] for run in of_model])
        deviation = told.std(ddof=1) if len(told) > 1 else np.nan
        row = {"mean": told.mean(), "deviation": deviation, "low": np.nan, "high": np.nan, "p": np.nan}
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
    """The metric in groups of targets; empty if it is no mean over targets, or what groups them is not known."""
    rows = []
    columns = {"history length": "history_length", "item popularity": "item_count"}
    if metric.partition("@")[0] in RANK_METRICS:
        by_target = {model: _values(of_model, metric).mean(axis=0) for model, of_model in runs.items()}
        for kind, column in columns.items():
            if column in targets:
                # in order of value; few different values make fewer groups
                bins = pd.qcut(targets[column], N_GROUPS, duplicates="drop")
                for _, index in targets.groupby(bins, observed=True).indices.items():
                    inside = targets[column].iloc[index]
                    group = f"{inside.min()}–{inside.max()}" if inside.min() < inside.max() else str(inside.min())
                    for model, values in by_target.items():
                        mean = float(values[index].mean())
                        row = {"model": model, "kind": kind, "group": group, "targets": len(index), "mean": mean}
                        rows.append(row)
    return pd.DataFrame(rows, columns=["model", "kind", "group", "targets", "mean"])

"""The results of a leaderboard on one data set under one protocol, gathered from its runs.

Shape keys: s seeds, n held-out targets.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recbole_posattn.compat.lookups import is_better_if_smaller

import numpy as np
import pandas as pd

from recbole_posattn.errors import DataError
from recbole_posattn.evaluation.target_ranks import is_rank_metric
from recbole_posattn.experiments.leaderboard.paired_tests import holm, paired_p_values
from recbole_posattn.experiments.leaderboard.pairs import PAIR_COLUMNS, compare_pairs
from recbole_posattn.experiments.leaderboard.runs import Run, finished_runs, metric_values, same_targets
from recbole_posattn.experiments.leaderboard.statistics import estimates
from recbole_posattn.experiments.trials import Outcome
from recbole_posattn.training.result import tested_epoch

# A corrected p-value below this counts as a difference.
SIGNIFICANCE = 0.05

# A test of fewer seeds than this, of either model, is shown as weaker.
FEW_SEEDS = 5

# Number of equal groups of targets, by history length and by popularity of the item.
N_GROUPS = 5

SEED_COLUMNS = ["model", "metric", "seed", "value"]


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
        seeds: A row for each model, metric and seed, with its ``value``.
        pairs: The pairs of models by the watched metric, see
            :func:`recbole_posattn.experiments.leaderboard.pairs.compare_pairs`; empty if it is not a mean over targets.
        runs: The facts about each finished run, with the keys of
            :data:`recbole_posattn.experiments.leaderboard.runs.RUN_FACTS`.
        failures: ``(model, seed, reason)`` of each run that failed, also of one that was stopped before, whose result
            is in the other tables.
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
    seeds: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SEED_COLUMNS))
    pairs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=PAIR_COLUMNS))
    runs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    not_started: list[tuple[str, int, str]] = field(default_factory=list)
    seen_targets: float | None = None
    n_targets: int = 0
    n_users: int = 0

    @property
    def title(self) -> str:
        """Data set and protocol."""
        return f"{self.dataset}, {self.protocol}"

    @property
    def models(self) -> list[str]:
        """Models with at least one finished run, the best first by the watched metric."""
        watched = self.scores[self.scores["metric"] == self.metrics[0]]
        return watched.sort_values("mean", ascending=False, kind="stable")["model"].tolist()

    def score(self, model: str, metric: str) -> pd.Series:
        """The row of :attr:`scores` of a model and a metric."""
        return self._score_rows[model, metric]

    @functools.cached_property
    def _score_rows(self) -> dict[tuple[str, str], pd.Series]:
        return {(row["model"], row["metric"]): row for _, row in self.scores.iterrows()}

    def cost(self, model: str, cost: str) -> Any:
        """A value of :attr:`costs`."""
        return self.costs.loc[self.costs["model"] == model, cost].iloc[0]

    def verdict(self, model: str, metric: str) -> str:
        """``better`` or ``worse`` than the reference, a ``tie``, or empty if there was no test."""
        score = self.score(model, metric)
        if pd.isna(score["p"]):
            return ""
        if score["p"] >= SIGNIFICANCE:
            return "tie"
        return "better" if score["mean"] > self.score(self.reference, metric)["mean"] else "worse"

    def of_seeds(self, model: str, metric: str) -> dict[int, float]:
        """The value of a metric by seed."""
        rows = self.seeds[(self.seeds["model"] == model) & (self.seeds["metric"] == metric)]
        return dict(zip(rows["seed"], rows["value"]))

    def has_few_seeds(self, *models: str) -> bool:
        """Whether one of these models has fewer finished runs than :data:`FEW_SEEDS`, so that its tests are weaker."""
        return bool(self.costs.loc[self.costs["model"].isin(models), "seeds"].min() < FEW_SEEDS)

    def n_missing(self, model: str) -> int:
        """The number of runs of a model that have no result: they failed or were not started."""
        missing = {seed for name, seed, _ in (*self.failures, *self.not_started) if name == model}
        return len(missing - {run["seed"] for run in self.runs if run["row"] == model})

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
        """The models with the best mean; several if they agree to four digits."""
        return self._best_models.get(metric, [])

    @functools.cached_property
    def _best_models(self) -> dict[str, list[str]]:
        best = {}
        for metric, rows in self.scores.groupby("metric"):
            rounded = rows["mean"].round(4)
            of_best = rounded.min() if is_better_if_smaller(str(metric)) else rounded.max()
            best[str(metric)] = rows[rounded == of_best]["model"].tolist()
        return best


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
    unfinished = sorted(
        (outcome for outcome in outcomes if outcome.error is not None),
        key=lambda outcome: (outcome.trial.name, outcome.trial.settings["seed"]),
    )  # independent of the order in which they ended
    failures, not_started = (
        [(o.trial.name, o.trial.settings["seed"], str(o.error)) for o in unfinished if o.started is started]
        for started in (True, False)
    )
    runs = finished_runs(outcomes)
    if not runs:
        return None
    targets = same_targets(runs)
    watched = next(iter(runs.values()))[0].watched
    metrics = sorted(_metrics_of(runs, watched), key=lambda metric: metric != watched)
    if reference not in runs:
        reference = max(runs, key=lambda model: np.mean([run.result["test_result"][watched] for run in runs[model]]))
    scores, seeds, pairs = _scores(runs, targets, metrics, reference)
    return Board(
        dataset=dataset,
        protocol=protocol,
        reference=reference,
        metrics=metrics,
        scores=scores,
        costs=pd.DataFrame([_costs(model, of_model) for model, of_model in runs.items()]),
        curves=_curves(runs),
        groups=_groups(runs, targets, watched),
        seeds=seeds,
        pairs=pairs,
        runs=[run.facts(model) for model, of_model in runs.items() for run in of_model],
        failures=failures,
        not_started=not_started,
        seen_targets=float(targets["seen"].mean()) if "seen" in targets else None,
        n_targets=len(targets),
        n_users=targets["user"].nunique(),
    )


def _metrics_of(runs: Mapping[str, Sequence[Run]], watched: str) -> list[str]:
    """The metrics of the first run, which all runs must have."""
    metrics = list(next(iter(runs.values()))[0].result["test_result"])
    for model, of_model in runs.items():
        for run in of_model:
            if missing := sorted({watched, *metrics} ^ {*run.result["test_result"]}):
                raise DataError(
                    f"{model} (seed {run.seed}): its result.json has other metrics than that of the first run, or not "
                    f"the valid_metric: {', '.join(missing)}; run it again."
                )
    return metrics


def _scores(
    runs: Mapping[str, Sequence[Run]], targets: pd.DataFrame, metrics: Sequence[str], reference: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables :attr:`Board.scores`, :attr:`Board.seeds` and :attr:`Board.pairs`; all metrics share the resamples."""
    users = targets["user"].to_numpy()
    ranked = {metric: metric_values(runs, metric) for metric in metrics if is_rank_metric(metric)}
    values = {(metric, model): array for metric, of_metric in ranked.items() for model, array in of_metric.items()}
    others = [model for model in runs if model != reference]
    tested = [(metric, model) for metric in ranked for model in others]
    raw = paired_p_values([(values[key], values[key[0], reference]) for key in tested], users)
    p_values = {key: p for key, p in zip(tested, raw)}
    estimated = estimates(values, users) if values else {}
    scores, seeds = [], []
    for metric in metrics:
        corrected = dict(zip(others, holm(np.array([p_values.get((metric, model), np.nan) for model in others]))))
        for model, of_model in runs.items():
            if metric in ranked:
                of_seeds = ranked[metric][model].mean(axis=1)
                row = {**estimated[metric, model]._asdict(), "p": corrected.get(model, np.nan)}
            else:  # a metric of all lists, not a mean over targets: nothing to resample
                of_seeds = np.array([run.result["test_result"][metric] for run in of_model])
                deviation = of_seeds.std(ddof=1) if len(of_seeds) > 1 else np.nan
                row = {"mean": of_seeds.mean(), "deviation": deviation, "low": np.nan, "high": np.nan, "p": np.nan}
            scores.append({"model": model, "metric": metric, **row})
            seeds += [(model, metric, run.seed, value) for run, value in zip(of_model, of_seeds)]
    watched = ranked.get(metrics[0], {})
    order = sorted(watched, key=lambda model: -watched[model].mean())
    return (
        pd.DataFrame(scores),
        pd.DataFrame(seeds, columns=SEED_COLUMNS),
        compare_pairs(order, watched, users) if watched else pd.DataFrame(columns=PAIR_COLUMNS),
    )


def _costs(model: str, of_model: Sequence[Run]) -> dict[str, Any]:
    results = [run.result for run in of_model]
    epochs = [point["seconds"] for result in results for point in result["curve"]]
    return {
        "model": model,
        "seeds": len(results),
        "parameters": results[0]["trainable_parameters"],
        "seconds_per_epoch": float(np.mean(epochs)) if epochs else np.nan,
        "best_epoch": float(np.mean([tested_epoch(result) for result in results])),
        "training_seconds": float(np.mean([result["seconds"]["training"] for result in results])),
        "peak_mebibytes": max(result["peak_mebibytes"] for result in results),
    }


def _curves(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    points = [
        {"model": model, "seed": run.seed, **point}
        for model, of_model in runs.items()
        for run in of_model
        for point in run.curve()
    ]
    return pd.DataFrame(points, columns=["model", "seed", "epoch", "loss", "valid"])


def _groups(runs: Mapping[str, Sequence[Run]], targets: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric by group of targets; empty if it is not a mean over targets or the groups are unknown."""
    rows = []
    columns = {"history length": "history_length", "item popularity": "item_count"}
    if is_rank_metric(metric):
        by_target = {model: values.mean(axis=0) for model, values in metric_values(runs, metric).items()}
        for kind, column in columns.items():
            if column in targets:
                # fewer groups if there are few different values; none of one value, as a single group tells nothing
                bins = pd.qcut(targets[column], N_GROUPS, duplicates="drop")
                for _, index in targets.groupby(bins, observed=True).indices.items():
                    inside = targets[column].iloc[index]
                    group = f"{inside.min()}–{inside.max()}" if inside.min() < inside.max() else str(inside.min())
                    for model, values in by_target.items():
                        mean = float(values[index].mean())
                        row = {"model": model, "kind": kind, "group": group, "targets": len(index), "mean": mean}
                        rows.append(row)
    return pd.DataFrame(rows, columns=["model", "kind", "group", "targets", "mean"])

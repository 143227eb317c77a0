"""How metrics and numbers are written for readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# RecBole's spelling, where it is not the name with a capital.
_METRICS = {
    **{name.lower(): name for name in ("NDCG", "MRR", "MAP", "COV", "AUC", "GAUC", "MAE", "RMSE", "LogLoss")},
    **{name.lower(): name for name in ("ItemCoverage", "AveragePopularity", "ShannonEntropy")},
    **{name.lower(): name for name in ("GiniIndex", "TailPercentage")},
}

# The metrics that readers look at first, in this order.
MAIN_METRICS = ("ndcg", "hit", "recall", "mrr", "cov")


def metric_title(metric: str) -> str:
    """A metric such as ``ndcg@10`` as RecBole spells it: ``NDCG@10``."""
    name, at, k = metric.partition("@")
    return f"{_METRICS.get(name, name.capitalize())}{at}{k}"


def setting_text(value: Any) -> str:
    """A setting for readers, as in YAML, with four significant digits of a fraction: ``{u: per_layer, l: shared}``."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {setting_text(each)}' for key, each in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(setting_text, value))}]"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return str(value)


def compact(value: float) -> str:
    """A count or a number of seconds in few characters: ``45``, ``377``, ``12.3k``, ``156k``, ``1.2M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if value >= 9.95 or value == round(value) else f"{value:.1f}"


def without_duplicate_metrics(metrics: Sequence[str], equal: Callable[[str, str], bool]) -> list[str]:
    """Metrics without Recall or Hit where both are equal: Hit is kept, or Recall if it is the first of all metrics.

    Args:
        metrics: Such as ``recall@10``.
        equal: Whether two of them are equal.
    """

    def is_left_out(metric: str) -> bool:
        name, at, k = metric.partition("@")
        hit, recall = f"hit{at}{k}", f"recall{at}{k}"
        kept = recall if metrics[0] == recall else hit
        return name in ("hit", "recall") and metric != kept and {hit, recall} <= {*metrics} and equal(hit, recall)

    return [metric for metric in metrics if not is_left_out(metric)]

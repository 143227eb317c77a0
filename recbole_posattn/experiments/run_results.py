"""What finished runs have left in their folders: read back, and rewritten when the weights are deleted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_posattn.experiments.records import record_text
from recbole_posattn.files import write_atomically
from recbole_posattn.training.result import RESULT_NAME
from recbole_posattn.training.run_folder import BEST_NAME


def read_result(folder: Path, name: str = RESULT_NAME) -> dict[str, Any]:
    """The content of a JSON file that a run left in its folder; scores that are ``null`` there are NaN.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON of this form.
    """
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    records = (content, *(content.get("curve", ()) if isinstance(content, dict) else ()))
    if not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{folder / name} is not the result of a run")
    for scores in records:
        for key in scores.keys() & {"best_valid_score", "loss"}:
            scores[key] = math.nan if scores[key] is None else scores[key]
        for key in scores.keys() & {"best_valid_result", "test_result", "valid"}:
            scores[key] = with_nan(scores[key])
    return content


def with_nan(scores: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Scores read from JSON, with NaN for ``null``."""
    if scores is None:
        return None
    return {key: math.nan if score is None else score for key, score in scores.items()}


def forget_checkpoint(folder: Path) -> None:
    """Delete the weights of a run and their name in its ``result.json``."""
    (folder / BEST_NAME).unlink(missing_ok=True)
    file = folder / RESULT_NAME
    if file.is_file():
        result, times = json.loads(file.read_text(encoding="utf-8")), file.stat()
        with write_atomically(file) as incomplete:
            incomplete.write_text(record_text({**result, "checkpoint": None}), encoding="utf-8")
            os.utime(incomplete, ns=(times.st_atime_ns, times.st_mtime_ns))  # the time is the end of the run


def validated_epochs(result: Mapping[str, Any]) -> list[tuple[int, float, float]]:
    """``(epoch, loss, score)`` of each validated epoch, counted from 1; the score is ``valid_metric``.

    Args:
        result: The content of ``result.json``.
    """
    metric = result["config"]["valid_metric"].lower()
    return [
        (point["epoch"] + 1, point["loss"], point["valid"][metric]) for point in result["curve"] if "valid" in point
    ]

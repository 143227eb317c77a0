"""What is written as JSON is JSON by its standard, whatever numbers are in it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import recbole_posattn
from recbole_posattn import run
from recbole_posattn.experiments.run_folders import run_in_folder
from recbole_posattn.experiments.run_results import forget_checkpoint, read_result
from recbole_posattn.experiments.tuning.records import (
    FINISHED,
    TrialRecord,
    append_record,
    best_trial,
    finished_curve,
    read_records,
)
from recbole_posattn.files import json_text

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values) | st.tuples(values, values),
)


def strictly_read(text: str) -> Any:
    """What any reader of JSON makes of a text; Python's takes ``NaN`` and ``Infinity`` as well."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@given(value=PLAIN)
def test_any_plain_value_is_written_strictly(value: Any) -> None:
    def expected(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {key: expected(item) for key, item in value.items()}
        return [expected(item) for item in value] if isinstance(value, (list, tuple)) else value

    assert strictly_read(json_text(value)) == expected(value)


def test_all_of_the_package_writes_json_so() -> None:
    """``json.dumps`` stands elsewhere only where a digest or the text of a YAML value is made."""
    found = {}
    for file in sorted(Path(recbole_posattn.__file__).parent.rglob("*.py")):
        calls = re.findall(r"json\.dumps?\(", file.read_text())
        if calls:
            found[file.name] = len(calls)
    assert found == {"files.py": 1, "identity.py": 1, "digest.py": 1, "yaml.py": 1}


def test_a_run_without_validation_leaves_a_result_that_is_json(tiny_settings: Callable) -> None:
    """RecBole's best score is −∞ then."""
    result = run("NoPESASRec", "tiny", config_dict=tiny_settings(epochs=1, eval_step=0), command_line=[])
    assert result["best_valid_score"] == -math.inf
    file = Path(result["checkpoint"]).with_name("result.json")
    assert strictly_read(file.read_text())["best_valid_score"] is None
    again = read_result(file.parent)
    assert math.isnan(again["best_valid_score"]) and again["test_result"] == result["test_result"]


def test_scores_that_are_no_numbers_come_back_as_nan(tmp_path: Path) -> None:
    point = {"epoch": 0, "seconds": 1.0, "loss": math.inf, "valid": {"ndcg@10": math.nan, "hit@10": 0.5}}
    result = {
        "best_valid_score": math.nan,
        "test_result": {"auc": math.nan},
        "curve": [point],
        "best_valid_result": None,
    }
    result |= {"epochs": 1, "config": {"valid_metric": "NDCG@10"}}
    (tmp_path / "result.json").write_text(json_text(result))
    again = read_result(tmp_path)
    assert math.isnan(again["test_result"]["auc"]) and again["best_valid_result"] is None
    assert math.isnan(again["curve"][0]["loss"]) and math.isnan(again["curve"][0]["valid"]["ndcg@10"])
    assert again["curve"][0]["valid"]["hit@10"] == 0.5
    ((epoch, score),) = finished_curve(again)
    assert epoch == 1 and math.isnan(score)


def test_a_trial_without_a_number_for_a_score_is_never_the_best(tmp_path: Path) -> None:
    records = [
        TrialRecord(0, FINISHED, {}, [(1, math.nan)], 1.0),
        TrialRecord(1, FINISHED, {}, [(1, 0.2), (2, math.nan), (3, 0.3)], 1.0),
        TrialRecord(2, FINISHED, {}, [], 1.0),
    ]
    for record in records:
        append_record(tmp_path, record)
    for line in filter(None, (tmp_path / "trials.jsonl").read_text().split("\n")):
        strictly_read(line)
    again = read_records(tmp_path)
    assert [record.best(True) for record in again] == [None, 0.3, None]
    assert best_trial(again, True).number == 1 == best_trial(again, False).number
    assert best_trial(again[:1], True) is None


@pytest.mark.parametrize("model", ["NoPESASRec", "Pop"])
def test_the_result_of_a_trial_names_its_weights(tiny_settings: Callable, tmp_path: Path, model: str) -> None:
    """They are beside it, wherever the folder is moved; once removed, there are none to name."""
    settings = tiny_settings(model=model, dataset="tiny", epochs=1)
    folder = tmp_path / "board" / "0123"
    assert run_in_folder(settings, folder, 1) is None
    result = strictly_read((folder / "result.json").read_text())
    assert result["checkpoint"] == "best.pth" and (folder / "best.pth").is_file()
    assert read_result(folder)["test_result"] == result["test_result"]
    forget_checkpoint(folder)
    assert strictly_read((folder / "result.json").read_text()) == {**result, "checkpoint": None}
    assert not (folder / "best.pth").exists()
    forget_checkpoint(tmp_path / "board" / "nothing there")

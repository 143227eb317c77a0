"""Figures of others: what a leaderboard's definition may say, and RecBoard's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.leaderboard.published import Published, read_published, recboard_file
from recbole_posattn.experiments.leaderboard.spec import read_spec
from recbole_posattn.experiments.leaderboard.table import published_header, published_rows


def entry(values: list[float], **changes: Any) -> dict[str, Any]:
    """An entry as RecBoard writes it: a run for each value, with better results in ``best``."""
    runs = [
        {
            "id": "0427000552",
            "params": {"config": "configs/x.yaml", "seed": seed},
            "metrics": {
                "train": {"LOSS": 0.27},
                "valid": {"NDCG@10": 0.9, "HITRATE@10": 0.9},
                "test": {"NDCG@10": value, "HITRATE@10": 2 * value},
                "best": {"NDCG@10": 0.8, "HITRATE@10": 0.8},
            },
        }
        for seed, value in enumerate(values)
    ]
    given = {"description": "", "dataset": "Amazon2014Beauty_550_LOU", "tags": ["Sequential", "BCE", "64"]}
    return {**given, "runs": runs, "config": {"retain_seen": False}, **changes}


def written(folder: Path, content: Any, name: str = "SASRec.json") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_names_of_metrics_are_those_of_the_leaderboard() -> None:
    of_others = {"model": "a", "dataset": "b", "protocol": "c", "source": "d", "deviations": {"ndcg@10": 0.01}}
    (read,) = read_published([{**of_others, "metrics": {"NDCG@10": 0.1, "HitRate@10": 0.2}}], "published")
    assert read.metrics == {"ndcg@10": 0.1, "hit@10": 0.2} and read.deviations == {"ndcg@10": 0.01}
    with pytest.raises(SettingError, match="published: metrics has a metric twice: NDCG@10, ndcg@10"):
        read_published([{**of_others, "metrics": {"NDCG@10": 0.1, "ndcg@10": 0.2}}], "published")


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"NDCG@10": 0.1, "HITRATE@10": 0.1, "Hit@10": 0.3}, "entry 1: metrics has a metric twice"),
        ({"NDCG@10": float("nan")}, "entry 1: each run must have metrics with test"),
    ],
)
def test_figures_that_are_none_or_two_are_refused(tmp_path: Path, test: dict, message: str) -> None:
    given = entry([0.1])
    given["runs"][0]["metrics"]["test"] = test
    with pytest.raises(SettingError, match=message):
        recboard_file(written(tmp_path, [given]))


def test_runs_without_a_common_metric_or_with_one_seed_twice_are_refused(tmp_path: Path) -> None:
    given = entry([0.1, 0.2])
    given["runs"][1]["params"]["seed"] = 0
    with pytest.raises(SettingError, match="entry 1 has several runs with seed 0; keep one of them"):
        recboard_file(written(tmp_path, [given]))
    given = entry([0.1, 0.2])
    given["runs"][1]["metrics"]["test"] = {"MRR@10": 0.1}
    with pytest.raises(SettingError, match="entry 1: its runs have no metric in common"):
        recboard_file(written(tmp_path, [given]))


def test_the_source_names_metrics_that_only_some_runs_have(tmp_path: Path) -> None:
    given = entry([0.1, 0.2])
    given["runs"][0]["metrics"]["test"]["MRR@10"] = 0.1
    (published,) = recboard_file(written(tmp_path, [given]))
    assert published.metrics.keys() == {"ndcg@10", "hit@10"}
    assert published.source.endswith(", some runs lack mrr@10")


def test_recboards_rows_give_the_mean_and_the_spread_of_the_test_results(tmp_path: Path) -> None:
    other = entry([0.5], description="CE, long", tags=[], config={"retain_seen": True}, dataset="Yelp_10100_811")
    first, second = recboard_file(written(tmp_path, [entry([0.03, 0.05, 0.04]), other]))
    assert first == Published(
        "SASRec",
        "Amazon2014Beauty_550_LOU",
        "leave-one-out; history masked",
        "RecBoard, Sequential, BCE, 64",
        {"ndcg@10": pytest.approx(0.04), "hit@10": pytest.approx(0.08)},
        {"ndcg@10": pytest.approx(0.01), "hit@10": pytest.approx(0.02)},
        3,
    )
    assert second == Published(
        *("SASRec (CE, long)", "Yelp_10100_811", "split 811; history not masked", "RecBoard"),
        *({"ndcg@10": 0.5, "hit@10": 1.0}, {}, 1),
    )
    texts = [[cell.text for cell in row] for row in published_rows([first, second])]
    assert published_header([first, second])[4:] == ["NDCG@10", "Hit@10", "seeds"]
    assert [row[4:] for row in texts] == [["0.0400 ± 0.0100", "0.0800 ± 0.0200", "3"], ["0.5000", "1.0000", "1"]]


def test_files_of_the_command_line_are_added_to_those_of_the_definition(tmp_path: Path) -> None:
    given, more = written(tmp_path, [entry([0.1])], "GRU4Rec.json"), written(tmp_path, [entry([0.2])], "BSARec.json")
    own = "{model: mine, dataset: a, protocol: b, source: c, metrics: {hit@10: 1}, deviations: {hit@10: 0.5}}"
    file = tmp_path / "mine.yaml"
    file.write_text(f"models: [Pop]\npublished:\n  - {own}\n  - {given}\n")
    spec = read_spec(file, {"published": [str(more)]}, {})
    assert [one.model for one in spec.published] == ["mine", "GRU4Rec", "BSARec"]
    assert spec.published[0].deviations == {"hit@10": 0.5} and spec.published[0].seeds is None
    file.write_text(f"models: [Pop]\npublished: {given}\n")
    assert [one.model for one in read_spec(file, {}, {}).published] == ["GRU4Rec"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ({"dataset": "x"}, "must be a list of entries with dataset and runs"),
        ([], "must be a list of entries"),
        ([3], "entry 1 must have a dataset and a list of runs"),
        ([entry([0.1]), entry([])], "entry 2 must have a dataset and a list of runs"),
        ([entry([0.1], runs=[{"metrics": {"best": {"NDCG@10": 0.5}}}])], "each run must have metrics with test"),
        ([entry([0.1], runs=[{"metrics": {"test": {"NDCG@10": "high"}}}])], "each run must have metrics with test"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(SettingError, match=rf"published file .*SASRec\.json.*{message}"):
        read_published(str(written(tmp_path, content)), "published")


@pytest.mark.parametrize(
    "changes", [{"seeds": 0}, {"seeds": True}, {"deviations": {"mrr@10": 0.1}}, {"deviations": 3}, {"metrics": {}}]
)
def test_figures_that_do_not_fit_together_are_refused(changes: dict[str, Any]) -> None:
    texts = {key: "text" for key in ("model", "dataset", "protocol", "source")}
    with pytest.raises(SettingError, match="published: each must have the strings"):
        read_published([{**texts, "metrics": {"hit@10": 0.5}, **changes}], "published")

"""Boards gathered from runs whose results are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_posattn.errors import DataError
from recbole_posattn.experiments.leaderboard.board import gather
from recbole_posattn.experiments.leaderboard.findings import findings
from recbole_posattn.experiments.leaderboard.paired_tests import p_values_against, paired_p_values
from recbole_posattn.experiments.leaderboard.statistics import estimates, gains
from recbole_posattn.experiments.leaderboard.table import board_summary
from recbole_posattn.experiments.trials import Outcome, Trial

N_TARGETS = 40  # two of each user


def outcome(
    folder: Path,
    model: str,
    seed: int,
    ranks: np.ndarray | None = None,
    error: str | None = None,
    n_targets: int = N_TARGETS,
) -> Outcome:
    """A finished run with the given ranks (0: left out of the ranking), or a failed one."""
    place = folder / f"{model}-{seed}"
    place.mkdir()
    trial = Trial(model, {"model": model, "seed": seed})
    if error is not None:
        return Outcome(trial, place, error)
    rank = pd.array(ranks, dtype="Int64")
    users = pd.DataFrame(
        {
            "user": [f"u{i // 2}" for i in range(n_targets)],
            "item": [f"i{i % 7}" for i in range(n_targets)],
            "rank": rank,
            "history_length": np.arange(n_targets) + 3,
            "seen": np.arange(n_targets) % 4 == 0,
            "item_count": np.arange(n_targets) % 3,
        }
    )
    users.loc[users["rank"] == 0, "rank"] = pd.NA
    users.sample(frac=1, random_state=seed).to_parquet(place / "users.parquet", index=False)
    is_hit = (ranks > 0) & (ranks <= 10)
    hits, gain = float(np.mean(is_hit)), float(np.mean(is_hit / np.log2(np.maximum(ranks, 1) + 1)))
    result = {
        "test_result": {"hit@10": round(hits, 4), "ndcg@10": round(gain, 4), "cov@10": 0.1 * seed},
        "config": {"valid_metric": "NDCG@10", "model": model},
        "trainable_parameters": 100,
        "best_epoch": seed,
        "seconds": {"training": 2.0 * seed},
        "peak_mebibytes": 10 * seed,
        "curve": [
            {"epoch": 0, "seconds": 1.0, "loss": 3.0},
            {"epoch": 1, "seconds": 3.0, "loss": 2.0, "valid": {"ndcg@10": 0.1 * seed}},
        ],
    }
    (place / "result.json").write_text(json.dumps(result))
    return Outcome(trial, place)


@pytest.fixture
def outcomes(tmp_path: Path) -> list[Outcome]:
    random = np.random.default_rng(0)
    weak = [random.integers(0, 60, N_TARGETS) for _ in range(2)]
    return [
        *(outcome(tmp_path, "weak", seed, ranks) for seed, ranks in enumerate(weak, start=1)),
        *(outcome(tmp_path, "strong", seed, random.integers(1, 4, N_TARGETS)) for seed in (1, 2)),
        outcome(tmp_path, "twin", 1, weak[0]),
        outcome(tmp_path, "twin", 2, weak[1]),
        outcome(tmp_path, "broken", 1, error="no memory"),
    ]


def values_of(outcomes: list[Outcome]) -> dict[str, np.ndarray]:
    """NDCG@10 of each target by seed and model."""
    by_target: dict[str, list[np.ndarray]] = {}
    for each in outcomes[:-1]:
        ranks = each.users.sort_values(["user", "history_length"])["rank"].to_numpy(float, na_value=np.inf)
        by_target.setdefault(each.trial.name, []).append(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0))
    return {model: np.stack(seeds) for model, seeds in by_target.items()}


def test_ranks_that_do_not_give_the_runs_own_metrics_are_refused(outcomes: list[Outcome]) -> None:
    file = outcomes[2].folder / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, "test_result": {**result["test_result"], "ndcg@10": 0.5}}))
    message = r"strong \(seed 1\): the ranks of its targets give ndcg@10 0\.7[0-9]+, and its result.json has 0\.5;"
    with pytest.raises(DataError, match=message):
        gather(outcomes, "tiny", "temporal", "weak")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test_result": {"ndcg@10": None}},
            r"strong \(seed 1\): the ranks .* give ndcg@10 0\.7[0-9]+, and its .* has nan",
        ),
        (
            {"test_result": {"ndcg@10": ...}},
            r"strong \(seed 1\): its result\.json has other metrics .*: ndcg@10; run it again",
        ),
        (
            {"config": {"valid_metric": "Hit@10"}},
            r"strong \(seed 2\) has the valid_metric ndcg@10, and strong has hit@10: they cannot",
        ),
    ],
    ids=str,
)
def test_runs_with_other_metrics_are_refused(outcomes: list[Outcome], changes: dict, message: str) -> None:
    file = outcomes[2].folder / "result.json"
    result = json.loads(file.read_text())
    for key, values in changes.items():
        merged = {**result[key], **values}
        result[key] = {name: value for name, value in merged.items() if value is not ...}
    file.write_text(json.dumps(result))
    with pytest.raises(DataError, match=message):
        gather(outcomes, "tiny", "temporal", "weak")


def test_scores_are_those_of_the_targets(outcomes: list[Outcome]) -> None:
    board = gather(outcomes, "tiny", "temporal", "weak")
    assert board.metrics == ["ndcg@10", "hit@10", "cov@10"]
    assert (board.n_targets, board.n_users, board.seen_targets) == (N_TARGETS, N_TARGETS // 2, 0.25)
    assert board.failures == [("broken", 1, "no memory")]
    assert board.models == ["strong", "twin", "weak"]

    values = values_of(outcomes)
    users = np.sort([f"u{i // 2}" for i in range(N_TARGETS)])
    expected, p_values = estimates(values, users), p_values_against("weak", values, users)
    for model in values:
        score = board.score(model, "ndcg@10")
        assert score["mean"] == pytest.approx(expected[model].mean)
        assert (score["low"], score["high"]) == pytest.approx((expected[model].low, expected[model].high), abs=0.01)
        assert score["deviation"] == pytest.approx(expected[model].deviation)
        assert pd.isna(score["p"]) if model == "weak" else score["p"] == pytest.approx(p_values[model], abs=0.01)
    assert board.verdict("strong", "ndcg@10") == "better"
    assert board.verdict("twin", "ndcg@10") == "tie" and board.score("twin", "ndcg@10")["p"] == 1.0
    assert board.verdict("weak", "ndcg@10") == ""
    assert board.best("ndcg@10") == ["strong"]
    assert gather(outcomes, "tiny", "temporal", "strong").verdict("weak", "ndcg@10") == "worse"


@pytest.mark.slow
def test_a_model_with_one_seed_is_not_tested(tmp_path: Path, outcomes: list[Outcome]) -> None:
    single = outcome(tmp_path, "single", 1, np.ones(N_TARGETS, dtype=int))
    board = gather([*outcomes, single], "tiny", "temporal", "weak")
    assert board.of_one_seed == ["single"] and board.verdict("single", "ndcg@10") == ""
    assert board.score("single", "ndcg@10")["mean"] == 1.0
    assert (
        board.score("strong", "ndcg@10")["p"]
        == gather(outcomes, "tiny", "temporal", "weak").score("strong", "ndcg@10")["p"]
    )
    board = gather([*outcomes, single], "tiny", "temporal", "single")
    assert board.scores["p"].isna().all()


@pytest.mark.slow
def test_the_order_in_which_runs_finish_changes_nothing(outcomes: list[Outcome]) -> None:
    board, again = gather(outcomes, "tiny", "temporal", "weak"), gather(outcomes[::-1], "tiny", "temporal", "weak")
    for table in ("scores", "costs", "curves", "groups"):
        pd.testing.assert_frame_equal(getattr(again, table), getattr(board, table))


def test_metrics_of_whole_lists_have_means_but_no_tests(outcomes: list[Outcome]) -> None:
    board = gather(outcomes, "tiny", "temporal", "weak")
    score = board.score("strong", "cov@10")
    assert score["mean"] == pytest.approx(0.15) and score["deviation"] == pytest.approx(np.std([0.1, 0.2], ddof=1))
    assert np.isnan(score[["low", "high", "p"]].to_numpy(float)).all() and board.verdict("strong", "cov@10") == ""
    assert board.best("cov@10") == ["strong", "twin", "weak"]


def test_costs_and_curves_are_those_of_the_runs(outcomes: list[Outcome]) -> None:
    board = gather(outcomes, "tiny", "temporal", "weak")
    costs = board.costs.set_index("model").loc["strong"].to_dict()
    assert costs == {
        "seeds": 2,
        "parameters": 100,
        "seconds_per_epoch": 2.0,
        "best_epoch": 2.5,
        "training_seconds": 3.0,
        "peak_mebibytes": 20,
    }
    curve = board.curves[(board.curves["model"] == "weak") & (board.curves["seed"] == 2)]
    assert curve[["epoch", "loss", "valid"]].to_numpy().tolist() == [[2, 2.0, 0.2]]


def test_groups_hold_all_targets_in_order(outcomes: list[Outcome]) -> None:
    groups = gather(outcomes, "tiny", "temporal", "weak").groups
    strong = groups[groups["model"] == "strong"]
    lengths = strong[strong["kind"] == "history length"]
    assert lengths["group"].tolist() == ["3–10", "11–18", "19–26", "27–34", "35–42"]
    assert lengths["targets"].tolist() == [8] * 5
    popularity = strong[strong["kind"] == "item popularity"]
    assert popularity["group"].tolist()[-1] == "2" and popularity["targets"].sum() == N_TARGETS


def test_the_best_takes_the_place_of_a_reference_without_runs(outcomes: list[Outcome]) -> None:
    board = gather(outcomes, "tiny", "temporal", "broken")
    assert board.reference in ("weak", "strong", "twin") and pd.isna(board.score(board.reference, "hit@10")["p"])
    assert gather(outcomes[-1:], "tiny", "temporal", "broken") is None


def test_other_targets_cannot_stand_in_one_table(tmp_path: Path, outcomes: list[Outcome]) -> None:
    fewer = outcome(tmp_path, "fewer", 1, np.ones(N_TARGETS - 1, dtype=int), n_targets=N_TARGETS - 1)
    with pytest.raises(DataError, match=r"\(seed 1\) was not evaluated on the same targets as fewer"):
        gather([*outcomes, fewer], "tiny", "temporal", "weak")


def test_other_results_versions_cannot_stand_in_one_table(outcomes: list[Outcome]) -> None:
    file = outcomes[0].folder / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "results_version": 1}))
    with pytest.raises(
        DataError, match=r"results version .*cannot be compared in one table. Run the leaderboard again"
    ):
        gather(outcomes, "tiny", "temporal", "weak")


def with_metrics(outcomes: list[Outcome], values: dict[str, dict[str, float]], **config: Any) -> list[Outcome]:
    """The outcomes with other metrics for some models, and other settings for all."""
    for each in outcomes:
        if each.error is None:
            file = each.folder / "result.json"
            result = json.loads(file.read_text())
            result["config"] |= config
            result["test_result"] |= values.get(each.trial.name, {})
            result["curve"][-1]["valid"] = result["test_result"]
            file.write_text(json.dumps(result))
    return outcomes


def test_the_lowest_is_the_best_of_metrics_that_are_better_if_smaller(outcomes: list[Outcome]) -> None:
    gini = {"strong": {"giniindex@10": 0.95}, "weak": {"giniindex@10": 0.3}, "twin": {"giniindex@10": 0.5}}
    board = gather(with_metrics(outcomes, gini), "tiny", "temporal", "weak")
    assert board.best("giniindex@10") == ["weak"] and board.best("ndcg@10") == ["strong"]


def test_a_metric_that_is_no_mean_over_targets_is_not_said_to_be_tested(outcomes: list[Outcome]) -> None:
    coverage = {"strong": {"cov@10": 0.5}, "weak": {"cov@10": 0.3}}
    board = gather(with_metrics(outcomes, coverage, valid_metric="COV@10"), "tiny", "temporal", "weak")
    said = findings(board)
    assert said[-1] == "No test is possible, as COV@10 is not computed from the ranks of targets."
    assert "which was not tested" in said[1]
    marks = {"better": "▲", "worse": "▼", "tie": "="}
    text = board_summary(board, str, marks, marks)
    assert "95 % interval" not in text
    assert "COV@10 is not a mean over targets, so it has no test. Marks: metrics that are means over targets" in text
    assert "No model was tested against another." in board_summary(board, str, {}, {}, short=True)


def test_a_board_of_one_row_with_several_seeds_is_not_said_to_have_no_possible_test(outcomes: list[Outcome]) -> None:
    weak_twice_and_strong_once = outcomes[:3]
    said = findings(gather(weak_twice_and_strong_once, "tiny", "temporal", "weak"))
    assert "No test is possible" not in said[-1] and "with another seed" in said[-1]


def test_targets_that_are_all_alike_have_no_groups(outcomes: list[Outcome]) -> None:
    for each in outcomes:
        if each.error is None:
            users = each.users.assign(history_length=3)
            users.to_parquet(each.folder / "users.parquet")
    groups = gather(outcomes, "tiny", "temporal", "weak").groups
    assert set(groups["kind"]) == {"item popularity"}


def test_an_interval_holds_only_values_that_a_mean_can_have() -> None:
    """With few users and very different seeds, the spread weights of the seeds lead further."""
    values = {"A": np.array([[1.0, 0, 1, 0], [1, 1, 1, 0]])}
    (estimate,) = estimates(values, np.array(["a", "a", "b", "c"])).values()
    assert 0 <= estimate.low < estimate.mean < estimate.high <= 1


def test_digits_beyond_those_of_a_sum_do_not_matter(outcomes: list[Outcome]) -> None:
    for each in outcomes[:-1]:
        (values,) = values_of([each, outcomes[-1]])[each.trial.name]
        in_other_order = {"ndcg@10": float(values.mean()) * (1 + 1e-15), "hit@10": float((values > 0).mean())}
        with_metrics([each], {each.trial.name: in_other_order}, metric_decimal_place=20)
    assert gather(outcomes, "tiny", "temporal", "weak") is not None


def test_seeds_and_pairs_are_those_of_the_targets(outcomes: list[Outcome]) -> None:
    board = gather(outcomes, "tiny", "temporal", "weak")
    values, users = values_of(outcomes), np.sort([f"u{i // 2}" for i in range(N_TARGETS)])
    for model, of_model in values.items():
        assert list(board.of_seeds(model, "ndcg@10")) == [1, 2]
        assert list(board.of_seeds(model, "ndcg@10").values()) == pytest.approx(of_model.mean(axis=1).tolist())
    assert board.of_seeds("strong", "cov@10") == pytest.approx({1: 0.1, 2: 0.2})

    pairs = [("strong", "twin"), ("strong", "weak"), ("twin", "weak")]
    assert list(zip(board.pairs["model"], board.pairs["other"])) == pairs  # the higher mean first
    raw = paired_p_values([(values[model], values[other]) for model, other in pairs], users)
    by_size = np.argsort(raw)
    corrected = np.empty(3)
    corrected[by_size] = np.minimum(1, np.maximum.accumulate(raw[by_size] * [3, 2, 1]))
    assert board.pairs["p"].to_numpy() == pytest.approx(corrected, abs=1e-3)
    for row, gain in zip(board.pairs.itertuples(), gains(pairs, values, users)):
        assert row.difference == pytest.approx(gain.difference) and row.share == pytest.approx(gain.share)
        assert (row.low, row.high) == pytest.approx((gain.low, gain.high), abs=0.02)


def test_a_metric_of_whole_lists_has_no_pairs(outcomes: list[Outcome]) -> None:
    for each in outcomes[:-1]:
        result = json.loads((each.folder / "result.json").read_text())
        result["config"]["valid_metric"] = "COV@10"
        result["curve"] = result["curve"][:1]
        (each.folder / "result.json").write_text(json.dumps(result))
    board = gather(outcomes, "tiny", "temporal", "weak")
    assert board.metrics[0] == "cov@10" and board.pairs.empty and not board.verdict("strong", "cov@10")
    assert board.verdict("strong", "hit@10") == "better"

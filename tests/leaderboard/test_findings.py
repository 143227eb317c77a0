"""The sentences about a board, against its numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.findings import findings
from recbole_posattn.experiments.leaderboard.pairs import PAIR_COLUMNS
from tests.leaderboard.test_report import make_board

NAN = float("nan")


def board_of(models: dict[str, tuple[float, float, int]], pairs: dict[tuple[str, str], float], reference: str) -> Board:
    """Models with their mean, p-value against the reference and number of seeds; pairs with their p-values."""
    plain = make_board()
    level = {model: mean for model, (mean, _, _) in models.items()}
    scores = [
        (model, "ndcg@10", mean, 0.001, mean - 0.01, mean + 0.01, NAN if model == reference else p)
        for model, (mean, p, _) in models.items()
    ]
    costs = [(model, seeds, 1000, 1.0, 1.0, 1.0, 64.0) for model, (_, _, seeds) in models.items()]
    differences = [
        (model, other, level[model] - level[other], 0.001, 0.019, level[model] / level[other] - 1, 0.01, 0.2, p)
        for (model, other), p in pairs.items()
    ]
    return make_board(
        reference=reference,
        metrics=["ndcg@10"],
        scores=pd.DataFrame(scores, columns=plain.scores.columns),
        costs=pd.DataFrame(costs, columns=plain.costs.columns),
        pairs=pd.DataFrame(differences, columns=PAIR_COLUMNS),
    )


def test_which_row_is_best_by_how_much_and_what_is_open() -> None:
    models = {"A": (0.11, 0.01, 5), "B": (0.105, 0.2, 5), "Base": (0.1, NAN, 5), "Pop": (0.05, 0.001, 5)}
    pairs = {("A", "B"): 0.3, ("A", "Base"): 0.02, ("A", "Pop"): 0.001, ("B", "Base"): 0.4, ("B", "Pop"): 0.001}
    assert findings(board_of(models, {**pairs, ("Base", "Pop"): 0.001}, "Base")) == [
        "A has the highest NDCG@10, 0.1100 (95 % interval 0.1000 to 0.1200), followed by B with 0.1050.",
        "A leads the reference Base by 0.0100 (10.0 %, 95 % interval 0.0010 to 0.0190); by the test against Base, 1 is "
        "better (A) and 1 is worse (Pop) of the 3 tested rows.",
        "The board does not show whether A is better than B, as no paired test finds a difference.",
    ]


@pytest.mark.parametrize("reference", ["A", "B"])
def test_two_sentences_about_the_reference_speak_of_one_test(reference: str) -> None:
    """The test of the marks finds a difference that the test of all pairs, with its larger correction, does not."""
    models = {"A": (0.11, 0.01, 5), "B": (0.1, 0.01, 5), "C": (0.09, 0.5, 5)}
    found = findings(board_of(models, dict.fromkeys([("A", "B"), ("A", "C"), ("B", "C")], 0.3), reference))
    assert ("1 is worse (B)" if reference == "A" else "1 is better (A)") in found[1]
    assert found[2] == "The board does not show whether A is better than C, as no paired test finds a difference."


def test_names_that_could_be_read_as_several_are_quoted() -> None:
    models = {"A, masked": (0.11, 0.2, 5), "B and C": (0.105, 0.2, 5), "Base": (0.1, NAN, 5)}
    pairs = {("A, masked", "B and C"): 0.3, ("A, masked", "Base"): 0.2, ("B and C", "Base"): 0.4}
    best, lead, open_question = findings(board_of(models, pairs, "Base"))
    assert best.startswith("“A, masked” has the highest") and best.endswith("followed by “B and C” with 0.1050.")
    assert lead.startswith("“A, masked” leads the reference Base by")
    assert "whether “A, masked” is better than “B and C” and Base" in open_question


def test_few_seeds_are_weaker_evidence() -> None:
    models = {"Base": (0.11, NAN, 3), "B": (0.1, 0.5, 3)}
    board = board_of(models, {("Base", "B"): 0.5}, "Base")
    assert findings(board)[1:] == [
        "Base leads B by 0.0100 (10.0 %, 95 % interval 0.0010 to 0.0190); the test shows no difference between "
        "Base and B.",
        "The board does not show whether Base is better than B, as no paired test finds a difference; all rows "
        "have fewer than 5 seeds, so tests of them are weaker evidence.",
    ]
    board.costs["seeds"] = [5, 3]
    assert "; B has fewer than 5 seeds, so tests of it are weaker evidence." in findings(board)[2]
    board.costs["seeds"] = 5
    assert "weaker" not in findings(board)[2]


def test_a_lead_in_every_test_still_says_nothing_of_other_data() -> None:
    board = board_of({"A": (0.2, 0.001, 5), "Base": (0.1, NAN, 5)}, {("A", "Base"): 0.001}, "Base")
    assert findings(board)[1].endswith("; by the test against it, A is better than Base.")
    assert findings(board)[2] == (
        "The board does not show how the rows compare on other data or with other settings, although every paired test "
        "shows the lead."
    )


def test_one_seed_tells_little() -> None:
    untested = {("A", "Base"): NAN, ("A", "B"): NAN, ("Base", "B"): NAN}
    board = board_of({"A": (0.2, NAN, 1), "Base": (0.1, NAN, 1), "B": (0.05, NAN, 1)}, untested, "Base")
    assert findings(board)[1].endswith("(100.0 %, 95 % interval 0.0010 to 0.0190), which was not tested.")
    assert findings(board)[2] == ("Another seed may change the order of the rows: each has only one.")
    board.costs["seeds"] = [1, 5, 5]
    assert findings(board)[2] == (
        "The board does not show whether A would still be first with another seed, as it has only one."
    )
    board.costs["seeds"] = [5, 5, 1]
    board.pairs.loc[0, "p"] = 0.5
    assert findings(board)[2] == (
        "The board does not show whether A is better than Base, as no paired test finds a difference, or where B would "
        "be with another seed."
    )


def test_the_only_row_is_not_called_first() -> None:
    board = board_of({"A": (0.2, NAN, 1)}, {}, "A")
    assert findings(board)[2] == "The board does not show what A has with another seed, as it has only one."


@pytest.mark.parametrize(
    ("equal", "named"), [(2, "M0 and M1"), (5, "M0, M1, M2, M3 and M4"), (8, "M0, M1, M2, M3 and 4 others")]
)
def test_equal_leaders_are_all_named(equal: int, named: str) -> None:
    board = board_of({f"M{number}": (0.1, 0.9, 5) for number in range(equal)}, {}, "M1")
    assert findings(board)[0] == (
        f"{named} share the highest NDCG@10 to four digits, 0.1000 (95 % interval 0.0900 to 0.1100)."
    )


def test_a_board_of_one_row_or_none() -> None:
    one = board_of({"A": (0.2, NAN, 3)}, {}, "A")
    assert [text.split()[0] for text in findings(one)] == ["A", "There", "The"]
    assert "A is the only row" in findings(one)[0] and "it has fewer than 5 seeds" in findings(one)[2]
    one.scores = one.scores.iloc[:0]
    assert findings(one) == []

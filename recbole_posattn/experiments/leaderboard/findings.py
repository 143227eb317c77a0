"""What a board shows, in three sentences made from its numbers: which row is best, by how much, and what is open."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from recbole_posattn.evaluation.target_ranks import is_rank_metric
from recbole_posattn.experiments.leaderboard.board import FEW_SEEDS, SIGNIFICANCE, Board
from recbole_posattn.reporting.names import metric_title

# Names in a sentence; of more, the others are counted.
_MOST_NAMES = 4


def findings(board: Board) -> list[str]:
    """Three sentences about a board by its watched metric; none if no run finished.

    The first names the best row, the second says by how much it leads and what the tests against the reference found,
    the third what the numbers do not show.
    """
    if not board.models:
        return []
    return [_best_row(board), _by_how_much(board), _what_is_open(board)]


def _best_row(board: Board) -> str:
    metric, (first, *others) = board.metrics[0], board.models
    score = board.score(first, metric)
    interval = "" if pd.isna(score["low"]) else f" (95 % interval {score['low']:.4f} to {score['high']:.4f})"
    equal = [model for model in board.best(metric) if model != first]
    if equal:
        leaders = _names([first, *equal])
        return f"{leaders} share the highest {metric_title(metric)} to four digits, {score['mean']:.4f}{interval}."
    best = f"{_name(first)} has the highest {metric_title(metric)}, {score['mean']:.4f}{interval}"
    if not others:
        return f"{_name(first)} is the only row: {metric_title(metric)} {score['mean']:.4f}{interval}."
    second = board.score(others[0], metric)
    return f"{best}, followed by {_name(others[0])} with {second['mean']:.4f}."


def _by_how_much(board: Board) -> str:
    if len(board.models) == 1:
        return "There is no other row to compare it with."
    first, second = board.models[:2]
    other = second if first == board.reference else board.reference
    role = "the reference " if other == board.reference else ""
    lead = f"{_name(first)} leads {role}{_name(other)} by {_lead(board, first, other)}"
    tests = _tests(board)
    return f"{lead}; {tests}." if tests else f"{lead}, which was not tested."


def _lead(board: Board, model: str, other: str) -> str:
    """How far a model is above one with a lower mean."""
    pair = _pair(board, model, other)
    if pair is None:
        difference = board.score(model, board.metrics[0])["mean"] - board.score(other, board.metrics[0])["mean"]
        return f"{difference:z.4f}"
    share = "" if pd.isna(pair["share"]) else f"{100 * pair['share']:z.1f} %, "
    return f"{pair['difference']:z.4f} ({share}95 % interval {pair['low']:z.4f} to {pair['high']:z.4f})".replace(
        " -", " −"
    )


def _tests(board: Board) -> str:
    """What the tests against the reference found."""
    metric = board.metrics[0]
    verdicts = {model: verdict for model in board.models if (verdict := board.verdict(model, metric))}
    if not verdicts:
        return ""
    better, worse, tie = (
        [model for model, given in verdicts.items() if given == verdict] for verdict in ("better", "worse", "tie")
    )
    if len(verdicts) == 1:
        (model,) = verdicts
        if tie:
            return f"the test shows no difference between {_name(board.reference)} and {_name(model)}"
        found = "is better than" if better else "is worse than"
        return f"by the test against it, {_name(model)} {found} {_name(board.reference)}"
    if len(tie) == len(verdicts):
        return f"the test shows no difference between {_name(board.reference)} and the {len(verdicts)} tested rows"
    found = " and ".join(
        f"{len(models)} {'is' if len(models) == 1 else 'are'} {word} ({_names(models)})"
        for word, models in (("better", better), ("worse", worse))
        if models
    )
    return f"by the test against {_name(board.reference)}, {found} of the {len(verdicts)} tested rows"


def _what_is_open(board: Board) -> str:
    """The rows that no test separates from the best one, and the limits of the evidence."""
    first, *others = board.models
    single = set(board.of_one_seed)
    rivals = [model for model in others if model not in single]
    metric = board.metrics[0]
    if rivals and not is_rank_metric(metric):
        return f"No test is possible, as {metric_title(metric)} is not computed from the ranks of targets."
    if others and single.issuperset(board.models):
        return "Another seed may change the order of the rows: each has only one."
    unsure = []
    if first in single and not others:
        unsure.append(f"what {_name(first)} has with another seed, as it has only one")
    elif first in single:
        unsure.append(f"whether {_name(first)} would still be first with another seed, as it has only one")
    elif same := [model for model in rivals if not _is_above(board, first, model)]:
        unsure.append(f"whether {_name(first)} is better than {_names(same)}, as no paired test finds a difference")
    if alone := [model for model in others if model in single]:
        unsure.append(f"where {_names(alone)} would be with another seed")
    if not unsure:
        shown = ", although every paired test shows the lead" if rivals else ""
        unsure.append(f"how the rows compare on other data or with other settings{shown}")
    few = [model for model in board.models if model not in single and board.has_few_seeds(model)]
    limits = ""
    if few:
        them = "them" if len(few) > 1 else "it"
        limits = f"; {_rows_of(few, board)} fewer than {FEW_SEEDS} seeds, so tests of {them} are weaker evidence"
    return f"The board does not show {', or '.join(unsure)}{limits}."


def _rows_of(models: Sequence[str], board: Board) -> str:
    if len(models) == len(board.models):
        return "all rows have" if len(models) > 1 else "it has"
    return f"{len(models)} rows have" if len(models) > 1 else f"{_name(models[0])} has"


def _is_above(board: Board, model: str, other: str) -> bool:
    """Whether a test shows that a model is better than another with a lower mean.

    If one of them is the reference, this is the test that the marks show; otherwise the test of all pairs, which
    corrects for more comparisons.
    """
    if board.reference in (model, other):
        if model == board.reference:
            return board.verdict(other, board.metrics[0]) == "worse"
        return board.verdict(model, board.metrics[0]) == "better"
    pair = _pair(board, model, other)
    return pair is not None and bool(pair["p"] < SIGNIFICANCE)


def _pair(board: Board, model: str, other: str) -> pd.Series | None:
    rows = board.pairs[(board.pairs["model"] == model) & (board.pairs["other"] == other)]
    return None if rows.empty else rows.iloc[0]


def _name(model: str) -> str:
    """A name in a sentence, in quotation marks if it could be read as several."""
    return f"“{model}”" if "," in model or " and " in model else model


def _names(models: Sequence[str]) -> str:
    """Names in a sentence: ``A``, ``A and B``, ``A, B, C, D and 3 others``."""
    named = [_name(model) for model in models]
    shown = named if len(named) <= _MOST_NAMES + 1 else [*named[:_MOST_NAMES], f"{len(named) - _MOST_NAMES} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]

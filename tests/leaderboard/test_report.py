"""What a leaderboard's files say, cell by cell, that no name can break them, and the page in a browser."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from rich.console import Console

from recbole_posattn.errors import UserError
from recbole_posattn.experiments.leaderboard.board import SEED_COLUMNS, Board
from recbole_posattn.experiments.leaderboard.columns import columns
from recbole_posattn.experiments.leaderboard.costs_figure import DRAWN_COSTS, draw_cost
from recbole_posattn.experiments.leaderboard.figures import draw_board, draw_curves, draw_groups, draw_scores
from recbole_posattn.experiments.leaderboard.latex import latex
from recbole_posattn.experiments.leaderboard.live import LiveTable
from recbole_posattn.experiments.leaderboard.markdown import markdown
from recbole_posattn.experiments.leaderboard.matrix import draw_pairs, pair_cells
from recbole_posattn.experiments.leaderboard.page import html
from recbole_posattn.experiments.leaderboard.pairs import PAIR_COLUMNS
from recbole_posattn.experiments.leaderboard.published import Published
from recbole_posattn.experiments.leaderboard.report import CSV_COLUMNS, csv, write_report
from recbole_posattn.experiments.leaderboard.table import Provenance
from recbole_posattn.experiments.leaderboard.terminal import print_boards
from recbole_posattn.experiments.trials import Trial

NAN = float("nan")
NASTY = """<script>alert("1")</script>_50%&'$a$|#"""

PROVENANCE = Provenance(
    command="recbole-posattn leaderboard --models=SASRec,<b>",
    versions={"recbole": "1.2.1", "torch": "2.13.0"},
    date="2026-11-24",
    revision="abc1234",
    seeds=[1, 2],
    published=[],
    not_run=["DIEN: needs negative histories & more"],
    notes=["A <note>."],
)

PUBLISHED = PROVENANCE._replace(
    published=[
        Published("BSARec", "beauty_5", "masked", "Shin & others", {"ndcg@10": 0.0611, "hit@10": 0.1008}),
        Published("SASRec", "beauty_5", "not masked", "a <table>", {"ndcg@10": 0.0432, "mrr@10": 0.03}),
    ]
)


def make_board(**changes: Any) -> Board:
    """Three models: the reference, a better one with a nasty name, and one without curves or groups."""
    scores = [
        ("SASRec", "ndcg@10", 0.06, 0.0012, 0.055, 0.065, NAN),
        ("SASRec", "cov@10", 0.5, 0.01, NAN, NAN, NAN),
        (NASTY, "ndcg@10", 0.07, 0.0, 0.066, 0.074, 0.004),
        (NASTY, "cov@10", 0.25, NAN, NAN, NAN, NAN),
        ("Pop", "ndcg@10", 0.01, 0.0, 0.005, 0.015, 0.0004),
        ("Pop", "cov@10", 0.5, 0.0, NAN, NAN, NAN),
    ]
    costs = [
        ("SASRec", 2, 152_600, 1.5, 40.5, 90.25, 512.0),
        (NASTY, 2, 1_000_000, 12.0, 20.0, 1800.0, NAN),
        ("Pop", 2, 1, 0.01, 1.0, 0.02, 64.0),
    ]
    curves = [
        (model, seed, epoch, 5.0 - epoch, 0.01 * epoch + 0.001 * seed)
        for model, seeds in (("SASRec", (1, 2)), (NASTY, (1,)))
        for seed in seeds
        for epoch in range(3 + seed)
    ]
    groups = [
        (model, kind, group, 50, mean)
        for model, mean in (("SASRec", 0.06), (NASTY, 0.07))
        for kind in ("history length", "item popularity")
        for group in ("1–9", "10–99")
    ]
    seeds = [
        *(("SASRec", "ndcg@10", seed, value) for seed, value in ((1, 0.0592), (2, 0.0608))),
        *((NASTY, "ndcg@10", seed, 0.07) for seed in (1, 2)),
        *(("Pop", "ndcg@10", seed, 0.01) for seed in (1, 2)),
    ]
    pairs = [
        (NASTY, "SASRec", 0.01, 0.004, 0.016, 0.1667, 0.06, 0.27, 0.004),
        (NASTY, "Pop", 0.06, 0.055, 0.065, 6.0, 3.5, 9.0, 0.0003),
        ("SASRec", "Pop", 0.05, 0.045, 0.055, 5.0, 3.0, 8.0, 0.0003),
    ]
    fields = {
        "dataset": "ml_100k",
        "protocol": "temporal split",
        "reference": "SASRec",
        "metrics": ["ndcg@10", "cov@10"],
        "scores": pd.DataFrame(scores, columns=["model", "metric", "mean", "deviation", "low", "high", "p"]),
        "costs": pd.DataFrame(
            costs,
            columns=[
                *("model", "seeds", "parameters", "seconds_per_epoch"),
                *("best_epoch", "training_seconds", "peak_mebibytes"),
            ],
        ),
        "curves": pd.DataFrame(curves, columns=["model", "seed", "epoch", "loss", "valid"]),
        "groups": pd.DataFrame(groups, columns=["model", "kind", "group", "targets", "mean"]),
        "seeds": pd.DataFrame(seeds, columns=SEED_COLUMNS),
        "pairs": pd.DataFrame(pairs, columns=PAIR_COLUMNS),
        "failures": [(NASTY, 2, "ValueError: a | b\n<c>")],
        "seen_targets": 0.125,
        "n_targets": 1940,
        "n_users": 943,
    }
    return Board(**{**fields, **changes})


def board_of(n_models: int, n_seeds: int = 3, n_epochs: int = 30) -> Board:
    """Many models with made-up numbers."""
    random = np.random.default_rng(7)
    models = [f"PosKernelSASRec-{number}" if number % 3 else f"Model{number}" for number in range(n_models)]
    level = dict(zip(models, 0.1 + 0.03 * random.random(n_models)))
    scores = [
        (
            model,
            metric,
            value * scale,
            0.001,
            0.9 * value * scale,
            1.1 * value * scale,
            0.5 if model != models[0] else NAN,
        )
        for model, value in level.items()
        for metric, scale in (("ndcg@10", 1.0), ("hit@10", 2.0))
    ]
    curves = [
        (model, seed, epoch, 1.0, value * (1 - np.exp(-epoch / 5)) + 0.001 * random.standard_normal())
        for model, value in level.items()
        for seed in range(n_seeds)
        for epoch in range(n_epochs - seed)
    ]
    groups = [
        (model, kind, group, 100, value * (1 + place))
        for model, value in level.items()
        for kind in ("history length", "item popularity")
        for place, group in enumerate(("1–4", "5–9", "10–20"))
    ]
    plain = make_board()
    seeds = [
        (model, "ndcg@10", seed, value + 0.001 * seed) for model, value in level.items() for seed in range(n_seeds)
    ]
    pairs = [
        (model, other, level[model] - level[other], *([0.0] * 2), *([0.01] * 3), 0.01 if place % 2 else 0.5)
        for place, (model, other) in enumerate(itertools.combinations(sorted(level, key=level.get, reverse=True), 2))
    ]
    costs = [(model, n_seeds, 1000, 1.0, 9.0, 10 + 5 * place, 100.0) for place, model in enumerate(models)]
    return make_board(
        dataset="many",
        reference=models[0],
        metrics=["ndcg@10", "hit@10"],
        scores=pd.DataFrame(scores, columns=plain.scores.columns),
        costs=pd.DataFrame(costs, columns=plain.costs.columns),
        curves=pd.DataFrame(curves, columns=plain.curves.columns),
        groups=pd.DataFrame(groups, columns=plain.groups.columns),
        seeds=pd.DataFrame(seeds, columns=SEED_COLUMNS),
        pairs=pd.DataFrame(pairs, columns=PAIR_COLUMNS),
    )


def without(board: Board, *parts: str) -> Board:
    """The board with tables that have no rows."""
    for part in parts:
        setattr(board, part, getattr(board, part).iloc[:0])
    return board


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have no figures, which take most of their time."""
    monkeypatch.setattr("recbole_posattn.experiments.leaderboard.page.draw_board", lambda board: [])


# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown_table(text: str) -> list[list[str]]:
    """The cells of the first table, without its rule."""
    below = itertools.dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    lines = list(itertools.takewhile(lambda line: line.startswith("|"), below))
    header, rule, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len(rule) == len(header)
    return [header, *rows]


def test_markdown_has_each_cell() -> None:
    header, *rows = markdown_table(markdown([make_board()], PROVENANCE))
    assert header == ["model", "NDCG@10", "COV@10", "95 % interval", "mark", "seeds", "seconds", "parameters"]
    assert [row[1:] for row in rows] == [
        ["**0.0700 ± 0.0000**", "0.2500", "0.0660–0.0740", "△", "2 of 3", "1,800.0", "1,000,000"],
        ["0.0600 ± 0.0012", "**0.5000 ± 0.0100**", "0.0550–0.0650", "ref.", "2", "90.2", "152,600"],
        ["0.0100 ± 0.0000", "**0.5000 ± 0.0000**", "0.0050–0.0150", "▽", "2", "0.0", "1"],
    ]
    assert [row[0] for row in rows[1:]] == ["SASRec", "Pop"]


def test_markdown_marks_a_tie() -> None:
    board = make_board()
    board.scores["p"] = board.scores["p"] * 100
    cells = [row[4] for row in markdown_table(markdown([board], PROVENANCE))[1:]]
    assert cells == ["=", "ref.", "▽"]


def test_a_mark_of_five_seeds_is_full() -> None:
    board = make_board()
    board.costs["seeds"] = [5, 5, 4]  # the reference, the better one, Pop
    cells = [row[4] for row in markdown_table(markdown([board], PROVENANCE))[1:]]
    assert cells == ["▲", "ref.", "▽"]
    board.costs["seeds"] = [4, 5, 5]
    assert [row[4] for row in markdown_table(markdown([board], PROVENANCE))[1:]] == ["△", "ref.", "▽"]
    board.costs["seeds"] = 5
    text = markdown([board], PROVENANCE)
    assert [row[4] for row in markdown_table(text)[1:]] == ["▲", "ref.", "▼"] and "weaker" not in text


def test_markdown_says_what_the_numbers_are() -> None:
    text = markdown([make_board()], PROVENANCE)
    assert "## ml\\_100k, temporal split\n" in text
    assert (
        "1,940 test targets of 943 users, 12.5 % of them already in the user's history. "
        "Mean ± standard deviation over seeds, the best in bold; "
        "95 % interval of NDCG@10 by bootstrap over users and seeds; seconds of training. "
        "Marks: NDCG@10 against SASRec, by a paired test over users and seeds with Holm's correction at p < 0.05, and "
        "beside other metrics the same for these: ▲ better, ▼ worse, = tie (no difference could be shown); "
        "△ and ▽ with fewer than 5 seeds: weaker evidence. The page and the CSV file have all other columns.\n"
    ) in text
    assert "seed 2: ValueError: a \\| b \\<c>\n" in text
    assert "- DIEN: needs negative histories \\& more\n" in text
    assert f"```bash\n{PROVENANCE.command}\n```" in text
    for fact in ("recbole 1.2.1, torch 2.13.0", "2026-11-24", "abc1234", "seeds: 1, 2", "A \\<note>."):
        assert fact in text


def test_names_are_not_taken_for_markdown() -> None:
    name = markdown_table(markdown([make_board()], PROVENANCE))[1][0]
    assert not re.search(r"(?<!\\)[<_*|&$]", name)
    assert name.replace("\\", "") == NASTY


def test_without_a_test_nothing_is_said_of_marks() -> None:
    board = make_board(seen_targets=None)
    board.scores["p"] = NAN
    text = markdown([board], PROVENANCE)
    assert f"No model was tested against {board.reference}." in text  # only other pairs were
    board.pairs["p"] = NAN
    assert "No model was tested against another." in markdown([board], PROVENANCE)
    assert "1,940 test targets of 943 users. Mean" in text
    assert not any(mark in cell for row in markdown_table(text) for cell in row for mark in "▲▼△▽=")


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("form", [markdown, latex, html])
def test_one_seed_is_said_to_be_untested(form: Callable[..., str]) -> None:
    board = make_board()
    pop = board.scores["model"] == "Pop"
    board.scores.loc[pop, ["deviation", "p"]] = NAN
    board.costs.loc[board.costs["model"] == "Pop", "seeds"] = 1
    text = form([board], PROVENANCE)
    assert "5 seeds: weaker evidence. Not tested: Pop with one seed. The intervals of one seed are over" in text
    board.scores["p"] = board.pairs["p"] = NAN
    board.costs["seeds"] = 1
    text = form([board], PROVENANCE)
    assert "No model was tested against another: all models with one seed. The intervals of one seed are over" in text
    assert "▲ better" not in text
    assert "Not tested" not in form([make_board()], PROVENANCE)
    assert "0.0100 ±" not in text and "0.0100 $" not in text  # no deviation of one seed


# -- CSV -------------------------------------------------------------------------------------------------------------


def test_csv_is_read_back_by_pandas() -> None:
    boards = [make_board(), make_board(dataset="beauty")]
    table = pd.read_csv(io.StringIO(csv(boards)))
    assert list(table.columns) == CSV_COLUMNS
    assert len(table) == 2 * 3 * (2 + 5)
    assert not table.duplicated(["dataset", "protocol", "model", "kind", "metric"]).any()
    rows = table[table["dataset"] == "ml_100k"].set_index(["model", "metric"])
    for score in boards[0].scores.itertuples():
        row = rows.loc[(score.model, score.metric)]
        for column in ("mean", "deviation", "low", "high", "p"):
            np.testing.assert_equal(row[column], getattr(score, column))
    assert rows.loc[(NASTY, "ndcg@10"), "verdict"] == "better"
    assert rows.loc[("Pop", "ndcg@10"), ["verdict", "n_targets", "n_users", "seeds"]].tolist() == [
        "worse",
        1940,
        943,
        2,
    ]
    assert rows.loc[("SASRec", "training_seconds"), ["kind", "mean"]].tolist() == ["cost", 90.25]
    assert np.isnan(rows.loc[(NASTY, "peak_mebibytes"), "mean"])


# -- LaTeX -----------------------------------------------------------------------------------------------------------


def test_latex_has_each_cell() -> None:
    text = latex([make_board()], PROVENANCE)
    (row,) = [line for line in text.splitlines() if line.startswith("SASRec &")]
    assert row == r"SASRec & .0600 & \textbf{.5000} & .055--.065 & 90 & 153k \\"
    (row,) = [line for line in text.splitlines() if "script\\text" in line and not line.startswith("%")]
    assert row.startswith(
        r"\textless{}script\textgreater{}alert("
        '"1"'
        r")\textless{}/script\textgreater{}\_50\%\&'\$a\$\textbar{}\# & \textbf{.0700}$^{(+)}$ & .2500 & "
    )
    (row,) = [line for line in text.splitlines() if line.startswith("Pop &")]
    assert r"& .0100$^{(-)}$ & \textbf{.5000} & .005--.015 & 0.0 & 1 \\" in row
    assert r"\caption{ml\_100k, temporal split: 1,940 test targets of 943 users, 12.5 \% of them" in text
    assert "history. Means over seeds, the best in bold" in text and "deviation" not in text
    assert (
        r"$^{+}$ better, $^{-}$ worse, $^{=}$ tie" in text
        and "weaker evidence. 2 seeds a row. All metrics at 10.}" in text
    )
    assert r"\label{tab:leaderboard-ml-100k-temporal-split}" in text


def test_latex_does_not_take_a_name_for_an_argument() -> None:
    figures = [Published(name, "ml-100k", "p", "a paper", {"ndcg@10": 0.05}, {}, 5) for name in ("[A] ours", "*B")]
    lines = latex([make_board()], PROVENANCE._replace(published=figures)).splitlines()
    assert [line.partition(" &")[0] for line in lines if "a paper" in line] == ["{[}A] ours", "{*}B"]
    assert not any(line.startswith(("[", "*")) for line in lines)


def test_latex_has_the_number_of_seeds_of_published_figures() -> None:
    figures = Published("GRU", "ml-100k", "a protocol", "a paper", {"ndcg@10": 0.05}, {}, 5)
    text = latex([make_board()], PROVENANCE._replace(published=[figures]))
    assert r"& .0500 & 5 \\" in text


def test_latex_is_balanced_and_plain() -> None:
    text = latex([make_board(), make_board(dataset="naïve 数据 ▲ {x}\\y^2~")], PROVENANCE)
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    bare = re.sub(r"\\[\\{}$%&#_]", "", re.sub(r"(?m)^%.*$", "", text))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert r"naïve ?? ? \{x\}\textbackslash{}y\textasciicircum{}2\textasciitilde{}" in text
    assert {sign for sign in text if not sign.isascii()} == {"ï"}
    for table in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL):
        lines = table.replace("\\midrule", "").strip().splitlines()
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines if line} == {5}


def width_in_points(text: str, size: float) -> float:
    """The width of LaTeX text in Computer Modern."""
    total = 0.0
    for part in re.split(r"(\\textbf\{[^}]*\}|\$\^\{[^}]*\}\$)", text):
        bold, above = re.fullmatch(r"\\textbf\{(.*)\}", part), re.fullmatch(r"\$\^\{(.*)\}\$", part)
        plain = (bold or above)[1] if bold or above else part.replace("--", "–").replace("\\", "")
        font = "cmb10" if bold else "cmr10"
        file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
        if plain:
            scale = 0.7 if above else 1.0
            path = TextPath((0, 0), plain.replace("–", "--"), size * scale, prop=FontProperties(fname=file))
            total += path.get_extents().width + 0.1 * size
    return total


def test_latex_fits_one_column_in_readable_type() -> None:
    """\\scriptsize has 7 points in a paper of 10, and the columns of ACM's papers are 241 points wide, IEEE's 252."""
    board = board_with(ndcg_at_10=0.1, hit_at_10=0.2, mrr_at_10=0.1, cov_at_10=0.3)
    for table in (board.scores, board.costs):
        table["model"] = table["model"].replace(NASTY, "PosKernel + RoPE")
    board.scores.loc[board.scores["metric"] == "ndcg@10", ["low", "high", "p"]] = 0.01
    board.costs["training_seconds"], board.costs["parameters"] = 12_345.6, 1_234_567
    text = latex([board], PROVENANCE)
    assert r"\scriptsize" in text and r"\begin{adjustbox}{max width=\columnwidth}" in text
    (gap,) = re.findall(r"\\setlength\{\\tabcolsep\}\{(\d)pt\}", text)
    lines = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r" \\")]
    widths = [max(width_in_points(cell, 7) for cell in column) for column in zip(*lines, strict=True)]
    assert len(widths) == 8 and sum(widths) + 2 * int(gap) * (len(widths) - 1) < 241


def test_long_names_are_broken_in_latex() -> None:
    board = make_board()
    text = latex([board], PROVENANCE)
    assert r"\begin{tabular}{@{}>{\raggedright\arraybackslash}p{9em}rrrrr@{}}" in text  # the nasty one is long
    board.scores = board.scores[board.scores["model"] != NASTY]
    board.costs = board.costs[board.costs["model"] != NASTY]
    assert r"\begin{tabular}{@{}lrrrrr@{}}" in latex([board], PROVENANCE)


# -- columns ---------------------------------------------------------------------------------------------------------


def board_with(**metrics: float) -> Board:
    """A board whose metrics, the watched one first, are these times the model's number; ``at`` is for ``@``."""
    plain = make_board()
    names = {name.replace("_at_", "@"): value for name, value in metrics.items()}
    scores = [
        (model, metric, number * value, 0.001, NAN, NAN, NAN)
        for number, model in enumerate(("Pop", "SASRec", NASTY), start=1)
        for metric, value in names.items()
    ]
    return make_board(metrics=list(names), scores=pd.DataFrame(scores, columns=plain.scores.columns))


@pytest.mark.parametrize(
    ("metrics", "shown", "chosen"),
    [
        (
            dict(
                ndcg_at_10=0.1,
                hit_at_5=0.1,
                hit_at_10=0.2,
                recall_at_5=0.1,
                recall_at_10=0.2,
                mrr_at_10=0.1,
                cov_at_10=0.3,
            ),
            ["NDCG@10", "Hit@10", "MRR@10", "COV@10"],
            ["Hit@5"],
        ),
        (dict(recall_at_20=0.1, hit_at_20=0.1, mrr_at_20=0.1), ["Recall@20", "MRR@20"], []),
        (dict(ndcg_at_10=0.1, recall_at_10=0.1, hit_at_10=0.3), ["NDCG@10", "Hit@10", "Recall@10"], []),
        (dict(mrr_at_5=0.1, ndcg_at_10=0.1, precision_at_5=0.1), ["MRR@5"], ["NDCG@10", "Precision@5"]),
        (dict(auc=0.6, itemcoverage_at_10=0.1, ndcg_at_10=0.2), ["AUC", "NDCG@10"], ["ItemCoverage@10"]),
    ],
)
def test_columns_are_few_and_the_others_chosen(metrics: dict, shown: list[str], chosen: list[str]) -> None:
    every = columns(board_with(**metrics))
    costs = ["95 % interval", "mark", "seeds", "seconds", "parameters"]
    assert [column.title for column in every if column.shown] == ["model", *shown, *costs]
    others = ["p", *chosen, "seconds per epoch", "epochs to best", "peak MiB"]
    assert [column.title for column in every if not column.shown] == others


def test_the_terminal_shows_a_table() -> None:
    board = make_board()
    board.scores["model"] = board.scores["model"].replace(NASTY, "[b]")
    board.costs["model"] = board.costs["model"].replace(NASTY, "[b]")
    board.pairs = board.pairs.iloc[:0]

    def printed(**options: Any) -> list[str]:
        console = Console(file=io.StringIO(), **options)
        print_boards([board], console)
        return console.file.getvalue().splitlines()

    title, header, rule, first, second, *_ = printed(width=300)
    costs = ["95 % interval", "mark", "seeds", "seconds", "parameters"]
    assert title == "ml_100k, temporal split" and set(rule) == {"─"}
    assert re.split("  +", header) == ["model", "NDCG@10", "COV@10", *costs]
    assert first.split() == [
        "[b]",
        "0.0700",
        "±",
        "0.0000",
        "0.2500",
        "0.0660–0.0740",
        "△",
        "2",
        "1,800.0",
        "1,000,000",
    ]
    assert second.split()[-4:] == ["ref.", "2", "90.2", "152,600"]
    narrow = printed(width=60, force_terminal=True, color_system=None)
    assert all(len(line) <= 60 for line in narrow[1:6])
    assert narrow[6] == "Too wide for 60 characters: seeds, seconds, parameters"


def test_the_live_table_names_rows_as_they_are() -> None:
    names = ["SASRec [paper]", "SASRec [/paper]", "[bold]"]
    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=True)
    with LiveTable("a [b], temporal", [Trial(name, {"seed": 1}) for name in names], console):
        pass
    assert all(name in console.file.getvalue() for name in [*names, "a [b], temporal"])


# -- HTML ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects elements, what they refer to, and text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text.append(data.strip())


@pytest.fixture(scope="module")
def drawn_page() -> str:
    """A page of three boards with all their figures."""
    return html([board_of(4), make_board(), make_board(dataset="beauty")], PROVENANCE)


def test_html_loads_nothing(drawn_page: str) -> None:
    text, page = drawn_page, Page(drawn_page)
    assert page.references and all(reference.startswith(("#", "data:")) for reference in page.references)
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert not {"img", "iframe", "object", "embed", "image"} & set(page.tags)


def test_html_escapes_names_and_draws_them(drawn_page: str) -> None:
    text, page = drawn_page, Page(drawn_page)
    assert page.tags.count("script") == 1  # ours
    assert "<script>alert" not in text and "SASRec,<b>" not in text and "<note>" not in text
    assert NASTY in page.text and PROVENANCE.command in page.text
    assert page.tags.count("svg") == page.tags.count("figure") == 3 * 7


def test_html_gives_each_name_within_it_once(drawn_page: str) -> None:
    page = Page(drawn_page)
    assert len(set(page.ids)) == len(page.ids)


@pytest.mark.slow
def test_same_boards_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report([make_board(), board_of(3)], PROVENANCE, tmp_path / name) for name in "ab")
    assert [file.name for file in first] == [f"leaderboard.{suffix}" for suffix in ("md", "csv", "tex", "html", "json")]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


# -- what others published ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_figures")
def test_figures_of_others_are_a_table_of_their_own() -> None:
    for form in (markdown, latex, html):
        plain, text = (form([make_board()], provenance) for provenance in (PROVENANCE, PUBLISHED))
        assert "Published by others" in text and "Not run here:" in text
        assert "Published by others" not in plain and "BSARec" not in plain
    own, others = markdown([make_board()], PUBLISHED).split("## Published by others")
    assert "BSARec" not in own
    assert markdown_table(others) == [
        ["model", "data set", "protocol", "source", "NDCG@10", "Hit@10", "MRR@10"],
        ["BSARec", r"beauty\_5", "masked", r"Shin \& others", "0.0611", "0.1008", "–"],
        ["SASRec", r"beauty\_5", "not masked", r"a \<table>", "0.0432", "–", "0.0300"],
    ]
    (row,) = [line for line in latex([make_board()], PUBLISHED).splitlines() if line.startswith("BSARec")]
    assert row == r"BSARec & beauty\_5 & masked & Shin \& others & .0611 & .1008 & -- \\"
    assert '<td data-value="0.0611">0.0611</td>' in html([make_board()], PUBLISHED)
    assert csv([make_board()]).count("BSARec") == 0


# -- figures ---------------------------------------------------------------------------------------------------------


def titles(board: Board) -> list[str]:
    return [drawing.title for drawing in draw_board(board)]


@pytest.mark.slow
def test_a_figure_with_nothing_in_it_is_left_out() -> None:
    every = titles(make_board())
    assert len(every) == 7
    board = without(make_board(), "curves", "groups", "pairs")
    board.costs["training_seconds"] = NAN
    left_out = {
        "NDCG@10 on the validation set by epoch",
        "NDCG@10 by group of test targets",
        "NDCG@10, row minus column",
        "NDCG@10 against training time in seconds",
    }
    assert left_out < set(every) and titles(board) == [title for title in every if title not in left_out]


@pytest.mark.slow
@pytest.mark.parametrize("n_models", [1, 15, 30])
def test_any_number_of_models_is_drawn(n_models: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns if it finds no room
        drawings = draw_board(board_of(n_models))
    assert len(drawings) == (7 if n_models > 2 else 6)
    for drawing in drawings:
        assert drawing.svg.count(">Model0</text>") == (2 if "row minus column" in drawing.title else 1), drawing.title


def test_the_matrix_of_pairs_has_each_difference_in_both_directions() -> None:
    board = make_board()
    (axis,) = draw_pairs(board).axes
    found = {(text.xy[1], text.xy[0]): text.get_text() for text in axis.texts}
    assert found == {
        **{(0, 1): "+0.0100", (0, 2): "+0.0600", (1, 2): "+0.0500"},
        **{(1, 0): "−0.0100", (2, 0): "−0.0600", (2, 1): "−0.0500"},
    }
    board.pairs.loc[0, "p"] = 0.2
    board.pairs.loc[2, "p"] = NAN
    cells = pair_cells(board)
    marks = {(row, column): cell.mark or cell.text for row, line in cells.items() for column, cell in line.items()}
    assert marks == {
        **{(NASTY, NASTY): "", (NASTY, "SASRec"): "=", (NASTY, "Pop"): "△"},
        **{("SASRec", NASTY): "=", ("SASRec", "SASRec"): "", ("SASRec", "Pop"): "–"},
        **{("Pop", NASTY): "▽", ("Pop", "SASRec"): "–", ("Pop", "Pop"): ""},
    }
    matrix = markdown([board], PROVENANCE).split("Every pair:")[1]
    assert markdown_table(matrix)[0] == ["", "1", "2", "3"]
    assert markdown_table(matrix)[2:] == [["2 SASRec", "=", "", "–"], ["3 Pop", "▽", "–", ""]]


@pytest.mark.parametrize("draw", [draw_scores, lambda board: draw_cost(board, "parameters")])
def test_single_seeds_are_points(draw: Callable[[Board], Any]) -> None:
    (axis,) = draw(make_board()).axes
    drawn = {round(float(value), 9) for line in axis.lines for value in np.ravel([line.get_xdata(), line.get_ydata()])}
    assert {0.0592, 0.0608, 0.07, 0.01} <= drawn


def test_bars_of_untested_rows_are_pale_and_outlined() -> None:
    board = make_board()
    board.scores.loc[board.scores["model"] == "Pop", "p"] = NAN
    figure = draw_scores(board)
    (axis,) = figure.axes
    pale = {
        label.get_text()
        for label, bar in zip(axis.get_yticklabels(), axis.patches)
        if to_hex(bar.get_facecolor()) == "#eef0f3"
    }
    assert pale == {"Pop"}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["better", "reference", "not tested"]


def overlap(boxes: list[Any]) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, j in itertools.combinations(range(len(boxes)), 2)
        if boxes[i].shrunk(0.98, 0.98).overlaps(boxes[j])
    ]


@pytest.mark.parametrize("cost", DRAWN_COSTS)
def test_names_beside_points_do_not_cover_each_other(cost: str) -> None:
    figure = draw_cost(board_of(15), cost)
    (axis,) = figure.axes
    names = [text for text in axis.texts if text.get_text()]
    assert len(names) == 15
    boxes = [name.get_window_extent() for name in names]
    assert not overlap(boxes)
    assert all(axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1 for box in boxes)


@pytest.mark.parametrize("draw", [draw_scores, draw_curves, draw_groups])
def test_the_legend_is_beside_the_axes(draw: Callable[[Board], Any]) -> None:
    figure = draw(board_of(15))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    boxes = [legend.get_window_extent(), *(axis.get_tightbbox() for axis in figure.axes)]
    assert not overlap(boxes)
    width, height = figure.bbox.size
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    draw_board(make_board())
    assert dict(matplotlib.rcParams) == before


# -- files -----------------------------------------------------------------------------------------------------------


def test_nothing_finished_is_a_report_as_well(tmp_path: Path) -> None:
    board = without(make_board(), "scores", "costs", "curves", "groups")
    files = write_report([board], PROVENANCE, tmp_path)
    assert "No run finished." in files[0].read_text() and "ValueError" in files[0].read_text()
    assert files[1].read_text().strip() == ",".join(CSV_COLUMNS)
    assert "tabular" not in files[2].read_text()
    assert "No run finished." in files[3].read_text()


@pytest.mark.usefixtures("without_figures")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        with pytest.raises(UserError, match=r"file.* cannot be written: ") as error:
            write_report([make_board()], PROVENANCE, folder)
        assert "\n" not in str(error.value)
    assert file.read_text() == "mine" and list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("without_figures")
def test_a_report_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_report([make_board()], PROVENANCE, tmp_path)
    before = {file: file.read_bytes() for file in files}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recbole_posattn.files.os.replace", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        write_report([board_of(2)], PROVENANCE, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


# -- in a browser ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_sorts_in_a_browser(browser: Any, tmp_path: Path) -> None:
    write_report([make_board(), board_of(12)], PUBLISHED, tmp_path)
    browser.get((tmp_path / "leaderboard.html").as_uri())
    table = browser.find_element("css selector", "table")

    def column(name: str) -> Any:
        return next(th for th in table.find_elements("css selector", "thead th") if th.text.startswith(name))

    def order() -> list[str]:
        return [th.get_attribute("data-value") for th in table.find_elements("css selector", "tbody th")]

    def click(name: str) -> tuple[list[str], str]:
        column(name).find_element("css selector", "button").click()
        return order(), column(name).get_attribute("aria-sort")

    best_first = [NASTY, "SASRec", "Pop"]
    assert order() == best_first and column("NDCG@10").get_attribute("aria-sort") == "descending"
    # As numbers: 1, 152,600, 1,000,000 would be sorted otherwise as text.
    assert click("parameters") == (["Pop", "SASRec", NASTY], "ascending")
    assert column("NDCG@10").get_attribute("aria-sort") is None
    assert click("parameters") == ([NASTY, "SASRec", "Pop"], "descending")

    # Other columns are chosen, in this table alone.
    def shown() -> list[str]:
        return [th.text.rstrip("↕↓↑ ") for th in table.find_elements("css selector", "thead th") if th.is_displayed()]

    at_first = ["model", "NDCG@10", "COV@10", "95 % interval", "mark", "seeds", "seconds", "parameters"]
    others = ["p", "seconds per epoch", "epochs to best", "peak MiB"]
    chooser = browser.find_element("css selector", ".columns")
    assert shown() == at_first
    chooser.find_element("css selector", "summary").click()
    boxes = {box.text.strip(): box for box in chooser.find_elements("css selector", "label")}
    assert list(boxes) == [*at_first[1:], *others]
    boxes["peak MiB"].click()
    boxes["mark"].click()
    assert shown() == [*(title for title in at_first if title != "mark"), "peak MiB"]
    cells = table.find_elements("css selector", "tbody tr:first-child > *")
    assert [cell.is_displayed() for cell in cells] == [True] * 4 + [False] + [True] * 3 + [False] * 3 + [True]
    every, default = chooser.find_elements("css selector", "button")
    default.click()
    assert shown() == at_first
    every.click()
    assert shown() == [*at_first, *others]
    assert len(browser.find_elements("css selector", "table")[1].find_elements("css selector", "th[hidden]")) == 4
    # What is missing is last, either way.
    assert click("peak MiB") == (["Pop", "SASRec", NASTY], "ascending")
    assert click("peak MiB") == (["SASRec", "Pop", NASTY], "descending")
    assert click("model") == ([NASTY, "Pop", "SASRec"], "ascending")
    # By keyboard.
    column("seconds").find_element("css selector", "button").send_keys("\ue007")
    assert order() == ["Pop", "SASRec", NASTY]

    # What others published is sorted by itself.
    table = browser.find_element("css selector", "#published table")
    assert order() == ["BSARec", "SASRec"]
    assert click("NDCG@10") == (["SASRec", "BSARec"], "ascending")
    assert click("Hit@10") == (["BSARec", "SASRec"], "ascending")
    assert click("source") == (["SASRec", "BSARec"], "ascending")
    assert column("source").value_of_css_property("text-align") == "left"

    # The tables scroll and the page does not.
    for width in (1280, 400):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.get_log("browser") == []

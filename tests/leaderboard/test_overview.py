"""Leaderboards side by side: the gains over a common row, from records, and the files that show them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from recbole_posattn.cli import main as cli
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.experiments.leaderboard.board import gather
from recbole_posattn.experiments.leaderboard.overview import common_name, leaderboard_folders, read_gains
from recbole_posattn.experiments.leaderboard.overview_figure import draw_gains, model_order
from recbole_posattn.experiments.leaderboard.overview_report import gain_table, write_overview
from recbole_posattn.experiments.leaderboard.public import json_report
from recbole_posattn.models import rivals
from tests.leaderboard.test_board import N_TARGETS, outcome
from tests.leaderboard.test_report import PROVENANCE


def leaderboard(folder: Path, dataset: str, highest: dict[str, int], seeds: int = 2) -> Path:
    """A leaderboard with records: models whose ranks are drawn from 1 to a number of each."""
    random = np.random.default_rng(len(dataset))
    (folder / "runs").mkdir(parents=True)
    outcomes = [
        outcome(folder / "runs", model, seed, random.integers(1, top + 1, N_TARGETS))
        for model, top in highest.items()
        for seed in range(1, seeds + 1)
    ]
    board = gather(outcomes, dataset, "temporal", next(iter(highest)))
    (folder / "leaderboard.json").write_text(json_report([board], PROVENANCE))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three leaderboards and a folder without one."""
    folder = tmp_path_factory.mktemp("results")
    leaderboard(folder / "a", "films", {"NoPESASRec": 12, "PosKernelSASRec": 6, "Pop": 300})
    leaderboard(folder / "b", "songs", {"NoPE": 12, "PosKernel": 12, "RoPE": 8}, seeds=1)
    leaderboard(folder / "c", "games", {"SASRec": 12, "PosKernel": 12})
    (folder / "tuning").mkdir()
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of the leaderboards for each test."""
    return shutil.copytree(made, tmp_path / "results")


def ndcg(folder: Path, model: str) -> float:
    """NDCG@10 of a model, from its ranks."""
    ranks = pd.concat([pd.read_parquet(file) for file in folder.glob(f"runs/{model}-*/users.parquet")])["rank"]
    return float(np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0.0 for rank in ranks]))


def test_a_board_whose_common_model_scores_0_is_left_out(results: Path) -> None:
    (results / "d" / "runs").mkdir(parents=True)
    outcomes = [
        outcome(results / "d" / "runs", model, seed, np.full(N_TARGETS, rank))
        for model, rank in (("NoPE", 50), ("RoPE", 2))
        for seed in (1, 2)
    ]
    board = gather(outcomes, "books", "temporal", "NoPE")
    (results / "d" / "leaderboard.json").write_text(json_report([board], PROVENANCE))
    boards, left_out = read_gains(leaderboard_folders([results]))
    assert [found.dataset for found in boards] == ["films", "songs"]
    assert left_out[-1] == f"{results / 'd'}: books, temporal: its row NoPE has the mean 0, so no gain has a percentage"


def test_gains_are_those_of_the_ranks(results: Path) -> None:
    folders = leaderboard_folders([results])
    assert folders == [results / name for name in "abc"] == leaderboard_folders([*folders, results, folders[0]])
    boards, left_out = read_gains(folders)
    assert left_out == [f"{results / 'c'}: games, temporal: it has no row NoPE, or no other one"]
    films, songs = boards
    base = ndcg(results / "a", "NoPESASRec")
    assert films.baseline == pytest.approx(base) and films.table["model"].tolist() == ["PosKernel", "Pop"]
    kernel, pop = (films.table.iloc[row] for row in (0, 1))
    mean = ndcg(results / "a", "PosKernelSASRec")
    assert kernel["mean"] == pytest.approx(mean) and kernel["share"] == pytest.approx(mean / base - 1)
    assert kernel["share_low"] < kernel["share"] < kernel["share_high"] and kernel["row"] == "PosKernelSASRec"
    assert (films.verdict(kernel), films.verdict(pop)) == ("better", "worse") and films.has_few_seeds(kernel)
    assert kernel["seeds"] == 2 and kernel["parameters"] == 100 and kernel["training_seconds"] == 3.0
    assert [songs.verdict(row) for _, row in songs.table.iterrows()] == ["", ""]  # one seed
    assert songs.findings and songs.n_users == N_TARGETS // 2
    assert model_order(boards)[-1] == "Pop"


def test_a_board_whose_metric_is_not_of_ranks_is_left_out(results: Path) -> None:
    for file in (results / "b").glob("runs/*/result.json"):
        content = json.loads(file.read_text())
        content["config"]["valid_metric"] = "ItemCoverage@10"
        file.write_text(json.dumps(content))
    boards, left_out = read_gains(leaderboard_folders([results]))
    assert [board.dataset for board in boards] == ["films"]
    assert f"{results / 'b'}: songs, temporal: its metric itemcoverage@10 is none of hit, recall, mrr, ndcg" in left_out


def test_a_board_older_than_its_records_is_left_out(results: Path) -> None:
    """Its sentences are of other figures than the table."""
    for seed in (1, 2):
        shutil.rmtree(results / "a" / "runs" / f"PosKernelSASRec-{seed}")
        outcome(results / "a" / "runs", "PosKernelSASRec", seed, np.full(N_TARGETS, 9))
    boards, left_out = read_gains(leaderboard_folders([results]))
    assert [board.dataset for board in boards] == ["songs"]
    assert any("films, temporal: its sentences are older than its records" in line for line in left_out)


def test_rows_have_a_common_name() -> None:
    names = [("PosKernelSASRec", "PosKernelSASRec"), ("kernel", "PosKernelSASRec"), ("SASRec", "SASRec"), ("Pop", None)]
    assert [common_name(*name) for name in names] == ["PosKernel", "kernel", "SASRec", "Pop"]
    published = [name for name in vars(rivals) if name.endswith("SASRec")]
    assert {"ESASRec", "TiSASRec"} <= {*published}
    assert [common_name(name, name) for name in published] == published


@pytest.mark.parametrize("reference", ["NoPE", "NoPESASRec"])
@pytest.mark.parametrize("kernel", ["PosKernel", "PosKernelSASRec"])
def test_both_names_of_a_model_are_the_same_row(results: Path, reference: str, kernel: str) -> None:
    for models in ((), (kernel,), (kernel, "NoPESASRec"), (kernel, "NoPE")):
        boards, _ = read_gains(leaderboard_folders([results]), reference, models)
        assert [board.dataset for board in boards] == ["films", "songs"]
        assert all("PosKernel" in board.table["model"].tolist() for board in boards)
    with pytest.raises(SettingError, match=f"{reference}' is the reference; name others"):
        read_gains(leaderboard_folders([results]), reference, ["NoPE", "NoPESASRec"])


def test_a_name_is_the_row_that_has_it_before_one_of_the_same_model(tmp_path: Path) -> None:
    tops = {"NoPE": 20, "NoPESASRec": 12, "PosKernelSASRec": 6, "PosKernel": 9}
    folder = leaderboard(tmp_path / "a", "films", tops)
    for reference in ("NoPE", "NoPESASRec"):
        (board,), _ = read_gains([folder], reference, ["PosKernelSASRec", "NoPE", "NoPESASRec"])
        assert board.baseline == pytest.approx(ndcg(folder, reference))
        assert set(board.table["row"]) == {"PosKernelSASRec", "NoPE", "NoPESASRec"} - {reference}


def test_boards_of_the_same_data_and_protocol_are_told_apart(results: Path, tmp_path: Path) -> None:
    leaderboard(results / "d", "films", {"NoPE": 12, "PosKernel": 3})
    leaderboard(tmp_path / "other" / "d", "films", {"NoPE": 12, "PosKernel": 3})
    folders = leaderboard_folders([results, tmp_path / "other"])
    boards, left_out = read_gains(folders)
    places = [board.place for board in boards]
    assert places == ["a", "", (results / "d").as_posix(), (tmp_path / "other" / "d").as_posix()]
    assert gain_table(boards[:2])[0] == ["model", "films, temporal (a)", "songs, temporal"]
    figure = draw_gains(boards, "NoPE")
    assert figure.axes[0].get_title().endswith("users\na")
    write_overview(boards, left_out, "NoPE", "command", tmp_path / "overview")
    assert pd.read_csv(tmp_path / "overview" / "overview.csv")["leaderboard"].tolist() == [
        *("a", "a", "b", "b"),
        *places[2:],
    ]


def test_if_no_leaderboard_can_be_read_the_reason_is_given(results: Path) -> None:
    for name in "ab":
        next((results / name).glob("runs/NoPE*-1/users.parquet")).unlink()
    with pytest.raises(
        DataError, match=r"has the row NoPE, and .*a: .*users.parquet is missing.*\(1 more cannot be read"
    ):
        read_gains(leaderboard_folders([results]))


@pytest.mark.parametrize(
    "content", ["null", '{"config": null}', "[]", '{"config": {}}', '{"config": 3}', '{"curve": [3]}']
)
def test_a_record_with_other_content_is_a_damaged_one(results: Path, content: str) -> None:
    next((results / "a").glob("runs/NoPE*-1/result.json")).write_text(content)
    with pytest.raises(DataError, match="a record of films, temporal cannot be read"):
        read_gains([results / "a"])


def test_two_rows_of_one_board_do_not_share_a_name(tmp_path: Path) -> None:
    folder = leaderboard(tmp_path / "a", "films", {"NoPESASRec": 12, "PosKernelSASRec": 6, "PosKernel": 9})
    (board,), _ = read_gains([folder])
    assert sorted(board.table["model"]) == ["PosKernel", "PosKernelSASRec"]


def test_a_leaderboard_without_its_records_is_left_out(results: Path) -> None:
    missing = results / "b" / "runs" / "RoPE-1" / "users.parquet"
    missing.unlink()
    boards, left_out = read_gains(leaderboard_folders([results]))
    assert [board.dataset for board in boards] == ["films"]
    assert any(line.startswith(f"{results / 'b'}: {missing} is missing, the record of RoPE") for line in left_out)
    with pytest.raises(DataError, match="is missing, the record of RoPE"):
        read_gains([results / "b"])


def test_another_reference_and_chosen_models(results: Path) -> None:
    boards, left_out = read_gains(leaderboard_folders([results]), "PosKernel", ["NoPE", "SASRec"])
    assert [board.table["model"].tolist() for board in boards] == [["NoPE"], ["NoPE"], ["SASRec"]] and not left_out
    with_reference, _ = read_gains(leaderboard_folders([results]), "PosKernel", ["PosKernel", "NoPE", "SASRec"])
    assert all(board.table.equals(other.table) for board, other in zip(boards, with_reference, strict=True))
    with pytest.raises(
        SettingError, match="models: 'NoPE' is the reference; name others to compare with it, of Pop, P"
    ):
        read_gains([results / "a"], models=["NoPE"])
    chosen, _ = read_gains([results / "a"], models=["Pop"])
    every, _ = read_gains([results / "a"])
    assert chosen[0].table["p"].tolist() == every[0].table["p"].tolist()[1:]  # corrected for all rows, shown or not
    with pytest.raises(
        SettingError, match="no leaderboard has the row CAPE and another row; name a row with --reference=NAME"
    ):
        read_gains([results / "a"], "CAPE")
    with pytest.raises(SettingError, match="models: 'Popp' is in no leaderboard with NoPE; there are NoPE, Pop"):
        read_gains([results / "a"], models=["Popp"])
    with pytest.raises(SettingError, match=r"no leaderboard\.json in .*nowhere or the folders in it"):
        leaderboard_folders([results, results / "nowhere"])
    assert leaderboard_folders([results / "a", results / "b" / ".." / "a"]) == [results / "a"]
    (results / "a" / "runs" / "Pop-1" / "users.parquet").write_text("{")
    with pytest.raises(DataError, match="a record of films, temporal cannot be read"):
        read_gains([results / "a"])
    boards, left_out = read_gains(leaderboard_folders([results]))
    assert boards and results / "a" not in {board.folder for board in boards}
    assert [line for line in left_out if "a record of films, temporal cannot be read" in line]


def test_a_row_with_a_comma_in_its_name_is_named_in_quotes(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["overview", str(results / "a"), f"--output={tmp_path / 'out'}"]
    assert cli.main([*command, '--models="Pop, popular", PosKernel']) == 2
    assert "models: 'Pop, popular' is in no leaderboard" in capsys.readouterr().err
    assert cli.main([*command, '--models="Pop", PosKernel']) == 0


def test_the_figure_has_each_gain_and_its_kind(results: Path) -> None:
    boards, _ = read_gains(leaderboard_folders([results]))
    figure = draw_gains(boards, "NoPE")
    films, songs = figure.axes
    order = model_order(boards)
    assert [label.get_text() for label in films.get_yticklabels()] == order
    points = {int(line.get_ydata()[0]): line for line in films.lines if line.get_marker() in ("o", "s")}
    kernel = points[order.index("PosKernel")]
    assert kernel.get_xdata()[0] == pytest.approx(100 * boards[0].table.iloc[0]["share"])
    assert kernel.get_marker() == "o" and kernel.get_markerfacecolor() == "white"  # tested, of few seeds
    assert {line.get_marker() for line in songs.lines if line.get_marker() != "None"} == {"s"}  # of one seed
    assert films.get_xscale() == "symlog"  # Pop is far below


@pytest.mark.slow
def test_the_files_are_the_same_each_time_and_open_in_a_browser(results: Path, tmp_path: Path, browser: Any) -> None:
    command = ["overview", str(results), f"--output={results}"]
    assert cli.main(command) == 0
    names = ["overview.md", "overview.html", "overview.csv", "overview.png"]
    before = {name: (results / name).read_bytes() for name in names}
    assert cli.main(command) == 0 and {name: (results / name).read_bytes() for name in names} == before
    text = (results / "overview.md").read_text(encoding="utf-8")
    assert "| model | films, temporal | songs, temporal |" in text and "## [films, temporal](a/leaderboard.md)" in text
    assert "games, temporal: it has no row NoPE" in text
    table = pd.read_csv(results / "overview.csv")
    assert table[["dataset", "model"]].to_numpy().tolist()[:2] == [["films", "PosKernel"], ["films", "Pop"]]
    for width in (1280, 400):
        browser.set_window_size(width, 900)
        browser.get((results / "overview.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    links = [link.get_attribute("href") for link in browser.find_elements("css selector", "#boards a")]
    assert links == [(results / name / "leaderboard.html").as_uri() for name in "ab"]
    assert browser.get_log("browser") == []


def test_a_link_leads_to_a_folder_of_any_name(results: Path, tmp_path: Path) -> None:
    folder = (results / "a").rename(results / "a (new) 50%")
    boards, left_out = read_gains(leaderboard_folders([results]))
    write_overview(boards, left_out, "NoPE", "recbole-posattn overview", tmp_path / "out")
    text = (tmp_path / "out" / "overview.md").read_text(encoding="utf-8")
    (link,) = re.findall(r"^## \[films, temporal\]\((\S+)/leaderboard\.md\)$", text, re.MULTILINE)
    assert (tmp_path / "out" / unquote(link)).samefile(folder)


def test_the_table_has_a_dash_where_a_model_is_missing(results: Path, tmp_path: Path) -> None:
    boards, left_out = read_gains(leaderboard_folders([results]))
    file, *_ = write_overview(boards, left_out, "NoPE", "recbole-posattn overview", tmp_path / "out")
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in file.read_text().splitlines()}
    assert rows["RoPE"][0] == "–" and rows["Pop"][1] == "– |" and rows["Pop"][0].endswith("▽")
    assert rows["PosKernel"][0].startswith("**+") and rows["PosKernel"][0].endswith("%** △")
    assert "](../results/a/leaderboard.md)" in file.read_text()


def test_a_gain_that_rounds_to_0_has_no_minus(results: Path) -> None:
    board, *_ = read_gains(leaderboard_folders([results]))[0]
    board.table["share"] = [-0.0004, *[-0.0006] * (len(board.table) - 1)]
    _, rows = gain_table([board])
    assert {row[0].text: row[1].text for row in rows}[board.table["model"][0]] == "+0.0 %"
    assert [row[1].text for row in rows].count("−0.1 %") == len(board.table) - 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nowhere"], "no leaderboard.json in nowhere or the folders in it; a leaderboard writes it"),
        ([], "no leaderboard.json in results or the folders in it"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(given: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["overview", *given]) == cli.EXIT_USER_ERROR
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1

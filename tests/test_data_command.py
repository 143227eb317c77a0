"""``recbole-posattn data convert`` and ``data stats`` at the command line, and what docs/data.md says of them."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from recbole_posattn.atomic_files.convert.formats import FORMATS
from recbole_posattn.cli import data
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import DataError, SettingError
from tests.planted import write_atomic_file

DOCS = Path(__file__).parent.parent / "docs"


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="recbole-posattn data")
    data.add_arguments(parser)
    return data.execute(parser.parse_args(arguments))


def test_convert_says_what_it_did(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    lines = [f"{u}::{i}::{1 + (u + i) % 5}::{874724710 + 3600 * i}" for u in range(4) for i in range(6)]
    lines += ["1::2::x::3", "1::2", "1::2::3::4::5"]
    Path("ratings.dat").write_text("\n".join(lines))
    arguments = [
        "--name=mine",
        "--format=ml-1m",
        "--min_rating=2",
        "--deduplicate=last",
        "--min_item_interactions=3",
        "--on_error=skip",
    ]
    assert call("convert", "ratings.dat", *arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "ratings.dat: 24 interactions (ml-1m)",
        "skipped: 1 where rating is not a number (25)",
        "skipped: 1 where the number of fields is 2, not 4 (26)",
        "skipped: 1 where the number of fields is 5, not 4 (27)",
        "rating of 2 or more: 19 interactions",
        "without repetitions (last): 19 interactions",
        "1 a user, 3 an item or more (0 rounds): 19 interactions",
        "data set: 4 users, 6 items, 19 interactions",
        "times: 1997-09-20 to 1997-09-20, 0 days",
        "written: dataset/mine/mine.inter",
        "written: dataset/mine/mine.rejected.tsv",
    ]
    assert printed.err == ""
    with pytest.raises(SettingError, match="exists; give another --dataset"):
        call("convert", "ratings.dat", *arguments)
    with pytest.raises(DataError, match=r"ratings.dat has 3 bad lines, line 25: rating is not a number: '1::2::x::3'"):
        call("convert", "ratings.dat", *arguments[:-1], "--overwrite")


def test_a_table_of_ones_own_is_described_by_flags(empty_folder: Path) -> None:
    Path("log.txt").write_bytes("é\tx\t02.01.1970\tna\n".encode("latin-1"))
    columns = ["--user=who", "--item=what", "--time=when", "--fields=who, what,when,note", "--separator=\\t"]
    assert call("convert", "log.txt", "--name=mine", *columns, "--time_format=%d.%m.%Y", "--encoding=latin-1") == 0
    assert Path("dataset/mine/mine.inter").read_text(encoding="utf-8").split("\n")[1] == "é\tx\t86400"


def test_stats_prints_figures_and_draws_them(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [("a", "x", 1e9), ("a", "x", 1.1e9), ("a", "x", 1.05e9), ("b", "y" * 60, 1e9), ("", "x", 1)]
    write_atomic_file(empty_folder / "own", "mine", rows)
    assert call("stats", "mine", "--data_path=own", "--output=out") == 0
    printed = capsys.readouterr().out
    for row in (
        r"users +2",
        r"interactions +4",
        r"without user or item +1",
        r"density +100\. %",
        r"repeat rate +50.0 %",
        r"repeated after +1 \(median\)",
        r"suggested by the repeat rate: --mask_history=none --history_partition=auto",
        r"time span +2001-09-09 to 2004-11-09, 1,157 days",
        r"a user +1 +1.1 +1.5 +2 +2.5 +2.9 +3 +2",
        r"of the interactions +75.0 %",
        r"x +3",
        r"y+… +1",
    ):
        assert re.search(f"^{row}", printed, re.MULTILINE), row
    assert printed.endswith("written: out/mine-stats.png\n")
    assert call("stats", "mine", "--data_path=own", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["interactions"] == 4 and figures["picture"] == "mine-stats.png"
    assert Path("mine-stats.png").is_file()


def test_stats_say_who_needs_a_column(empty_folder: Path) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", [("a", 1)], "user_id:token\ttimestamp:float")
    with pytest.raises(DataError, match="has no column 'item_id', which a data set needs"):
        call("stats", "mine")


def test_stats_read_with_the_settings_that_errors_advise(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    file = write_atomic_file(empty_folder / "dataset", "mine", [])
    file.write_bytes("wer:token;what:token;when:float;n:float\né;x;5;\né;y;9;\nb;y;7;\n".encode("latin-1"))
    stats = ["data", "stats", "mine"]
    assert cli.main(stats) == 2
    assert "its columns look separated by semicolon (key field_separator)" in capsys.readouterr().err
    stats.append("--field_separator=;")
    assert cli.main(stats) == 2
    assert "name the right column with USER_ID_FIELD, ITEM_ID_FIELD or TIME_FIELD" in capsys.readouterr().err
    columns = ["--USER_ID_FIELD=wer", "--ITEM_ID_FIELD=what", "--TIME_FIELD=when"]
    stats += [*columns, "--load_col={inter: [wer, what, when, n]}"]
    assert cli.main(stats) == 2
    assert "give the encoding of the file with --encoding" in capsys.readouterr().err
    assert cli.main([*stats, "--encoding=latin-1", "--unload_col={inter: [n]}", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["users"], figures["items"], figures["interactions"]) == (2, 2, 3)
    assert (figures["first"], figures["last"], figures["top_items"]) == (5, 9, [["y", 2], ["x", 1]])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--USER_ID_FEILD=who", "unrecognized arguments: --USER_ID_FEILD=who. Did you mean '--USER_ID_FIELD'?"),
        ("--epochs=3", "unrecognized arguments: --epochs=3."),
        ("--encoding=utf-9", "encoding must be an encoding such as utf-8, latin-1 or utf-16"),
        ("--load_col=x", "load_col must be a mapping of"),
    ],
)
def test_stats_refuse_other_settings(
    empty_folder: Path, argument: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", [("a", "x", 1)])
    try:
        code = cli.main(["data", "stats", "mine", argument])
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1
    assert not list(empty_folder.glob("*.png"))


def test_docs_have_every_format_and_the_figures_of_ml_100k(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w-]+)` \|.*\]\((https://\S+)\) \|$", text, re.MULTILINE))
    assert listed == {name: known.documented for name, known in FORMATS.items()}
    assert call("stats", "ml-100k") == 0
    figures, _, _ = capsys.readouterr().out.partition("\nwritten: ")
    assert f"```\n{figures}\n```" in text

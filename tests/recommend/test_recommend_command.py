"""``recommend`` as a user meets it: files in and out, messages, and refusals in one line."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from recbole_posattn import run
from recbole_posattn.cli import main as cli
from recbole_posattn.cli import recommend
from recbole_posattn.errors import DataError, UserError
from recbole_posattn.serving import recommender as recommender_module
from recbole_posattn.serving.lists import SCHEMA
from recbole_posattn.serving.new_histories import new_histories
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.serving.tables import SUFFIXES, check_output, read_table, read_tokens, without_formulas, writing

LEFT_OUT = "recbole-posattn: items of a user's own history are left out; --history=include keeps them"
NAMES = {"user": "user_id", "item": "item_id", "time": "timestamp"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_settings: Callable) -> str:
    settings = tiny_settings(checkpoint_dir=str(tmp_path_factory.mktemp("saved")), epochs=1)
    return run("NoPESASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]


def call(*arguments: str) -> int:
    """The command on its own parser, and errors as the command line shows them."""
    parser = argparse.ArgumentParser()
    recommend.add_arguments(parser)
    return cli._guarded(lambda: recommend.execute(parser.parse_args(arguments)))


READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
    ".jsonl": lambda file: pd.read_json(file, lines=True),
}


@pytest.mark.parametrize("suffix", READERS)
def test_writes_what_python_gives(
    checkpoint: str, suffix: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    monkeypatch.setattr(recommender_module, "REQUESTS_PER_BLOCK", 25)
    output = f"out/lists{suffix}"
    assert call(checkpoint, "--k", "4", "--history", "exclude", "--output", output) == 0
    out, err = capsys.readouterr()
    expected = Recommender.load(checkpoint).recommend_users(k=4, exclude_history=True)
    assert (out, err) == (f"written: {output} ({len(expected)} rows, 60 lists)\n", "")
    assert [path.name for path in (empty_folder / "out").iterdir()] == [f"lists{suffix}"]
    pd.testing.assert_frame_equal(READERS[suffix](output), expected, check_dtype=False, rtol=1e-6)


def test_standard_output_is_csv_and_nothing_else(checkpoint: str, capsysbinary: pytest.CaptureFixture) -> None:
    Path("users.txt").write_text("u7\n\nu3\nnobody\n")
    assert call(checkpoint, "--k", "2", "--users", "users.txt", "--output", "-") == 0
    out, err = capsysbinary.readouterr()
    table = pd.read_csv(io.BytesIO(out))
    assert list(table) == SCHEMA.names and table["user"].tolist() == ["u7", "u7", "u3", "u3"]
    assert err.decode().splitlines() == ["recbole-posattn: 1 of 3 users are not in the data, skipped: nobody", LEFT_OUT]


def test_a_model_that_has_not_learned_to_rank_the_history_says_so(
    tiny_settings: Callable, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    for masks, lines in ((True, ["recbole-posattn: this model was trained with train_mask_history"]), (False, [])):
        settings = tiny_settings(epochs=1, mask_history="all", train_mask_history=masks)
        checkpoint = run("NoPESASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]
        capsys.readouterr()
        assert call(checkpoint, "--history=include", f"--output={masks}.csv") == 0
        assert [line.split(", so")[0] for line in capsys.readouterr().err.splitlines()] == lines


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("names", [("user", "item", "time"), ("user_id", "item_id", "timestamp")])
def test_reads_histories_in_every_format(
    checkpoint: str, suffix: str, names: tuple[str, str, str], capsys: pytest.CaptureFixture
) -> None:
    """Under either name of a column; tokens are text even where they look like numbers."""
    table = pd.DataFrame([("007", "i3", 2.0), ("b", "i5", 0.0), ("007", "i4", 1.0), ("007", "42", 3.0)], columns=names)
    file = Path(f"histories{suffix}")
    if suffix == ".csv":
        table.to_csv(file, index=False)
    elif suffix == ".parquet":
        table.to_parquet(file)
    else:
        table.to_json(file, orient="records", lines=True)
    items = Path("items.csv")
    items.write_text(f"{names[1]},note\ni1,\ni2,x\ni3,\n")
    assert call(checkpoint, "--histories", str(file), "--exclude", "items.csv", "--k=3", "--output=lists.csv") == 0
    assert capsys.readouterr().err.splitlines() == [
        "recbole-posattn: 1 of 4 interactions have an item that the model does not know, skipped: 42",
        LEFT_OUT,
    ]
    options = {"k": 3, "exclude": ["i1", "i2", "i3"]}
    expected = Recommender.load(checkpoint).recommend({"007": ["i4", "i3"], "b": ["i5"]}, **options)
    found = pd.read_csv("lists.csv", dtype={"user": str})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


def test_split_and_restriction_reach_the_model(checkpoint: str) -> None:
    Path("items.txt").write_text("i4\ni9\n")
    assert call(checkpoint, "--split", "valid", "--restrict_to", "items.txt", "--output", "lists.parquet") == 0
    expected = Recommender.load(checkpoint).recommend_users(split="valid", restrict_to=["i4", "i9"])
    pd.testing.assert_frame_equal(pd.read_parquet("lists.parquet"), expected, check_dtype=False)
    assert set(expected["item"]) == {"i4", "i9"}


def test_goes_beside_the_checkpoint_and_overwrites_when_told(
    checkpoint: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    file = Path(checkpoint).with_name("recommendations.csv")
    assert call(checkpoint, "--k", "1") == 0 and len(pd.read_csv(file)) == 60
    capsys.readouterr()
    assert call(checkpoint, "--k", "2") == 2 and len(pd.read_csv(file)) == 60
    assert capsys.readouterr().err == (
        f"recbole-posattn: {file} already exists; give another --output, or --overwrite.\n"
    )
    assert call(checkpoint, "--k", "2", "--overwrite") == 0 and len(pd.read_csv(file)) == 120
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k=0"], "k must be an integer from 1 to 20, the number of items; got 0."),
        (["--k=21"], "k must be an integer from 1 to 20, the number of items; got 21."),
        (["--output=lists.txt"], "output must be a file of .csv, .parquet, .jsonl, or - for standard output; got"),
        (["--users=missing.csv"], "missing.csv cannot be read: "),
        (["--users=missing.txt"], "missing.txt cannot be read: No such file or directory"),
        (["--users=empty.csv"], "empty.csv cannot be read: Empty CSV file"),
        (["--users=empty.txt"], "empty.txt holds no user"),
        (
            ["--users=strange.csv"],
            "strange.csv has no column 'user' or 'user_id'; it has name. For a list without header",
        ),
        (["--users=strangers.txt"], "1 of 1 users are not in the data, skipped: name"),
        (["--restrict_to=strangers.txt"], "restrict_to and exclude leave no item"),
        (["--histories=strange.csv"], "histories have no column 'user'; they have name"),
        (["--histories=strangers.txt"], "strangers.txt: the file must be one of .csv, .parquet, .jsonl"),
        (["--histories=text.parquet"], "text.parquet cannot be read: "),
        (["--histories=text.jsonl"], "text.jsonl cannot be read: "),
        (["--histories=lists.jsonl"], "histories: column 'item' must hold strings or numbers; got"),
        (["--histories=known.csv", "--split=test"], "split is for users of the data set"),
        (["--histories=header.csv"], "no history has an item that the model knows"),
    ],
    ids=str,
)
def test_bad_input_ends_in_one_line_and_code_2(
    checkpoint: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    files = {"empty.csv": "", "empty.txt": "\n", "strange.csv": "name\nx\n", "strangers.txt": "name\n"}
    files |= {
        "lists.jsonl": '{"user": "a", "item": ["i1", "i2"]}\n',
        "text.parquet": "text",
        "text.jsonl": "text",
        "known.csv": "user,item\na,i1\n",
        "header.csv": "user,item,time\n",
    }
    for name, content in files.items():
        Path(name).write_text(content)
    assert call(checkpoint, "--output=lists.csv", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err.splitlines()[-1]
    assert all(line.startswith("recbole-posattn: ") for line in err.splitlines())
    assert {path.name for path in empty_folder.iterdir()} == set(files)


def test_an_error_in_the_middle_leaves_nothing(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    """Of a file that is there, what was there before."""
    Path("lists.jsonl").write_text("before")
    monkeypatch.setattr(recommender_module, "REQUESTS_PER_BLOCK", 25)
    whole, seen = recommender_module.best_items, []

    def interrupted(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(list(empty_folder.glob("*.incomplete"))))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(scores, k)

    monkeypatch.setattr(recommender_module, "best_items", interrupted)
    assert call(checkpoint, "--output=lists.jsonl", "--overwrite") == 130
    assert seen == [1, 1]
    assert [path.name for path in empty_folder.iterdir()] == ["lists.jsonl"]
    assert Path("lists.jsonl").read_text() == "before"


# -- files by themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", READERS)
def test_tables_come_back_as_they_were_written(suffix: str) -> None:
    """Awkward tokens and scores; no rows at all."""
    tokens = ['a"b', "c,d", "e\nf", "ü", "007"]
    table = pa.table(
        {"user": tokens, "rank": [1, 2, 3, 4, 5], "item": tokens[::-1], "score": [0.1, -1e-7, 3e8, 1 / 3, -0.0]}, SCHEMA
    )
    for rows in (table, table.slice(0, 0)):
        with writing(f"lists{suffix}", SCHEMA) as write:
            for part in (rows.slice(0, 2), rows.slice(2)):
                write(part)
        if suffix == ".jsonl":
            found = pd.DataFrame([json.loads(line) for line in Path("lists.jsonl").read_text().splitlines()])
            found = found if len(rows) else rows.to_pandas()
        else:
            found = read_table(Path(f"lists{suffix}"), NAMES)
        expected = rows.to_pandas()
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6, atol=1e-14)
        assert Path(f"lists{suffix}").stat().st_size > 0 or (suffix == ".jsonl" and not len(rows))


def test_tokens_are_read_from_columns_and_lines() -> None:
    Path("items.csv").write_text("item\n1\n02\n\n")
    assert read_tokens(Path("items.csv"), "item", "item_id") == ["1", "02"]
    pyarrow.parquet.write_table(pa.table({"item_id": [1, 2]}), "items.parquet")
    assert read_tokens(Path("items.parquet"), "item", "item_id") == ["1", "2"]
    Path("items.list").write_text(" 1 \n\n02\n")
    assert read_tokens(Path("items.list"), "item", "item_id") == ["1", "02"]
    Path("items.list").write_bytes("\ufeff1\r\na\u2028b\r\n".encode())
    assert read_tokens(Path("items.list"), "item", "item_id") == ["1", "a\u2028b"]
    Path("items.jsonl").write_text('{"item": 5}\n{"item": null}\n{"item": 7}\n')
    assert read_tokens(Path("items.jsonl"), "item", "item_id") == ["5", "7"]
    Path("items.jsonl").write_text('{"item": "2020-01-01"}\n{"item": "2020-01-01T10:00:00"}\n')
    assert read_tokens(Path("items.jsonl"), "item", "item_id") == ["2020-01-01", "2020-01-01T10:00:00"]


def test_a_number_that_is_no_token_is_named_as_it_was_given() -> None:
    Path("users.jsonl").write_text('{"user": 1}\n{"user": 2.5}\n')
    with pytest.raises(DataError, match=r"users\.jsonl: column 'user' must hold strings or whole numbers; got 1\.0$"):
        read_tokens(Path("users.jsonl"), "user", "user_id")


def test_tokens_in_json_that_look_like_dates_are_tokens() -> None:
    Path("given.jsonl").write_text('{"user": "2020-01-01", "item": "a", "time": "2020-01-02"}\n')
    requests = new_histories(read_table(Path("given.jsonl"), {}), {"[PAD]": 0, "a": 1}, "TiSASRec")
    assert requests.user.tolist() == ["2020-01-01"] and requests.histories.time.tolist() == [1577923200.0]


@pytest.mark.parametrize("kind", [object, "category"])
def test_numbers_in_columns_of_other_types_are_tokens_and_times(kind: object) -> None:
    table = pd.DataFrame({"user": [1, 1, 2], "item": [7, 8, 7], "time": [2, 1, 3]}).astype(kind)
    requests = new_histories(table, {"[PAD]": 0, "7": 1, "8": 2})
    assert requests.user.tolist() == ["1", "2"] and requests.histories.item.tolist() == [2, 1, 1]


def test_a_column_that_stands_twice_is_refused() -> None:
    table = pd.DataFrame([["a", "b", "x"]], columns=["user", "user", "item"])
    with pytest.raises(DataError, match="histories have the column 'user' more than once"):
        new_histories(table, {"[PAD]": 0, "x": 1})


DAYS = ["2020-01-03", "2020-01-01", "2020-01-02"]


@pytest.mark.parametrize(
    "time",
    [
        pa.array(DAYS).cast(pa.date32()),
        pa.array(DAYS).cast(pa.date64()),
        pa.array(DAYS).cast(pa.timestamp("s")),
        pa.array(DAYS).cast(pa.timestamp("ns")).cast(pa.timestamp("ns", tz="Asia/Tokyo")),
        pa.array(["9999-12-31", "0001-01-01", "2020-01-02"]).cast(pa.date32()),
    ],
    ids=lambda time: f"{time.type}{time[0]}",
)
def test_days_are_times_in_any_format(time: pa.Array) -> None:
    table = pa.table({"user": ["u"] * 3, "item": ["c", "a", "b"], "time": time})
    pa.csv.write_csv(table, "given.csv")
    pyarrow.parquet.write_table(table, "given.parquet")
    lines = [json.dumps({key: str(value) for key, value in row.items()}) for row in table.to_pylist()]
    Path("given.jsonl").write_text("\n".join(lines))
    known = {token: number for number, token in enumerate(["[PAD]", "a", "b", "c"])}
    of_python = pd.DataFrame(table.to_pydict(), dtype=object)
    seconds = (np.sort(np.array(time.cast(pa.timestamp("us")).cast(pa.int64()))) / 1e6).tolist()
    for given in (*(read_table(Path(f"given{suffix}"), {}) for suffix in SUFFIXES), of_python):
        assert new_histories(given, known).histories.item.tolist() == [1, 2, 3]
        assert new_histories(given, known, "TiSASRec").histories.time.tolist() == seconds


def test_texts_that_are_formulas_are_escaped_where_asked(
    checkpoint: str, empty_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    users = ["=1+1", "+1", "-1", "@a", "\tx", "\rx", "a=1", "'=1", "", "é", "a\n=1"]
    table = pa.table(
        {"user": users, "rank": [1] * len(users), "item": users[::-1], "score": [-1.5] * len(users)}, SCHEMA
    )
    escaped = without_formulas(table)
    expected = ["'=1+1", "'+1", "'-1", "'@a", "'\tx", "'\rx", *users[6:]]
    assert escaped.schema == SCHEMA and escaped["score"].equals(table["score"])
    assert escaped["user"].to_pylist() == expected and escaped["item"].to_pylist() == expected[::-1]
    Path("given.csv").write_text("user,item\n=cmd,i1\n")
    for flags, user in ((["--escape_formulas"], "'=cmd"), ([], "=cmd")):
        assert call(checkpoint, "--histories=given.csv", "--k=1", "--output=lists.csv", "--overwrite", *flags) == 0
        assert pd.read_csv("lists.csv")["user"].tolist() == [user]
    assert call(checkpoint, "--output=lists.parquet", "--escape_formulas") == 2
    assert "escape_formulas is for CSV, which spreadsheets read" in capsys.readouterr().err


def test_what_cannot_be_written_is_told(empty_folder: Path) -> None:
    check_output("-", overwrite=False)
    Path("file").write_text("")
    with (
        pytest.raises(UserError, match=re.escape("file/lists.csv cannot be written: ")),
        writing("file/lists.csv", SCHEMA),
    ):
        pass


def test_a_reader_that_has_enough_is_no_error(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As ``head`` closes the pipe; later writes, such as the interpreter's last flush, are no errors either."""
    reading, writing_end = os.pipe()
    os.close(reading)
    with open(writing_end, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert call(checkpoint, "--k=20", "--history=include", "--output=-") == 0
        pipe.write("more")
    assert capsys.readouterr().err == ""


def test_new_interactions_follow_those_of_the_data_set(checkpoint: str, capsys: pytest.CaptureFixture) -> None:
    Path("new.csv").write_text("user_id,item_id\nu7,i3\nu7,i5\n")
    Path("users.txt").write_text("u7\nu3\n")
    assert call(checkpoint, "--users", "users.txt", "--new_interactions", "new.csv", "--output", "lists.csv") == 0
    recommender = Recommender.load(checkpoint)
    recommender.add_interactions({"u7": ["i3", "i5"]})
    expected = recommender.recommend_users(["u7", "u3"])
    pd.testing.assert_frame_equal(pd.read_csv("lists.csv"), expected, check_dtype=False, rtol=1e-6)
    capsys.readouterr()
    for other, name in ((("--split", "test"), "split test"), (("--histories", "new.csv"), "histories")):
        assert call(checkpoint, "--new_interactions", "new.csv", *other) == 2
        assert f"leave it out, or {name}." in capsys.readouterr().err


# -- what is left out, and titles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--history=exclude"], ["--history=include"], ["--history=keep"]], ids=str)
def test_what_is_in_a_history_is_left_out_unless_asked_for(
    checkpoint: str, flags: list[str], capsys: pytest.CaptureFixture
) -> None:
    """Of new users and of known ones; ``keep`` is the old name of ``include``. Only the default is explained."""
    Path("new.csv").write_text("user,item\nanna,i1\nanna,i2\nanna,i1\n")
    Path("users.txt").write_text("u3\n")
    kept = flags[:1] in (["--history=include"], ["--history=keep"])
    for whom in ("--histories=new.csv", "--users=users.txt"):
        assert call(checkpoint, whom, "--k=20", "--output=lists.csv", "--overwrite", *flags) == 0
        recommended = set(pd.read_csv("lists.csv")["item"])
        assert (len(recommended) == 20) == kept
        assert kept or whom.startswith("--users") or not {"i1", "i2"} & recommended
        assert capsys.readouterr().err == ("" if flags else f"{LEFT_OUT}\n")


def test_lists_of_a_split_are_those_of_the_evaluation(checkpoint: str, capsys: pytest.CaptureFixture) -> None:
    """Which keeps the history where ``mask_history`` is not set, and then nothing is left out to speak of."""
    assert call(checkpoint, "--split=test", "--k=20", "--output=lists.csv") == 0
    assert capsys.readouterr().err == "" and len(pd.read_csv("lists.csv")) == 60 * 20


@pytest.fixture
def titled(checkpoint: str, tiny_data_path: Path) -> Iterator[Path]:
    """The file of items of the model's data set, to be written."""
    file = tiny_data_path / "tiny" / "tiny.item"
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("suffix", READERS)
def test_titles_are_a_column_of_their_own(checkpoint: str, titled: Path, suffix: str) -> None:
    """Items without a title, and items that the data set does not have, do no harm."""
    titles = {f"i{number}": f'Title "{number}", of {number}' for number in range(1, 20)}
    lines = ["item_id:token\tyear:token\ttitle:token", "i0\t1999\t", "strange\t1999\tno"]
    titled.write_text("\n".join([*lines, *(f"{item}\t2000\t{title}" for item, title in titles.items()), ""]))
    output = f"lists{suffix}"
    assert call(checkpoint, "--titles", "--k=20", "--history=include", "--output", output) == 0
    found = READERS[suffix](output)
    assert list(found) == ["user", "rank", "item", "title", "score"] and len(found) == 60 * 20
    assert found["title"].isna().sum() == 60 and set(found.loc[found["title"].isna(), "item"]) == {"i0"}
    named = found.dropna(subset="title")
    assert named["title"].tolist() == named["item"].map(titles).tolist()
    in_python = Recommender.load(checkpoint).recommend({"anna": ["i3"]}, 4, exclude=["i0"], titles=True)
    assert in_python["title"].tolist() == in_python["item"].map(titles).tolist()


def test_titles_of_recboles_own_data_sets_have_other_names(checkpoint: str, titled: Path) -> None:
    rows = [f"i{number}\tFilm {number}\tLabel {number}" for number in range(20)]
    titled.write_text("\n".join(["item_id:token\tmovie_title:token_seq\tlabel:token", *rows, ""]))
    recommender = Recommender.load(checkpoint)
    for titles, word in ((True, "Film"), ("label", "Label"), ("movie_title", "Film")):
        found = recommender.recommend_users(["u1"], 5, titles=titles)
        assert found["title"].tolist() == found["item"].str.replace("i", f"{word} ").tolist()


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (
            None,
            ["--titles"],
            "there are no titles: {file} does not exist; it is a file of the columns item_id:token and",
        ),
        ("item_id:token\tgenre:token\ni1\tx\n", ["--titles"], "{file} has no column of titles, such as title; it has"),
        ("item_id:token\ttitle:token\ni1\tx\n", ["--title_field=titel"], "no column 'titel'; it has item_id, title."),
        ("item_id:token\ttitle:token\ni1\tx\n", ["--title_field=titel"], "Did you mean 'title'?"),
        (
            "item_id:token\titem_id:float\ttitle:token\ni1\t2\tx\n",
            ["--titles"],
            "{file} has two columns of one name: item_id:token, item_id:float, title:token",
        ),
        ("item:token\ttitle:token\ni1\tx\n", ["--titles"], "{file} has no column 'item_id'; it has item, title"),
        ("", ["--titles"], "{file} cannot be read: "),
        ("item_id:token\ttitle:token\ni2\ttw\0o\n", ["--titles"], "{file} line 2 has a NUL byte"),
        (
            'item_id:token\ttitle:token\ni1\t"a\ni2\tb\ni3\tc"\n',
            ["--titles"],
            "{file}: a quoted field goes on over several lines: 'a\\ni2\\tb\\ni3\\tc'; close the quote",
        ),
    ],
    ids=str,
)
def test_titles_that_are_not_there_end_in_one_line(
    checkpoint: str, titled: Path, content: str | None, flags: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    recommender = Recommender.load(checkpoint)  # which does not read the file
    if content is not None:
        titled.write_text(content)
    with pytest.raises(DataError, match=re.escape(message.format(file=titled))):
        recommender.recommend_users(titles=flags[0].partition("=")[2] or True)
    if content:
        assert call(checkpoint, *flags, "--output=lists.csv") == 2 and not Path("lists.csv").exists()
        assert message.format(file=titled) in capsys.readouterr().err.splitlines()[-1]


def test_the_folder_of_a_run_stands_for_its_best_epoch(
    checkpoint: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    folder = Path(checkpoint).parent
    assert call(str(folder), "--users=users.txt", "--output=lists.csv") == 2  # of the file that is not there
    assert "users.txt cannot be read" in capsys.readouterr().err
    assert call(str(folder), "--k=3", "--output=lists.csv") == 0
    expected = Recommender.load(folder).recommend_users(k=3)
    pd.testing.assert_frame_equal(pd.read_csv("lists.csv"), expected, check_dtype=False, rtol=1e-6)
    capsys.readouterr()
    assert call(str(folder.parent), "--output=x.csv") == 2
    error = capsys.readouterr().err
    assert (
        f"{folder.parent} is not the folder of a run with a trained model: it has no best.pth; name one of its runs, "
        in error
    )
    assert str(folder) in error and error.count("\n") == 1

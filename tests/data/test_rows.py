"""Rows that RecBole would fill in, drop or misread silently are reported by line and column."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.atomic_files.rows import SEPARATOR_NAMES
from recbole_posattn.data import blocks
from recbole_posattn.errors import DataError
from recbole_posattn.training.load import prepare_data

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
GOOD = "u1\ti1\t1\nu1\ti2\t2\nu1\ti3\t3\n"


def write(content: str | bytes, suffix: str = "inter") -> Path:
    file = Path("dataset", "mine", f"mine.{suffix}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read(model: str = "PosKernelSASRec", **settings: object) -> list[tuple[str, str, float]]:
    """The interactions as RecBole has read them."""
    config = Config(model, "mine", config_dict={"normalize_all": False, **settings}, command_line=[])
    ensure_atomic_files(config)
    dataset, _ = prepare_data(config)
    sequences = dataset.inter_feat.sequences
    users, counts = dataset.sequence_users
    user = dataset.id2token("user_id", users.repeat_interleave(counts))
    item = dataset.id2token("item_id", sequences["item_id_list"])
    return list(zip(user.tolist(), item.tolist(), sequences["timestamp_list"].tolist()))


EXPECTED = [("u1", "i1", 1.0), ("u1", "i2", 2.0), ("u1", "i3", 3.0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("u1\ti4", "the header has 3 columns separated by tab, but line 5 has 2: 'u1\\ti4'"),
        ('""', "but line 5 has 1"),
        ("\ti4\t4", "line 5: column 'user_id' has no value; correct the row or leave it out"),
        ("u1\t\t4", "line 5: column 'item_id' has no value"),
        ("u1\ti4\t", "line 5: column 'timestamp' has no value"),
        ("u1\tNA\t4", "line 5: column 'item_id' is 'NA', which is read as a missing value"),
        ("u1\ti4\tnan", "line 5: column 'timestamp' is 'nan', which is read as a missing value"),
        ("u1\ti4\tinf", "line 5: column 'timestamp' must be a finite number; got 'inf'"),
        ("u1\ti4\t-Infinity", "line 5: column 'timestamp' must be a finite number"),
        ("u1\ti4\t1e400", "line 5: column 'timestamp' must be a number of at most 3.4e38; got '1e400'"),
        ("u1\ti4\t1e39", "line 5: column 'timestamp' must be a number of at most 3.4e38"),
        ("u1\ti4\t1_0", "line 5: column 'timestamp' must be a number; got '1_0'"),
        ("u1\ti4\0\t4", "line 5: a NUL byte"),
        ('u1\t"i4\t4', "line 5: a quoted field does not end"),
        ('u1\t"i4\t4\nu1\t"i5\t5', "line 5: a quoted field does not end"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_row_that_would_be_misread_is_reported(empty_folder: Path, row: str, message: str, newline: str) -> None:
    content = f"{HEADER}\n{GOOD}{row}\n{GOOD}".replace("\n", newline)
    if newline == "\r" and row.startswith("\t"):
        message = "line 5: begins with an empty field"
    write(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read()


def as_recbole(separator: str = "\t") -> pd.DataFrame:
    """The call by which RecBole reads an atomic file."""
    types = {"user_id:token": str, "item_id:token": str, "timestamp:float": float}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pd.read_csv(
            "dataset/mine/mine.inter", delimiter=separator, usecols=[*types], dtype=types, engine="python"
        )


@pytest.mark.parametrize("separator", ["\t", ",", "::"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("surplus", ["\t5", "\t", "\tx\ty", "\t1\t2\t3\t4"])
def test_fields_too_many_are_left_out_as_by_recbole(
    empty_folder: Path, caplog: pytest.LogCaptureFixture, separator: str, newline: str, surplus: str
) -> None:
    content = f"{HEADER}\n{GOOD}u1\ti4\t4{surplus}\nu1\ti5\t5\nu1\ti6\t6{surplus}\n"
    write(content.replace("\t", separator).replace("\n", newline))
    with caplog.at_level(logging.WARNING):
        assert read(field_separator=separator) == [*EXPECTED, *(("u1", f"i{k}", float(k)) for k in (4, 5, 6))]
    assert f"columns separated by {SEPARATOR_NAMES.get(separator, repr(separator))}, but line 5 has" in caplog.text
    left_out = surplus.removeprefix("\t").replace("\t", separator)
    assert f"the rest is left out, as in RecBole: {left_out!r} (2 such lines in all)" in caplog.text
    assert as_recbole(separator).to_numpy().tolist() == [list(row) for row in read(field_separator=separator)]


@pytest.mark.parametrize("separator", ["\t", "::"])
@pytest.mark.parametrize(("row", "surplus"), [(1, 1), (1, 3), (2, 3), (2, 4)])
def test_fields_by_which_pandas_names_rows_are_refused(
    empty_folder: Path, separator: str, row: int, surplus: int
) -> None:
    """RecBole then has the items for users: of the first row's, or of as many in the second as there are columns."""
    lines = GOOD.splitlines()
    lines[row - 1] += "\t1" * surplus
    write("\n".join([HEADER, *lines, ""]).replace("\t", separator))
    if (row, surplus) in ((1, 1), (1, 3), (2, 3)):
        assert as_recbole(separator)["user_id:token"].tolist() != ["u1"] * 3
    with pytest.raises(
        DataError, match=f"but line {row + 1} has {3 + surplus}: .*; pandas would read the first column as row names"
    ):
        read(field_separator=separator)


def test_a_field_too_many_deep_in_a_file(empty_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in line 6018 of the file of RecBole's own tests."""
    rows = [f"u{k % 50}\ti{k % 70}\t{k}" for k in range(6100)]
    rows[6016] += "\t1"
    write("\n".join([HEADER, *rows, ""]))
    with caplog.at_level(logging.WARNING):
        assert len(read()) == 6100
    assert "but line 6018 has 4; the rest is left out, as in RecBole: '1'" in caplog.text


@pytest.mark.parametrize("block", [1, 7, 2**24])
def test_lines_are_counted_over_blocks(empty_folder: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    write(HEADER + "\n" + GOOD * 9 + "\n \n" + GOOD + "u1\ti4\n")
    with pytest.raises(DataError, match="but line 34 has 2"):
        read()
    write(HEADER + "\n" + GOOD * 9 + '"u\n1"\ti1\t1\n\r\n' + GOOD + "u1\t\t4\n")
    with pytest.raises(DataError, match="line 35: column 'item_id' has no value"):
        read()
    write(HEADER + "\n" + GOOD * 9 + "u1\ti1\t3\t4\nu1\ti1\t3\t4\n")
    assert len(read()) == 29
    write((HEADER + "\n" + GOOD * 9).encode() + b"u1\ti\xff\t1\n")
    with pytest.raises(DataError, match=r"line 29: not utf-8 \(invalid start byte: byte 0xff\); give the encoding"):
        read()


@pytest.mark.parametrize("cut", range(1, len("u123\titem\t4")))
def test_a_file_cut_off_is_refused_with_its_line(
    empty_folder: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In its last field, which nothing can tell from a whole one, with a warning."""
    last = "u123\titem\t45"[:cut]
    write(f"{HEADER}\n{GOOD}{last}")
    if last.count("\t") == 2 and not last.endswith("\t"):
        with caplog.at_level(logging.WARNING):
            assert read() == [*EXPECTED, ("u123", "item", 4.0)]
        assert "mine.inter: the last line has no line break; if the file was cut off there" in caplog.text
        return
    with pytest.raises(
        DataError,
        match=r"line 5 has \d: .*; it is the last line, and the file seems to be cut off" * (last.count("\t") < 2)
        or "line 5: column 'timestamp' has no value",
    ):
        read()


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{GOOD}",
        f"\ufeff{HEADER}\n{GOOD}",
        f"{HEADER}\n{GOOD}".replace("\n", "\r\n"),
        f"\ufeff{HEADER}\n{GOOD}".replace("\n", "\r\n"),
        f"{HEADER}\n{GOOD}".replace("\n", "\r"),
        f"{HEADER}\n\n \n{GOOD}\n\t\n".replace("\t\n", "\n"),
        f"{HEADER}\n" + "".join(f'"u1"\t"i{k}"\t"{k}"\n' for k in (1, 2, 3)),
        f"{HEADER}\n" + "".join(f"u1\ti{k}\t{k}\n" for k in (3, 1, 2)),
        f"{HEADER}\n" + "".join(f"u1\ti{k}\t +{k}.0e0 \n" for k in (1, 2, 3)).replace("+", ""),
    ],
)
def test_the_same_rows_are_read_however_they_are_written(empty_folder: Path, content: str) -> None:
    write(content)
    assert read() == EXPECTED


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "utf-16", "utf-16-le", "gbk"])
def test_other_encodings_are_read_when_named(empty_folder: Path, encoding: str) -> None:
    item = {"latin-1": "é", "cp1251": "ж"}.get(encoding, "界")
    write((f"{HEADER}\n{GOOD}u1\t{item}\t4\n").encode(encoding))
    assert read(encoding=encoding) == [*EXPECTED, ("u1", item, 4.0)]
    write((f"{HEADER}\n{GOOD}u1\t{item}\n").encode(encoding))
    with pytest.raises(DataError, match="but line 5 has 2"):
        read(encoding=encoding)
    with pytest.raises(DataError, match=r"line [15]: not utf-8"):
        read()


def test_a_field_may_go_over_lines_in_quotes(empty_folder: Path) -> None:
    write(f'{HEADER}\n{GOOD}u1\t"i\n4"\t4\n')
    assert read() == [*EXPECTED, ("u1", "i\n4", 4.0)]
    write(f'{HEADER}\n{GOOD}u1\t"Weird" i4\t4\n')  # as pandas reads it, if in one line
    assert read() == [*EXPECTED, ("u1", "Weird i4", 4.0)]


def test_what_pandas_misreads_behind_a_lone_carriage_return_is_refused(empty_folder: Path) -> None:
    """Found by fuzzing: of such rows with empty lines between, pandas' parser in C takes a time for a user."""
    header = "note:token\titem_id:token\tuser_id:token\ttimestamp:float"
    rows_of = {"empty": "\tu1\tu1\t0", "full": "x\tu1\tu1\t0"}
    for first, row in rows_of.items():
        write("\r".join([header, row, "", *[row] * 4, "", *[row] * 4, "", *[row] * 3, ""]))
        if first == "full":
            assert read() == [("u1", "u1", 0.0)] * 12
        else:
            with pytest.raises(DataError, match=r"line 2: begins with an empty field .* end lines with"):
                read()


def test_columns_that_are_not_read_may_hold_anything(empty_folder: Path) -> None:
    write(f"{HEADER}\tnote:float\n" + GOOD.replace("\n", "\tx\n"))
    assert read() == EXPECTED
    with pytest.raises(DataError, match="line 2: column 'note' must be a number; got 'x'"):
        read(load_col={"inter": ["user_id", "item_id", "timestamp", "note"]})


def test_a_column_named_twice_is_refused(empty_folder: Path) -> None:
    write(f"{HEADER}\titem_id:token\n" + GOOD.replace("\n", "\ti\n"))
    with pytest.raises(DataError, match="the header has the column 'item_id' more than once"):
        read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item_id:token\tprice:float\ni1\t1\ni2\n", "mine.item: the header has 2 columns .* but line 3 has 1"),
        ("item_id:token\tprice:float\ni1\t1\ni2\tx\n", "mine.item, line 3: column 'price' must be a number; got 'x'"),
        ("item_id:token\tprice:float\ni1\t1\n\t2\n", "mine.item, line 3: column 'item_id' has no value"),
        ("item_id:token\tprice:float_seq\ni1\t1 2\ni2\t1 inf\n", "line 3: column 'price' must be a finite number"),
        ("item_id\tprice\ni1\t1\n", "mine.item: the header must be name:type columns"),
        ("", "mine.item has no"),
    ],
)
def test_files_of_features_are_looked_at_if_they_are_read(empty_folder: Path, content: str, message: str) -> None:
    write(f"{HEADER}\n{GOOD}")
    write(content, "item")
    assert read() == EXPECTED
    with pytest.raises(DataError, match=message):
        read(load_col=None)
    with pytest.raises(DataError, match=message):
        read(load_col={"inter": "*", "item": "*"})

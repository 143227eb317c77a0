"""Bad lines: each is reported with its number and its reason, and affects no other line."""

from __future__ import annotations

import ast
import csv
import datetime
import gzip
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.atomic_files.convert import lines as line_reading
from recbole_posattn.atomic_files.convert.convert import Conversion, convert
from recbole_posattn.atomic_files.convert.shapes import ReadOptions
from recbole_posattn.data.text import READ_AS_MISSING
from recbole_posattn.errors import DataError, SettingError, UserError

OWN = ReadOptions(user="u", item="i", time="t", rating="r")
UNREADABLE = "is neither a number of seconds nor an ISO 8601 date"


def write(content: bytes | str, name: str = "a.csv") -> Path:
    file = Path(name)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def rejected(done: Conversion) -> dict[int, str]:
    """The reason by the number of the line."""
    if done.rejected_file is None:
        return {}
    header, *rows = done.rejected_file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert header.split("\t") == ["line", "reason", "text"]
    assert all(row.count("\t") == 2 for row in rows)
    return {int(number): reason for number, reason, _ in (row.split("\t") for row in rows)}


def kept(file: Path) -> list[list[str]]:
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened, delimiter="\t"))[1:]


CSV_LINES = [
    (b"u,i,t,r", None),
    (b"1,2,3,4", None),
    (b"1,2,3", "the number of fields is 3, not 4"),
    (b"1,2,3,4,5", "the number of fields is 5, not 4"),
    (b"", None),
    (b",2,3,4", "user is missing"),
    (b"1, ,3,4", "item is missing"),
    (b"1,2,,4", "time is missing"),
    (b"1,2,3,", "rating is missing"),
    (b"1,2,soon,4", f"time {UNREADABLE}"),
    (b"1,2,2020-02-30,4", f"time {UNREADABLE}"),
    (b"1,2,1e999,4", f"time {UNREADABLE}"),
    (b"1,2,1_000,4", f"time {UNREADABLE}"),
    (b"1,2,3,nan", "rating is not a number"),
    (b"1,2,3,inf", "rating is not a number"),
    (b"1,2,3,good", "rating is not a number"),
    (b"1,2,3.5e38,4", "time is beyond 3.4e38, the limit of RecBole's 32-bit floats"),
    (b"1,2,3,-1e39", "rating is beyond 3.4e38, the limit of RecBole's 32-bit floats"),
    (b'1,"2,3,4', "the line has unbalanced quotes"),
    (b'1,"2"x,3,4', "the line has unbalanced quotes"),
    (b'"1,5",2,3,4\r', None),
    (b"\xff,2,3,4", "the line is not utf-8"),
    ("é,2,3,4".encode("latin-1"), "the line is not utf-8"),
    (b"1\x00,2,3,4", "user has a control character, which an atomic file cannot hold"),
    (b"1,2\t2,3,4", "item has a control character, which an atomic file cannot hold"),
    (b"null,2,3,4", "user is a word that RecBole reads as a missing value"),
    (b"1,NA,3,4", "item is a word that RecBole reads as a missing value"),
    (b"u,i,t,r", None),
    (b"last,2,3,4", None),
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_skipped_lines_are_reported_one_by_one(empty_folder: Path, line_end: bytes, mark: bytes) -> None:
    write(mark + line_end.join(line for line, _ in CSV_LINES))
    done = convert("a.csv", "mine", OWN, on_error="skip")
    reasons = {number: reason for number, (_, reason) in enumerate(CSV_LINES, start=1) if reason}
    assert rejected(done) == reasons
    assert [row[0] for row in kept(done.file)] == ["1", "1,5", "last"]
    by_reason = {reason.reason: (reason.count, list(reason.first)) for reason in done.rejected}
    assert by_reason["the line is not utf-8"] == (2, [22, 23]) and by_reason["user is missing"] == (1, [6])
    assert sum(reason.count for reason in done.rejected) == len(reasons)
    assert [reason.count for reason in done.rejected] == sorted((r.count for r in done.rejected), reverse=True)


def test_strict_stops_with_the_first_lines_and_writes_nothing(empty_folder: Path) -> None:
    write("u,i,t,r\n1,2,3,4\n1,2\n1,2,3,4\n1,2,soon,4\n")
    with pytest.raises(DataError) as error:
        convert("a.csv", "mine", OWN)
    assert str(error.value) == (
        f"a.csv has 2 bad lines, line 3: the number of fields is 2, not 4: '1,2'; 5: time {UNREADABLE}: '1,2,soon,4'. "
        "Correct the file, or leave them out with --on_error=skip"
    )
    write("u,i,t,r\n" + "1,2,3,4\nbad\n" * 30)
    with pytest.raises(
        DataError,
        match=r"a.csv has 30 bad lines or more, line 3: the number .*; 11: the number of fields is 1, not 4: 'bad'; …",
    ):
        convert("a.csv", "mine", OWN)
    assert [path.name for path in empty_folder.iterdir()] == ["a.csv"]


def test_a_line_without_an_end_is_cut_but_costs_no_other(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_reading, "BLOCK", 64)
    monkeypatch.setattr(line_reading, "LONGEST_LINE", 100)
    write(b"u,i,t,r\n1,2,3,4\n" + b"x" * 5000 + b"\n3,2,3,4\n" + b"y" * 101 + b"\n4,2,3,4\n" + "é".encode() * 1000)
    done = convert("a.csv", "mine", OWN, on_error="skip")
    assert rejected(done) == dict.fromkeys((3, 5, 7), "the line is longer than 100 bytes")
    assert [row[0] for row in kept(done.file)] == ["1", "3", "4"]


def test_other_encodings_can_be_named(empty_folder: Path) -> None:
    write("u,i,t,r\né,ü,3,4\n".encode("latin-1"))
    assert kept(convert("a.csv", "mine", OWN._replace(encoding="latin-1")).file) == [["é", "ü", "4", "3"]]
    write(b"u,i,t,r\n\\ud800,1,3,4\n\\u00e9,1,3,4\n")
    done = convert("a.csv", "half", OWN._replace(encoding="raw_unicode_escape"), on_error="skip")
    assert rejected(done) == {2: "the line is not raw-unicode-escape"} and kept(done.file) == [["é", "1", "4", "3"]]
    for encoding in ("utf-16", "utf-9", "base64", "cp037", "\x00"):
        with pytest.raises(SettingError, match="encoding must be one such as utf-8, latin-1 or cp1252; got"):
            convert("a.csv", "mine2", OWN._replace(encoding=encoding))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "user,i,t,r\n1,2,3,4\n",
            r"a.csv has no column 'u'; it has 'user', 'i', 't', 'r'. Name the right ones with --user",
        ),
        ("items,times\n", r"a.csv has no column 'u', 'i', 't', 'r'; it has 'items', 'times'"),
        ("u,i,t,u,r\n", "a.csv has the column 'u' more than once"),
        ('u,"i,t,r\n1,2,3,4\n', "a.csv: the header has unbalanced quotes"),
        ("u;i;t;r\n1;2;3;4\n", "it has 'u;i;t;r'"),
        ("u,i,t,r\n", r"a.csv has no interactions$"),
        ("", r"a.csv has no interactions$"),
        ("\n\n", r"a.csv has no interactions$"),
        ("u,i,t,r\nbad\n", r"a.csv has no interactions \(the number of fields is 1, not 4: 1\)"),
    ],
)
def test_what_holds_for_the_whole_file_is_said_of_it(empty_folder: Path, content: str, message: str) -> None:
    write(content)
    with pytest.raises(DataError, match=message):
        convert("a.csv", "mine", OWN, on_error="skip")
    assert not Path("dataset").exists()


@pytest.mark.parametrize("on_error", ["strict", "skip"])
def test_columns_that_no_object_has_are_reported_as_such(empty_folder: Path, on_error: str) -> None:
    write('{"user": 1, "i": 2, "t": 3, "r": 4}\n' * 2, "a.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl has no column 'u'; it has 'user', 'i', 't', 'r'"):
        convert("a.jsonl", "mine", OWN, on_error=on_error)
    write("{1: 2}\n" * 100, "a.txt")
    with pytest.raises(DataError, match=r"a.txt has no column 'u', 'i', 't', 'r'; it has '1'"):
        convert("a.txt", "mine", OWN._replace(kind="python"), on_error=on_error)


def test_a_truncated_or_damaged_archive_is_reported(empty_folder: Path) -> None:
    packed = gzip.compress(b"u,i,t,r\n" + b"".join(b"%d,%d,3,4\n" % (k, k * 7919) for k in range(300_000)))
    write(packed[: len(packed) // 2], "a.csv.gz")
    for on_error in ("strict", "skip"):
        with pytest.raises(DataError, match=r"a.csv.gz is damaged or cut off after line \d{5,}, byte \d+ of \d+ \("):
            convert("a.csv.gz", "mine", OWN, on_error=on_error)
    write(packed[:1000] + bytes(1000) + packed[2000:], "a.csv.gz")
    with pytest.raises(DataError, match=r"a.csv.gz is damaged or cut off"):
        convert("a.csv.gz", "mine", OWN)
    assert [path.name for path in empty_folder.iterdir()] == ["a.csv.gz"]


def test_a_packed_file_needs_no_name_for_it(empty_folder: Path) -> None:
    write(gzip.compress(b"u,i,t,r\n1,2,3,4\n"), "packed.csv")
    write("u,i,t,r\n1,2,3,4\n", "plain.csv.gz")
    for name in ("packed.csv", "plain.csv.gz"):
        assert kept(convert(name, name[:5], OWN).file) == [["1", "2", "4", "3"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not parquet", "a.parquet cannot be read as Parquet: "),
        ({"u": [1], "i": [1], "t": [1]}, "a.parquet has no column 'r'; it has 'u', 'i', 't'"),
        ({"u": [1.5], "i": [1], "t": [1], "r": [1]}, "column 'u' is of type double; the user must be text or a whole"),
        ({"u": [1], "i": [1], "t": [True], "r": [1]}, "column 't' is of type bool; the time must be a time, a number"),
        ({"u": [1], "i": [[1]], "t": [1], "r": [1]}, "the columns of items, times and ratings must all be lists"),
        ({"u": [1], "i": [1], "t": [1], "r": [{"a": 1}]}, "column 'r' is of type struct<a: int64>; the rating must be"),
    ],
)
def test_parquet_that_cannot_be_used(empty_folder: Path, content: bytes | dict, message: str) -> None:
    if isinstance(content, bytes):
        write(content, "a.parquet")
    else:
        pq.write_table(pa.table(content), "a.parquet")
    with pytest.raises(DataError, match=re.escape(message)):
        convert("a.parquet", "mine", OWN)


def test_rows_of_parquet_are_reported_by_number(empty_folder: Path) -> None:
    raw = pa.array([b"a", b"\xff", b"c", None, b"", b"f"], pa.binary())
    users = pa.StringArray.from_buffers(6, *raw.buffers()[1:], raw.buffers()[0], raw.null_count)  # nobody checks it
    columns = {"u": users, "i": ["x"] * 6, "t": [1.5, 1, float("nan"), 1, 1, 1], "r": ["1", "1", "1", "1", "1", "x"]}
    pq.write_table(pa.table(columns), "a.parquet")
    done = convert("a.parquet", "mine", OWN, on_error="skip")
    assert kept(done.file) == [["a", "x", "1", "1.5"]]
    assert [(reason.reason, reason.first) for reason in done.rejected] == [
        ("user is missing", (4, 5)),
        ("user is not utf-8", (2,)),
        (f"time {UNREADABLE}", (3,)),
        ("rating is not a number", (6,)),
    ]


@pytest.mark.parametrize(
    ("time_format", "times", "is_good"),
    [
        ("s", [3.4e38, 3.5e38, -3.5e38, 1e300], [True, False, False, False]),
        ("auto", ["1e38", "1e39", "2020-01-02", "-1e300"], [True, False, True, False]),
        ("ms", [1e38, 10**39, 1.5, 10**400], [True, False, True, False]),
    ],
)
def test_numbers_that_runs_refuse_are_bad(empty_folder: Path, time_format: str, times: list, is_good: list) -> None:
    lines = [json.dumps({"u": 1, "i": number, "t": time, "r": 1}) for number, time in enumerate(times)]
    write("\n".join(lines) + "\n", "a.jsonl")
    done = convert("a.jsonl", "mine", OWN._replace(time_format=time_format), on_error="skip")
    assert {int(item) for _, item, *_ in kept(done.file)} == {number for number, good in enumerate(is_good) if good}
    assert len(rejected(done)) == is_good.count(False)
    config = Config("GRU4Rec", "mine", config_dict={"data_path": "dataset"}, command_line=[])
    ensure_atomic_files(config)  # what is written is read


def test_damaged_parquet_is_reported(empty_folder: Path) -> None:
    pq.write_table(pa.table({key: list(range(10_000)) for key in "uitr"}), "a.parquet", compression="none")
    content = bytearray(Path("a.parquet").read_bytes())
    content[4:400] = bytes(396)
    write(bytes(content), "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet is damaged after row 0"):
        convert("a.parquet", "mine", OWN)


def test_missing_values_are_those_of_pandas(empty_folder: Path) -> None:
    words = [*READ_AS_MISSING, "", "none", "Na", "nil", "NULL ", "0", "-", "NAN", "N/a"]
    write("token\n" + "".join(f'"{word}"\n' for word in words))
    read = pd.read_csv("a.csv", dtype=str, skip_blank_lines=False)["token"]
    assert {word for word, missing in zip(words, read.isna()) if missing} == {*READ_AS_MISSING, ""}


# -- any lines whatever ----------------------------------------------------------------------------------------------

# Half of the records are good, and few users have most of them.
good_tokens = st.sampled_from(["a", "b", "é", '"', '"q" z', 'm"d', "x,y", " s ", "\u2028", "\ufeff"])
good_numbers = st.sampled_from(["1", "2.5", "-3", "1e3", ".5", "+4.", " 7 "])
good_times = good_numbers | st.sampled_from(["2020-01-02", "2020-01-02T03:04:05Z", " 1999-12-31 23:59 "])
tokens = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=4)
tokens |= st.sampled_from(["NA", "null", " ", "\x85", "\x00", "\t"])
numbers = st.sampled_from(["x", "", "nan", "-inf", "1e999", "1_0", "2020-01-02", "２"])
anything = st.none() | st.booleans() | st.integers() | st.floats() | st.just([{}]) | st.just("\ud800") | st.just("\n")

# In this order a line's end stands behind an item.
COLUMNS = ("t", "r", "u", "i")


@st.composite
def records(draw: st.DrawFn, other: st.SearchStrategy) -> dict:
    """A good record, or one with something else instead of a value."""
    record = {"t": draw(good_times), "r": draw(good_numbers), "u": draw(good_tokens), "i": draw(good_tokens)}
    if draw(st.booleans()):
        record[draw(st.sampled_from(COLUMNS))] = draw(other)
    return record


@st.composite
def csv_line(draw: st.DrawFn) -> bytes:
    fields = draw(records(tokens | numbers)).values()
    if draw(st.integers(0, 3)):  # else fields with quotes or commas are none
        fields = [
            f'"{field.replace(chr(34), chr(34) * 2)}"' if draw(st.booleans()) or set('",') & set(field) else field
            for field in fields
        ]
    return ",".join(fields).encode() + draw(st.sampled_from([b"", b"\r"]))


@st.composite
def object_line(draw: st.DrawFn, written: Callable[[dict], str]) -> bytes:
    record = draw(records(tokens | numbers | anything))
    for key in draw(st.sampled_from([[], [], [], ["u"], ["r"]])):
        del record[key]
    return written(record).encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, line: st.SearchStrategy[bytes]) -> bytes:
    """A line, often with a piece cut out or some bytes put in."""
    content = draw(line)
    if draw(st.booleans()):
        begin, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
        content = (
            content[:begin] + draw(st.binary(max_size=3)) + (content[begin:] if draw(st.booleans()) else content[end:])
        )
    return content.replace(b"\n", b"")


def any_lines(line: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    noise = st.binary(max_size=8).map(lambda content: content.replace(b"\n", b""))
    return st.lists(line | line | mutated(line) | noise, max_size=14)


BLANK = " \t\n\r\v\f"


def slow_token(value: object) -> str | None:
    """What a value is as a token; ``None`` if it cannot be one."""
    if type(value) not in (str, int):
        return None
    text = str(value)
    bad = not text.strip() or text in READ_AS_MISSING or any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
    return None if bad else text


def slow_number(value: object) -> float | None:
    if type(value) not in (str, int, float):
        return None
    text = str(value).strip(BLANK)
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or abs(float(text)) >= 2**128:
        return None
    return float(text)


def slow_time(value: object) -> float | None:
    form = r"([0-9]{4})-([0-9]{2})-([0-9]{2})([T ]([0-9]{2}):([0-9]{2})(:([0-9]{2})([.][0-9]+)?)?Z?)?"
    found = re.fullmatch(form, value.strip(BLANK)) if type(value) is str else None
    if found is None:
        return slow_number(value)
    *day, _, hour, minute, _, second, fraction = found.groups()
    try:
        date = datetime.datetime(*(int(part or 0) for part in (*day, hour, minute, second)))
    except ValueError:
        return None
    since = date - datetime.datetime(1970, 1, 1)
    return since.total_seconds() + float(fraction or 0) if 1678 <= date.year <= 2261 else None


def slow_record(user: object, item: object, time: object, rating: object) -> tuple | None:
    found = slow_token(user), slow_token(item), slow_time(time), slow_number(rating)
    return None if None in found else found


def slow_csv(line: bytes) -> tuple | None:
    try:
        fields = next(csv.reader([line.decode().removesuffix("\r")], strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    if len(fields) != 4:
        return None
    time, rating, user, item = fields
    return slow_record(user, item, time, rating)


def slow_object(line: bytes, parse: Callable[[str], object]) -> tuple | None:
    try:
        record = parse(line.decode())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return slow_record(*(record.get(key) for key in "uitr")) if type(record) is dict else None


def check_any_lines(
    content: list[bytes], slow: Callable, reading: ReadOptions, block: int, header: bytes = b""
) -> None:
    """Every good line is kept and every other one reported, and nothing else is raised."""
    first = 2 if header else 1
    file = Path("fuzzed.txt")
    file.write_bytes(b"\n".join([*([header] if header else []), *content]))
    assume(not file.read_bytes().startswith((b"\x1f\x8b\x08", b"PK\x03\x04")))  # which are packed
    found = [(number, line, slow(line)) for number, line in enumerate(content, start=first)]
    good = [record for _, _, record in found if record is not None]
    bad = {number for number, line, record in found if record is None and line not in (b"", b"\r", header)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_reading, "BLOCK", block)
        try:
            done = convert(file, "fuzzed", reading, on_error="skip", overwrite=True)
        except UserError as error:
            assert isinstance(error, DataError) and not good, error
            return
    order = {user: place for place, user in enumerate(dict.fromkeys(user for user, *_ in good))}
    expected = sorted(good, key=lambda record: (order[record[0]], record[2]))
    read = [(user, item, float(time), float(rating)) for user, item, rating, time in kept(done.file)]
    assert read == expected
    assert set(rejected(done)) == bad
    if bad:
        with pytest.raises(DataError, match=f"fuzzed.txt has {len(bad)} bad line"):
            convert(file, "strict", reading)


blocks = st.sampled_from([1, 7, 50, 2**20])


@settings(max_examples=150)
@given(content=any_lines(csv_line()), block=blocks)
def test_no_line_of_fields_does_harm(content: list[bytes], block: int) -> None:
    check_any_lines(content, slow_csv, OWN._replace(separator=","), block, header=",".join(COLUMNS).encode())


@pytest.mark.slow
@settings(max_examples=150)
@given(content=any_lines(object_line(json.dumps)), block=blocks)
def test_no_line_of_json_does_harm(content: list[bytes], block: int) -> None:
    check_any_lines(content, lambda line: slow_object(line, json.loads), OWN._replace(kind="jsonl"), block)


@settings(max_examples=100)
@given(content=any_lines(object_line(repr)), block=blocks)
def test_no_line_of_python_does_harm(content: list[bytes], block: int) -> None:
    check_any_lines(content, lambda line: slow_object(line, ast.literal_eval), OWN._replace(kind="python"), block)


@pytest.mark.parametrize("kind", ["jsonl", "python"])
def test_hostile_objects_are_bad_lines(empty_folder: Path, kind: str) -> None:
    good = "{'u': 'a', 'i': 1, 't': 2, 'r': 3}".replace("'", '"')
    hostile = [
        "[" * 100_000,
        "9" * 5000,
        good.replace("1", "9" * 5000),
        "__import__('os')",
        good.replace("1", "1 + 1j"),
    ]
    hostile += [
        "{" + "'a':{" * 3000,
        "(" * 50,
        good.replace("1", "0x" + "f" * 5000),
        '"\\d',
        "{[]: 1}",
        "\x00",
        good + good,
    ]
    write("\n".join([good, *hostile, good]), "a.txt")
    done = convert("a.txt", "mine", OWN._replace(kind=kind), on_error="skip")
    assert set(rejected(done)) == set(range(2, 2 + len(hostile)))
    assert kept(done.file) == [["a", "1", "3", "2"]] * 2

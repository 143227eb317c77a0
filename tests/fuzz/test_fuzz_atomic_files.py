"""Any atomic file is read as it says or refused with the line; nothing in it is filled in, dropped or cut off."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data.text import READ_AS_MISSING
from recbole_posattn.training.load import prepare_data
from tests.fuzz.harness import HEADER, ROWS, call, cases, empty_folder, refused, tiny_flags, words, write_data

BASE = "\n".join([HEADER, *("\t".join(map(str, row)) for row in ROWS), ""]).encode()

Rows = list[tuple[str, str, float]]

# A few users have most of the rows, so that there are sequences.
plain_tokens = st.sampled_from(
    ["u1", "u2", "7", "007", "é", "\u2028", "x" * 300, "9" * 400, " ", "NaN ", "-", "\ufeff"]
)
quoted_tokens = plain_tokens | st.sampled_from(['"', 'a"b', "a,b", "a\tb", "a\nb", "a;b", "\r\n"])
tokens = st.text(st.characters(exclude_characters='\0\n\r\t"', exclude_categories=["Cs"]), min_size=1, max_size=3)
good_times = st.one_of(
    st.integers(-(10**6), 10**10).map(str),
    st.floats(-1e38, 1e38).map(repr),
    st.sampled_from(["1", "1.", ".5", "+2", "-0", "1e3", "2E+02", " 7", "8 "]),
)
bad_times = st.sampled_from(
    [*words("nan NaN inf -inf Infinity 1e39 1e400 abc 1_0 0x1 ٣ 1,5 --1 1e 2020-01-01 NULL True"), "", " "]
)
bad_tokens = st.sampled_from(["", *sorted(READ_AS_MISSING)])


def good_token(text: str) -> bool:
    return text not in READ_AS_MISSING


def read(kind: str, **changes: object) -> tuple[Rows | None, Exception | None]:
    """The interactions as RecBole has them, user by user in time order; or the refusal."""

    def load() -> Rows:
        settings = {"data_path": "data", "normalize_all": False, "topk": 1, "valid_metric": "NDCG@1", **changes}
        config = Config("PosKernelSASRec", "tiny", config_dict={**settings, "state": "ERROR"}, command_line=[])
        ensure_atomic_files(config)
        dataset, _ = prepare_data(config)
        users, counts = dataset.sequence_users
        user = dataset.id2token("user_id", users.repeat_interleave(counts))
        item = dataset.id2token("item_id", dataset.inter_feat.sequences["item_id_list"])
        return list(zip(user.tolist(), item.tolist(), dataset.inter_feat.sequences["timestamp_list"].tolist()))

    return refused(kind, load)


def sequences(rows: Rows) -> Rows:
    """Rows in the order in which the data set has them: users as they come, each in time order, ties as in the file."""
    order = {user: place for place, user in enumerate(dict.fromkeys(user for user, *_ in rows))}
    return sorted(((user, item, float(time)) for user, item, time in rows), key=lambda row: (order[row[0]], row[2]))


def has_sequence(rows: Rows) -> bool:
    return any(sum(user == other for other, *_ in rows) > 1 for user, *_ in rows)


def expect(rows: Rows | None, found: Rows | None, error: Exception | None) -> None:
    """What is read is what the file says, and what it does not say is refused."""
    if rows is None or not has_sequence(rows):
        assert error is not None, (rows, found)
    else:
        assert found is not None and [row[:2] for row in found] == [row[:2] for row in sequences(rows)], error
        # pandas reads numbers of many digits to the last bit but one
        assert [time for *_, time in found] == pytest.approx([time for *_, time in sequences(rows)], rel=1e-15, abs=0)


# -- whole files -----------------------------------------------------------------------------------------------------


@st.composite
def written_tables(draw: st.DrawFn) -> tuple[bytes, str, str, Rows]:
    """A good file, its separator and encoding, and what it says."""
    separator = draw(st.sampled_from(["\t", "\t", ",", ";", "|", " ", "::"]))
    quoting = draw(st.booleans()) and len(separator) == 1
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"]))
    token = (quoted_tokens if quoting else plain_tokens) | tokens
    users = st.sampled_from(draw(st.lists(token, min_size=1, max_size=3)))
    rows = draw(st.lists(st.tuples(users, token, good_times), min_size=1, max_size=12))
    columns = draw(st.permutations(["user_id:token", "item_id:token", "timestamp:float", "note:token"]))
    place = [["user_id:token", "item_id:token", "timestamp:float", "note:token"].index(column) for column in columns]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL) if quoting else None
    text.write(separator.join(columns) + end)
    for row in rows:
        fields = [(*row, draw(st.sampled_from(["", "x", "nan"])))[index] for index in place]
        if quoting:
            writer.writerow(fields)
        else:
            assume(not any(set(field) & set('"\r\n') or separator in field for field in fields))
            assume("".join(fields).strip(" ") and not (separator == "\t" and set(fields) <= {""}))
            # pandas strips the lines of several characters' separators
            assume(separator != "::" or all(":" not in field and field.strip() == field for field in fields))
            assume(end != "\r" or fields[0])  # see test_rows: pandas misreads these, and they are refused
            text.write(separator.join(fields) + end)
        if draw(st.integers(0, 5)) == 0:
            text.write(draw(st.sampled_from(["", " " if separator != " " else ""])) + end)
    assume(all(good_token(user) and good_token(item) for user, item, _ in rows))
    assume(end != "\r" or encoding in ("utf-8", "utf-8-sig"))
    content = text.getvalue()
    if draw(st.booleans()):
        content = content.removesuffix(end)  # no end of the last line
    return content.encode(encoding), separator, encoding, [(user, item, float(time)) for user, item, time in rows]


@cases(70)
@given(written_tables())
def test_good_tables_are_read_whole(table: tuple[bytes, str, str, Rows]) -> None:
    content, separator, encoding, rows = table
    with empty_folder():
        write_data(content)
        named = {} if encoding.startswith("utf-8") else {"encoding": encoding}
        expect(rows, *read("atomic files: good tables", field_separator=separator, **named))


@cases(20)
@given(st.permutations(ROWS), st.lists(st.sampled_from(ROWS), max_size=3))
def test_the_order_of_rows_does_not_matter(rows: list[tuple], twice: list[tuple]) -> None:
    """Nor do repeated ones, beyond being repeated."""
    content = "\n".join([HEADER, *("\t".join(map(str, row)) for row in [*rows, *twice]), ""]).encode()
    with empty_folder():
        write_data(content)
        found, _ = read("atomic files: order of rows")
    assert sorted(found) == sorted(sequences([*ROWS, *twice]))
    assert found == sequences([*rows, *twice])


# -- damaged files ---------------------------------------------------------------------------------------------------


def slow_read(content: bytes) -> Rows | None:
    """What a file without quotes says in the simplest way to read it; ``None`` if it is not to be read."""
    try:
        lines = re.split("\r\n|\n|\r", content.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError:
        return None
    if lines[0] != HEADER or "\0" in content.decode():
        return None
    rows = []
    for line in lines[1:]:
        if not line.strip(" \t") and "\t" not in line:
            continue
        fields = line.split("\t")
        # pandas takes columns for the names of rows in the last two cases
        if len(fields) < 3 or (len(fields) > 3 and not rows) or (len(fields) > 5 and len(rows) == 1):
            return None
        fields = fields[:3]
        if any(field in {"", *READ_AS_MISSING} for field in fields):
            return None
        number = fields[2].strip(" \t\n\v\f\r")
        if (
            not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", number)
            or abs(float(number)) > 3.4e38
        ):
            return None
        rows.append((fields[0], fields[1], float(number)))
    return rows


@st.composite
def damaged(draw: st.DrawFn, content: bytes = BASE) -> bytes:
    """A file with pieces cut out, put in, repeated or overwritten."""
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["end", "cut", "insert", "flip", "line out", "line twice", "noise"]))
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        lines = content.split(b"\n")
        line = draw(st.integers(0, len(lines) - 1))
        if how == "end":
            content = content[:at]
        elif how == "cut":
            content = content[:at] + content[at + draw(st.integers(1, 40)) :]
        elif how == "insert":
            piece = draw(
                st.binary(max_size=4) | st.sampled_from([b"\t", b"\n", b"\r", b"\0", b" ", b"\xff", b"\t\t", b"inf"])
            )
            content = content[:at] + piece + content[at:]
        elif how == "flip" and content:
            content = content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
        elif how == "line out":
            content = b"\n".join(lines[:line] + lines[line + 1 :])
        elif how == "line twice":
            content = b"\n".join([*lines[:line], lines[line], *lines[line:]])
        else:
            content = content[:at] + draw(st.binary(max_size=60)) + content[at + 60 :]
    return content


def check_damaged(content: bytes) -> None:
    with empty_folder():
        write_data(content)
        found, error = read("atomic files: damaged")
    if b'"' not in content:  # which may make fields of whole rows, or of none
        expect(slow_read(content), found, error)


@cases(150)
@given(damaged())
@example(b"")
@example(b"\xef\xbb\xbf")
@example(HEADER.encode())
@example(HEADER.encode() + b"\n\n\n")
@example(b"\xef\xbb\xbf" + BASE)
@example(b"\xff\xfe" + BASE.decode().encode("utf-16-le"))
@example(BASE.replace(b"\n", b"\r"))
@example(BASE + b"\0")
@example(BASE + b"\x1a")
@example(BASE + b"u1\ti1\t1_0\n")
@example(b"\x1f\x8b\x08" + BASE)
@example(bytes(range(256)) * 40)
def test_damaged_files_are_read_as_they_say_or_refused(content: bytes) -> None:
    check_damaged(content)


def test_a_file_cut_anywhere_is_never_filled_in() -> None:
    """Each place in the last two rows where a crash may have cut it."""
    begin = BASE[:-1].rfind(b"\n", 0, BASE[:-1].rfind(b"\n"))
    for end in range(begin, len(BASE) + 1):
        check_damaged(BASE[:end])


@st.composite
def one_bad_field(draw: st.DrawFn) -> tuple[bytes, int]:
    """A file with a field that cannot be meant, and its line."""
    rows = [list(map(str, row)) for row in ROWS]
    line = draw(st.integers(0, len(rows) - 1))
    how = draw(st.sampled_from(["token", "time", "fewer", "more in front"]))
    if how == "token":
        rows[line][draw(st.integers(0, 1))] = draw(bad_tokens)
    elif how == "time":
        rows[line][2] = draw(bad_times)
    elif how == "fewer":
        del rows[line][draw(st.integers(0, 2)) :]
        rows[line] = rows[line] or ["x"]
    else:
        line = 0  # further down the last field is left out
        rows[line].insert(draw(st.integers(0, 3)), draw(tokens | st.just("")))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    return end.join([HEADER, *("\t".join(row) for row in rows), ""]).encode(), line + 2


@cases(60)
@given(one_bad_field())
def test_a_bad_row_is_told_by_its_line(case: tuple[bytes, int]) -> None:
    content, line = case
    with empty_folder():
        write_data(content)
        _, error = read("atomic files: a bad row")
    assert re.search(rf"line {line}\b", str(error)), error


# -- headers ---------------------------------------------------------------------------------------------------------

names = st.sampled_from(
    ["user_id", "item_id", "timestamp", "rating", "", "user_id ", "a:b", '"user_id"', "é", "\ufeff"]
)
types = st.sampled_from(["token", "float", "token_seq", "float_seq", "int", "", "Token", "float "])


other_columns = st.lists(st.tuples(names, types), max_size=3)
needed = [("user_id", "token"), ("item_id", "token"), ("timestamp", "float")]
headers = other_columns | st.builds(lambda more: needed + more, other_columns).flatmap(st.permutations)


@cases(60)
@given(headers, st.sampled_from("\t\t,;| :"), st.sampled_from([None, "*", "inter"]))
def test_headers(columns: list[tuple[str, str]], separator: str, load: str | None) -> None:
    """Missing, doubled and mistyped columns; sequences; what is not loaded."""
    value = {"token": "a", "float": "1", "token_seq": "a b", "float_seq": "1 2"}
    rows = [separator.join(value.get(kind, "x") for _, kind in columns)] * 3
    content = "\n".join([separator.join(f"{name}:{kind}" for name, kind in columns), *rows, ""])
    load_col = {
        None: {},
        "*": {"load_col": None},
        "inter": {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}},
    }
    with empty_folder():
        write_data(content.encode())
        found, _ = read("atomic files: headers", field_separator=separator, **load_col[load])
    given_types = dict(columns)
    if found is not None:
        assert (given_types["user_id"], given_types["item_id"], given_types["timestamp"]) == ("token", "token", "float")
        assert found == [("a", "a", 1.0)] * 3


# -- files of features -----------------------------------------------------------------------------------------------

FEATURES = {
    "user": b"user_id:token\tage:float\tjob:token\n" + b"".join(b"u%d\t%d\tj\n" % (user, user) for user in range(4)),
    "item": b"item_id:token\tclass:token_seq\tprices:float_seq\n"
    + b"".join(b"i%d\ta b\t%d 2.5\n" % (item, item) for item in range(7)),
}


@cases(60)
@given(st.sampled_from(["user", "item"]), st.data())
def test_files_of_features_beside_it(suffix: str, data: st.DataObject) -> None:
    """Ones that are read; the interactions come out the same or nothing does."""
    content = data.draw(damaged(FEATURES[suffix]))
    with empty_folder():
        write_data()
        write_data(content, suffix=suffix)
        found, error = read("atomic files: features", load_col=None, filter_inter_by_user_or_item=False)
        assert found == sequences(ROWS) or error is not None
        if data.draw(st.booleans()):  # and one that is not read does no harm
            assert read("atomic files: features not read")[0] == sequences(ROWS)


# -- whole runs ------------------------------------------------------------------------------------------------------

models = st.sampled_from(["PosKernelSASRec", "NoPESASRec", "SASRec", "GRU4Rec", "BPR", "Pop", "FM"])


@cases(25)
@given(damaged(), models)
@example(BASE, "PosKernelSASRec")
@example(b"\xef\xbb\xbf" + BASE, "BPR")
@example(f"{HEADER}\nu\ti\t1\nu\ti\t2\nu\ti\t3\n".encode(), "PosKernelSASRec")
@example(f"{HEADER}\nu\ti\t1\nu\ti\t2\nu\ti\t3\nv\tj\t3\n".encode(), "SASRec")
@example(f"{HEADER}\nu\ti\t1\nu\tj\t2\nu\tk\t3\n".encode(), "BPR")
@example(f"{HEADER}\nu\ti\t1\nv\tj\t1\n".encode(), "NoPESASRec")
def test_a_run_on_any_file(content: bytes, model: str) -> None:
    with empty_folder():
        write_data(content)
        outcome = call("atomic files: whole runs", ["run", *tiny_flags(model=model)])
        assert outcome.code == 2 or any(file.endswith("result.json") for file in outcome.files)


@cases(10)
@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=5), models)
def test_small_catalogues_and_short_users(n_items: int, users: list[tuple[int, int]], model: str) -> None:
    rows = [(f"u{user}", f"i{step % n_items}", step) for user, length in users for step in range(length)]
    with empty_folder():
        write_data("\n".join([HEADER, *("\t".join(map(str, row)) for row in rows), ""]).encode())
        call(
            "atomic files: small catalogues",
            ["run", *tiny_flags(model=model, topk=n_items, valid_metric=f"NDCG@{n_items}")],
        )

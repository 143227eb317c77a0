"""Any history given to ``recommend`` and any dump given to ``data convert`` is read whole or refused in one line."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_posattn.errors import DataError
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.serving.tables import read_table, read_tokens
from tests.fuzz.harness import ROWS, call, cases, empty_folder, refused
from tests.fuzz.test_fuzz_command_lines import checkpoint  # noqa: F401 (a fixture)

NAMES = {"user": "user_id", "item": "item_id", "time": "timestamp"}
USERS = ["a", "b", "007", "é", "x,y", "", 7, None]
ITEMS = ["i1", "i2", "i6", "nowhere", "", 3, None, 1.5, True]
TIMES = [1, 2.5, -1, 10**30, 1e300, float("nan"), float("inf"), "3", "x", "2020-01-02", None, True, [1]]


@pytest.fixture(scope="module")
def recommender(checkpoint: Path) -> Recommender:  # noqa: F811
    return Recommender.load(str(checkpoint))


@st.composite
def records(draw: st.DrawFn) -> list[dict]:
    """Histories, many of them good."""
    good = draw(st.booleans())
    users, items = (USERS[:4], ITEMS[:4]) if good else (USERS, ITEMS)
    times = TIMES[:3] if good else TIMES
    rows = draw(st.lists(st.tuples(*map(st.sampled_from, (users, items, times))), min_size=1, max_size=8))
    left_out = draw(st.sampled_from([(), (), (), ("time",), ("user",), ("item",)]))
    named = draw(st.sampled_from([{}, {}, NAMES, {"time": "when"}]))
    return [{named.get(key, key): value for key, value in zip(NAMES, row) if key not in left_out} for row in rows]


def as_csv(rows: list[dict]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False).encode()


def as_json_lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict]) -> bytes:
    frame = pd.DataFrame(rows)
    sink = io.BytesIO()
    try:
        pa.parquet.write_table(pa.Table.from_pandas(frame), sink)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # columns of several types: as texts
        pa.parquet.write_table(pa.Table.from_pandas(frame.astype(str)), sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[list[dict]], bytes]] = {".csv": as_csv, ".jsonl": as_json_lines, ".parquet": as_parquet}


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with some pieces cut out or overwritten."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        piece = draw(
            st.binary(max_size=6) | st.sampled_from([b"\n", b"\r", b",", b'"', b"\0", b"\xff", b"{", b"\xef\xbb\xbf"])
        )
        content = content[:at] + piece + content[at + draw(st.sampled_from([0, 0, 1, 4, 40, 10**6])) :]
    return content


def recommended(recommender: Recommender, file: str) -> pd.DataFrame:
    table = read_table(Path(file), NAMES)
    requests = recommender.new_histories(table)
    return pa.concat_tables(recommender.blocks(requests, 2)).to_pandas()


@pytest.mark.parametrize("suffix", WRITERS)
def test_histories(recommender: Recommender, suffix: str) -> None:
    @cases(40)
    @given(records(), st.data())
    def check(rows: list[dict], data: st.DataObject) -> None:
        whole = WRITERS[suffix](rows)
        content = data.draw(mutated(whole))
        with empty_folder():
            file = f"given{suffix}"
            Path(file).write_bytes(content)
            found, error = refused(f"histories: {suffix[1:]}", lambda: recommended(recommender, file))
        if found is not None:
            assert np.isfinite(found["score"]).all() and (found.groupby("user").size() == 2).all()
        values = [(row.get("user"), row.get("item"), row.get("time", 1)) for row in rows]
        if content == whole and all(u in USERS[:4] and i in ITEMS[:3] and t in TIMES[:3] for u, i, t in values):
            assert found is not None, error
            assert set(found["user"]) == {row["user"] for row in rows}

    check()


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".csv", b""),
        (".csv", b"\n"),
        (".csv", b"user,item\n"),
        (".csv", b"\xef\xbb\xbfuser,item\na,i1\n"),
        (".csv", b"user,item\na\n"),
        (".csv", b"user,item,item\na,i1,i2\n"),
        (".csv", b"user,item\na,i1\0\n"),
        (".csv", b'user,item\n"a,i1\n'),
        (".csv", b"user,item,time\na,i1,nan\n"),
        (".csv", b"user,item,time\na,i1,inf\na,i2,1\n"),
        (".csv", b"user,item\n\xff,i1\n"),
        (".csv", "user,item\na,i1\n".encode("utf-16")),
        (".csv", b"user,user_id,item\na,b,i1\n"),
        (".jsonl", b""),
        (".jsonl", b"\n\n"),
        (".jsonl", b"[]\n"),
        (".jsonl", b"{}\n"),
        (".jsonl", b"3\n"),
        (".jsonl", b'{"user": "a", "item": "i1"'),
        (".jsonl", b'{"user": "a", "item": ["i1"]}\n'),
        (".jsonl", b'{"user": "a", "item": {"x": 1}}\n'),
        (".jsonl", b'{"user": "a", "item": "i1"}\n{"user": 3, "item": "i1"}\n'),
        (".jsonl", b'{"user": "a", "item": "i1", "user": "b"}\n'),
        (".jsonl", b'{"a": ' * 3000),
        (".jsonl", b"\xef\xbb\xbf" + b'{"user": "a", "item": "i1"}\n'),
        (".parquet", b""),
        (".parquet", b"PAR1"),
        (".parquet", b"PAR1PAR1"),
    ],
)
def test_histories_of_note(recommender: Recommender, checkpoint: Path, suffix: str, content: bytes) -> None:  # noqa: F811
    with empty_folder():
        Path(f"given{suffix}").write_bytes(content)
        outcome = call(
            "histories: of note",
            ["recommend", str(checkpoint), f"--histories=given{suffix}", "--k=2", "--output=o.csv"],
        )
        if outcome.code == 0:
            assert set(pd.read_csv("o.csv", dtype=str)["user"]) == {"a"}


@cases(30)
@given(st.sampled_from([".txt", ".csv", ".jsonl", ".parquet"]), st.data())
def test_lists_of_tokens(suffix: str, data: st.DataObject) -> None:
    rows = [{"item": f"i{k}"} for k in range(3)]
    whole = b"i0\ni1\r\n i2 \n" if suffix == ".txt" else WRITERS[suffix](rows)
    content = data.draw(mutated(whole))
    with empty_folder():
        Path(f"given{suffix}").write_bytes(content)
        found, _ = refused("lists of tokens", lambda: read_tokens(Path(f"given{suffix}"), "item", "item_id"))
    if content == whole:
        assert found == ["i0", "i1", "i2"]
    assert found is None or all(isinstance(token, str) and token for token in found)


def test_a_nul_is_no_part_of_a_token() -> None:
    """numpy would leave it out at the end of one."""
    with empty_folder():
        for name, content in {"given.txt": b"i1\0\ni2\n", "given.csv": b"item\ni1\0\n"}.items():
            Path(name).write_bytes(content)
            with pytest.raises(DataError, match="has a NUL byte"):
                read_tokens(Path(name), "item", "item_id")


def test_a_member_without_a_name_is_none() -> None:
    with empty_folder():
        packed = zipped(as_csv(DUMP))
        begin = packed.index(b"PK\x01\x02")  # of the directory, whose name of 7 letters becomes a comment
        directory = bytearray(packed[begin:])
        directory[28:30], directory[32:34] = b"\0\0", b"\x07\0"
        Path("log.zip").write_bytes(packed[:begin] + directory)
        assert zipfile.ZipFile("log.zip").namelist() == [""]
        flags = ["--name=made", "--user=u", "--item=i", "--time=t"]
        assert call("dumps: log.zip", ["data", "convert", "log.zip", *flags]).code == 2


# -- dumps -----------------------------------------------------------------------------------------------------------

DUMP = [{"u": user, "i": item, "t": time, "r": 4.5} for user, item, time in ROWS[:6]]


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", content)
    return packed.getvalue()


DUMPS = {
    "log.csv": as_csv(DUMP),
    "log.jsonl": as_json_lines(DUMP),
    "log.parquet": as_parquet(DUMP),
    "log.csv.gz": gzip.compress(as_csv(DUMP), mtime=0),
    "log.zip": zipped(as_csv(DUMP)),
}


@pytest.mark.parametrize("name", DUMPS)
def test_dumps(name: str) -> None:
    @cases(20)
    @given(
        mutated(DUMPS[name]), st.sampled_from(["strict", "skip"]), st.sampled_from(["none", "exact", "first", "last"])
    )
    @example(DUMPS[name], "strict", "none")
    @example(DUMPS[name][:-1], "strict", "none")
    @example(DUMPS[name][: len(DUMPS[name]) // 2], "skip", "none")
    @example(b"", "skip", "none")
    def check(content: bytes, on_error: str, deduplicate: str) -> None:
        with empty_folder():
            Path(name).write_bytes(content)
            flags = ["--name=made", "--user=u", "--item=i", "--time=t", "--rating=r", "--kind=delimited"]
            flags = flags if name == "log.zip" else flags[:-1]
            outcome = call(
                f"dumps: {name}",
                ["data", "convert", name, *flags, f"--on_error={on_error}", f"--deduplicate={deduplicate}"],
            )
            assert outcome.files <= {"dataset/made/made.inter", "dataset/made/made.rejected.tsv"}
            if content == DUMPS[name] and deduplicate == "none":
                assert len(Path("dataset/made/made.inter").read_text().splitlines()) == 1 + len(DUMP)

    check()

"""Parquet files of interactions are read as they are, with the result of the same rows in an atomic file."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recbole.data import create_dataset

from recbole_posattn import Config, run
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.atomic_files.statistics import data_statistics
from recbole_posattn.data import parquet
from recbole_posattn.data.digest import data_contents, file_digest
from recbole_posattn.errors import DataError
from recbole_posattn.training.load import prepare_data
from tests.data.test_reading import assert_same_data_set
from tests.presplit import PARTS

N = 60
USER, ITEM = [f"u{k % 7}" for k in range(N)], [f"i{k * k % 11}" for k in range(N)]
TIME = [float(1_600_000_000 + 977 * k % 5000) for k in range(N)]
COLUMNS = {"user_id": USER, "item_id": ITEM, "timestamp": TIME}


def write_both(columns: dict[str, Any], header: str, texts: list[list[str]], suffix: str = "inter") -> None:
    """The same rows as a Parquet file in ``parquet`` and as text in ``text``."""
    for folder in ("parquet", "text"):
        Path(folder, "mine").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), f"parquet/mine/mine.{suffix}.parquet", row_group_size=7)
    lines = [header, *("\t".join(row) for row in zip(*texts))]
    Path(f"text/mine/mine.{suffix}").write_text("\n".join(lines) + "\n")


def config_of(folder: str, model: str = "GRU4Rec", **changes: object) -> Config:
    return Config(model, "mine", config_dict={"data_path": folder, **changes}, command_line=[])


def both(check: bool = True, **changes: Any) -> tuple:
    """The data sets of the two files."""
    configs = [config_of(folder, **changes) for folder in ("parquet", "text")]
    for config in configs:
        if check:
            ensure_atomic_files(config, keeps=True)
    return tuple(create_dataset(config) for config in configs)


HEADER = "user_id:token\titem_id:token\ttimestamp:float"
SECONDS = [datetime.datetime.fromtimestamp(time, datetime.UTC) for time in TIME]
KINDS = {
    "text": COLUMNS,
    "views of text": {**COLUMNS, "item_id": pa.array(ITEM, pa.string_view())},
    "whole numbers": {
        "user_id": [k % 7 for k in range(N)],
        "item_id": [k * k % 11 for k in range(N)],
        "timestamp": TIME,
    },
    "dictionaries": {**COLUMNS, "user_id": pa.array(USER).dictionary_encode(), "item_id": pd.Categorical(ITEM)},
    "large text": {**COLUMNS, "item_id": pa.array(ITEM, pa.large_string())},
    "seconds": {**COLUMNS, "timestamp": pa.array(SECONDS, pa.timestamp("s"))},
    "nanoseconds of a zone": {**COLUMNS, "timestamp": pa.array(SECONDS, pa.timestamp("ns", "Europe/Berlin"))},
    "whole times": {**COLUMNS, "timestamp": pa.array(TIME).cast(pa.int64())},
    "decimals": {**COLUMNS, "timestamp": pa.array(TIME).cast(pa.decimal128(20, 2))},
    "types in names": {"user_id:token": USER, "item_id:token": ITEM, "timestamp:float": TIME},
    "further columns": {**COLUMNS, "raw": [b"x"] * N, "count": list(range(N)), "nested": [{"a": 1}] * N},
}


@pytest.mark.parametrize("columns", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("check", [True, False])
def test_rows_are_those_of_an_atomic_file(empty_folder: Path, columns: dict, check: bool) -> None:
    tokens = [
        [str(value) for value in columns.get(name, columns.get(f"{name}:token"))] for name in ("user_id", "item_id")
    ]
    write_both(columns, HEADER, [*tokens, [f"{time:.0f}" for time in TIME]])
    assert_same_data_set(*both(check))


def test_dates_are_days_and_times_have_fractions(empty_folder: Path) -> None:
    days = [datetime.date(1969, 12, 30) + datetime.timedelta(days=k) for k in range(N)]
    write_both({**COLUMNS, "timestamp": days}, HEADER, [USER, ITEM, [str(86400 * (k - 2)) for k in range(N)]])
    assert_same_data_set(*both())
    nanoseconds = pa.array([1_600_000_000_123_456_789 + k for k in range(N)], pa.timestamp("ns"))
    write_both({**COLUMNS, "timestamp": nanoseconds}, HEADER, [USER, ITEM, ["1"] * N])
    ours, _ = both()
    assert ours.inter_feat["timestamp"].tolist() == [1_600_000_000 + (123_456_789 + k) / 1e9 for k in range(N)]


def test_columns_named_by_the_settings_lists_and_gaps(empty_folder: Path) -> None:
    tags = [[f"t{j}" for j in range(k % 3)] for k in range(N)]
    mood = [[k / 4, 0.5] for k in range(N)]
    score = [None if k % 4 == 0 else k / 8 for k in range(N)]
    place = ["" if k % 5 == 0 else None if k % 5 == 1 else f"p{k % 3}" for k in range(N)]
    columns = {"who": USER, "what": [k % 9 for k in range(N)], "when": TIME, "tags": tags, "mood": mood}
    texts = [USER, [str(k % 9) for k in range(N)], [f"{time:.0f}" for time in TIME], [" ".join(each) for each in tags]]
    texts += [[" ".join(map(str, each)) for each in mood], ["" if each is None else str(each) for each in score]]
    texts += [[each or "" for each in place]]
    header = "who:token\twhat:token\twhen:float\ttags:token_seq\tmood:float_seq\tscore:float\tplace:token"
    write_both({**columns, "score": score, "place": place}, header, texts)
    names = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what", "TIME_FIELD": "when", "load_col": None}
    assert_same_data_set(*both(**names))
    assert_same_data_set(*both(**names, seq_len={"tags": 1}, unload_col={"inter": ["mood"]}))


LISTS = {
    "dictionaries": pa.list_(pa.dictionary(pa.int32(), pa.string())),
    "dictionaries in large lists": pa.large_list(pa.dictionary(pa.int8(), pa.string())),
    "of a fixed size": pa.list_(pa.string(), 2),
}


@pytest.mark.parametrize("kind", LISTS.values(), ids=LISTS)
def test_lists_are_read_however_they_are_stored(empty_folder: Path, kind: pa.DataType) -> None:
    tags = [None if k % 5 == 4 else [f"t{k % 3}", f"t{k % 4}"] for k in range(N)]
    mood = pa.array([[k / 4, 0.5] for k in range(N)], pa.list_(pa.float64(), 2))
    score = pa.array([k % 4 / 8 for k in range(N)]).dictionary_encode()
    plain = pa.array(tags, pa.large_list(pa.string()) if pa.types.is_large_list(kind) else pa.list_(pa.string()))
    columns = {**COLUMNS, "tags": plain.cast(kind), "mood": mood, "score": score}
    texts = [USER, ITEM, [f"{time:.0f}" for time in TIME], [" ".join(each or ()) for each in tags]]
    texts += [[f"{k / 4} 0.5" for k in range(N)], [str(k % 4 / 8) for k in range(N)]]
    write_both(columns, f"{HEADER}\ttags:token_seq\tmood:float_seq\tscore:float", texts)
    assert pq.read_schema("parquet/mine/mine.inter.parquet").field("tags").type == kind
    assert_same_data_set(*both(load_col=None))


def test_files_that_are_split_already(empty_folder: Path) -> None:
    cuts = {"train": slice(0, 40), "valid": slice(40, 50), "test": slice(50, N)}
    time = [float(k) for k in range(N)]
    for part, cut in cuts.items():
        columns = {"user_id": USER[cut], "item_id": ITEM[cut], "timestamp": time[cut]}
        texts = [USER[cut], ITEM[cut], [f"{each:.0f}" for each in time[cut]]]
        write_both(columns, HEADER, texts, f"{part}.inter")
    assert_same_data_set(*both(benchmark_filename=[*PARTS]))
    loaders = [prepare_data(config_of(folder, benchmark_filename=[*PARTS]))[1] for folder in ("parquet", "text")]
    for ours, theirs in zip(*loaders, strict=True):
        assert [len(batch[0] if isinstance(batch, tuple) else batch) for batch in ours] == [
            len(batch[0] if isinstance(batch, tuple) else batch) for batch in theirs
        ]


NO_TEXT = pa.array([], pa.string())
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no user": ({"user_id": [*USER[:8], None, *USER[9:]]}, "row 9: column 'user_id' has no value; correct the row"),
    "an empty item": ({"item_id": ["", *ITEM[1:]]}, "row 1: column 'item_id' has no value"),
    "no number": ({"timestamp": [*TIME[:-1], np.nan]}, f"row {N}: column 'timestamp' has no value"),
    "infinite": ({"timestamp": [*TIME[:30], np.inf, *TIME[31:]]}, "row 31: column 'timestamp' must be a finite number"),
    "numbers as ids": ({"user_id": TIME}, "column 'user_id' is of type double, which cannot be read as token"),
    "text as times": ({"timestamp": USER}, "column 'timestamp' is of type string, which cannot be read as float"),
    "no time": ({"timestamp": None}, "has no column 'timestamp', which GRU4Rec needs; it has user_id, item_id"),
    "no rows": ({"user_id": NO_TEXT, "item_id": NO_TEXT, "timestamp": pa.array([], pa.float64())}, "has no rows"),
    "an empty table": (dict.fromkeys(COLUMNS, pa.array([], pa.null())), "has no rows"),
    "nothing in a column": ({"item_id": pa.nulls(N)}, "row 1: column 'item_id' has no value"),
    "a name twice": ({"user_id:token": USER}, "has the column 'user_id' more than once"),
}


@pytest.mark.parametrize(("columns", "message"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_used_is_refused(empty_folder: Path, columns: dict, message: str) -> None:
    write_both({name: values for name, values in (COLUMNS | columns).items() if values is not None}, HEADER, [])
    with pytest.raises(DataError, match=f"mine.inter.parquet.*{message}"):
        both()


def test_whole_numbers_of_unknown_use_are_refused_if_they_are_read(empty_folder: Path) -> None:
    write_both({**COLUMNS, "count": list(range(N))}, HEADER, [])
    with pytest.raises(DataError, match=r"column 'count' holds whole numbers, which may be tokens or numbers; name it"):
        both(load_col=None)
    assert create_dataset(config_of("parquet", load_col=None, numerical_features=["count"])).num("count") == 2
    write_both({**COLUMNS, "pair": [[1, 2]] * N}, HEADER, [])
    with pytest.raises(DataError, match="name it pair:token_seq or pair:float_seq in the file"):
        both(load_col=None)
    named = {"pair:token_seq": [[1, 2]] * N}
    write_both({**COLUMNS, **named}, f"{HEADER}\tpair:token_seq", [USER, ITEM, [f"{t:.0f}" for t in TIME], ["1 2"] * N])
    assert_same_data_set(*both(load_col=None))


def test_a_damaged_file_is_refused(empty_folder: Path) -> None:
    write_both(COLUMNS, HEADER, [])
    file = Path("parquet/mine/mine.inter.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        both()
    file.write_bytes(b"\0" * 300 + whole[300:])
    with pytest.raises(DataError, match=r"is damaged|cannot be read as Parquet"):
        both()


def test_an_atomic_file_goes_first_and_says_so(empty_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_both(COLUMNS, HEADER, [])
    Path("parquet/mine/mine.inter").write_text(HEADER + "\nu\ta\t1\nu\tb\t2\n")
    pq.write_table(pa.table({"item_id": ["a"]}), "parquet/mine/mine.item.parquet")
    with caplog.at_level(logging.WARNING):
        config = config_of("parquet")
        ensure_atomic_files(config)
    assert "mine.inter.parquet is not read: mine.inter is" in caplog.text
    assert "mine.item.parquet is not read: only interactions may be in a Parquet file" in caplog.text
    assert create_dataset(config).inter_num == 2


def test_a_run_on_it_is_that_on_text(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(COLUMNS, HEADER, [USER, ITEM, [f"{time:.0f}" for time in TIME]])
    monkeypatch.setattr(parquet, "ROWS", 16)
    settings = {"epochs": 1, "hidden_size": 8, "show_progress": False, "topk": [5], "valid_metric": "NDCG@5"}
    results: list[Any] = [
        run("PosKernelSASRec", "mine", config_dict={**settings, "data_path": folder}) for folder in ("parquet", "text")
    ]
    assert results[0]["test_result"] == results[1]["test_result"] is not None
    contents = data_contents(config_of("parquet"))
    file = Path("parquet/mine/mine.inter.parquet")
    assert contents == {"mine.inter.parquet": {"sha256": file_digest(file), "rows": N}}
    ours, theirs = (data_statistics(config_of(folder)) for folder in ("parquet", "text"))
    assert ours.file == file and ours.times.tolist() == theirs.times.tolist()
    for name in ("users", "items", "interactions", "density", "of_user", "repeat_rate", "first", "last", "top_items"):
        assert getattr(ours, name) == getattr(theirs, name), name

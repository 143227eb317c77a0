"""What our data sets read equals what RecBole reads, field by field: values, types, order, numbers, tokens, lengths."""

from __future__ import annotations

import functools
import logging
import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.utils import FeatureSource

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data import blocks, reading, tables
from recbole_posattn.data.blocks import Column, Table, read_block
from recbole_posattn.data.dataset import HeldOutKGDataset, LazySequentialDataset
from recbole_posattn.data.digest import contents_of
from recbole_posattn.data.exact_times import ExactTimesMixin
from recbole_posattn.data.text import READ_AS_MISSING
from recbole_posattn.errors import DataError

FIELDS = ("field2type", "field2source", "field2seqlen", "field2bucketnum")


def assert_same_data_set(ours: Dataset, theirs: Dataset) -> None:
    for name in FIELDS:
        assert dict(getattr(ours, name)) == dict(getattr(theirs, name)), name
    assert ours.feat_name_list == theirs.feat_name_list
    for name in theirs.feat_name_list:
        pd.testing.assert_frame_equal(getattr(ours, name), getattr(theirs, name), check_exact=True)
    assert ours.field2id_token.keys() == theirs.field2id_token.keys()
    for field, tokens in theirs.field2id_token.items():
        assert ours.field2id_token[field].tolist() == tokens.tolist(), field
        assert ours.field2token_id[field] == theirs.field2token_id[field], field


def config_of(folder: Path | str, model: str = "GRU4Rec", **changes: object) -> Config:
    settings = {"data_path": str(folder), "load_col": None, **changes}
    return Config(model, "mine", config_dict=settings, command_line=[])


def write(folder: Path | str, text: str, suffix: str = "inter") -> Path:
    file = Path(folder, "mine", f"mine.{suffix}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return file


@pytest.fixture
def by_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a file is read by pandas."""
    monkeypatch.setattr(reading, "read_csv_by_c_parser", lambda *_, **__: pytest.fail("read by pandas"))


@pytest.mark.parametrize("checked", [True, False])
def test_ml_100k_is_read_by_arrow_once_as_by_recbole(
    by_arrow: None, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    config = Config("SASRec", "ml-100k", config_dict={"load_col": {"inter": "*", "user": "*"}}, command_line=[])
    n_blocks = []

    def counting(*arguments: object) -> object:
        n_blocks.append(1)
        return read_block(*arguments)

    monkeypatch.setattr("recbole_posattn.atomic_files.rows.read_block", counting)
    monkeypatch.setattr(tables, "read_block", counting)
    if checked:
        ensure_atomic_files(config, keeps=True)
    ours = LazySequentialDataset(config)
    assert len(n_blocks) == 2 and not tables._kept  # the two files, a block each
    assert_same_data_set(ours, SequentialDataset(config))


FILTERS = {
    "none": {},
    "numbers of interactions": {"user_inter_num_interval": "[4,inf)", "item_inter_num_interval": "[3,9]"},
    "several intervals": {"user_inter_num_interval": "[2,4];(6,30]"},
    "values": {"val_interval": {"rating": "[2,inf)", "place": ["p0", "p2"]}},
    "duplicates": {"rm_dup_inter": "last"},
    "known users and items": {"filter_inter_by_user_or_item": True, "item_inter_num_interval": "[2,inf)"},
    "shared numbers": {"alias_of_item_id": ["place", "tags"]},
    "lengths": {"seq_len": {"tags": 1}},
    "labels": {"threshold": {"rating": 3}},
}


@pytest.mark.parametrize("changes", FILTERS.values(), ids=FILTERS)
def test_filters_and_numbers_are_recboles(by_arrow: None, empty_folder: Path, changes: dict) -> None:
    random = np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float\tplace:token\ttags:token_seq"]
    for user in range(25):
        for _ in range(1 + user % 9):
            tags = " ".join(f"t{tag}" for tag in random.integers(0, 5, random.integers(0, 4)))
            rating = random.choice(["", "1", "2.5", "4"])
            place = random.choice(["p0", "p1", "p2", "NA", ""])
            fields = (f"u{user}", f"i{random.integers(0, 30)}", rating, random.integers(0, 40), place, tags)
            lines.append("\t".join(map(str, fields)))
    write("data", "\n".join(lines) + "\n")
    items = [f"i{item}\tk{item % 4}\t{item / 4:.2f}" for item in range(28)]
    write("data", "\n".join(["item_id:token\tkind:token\tprice:float", *items]) + "\n", "item")
    users = [f"u{user}\t{'' if user % 5 else 'x'}" for user in range(23)]
    write("data", "\n".join(["user_id:token\tgroup:token", *users]) + "\n", "user")
    config = config_of("data", **changes)
    assert_same_data_set(LazySequentialDataset(config), SequentialDataset(config))


def test_a_knowledge_graph_is_read_as_by_recbole(by_arrow: None, empty_folder: Path) -> None:
    rows = [f"u{user}\ti{(user + step) % 7}\t{step}" for user in range(6) for step in range(5)]
    write("data", "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")
    write("data", "head_id:token\trelation_id:token\ttail_id:token\ne1\tr\te9\ne2\ts\te1\ne3\tr\te8\n", "kg")
    write("data", "item_id:token\tentity_id:token\ni1\te1\ni2\te2\ni3\te3\ni4\te8\n", "link")
    config = config_of("data", "CKE", item_inter_num_interval="[2,inf)")
    ours, theirs = HeldOutKGDataset(config), KnowledgeBasedDataset(config)
    assert_same_data_set(ours, theirs)
    assert ours.item2entity == theirs.item2entity and ours.entity2item == theirs.entity2item


# What pandas and Arrow may read differently: quotes, spaces, gaps, words for a gap, other line breaks, long numbers.
TOKENS = st.one_of(
    st.text(st.sampled_from(string.ascii_lowercase + 'äж "[PAD]:.0-'), min_size=0, max_size=4),
    st.sampled_from(["", " ", "NA", "007", "7", "7.0", "1e3", "[PAD]", "null", "None", "a b", '"q"', "True"]),
)
NUMBERS = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.floats(-1e30, 1e30).map(repr),
    st.decimals(-1000, 1000, places=3).map(str),
    st.sampled_from(["", "NA", ".5", "5.", "-0", "0.1", "123456789.123456789", "1e-3", "9007199254740993", " 3", "+4"]),
)
ROWS = st.lists(
    st.tuples(st.sampled_from(["u1", "u2", "u3"]), TOKENS, NUMBERS, NUMBERS, TOKENS, st.lists(TOKENS, max_size=3)),
    min_size=2,
    max_size=12,
)


@functools.cache
def config_with(separator: str) -> Config:
    return config_of("data", field_separator=separator)


@settings(max_examples=50)
@given(rows=ROWS, newline=st.sampled_from(["\n", "\r\n"]), separator=st.sampled_from(["\t", ",", ";", "::"]))
@example(
    rows=[("u1", "", number, number, "", []) for number in ("0", "999999999999999990")], newline="\n", separator="\t"
)
@example(
    rows=[("u1", "", number, number, "", []) for number in ("0.5", "999999999999999990")], newline="\n", separator=","
)
def test_whatever_pandas_reads_we_read(rows: list, newline: str, separator: str) -> None:
    """The two raw frames, before anything is filtered."""
    header = ["user_id:token", "item_id:token", "timestamp:float", "score:float", "place:token", "tags:token_seq"]
    lines = [separator.join(header), *(separator.join([*row[:-1], " ".join(row[-1])]) for row in rows)]
    with tempfile.TemporaryDirectory() as folder:
        file = write(folder, newline.join(lines) + newline)
        found = []
        for data_set, load in ((LazySequentialDataset, ExactTimesMixin._load_feat), (Dataset, Dataset._load_feat)):
            empty = data_set.__new__(data_set)
            empty.config, empty.logger = config_with(separator), logging.getLogger()
            empty._get_preset()
            try:
                frame = load(empty, str(file), FeatureSource.INTERACTION)
            except Exception as error:  # pandas raises many kinds
                frame = type(error)
            found.append((frame, {name: getattr(empty, name) for name in FIELDS}))
        (ours, of_ours), (theirs, of_theirs) = found
        if isinstance(theirs, type):  # pandas' parser in C reads more than the one in Python, which RecBole uses
            return
        if not isinstance(theirs.index, pd.RangeIndex):  # row names, which Surplus.check refuses
            return
        plain = ours.astype({name: object for name in ours if isinstance(ours[name].dtype, pd.CategoricalDtype)})
        pd.testing.assert_frame_equal(plain, theirs, check_exact=True)
        assert of_ours == of_theirs


@settings(max_examples=40)
@given(
    tokens=st.lists(st.sampled_from(["a", "b", "c", "dd", "", "é"]), min_size=1, max_size=40), block=st.integers(1, 30)
)
def test_tokens_are_numbered_in_their_order_whatever_the_blocks(tokens: list[str], block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        file = write(folder, "a:token\tb:float\n" + "".join(f"{token}\t{n}\n" for n, token in enumerate(tokens)))
        columns = [
            Column("a", blocks.FeatureType.TOKEN, True, False),
            Column("b", blocks.FeatureType.FLOAT, True, False),
        ]
        rows = tables.read_table(Table(file, columns, "\t", " ", "utf-8"))
        known = list(dict.fromkeys(token for token in tokens if token))
        assert rows.columns["a"].known.to_pylist() == known
        assert rows.columns["a"].code.tolist() == [known.index(token) if token else -1 for token in tokens]
        assert rows.columns["b"].tolist() == list(range(len(tokens)))
        assert contents_of(file).n_lines == len(tokens)


def test_words_for_a_gap_are_those_of_pandas() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert STR_NA_VALUES - {""} == READ_AS_MISSING


def test_rows_that_were_kept_are_not_used_for_another_file(empty_folder: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    file = write("data", header + "u\ta\t1\nu\tb\t2\n")
    config = config_of("data")
    ensure_atomic_files(config, keeps=True)
    assert tables._kept
    file.write_text(header + "u\tc\t1\nu\td\t2\nu\te\t3\n")
    assert LazySequentialDataset(config).field2id_token["item_id"].tolist() == ["[PAD]", "c", "d", "e"]
    ensure_atomic_files(config, keeps=True)
    file.write_text(header + "u\tc\t1\n")
    with pytest.raises(DataError):
        ensure_atomic_files(config_of("elsewhere"), keeps=True)
    assert LazySequentialDataset(config).inter_num == 1
    ensure_atomic_files(config)
    assert not tables._kept


def test_a_file_without_faults_is_checked_once(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    file = write("data", header + "u\ta\t1\nu\tb\t2\n")
    os.utime(file, ns=(1, 1))
    ensure_atomic_files(config_of("data"))
    with monkeypatch.context() as patch:
        patch.setattr("recbole_posattn.atomic_files.rows.read_block", lambda *_: pytest.fail("read again"))
        ensure_atomic_files(config_of("data"))
    file.write_text(header + "u\ta\t1\nu\t\t2\n")
    with pytest.raises(DataError, match="line 3: column 'item_id' has no value"):
        ensure_atomic_files(config_of("data"))


def test_with_recboles_own_reading_it_is_recboles(monkeypatch: pytest.MonkeyPatch, tiny_settings: Callable) -> None:
    monkeypatch.setattr(reading, "load_feat", lambda *_: pytest.fail("read by Arrow"))
    config = Config("SASRec", "tiny", config_dict=tiny_settings(lazy_prefixes=False), command_line=[])
    assert_same_data_set(LazySequentialDataset(config), SequentialDataset(config))

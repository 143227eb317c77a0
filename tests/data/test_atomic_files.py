"""Faults of a data set are reported before RecBole reads it."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.errors import DataError
from recbole_posattn.training.load import prepare_data
from tests.planted import write_atomic_file

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
ROWS = [("u1", "i1", 1), ("u1", "i2", 2)]


def read(name: str = "mine", model: str = "PosKernelSASRec", **settings: object) -> tuple:
    config = Config(model, name, config_dict=settings, command_line=[])
    ensure_atomic_files(config)
    return prepare_data(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        (HEADER + "\n", "has no rows"),
        ("user_id:token\titem_id:token\nu1\ti1\n", "has no column 'timestamp', which PosKernelSASRec needs"),
        ("user:token\titem_id:token\ttimestamp:float\nu1\ti1\t1\n", "has no column 'user_id'"),
        (HEADER.replace("\t", ",") + "\nu1,i1,1\n", "its columns look separated by comma"),
        (HEADER.replace("\t", ";") + "\nu1;i1;1\n", "its columns look separated by semicolon"),
        (HEADER + "\nu1,i1,1\n", "the header has 3 columns separated by tab, but line 2 has 1"),
        ("user_id\titem_id\ttimestamp\nu1\ti1\t1\n", "the header must be name:type columns separated by tab"),
        (HEADER.replace("float", "int") + "\nu1\ti1\t1\n", "each type one of token, float"),
        (HEADER.replace("float", "token") + "\nu1\ti1\t1\n", "column 'timestamp' must be of type float"),
        (HEADER + "\nu1\ti1\tsoon\nu1\ti2\t2\n", "line 2: column 'timestamp' must be a number; got 'soon'"),
        (HEADER + "\nu1\ti1\t1\nu2\ti2\t2\n", "no user has two interactions"),
    ],
)
def test_bad_files_are_named_with_the_reason(empty_folder: Path, content: str, message: str) -> None:
    file = write_atomic_file(empty_folder / "dataset", "mine", [])
    file.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read()
    assert "mine" in str(error.value)


def test_a_file_that_is_no_text_is_named(empty_folder: Path) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", []).write_bytes(b"\xff\xfe\x00\x01" * 9)
    with pytest.raises(DataError, match=r"mine.inter, line 1: not utf-8"):
        read()


def test_a_separator_of_ones_own_can_be_named(empty_folder: Path) -> None:
    content = "\n".join([HEADER, *("\t".join(map(str, row)) for row in ROWS)]).replace("\t", ",")
    write_atomic_file(empty_folder / "dataset", "mine", []).write_text(content + "\n")
    dataset, _ = read(field_separator=",")
    assert dataset.user_num == 2


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf_8", "U8", "utf-8-sig", "UTF-8-SIG", "~"])
def test_a_byte_order_mark_may_precede_utf_8_of_any_name(empty_folder: Path, encoding: str) -> None:
    content = "\n".join([HEADER, "é\ti1\t1", "é\ti2\t2", ""])
    write_atomic_file(empty_folder / "dataset", "mine", []).write_text(content, encoding="utf-8-sig")
    dataset, _ = read(encoding=encoding)
    assert dataset.token2id("user_id", "é") == 1 and dataset.item_num == 3


def test_general_models_need_no_time(empty_folder: Path) -> None:
    pairs = [(f"u{u}", f"i{(u + k) % 8}") for u in range(4) for k in range(6)]
    write_atomic_file(empty_folder / "dataset", "mine", pairs, "user_id:token\titem_id:token")
    dataset, _ = read(model="BPR")
    assert dataset.user_num == 5


def test_a_user_of_one_interaction_is_dropped_as_by_recbole(empty_folder: Path) -> None:
    """The user stays in the vocabulary but is neither trained on nor evaluated."""
    long = [("long", f"i{t}", t) for t in range(6)]
    write_atomic_file(empty_folder / "dataset", "mine", [*long, ("single", "i0", 9)])
    dataset, loaders = read()
    assert dataset.user_num == 3
    single = dataset.token2id("user_id", "single")
    for loader in loaders:
        assert len(loader._dataset) > 0
        assert single not in loader._dataset.inter_feat["user_id"].tolist()


def test_empty_validation_and_test_splits_are_left_empty(empty_folder: Path) -> None:
    write_atomic_file(empty_folder / "dataset", "mine", ROWS)
    _, (train, valid, test) = read()
    assert (len(train), len(valid), len(test)) == (1, 0, 0)


def test_unknown_data_set_says_where_it_looked(empty_folder: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'ml-100k'") as error:
        read("ml-100")
    assert str(empty_folder / "dataset" / "ml-100" / "ml-100.inter") in str(error.value)
    assert list(empty_folder.iterdir()) == []


def test_a_failed_download_says_so_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    def no_network(url: str) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(DataError, match=r"the download from https://.*ml-1m.zip failed \(no network\)"):
        read("ml-1m")
    assert list(empty_folder.iterdir()) == []


def test_a_download_that_is_no_archive_is_refused(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    class Page(io.BytesIO):
        def info(self) -> dict:
            return {"Content-Length": "5"}

    monkeypatch.setattr(urllib.request, "urlopen", lambda url: Page(b"sorry"))
    with pytest.raises(DataError, match=r"ml-1m.zip is not used: it cannot be unpacked \(File is not a zip file\)"):
        read("ml-1m")
    assert list((empty_folder / "dataset").iterdir()) == []


def test_a_separator_may_stand_in_a_quoted_field(empty_folder: Path) -> None:
    rows = ["user_id:token,item_id:token,timestamp:float", '"a,b",i1,1', '"a,b",i2,2']
    write_atomic_file(empty_folder / "dataset", "mine", []).write_text("\n".join(rows) + "\n")
    dataset, _ = read(field_separator=",")
    assert dataset.token2id("user_id", "a,b") == 1

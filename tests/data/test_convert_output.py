"""An atomic file is whole or not there, and not replaced unless asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_posattn.atomic_files.convert import convert as make
from recbole_posattn.atomic_files.convert import output
from recbole_posattn.atomic_files.convert.convert import convert
from recbole_posattn.atomic_files.convert.shapes import ReadOptions
from recbole_posattn.errors import SettingError, UserError

OWN = ReadOptions(user="u", item="i", time="t")


@pytest.fixture
def table() -> Path:
    file = Path("a.csv")
    file.write_text("u,i,t\na,x,1\nb,y,2\nbad\n")
    return file


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_atomic_file_is_replaced_only_if_asked_for(empty_folder: Path, table: Path) -> None:
    done = convert(table, "mine", OWN, on_error="skip")
    assert files(empty_folder / "dataset") == ["mine/mine.inter", "mine/mine.rejected.tsv"]
    before = done.file.read_text()
    table.write_text("u,i,t\nc,z,3\n")
    with pytest.raises(SettingError, match=r"dataset/mine/mine.inter exists; give another --dataset, or --overwrite"):
        convert(table, "mine", OWN)
    assert done.file.read_text() == before
    convert(table, "mine", OWN, overwrite=True)
    assert done.file.read_text().split("\n")[1] == "c\tz\t3"
    assert files(empty_folder / "dataset") == ["mine/mine.inter"]  # the list was of the other file


def test_a_parquet_file_of_interactions_is_not_hidden_unless_asked_for(empty_folder: Path, table: Path) -> None:
    """The text file would be read instead."""
    there = Path("dataset/mine/mine.inter.parquet")
    there.parent.mkdir(parents=True)
    pd.DataFrame({"user_id": ["a"], "item_id": ["x"]}).to_parquet(there)
    with pytest.raises(SettingError, match=r"mine.inter.parquet exists; give another --dataset, or --overwrite"):
        convert(table, "mine", OWN, on_error="skip")
    assert files(empty_folder / "dataset") == ["mine/mine.inter.parquet"]
    convert(table, "mine", OWN, on_error="skip", overwrite=True)
    assert there.is_file() and there.with_suffix("").is_file()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", ".hidden", "a\nb"])
def test_a_name_is_a_word(empty_folder: Path, table: Path, name: str) -> None:
    with pytest.raises(SettingError, match="name must be a plain word such as my-data"):
        convert(table, name, OWN)


def test_the_data_set_that_recbole_brings_is_left_alone(empty_folder: Path, table: Path) -> None:
    with pytest.raises(SettingError, match="'ml-100k' is taken: RecBole would read its own data set"):
        convert(table, "ml-100k", OWN)


def test_a_place_where_nothing_can_be_written_is_reported_first(
    empty_folder: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "locate", lambda *_: pytest.fail("the dump was looked at"))
    with pytest.raises(
        UserError, match=r"a.csv/mine cannot be written: .*/a.csv is not a folder that you may write to"
    ):
        convert(table, "mine", OWN, data_path=table)


def test_an_unknown_choice_at_bad_lines_is_refused(empty_folder: Path, table: Path) -> None:
    with pytest.raises(SettingError, match="on_error must be one of strict, skip; got 'ignore'"):
        convert(table, "mine", OWN, on_error="ignore")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("before", [True, False])
def test_nothing_half_is_left_behind(
    empty_folder: Path, table: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bool
) -> None:
    if before:
        convert(table, "mine", OWN, on_error="skip")
    there = {path: path.read_bytes() for path in empty_folder.rglob("*") if path.is_file()}

    def stopped(numbers: np.ndarray) -> None:
        raise error

    monkeypatch.setattr(output, "_texts", stopped)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else UserError):
        convert(table, "mine", OWN, on_error="skip", overwrite=True)
    assert {path: path.read_bytes() for path in empty_folder.rglob("*") if path.is_file()} == there
    assert (empty_folder / "dataset" / "mine").exists() == before


def test_reading_can_be_stopped(empty_folder: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(make.Gatherer, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        convert(table, "mine", OWN, on_error="skip")
    assert files(empty_folder) == ["a.csv"]


def test_many_rows_are_written_in_pieces(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_ROWS", 7)
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"u": rng.integers(0, 9, 100), "i": rng.integers(0, 9, 100), "t": rng.random(100) * 1e10})
    rows.loc[::3, "t"] = rng.integers(0, 10**10, 34)
    rows.to_csv("a.csv", index=False)
    read = pd.read_csv(convert("a.csv", "mine", OWN).file, sep="\t", float_precision="round_trip")
    place = pd.factorize(rows["u"])[0]
    expected = rows.iloc[np.lexsort((rows["t"], place))].reset_index(drop=True)
    pd.testing.assert_frame_equal(read.set_axis(["u", "i", "t"], axis=1), expected, check_exact=True)

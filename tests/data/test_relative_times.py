"""Times reach the model to the second, whatever RecBole rounds and scales: in training and in evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from recbole_posattn import Config
from recbole_posattn.data.relative_times import relative_times
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.training.load import build_model, prepare_data
from tests.presplit import last_ones_held_out, write_parts
from tests.timed import START, TIME_BIAS, TIMED, assert_exact, timed_rows, write_timed

ROWS = timed_rows()
TEMPORAL = {"eval_args": {"split": {"TQ": [0.7, 0.85]}, "order": "TO", "mode": "full"}, "mask_history": "none"}


@pytest.fixture(scope="module")
def timed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_timed(tmp_path_factory.mktemp("timed"), ROWS)


@pytest.fixture
def prepare(timed_path: Path) -> Callable[..., tuple]:
    """The data set and loaders of a model that reads time, for settings given as keywords."""

    def prepare(dataset: str = TIMED, **changes: Any) -> tuple:
        common = {"data_path": str(timed_path), "MAX_ITEM_LIST_LENGTH": 5, "show_progress": False, **TIME_BIAS}
        config = Config("PosKernelSASRec", dataset, config_dict={**common, **changes}, command_line=[])
        return prepare_data(config)

    return prepare


WAYS = {
    "whole sequences": {},
    "overlapping windows": {"window_stride": 2},
    "lazy prefixes": {"train_objective": "augmented"},
    "prefixes written out": {"train_objective": "augmented", "lazy_prefixes": False},
    "windows of prefixes written out": {"lazy_prefixes": False},
    "scaled": {"normalize_field": ["timestamp"]},
    "all scaled": {"normalize_all": True},
    "masked, by time": TEMPORAL,
    "sampled ranking": {
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni5", "group_by": "user"}
    },
}


@pytest.mark.parametrize("name", WAYS)
def test_seconds_survive(prepare: Callable, name: str) -> None:
    dataset, loaders = prepare(**WAYS[name])
    for loader in loaders:
        batches = [batch if loader is loaders[0] else batch[0] for batch in loader]
        assert sum(assert_exact(batch, dataset, ROWS) for batch in batches) > 5
        assert all(batch["relative_time_list"].dtype == torch.float64 for batch in batches)
        assert not any("exact" in field for batch in batches for field in batch.interaction)  # nor that of the target


def test_other_models_pay_nothing(prepare: Callable) -> None:
    dataset, loaders = prepare(position_encoding=["rope"])
    assert not any("exact" in field for field in dataset.inter_feat)
    for loader in loaders:
        batch = next(iter(loader))
        assert "relative_time_list" not in (batch if loader is loaders[0] else batch[0])
    assert loaders[0]._dataset.windows.time is None and loaders[1]._dataset.histories is None


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("objective", ["sequence", "augmented"])
@pytest.mark.parametrize("with_lists", [True, False])
def test_files_that_are_split_already(
    prepare: Callable, empty_folder: Path, with_lists: bool, objective: str, lazy: bool
) -> None:
    parts = last_ones_held_out([(user, item, START + second) for user, item, second in ROWS])
    header = "user_id:token\titem_id:token\ttimestamp:float"
    if with_lists:
        parts = histories_with_times(parts)
        header += "\titem_id_list:token_seq\ttimestamp_list:float_seq"
    write_parts(empty_folder, "split", parts, header)
    dataset, loaders = prepare(
        "split",
        data_path=str(empty_folder),
        benchmark_filename=["train", "valid", "test"],
        train_objective=objective,
        lazy_prefixes=lazy,
    )
    for loader in loaders:
        batches = [batch if loader is loaders[0] else batch[0] for batch in loader]
        assert sum(assert_exact(batch, dataset, ROWS) for batch in batches) > 5


def histories_with_times(parts: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """The rows of the files with the items and times before each; a user's first interaction is no row."""
    table = pd.concat([pd.DataFrame(rows).assign(part=part) for part, rows in parts.items()], ignore_index=True)
    found: dict[str, list[tuple]] = {part: [] for part in parts}
    for user, own in table.groupby(0, sort=False):
        for place in range(1, len(own)):
            row, before = own.iloc[place], own.iloc[:place]
            lists = (" ".join(map(str, before[column])) for column in (1, 2))
            found[row["part"]].append((user, row[1], row[2], *lists))
    return found


def test_histories_without_times_are_refused(prepare: Callable, empty_folder: Path) -> None:
    parts = histories_with_times(last_ones_held_out(ROWS))
    write_parts(
        empty_folder,
        "split",
        {part: [row[:4] for row in rows] for part, rows in parts.items()},
        "user_id:token\titem_id:token\ttimestamp:float\titem_id_list:token_seq",
    )
    settings = {"data_path": str(empty_folder), "benchmark_filename": ["train", "valid", "test"]}
    with pytest.raises(DataError, match=r"has its history, but not the times of it: add the column timestamp_list:fl"):
        prepare("split", **settings)
    with pytest.raises(DataError, match=r"there is no column timestamp:float \(keys TIME_FIELD and load_col\)"):
        prepare("split", **settings, load_col={"inter": ["user_id", "item_id", "item_id_list"]})


# -- times that are no times -----------------------------------------------------------------------------------------


def test_the_median_gap_is_that_of_the_training_targets(prepare: Callable) -> None:
    dataset, (train, _, test) = prepare()
    times = pd.DataFrame(ROWS, columns=["user", "item", "time"])
    last = times.groupby("user")["time"].cumcount(ascending=False)
    gaps = times.groupby("user")["time"].diff()
    # leave-one-out keeps the first target of a user in training
    n = times.groupby("user")["time"].transform("size")
    trained = gaps[(last >= 2) | ((n - last == 2) & (n <= 3))]
    expected = float(trained[trained > 0].median())
    assert train._dataset.median_gap == test._dataset.median_gap == dataset.median_gap == expected


@pytest.mark.parametrize("step", [1, 86400])
def test_times_that_are_only_an_order_are_noticed(
    prepare: Callable, empty_folder: Path, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    places = pd.DataFrame(ROWS).groupby(0).cumcount()
    rows = [(user, item, step * int(place)) for (user, item, _), place in zip(ROWS, places)]
    write_timed(empty_folder, rows)
    settings = {"data_path": str(empty_folder)}
    with pytest.raises(
        DataError, match=f"'timed': the gaps between successive times are {step}, so timestamp only orders"
    ):
        prepare(**settings)
    with caplog.at_level(logging.INFO):
        dataset, (train, valid, _) = prepare(**settings, read_times="auto")
    assert (
        "only orders the interactions; set time_is_order to False if this is wrong. The parts of PosKernelSASRec that"
        in caplog.text
    )
    alone = {"attention": "none", "kernel_branch": "time_decay"}
    config = Config("PosKernelSASRec", "timed", config_dict={**settings, **alone}, command_line=[])
    with pytest.raises(SettingError, match="attention 'none' with kernel_branch 'time_decay' mixes no positions here"):
        build_model(config, train)
    assert not train._dataset.times_are_gaps and "relative_time_list" not in next(iter(train))
    assert "relative_time_list" not in next(iter(valid))[0]
    dataset, (train, _, _) = prepare(**settings, time_is_order=False)
    assert assert_exact(next(iter(train)), dataset, rows)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("time_is_order", True, "the times of data set 'timed' only order the interactions (time_is_order True)"),
        ("time_gaps", False, "the times of data set 'timed' have no valid differences (time_gaps False)"),
    ],
)
def test_what_the_properties_say_of_times_is_followed(
    prepare: Callable, key: str, value: bool, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SettingError) as error:
        prepare(**{key: value})
    assert str(error.value) == (
        f"position_encoding time_bias reads the times between interactions, but {reason}. Leave it out, or set "
        "read_times to auto, which switches it off."
    )
    _, (train, _, _) = prepare(**{key: value}, read_times="auto")
    assert f"position_encoding time_bias is off: {reason}" in caplog.text
    assert "relative_time_list" not in next(iter(train))
    prepare(**{key: value}, position_encoding=["rope"])


def test_parts_are_on_or_off_as_the_key_says(prepare: Callable, timed_path: Path) -> None:
    def reads(**settings: Any) -> bool:
        config = {"data_path": str(timed_path), **settings}
        return Config("PosKernelSASRec", TIMED, config_dict=config, command_line=[])["reads_time"]

    assert reads(**TIME_BIAS) and reads(**TIME_BIAS, read_times="auto") and not reads(**TIME_BIAS, read_times=False)
    assert not reads() and not reads(position_encoding=["forgetting"])
    assert not reads(kernel_structure="toeplitz-full", read_times="auto")
    assert not reads(kernel_branch="toeplitz", attention="none")
    assert not Config("GRU4Rec", TIMED, config_dict={"data_path": str(timed_path)}, command_line=[])["reads_time"]


def test_relative_times_of_one_and_of_many_histories() -> None:
    times = torch.tensor([[5.0, 7.0, 99.0], [4.0, 2.0, 8.5]], dtype=torch.float64)
    expected = [[-2.0, 0.0, 0.0], [-4.5, -6.5, 0.0]]
    assert relative_times(times, torch.tensor([2, 3])).tolist() == expected
    assert relative_times(times[1], torch.tensor(3)).tolist() == expected[1]


def test_a_single_row_has_its_times(prepare: Callable) -> None:
    part = prepare()[1][1]._dataset
    assert part[3]["relative_time_list"].tolist() == part[torch.tensor([3])]["relative_time_list"][0].tolist()

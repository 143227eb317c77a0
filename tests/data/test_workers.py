"""Worker processes of loaders, however the system starts them."""

from __future__ import annotations

import copy
import multiprocessing
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import AbstractDataLoader, TrainDataLoader

from recbole_posattn import Config
from recbole_posattn.data.loaders import TrainLoader


@pytest.fixture
def loader(tiny_settings: Callable) -> Callable[..., TrainLoader]:
    """A loader of rows in random order, without sampled negatives."""

    def loader(worker: int, loader_class: type[TrainDataLoader] = TrainLoader) -> TrainDataLoader:
        settings = tiny_settings(worker=worker, train_neg_sample_args=None, loss_type="CE")
        config = Config("GRU4Rec", "tiny", config_dict=settings, command_line=[])
        return loader_class(config, data_preparation(config, create_dataset(config))[0]._dataset, None, shuffle=True)

    return loader


@pytest.fixture
def start_method() -> Iterator[Callable[[str], None]]:
    before = multiprocessing.get_start_method()
    yield lambda name: multiprocessing.set_start_method(name, force=True)
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_they_serve_the_same_batches(method: str, loader: Callable, start_method: Callable) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    expected = list(loader(worker=0))
    start_method(method)
    served = list(loader(worker=1))
    assert len(served) == len(expected) > 1
    for batch, other in zip(served, expected):
        assert batch.columns == other.columns
        assert all(torch.equal(batch[column], other[column]) for column in batch.columns)


@pytest.mark.parametrize("loader_class", [TrainLoader, TrainDataLoader])
@pytest.mark.parametrize(
    ("platform", "version", "method", "expected"),
    [
        ("linux", (3, 14), "forkserver", "fork"),
        ("linux", (3, 14), "spawn", None),  # somebody has chosen it
        ("linux", (3, 13), "forkserver", None),
        ("darwin", (3, 14), "forkserver", None),
    ],
)
def test_on_linux_they_stay_forks(
    platform: str,
    version: tuple[int, int],
    method: str,
    expected: str | None,
    loader_class: type[AbstractDataLoader],
    loader: Callable,
    start_method: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_method(method)
    one, none = loader(1, loader_class), loader(0, loader_class)
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "platform", platform)
    context = one.multiprocessing_context
    assert (context and context.get_start_method()) == expected and none.multiprocessing_context is None
    one.multiprocessing_context = "spawn"
    assert one.multiprocessing_context.get_start_method() == "spawn"


def test_a_copy_of_a_loader_is_whole(loader: Callable) -> None:
    copied = copy.deepcopy(loader(worker=0))
    assert {"generator", "sampler", "batch_sampler"} <= vars(copied).keys()

"""Shared fixtures: an empty working folder for every test, and tiny data sets with a planted pattern."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import recbole_posattn  # noqa: F401  (prepares RecBole)
from tests.planted import lagged_sequences, write_atomic_file

TINY = "tiny"

# The first call of anything in torch is slow; how long an example takes says nothing here.
settings.register_profile("recbole-posattn", deadline=None, print_blob=True)
settings.load_profile("recbole-posattn")

torch.set_num_threads(1)  # the tensors here are tiny: threads would wait for each other longer than they work


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs write below the working folder and read ``sys.argv``: neither may be pytest's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_recbole_posattn.py"])
    return tmp_path


@pytest.fixture(scope="session")
def tiny_data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data_path`` with the data set ``tiny``: 60 users of 4 to 24 interactions with 20 items."""
    folder = tmp_path_factory.mktemp("data")
    write_atomic_file(folder, TINY, lagged_sequences(60, range(4, 25), n_items=20, lag=3, noise=0.1, seed=1))
    return folder


@pytest.fixture
def tiny_settings(tiny_data_path: Path) -> Callable[..., dict]:
    """Settings for a run of seconds on ``tiny``; keyword arguments are added or replace."""

    def settings(**changes: object) -> dict:
        base = {
            "data_path": str(tiny_data_path),
            "epochs": 2,
            "hidden_size": 16,
            "train_batch_size": 16,
            "MAX_ITEM_LIST_LENGTH": 10,
            "show_progress": False,
        }
        return {**base, **changes}

    return settings

"""Names of data sets with characters that are patterns elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_posattn import load, run
from recbole_posattn.training.run_folder import LAST_NAME
from tests.planted import lagged_sequences, write_atomic_file


class PowerCut(Exception):
    """What ends a run here."""


def cut(epoch: int, score: float) -> None:
    if epoch == 1:  # behind the file that the first epoch leaves
        raise PowerCut


@pytest.mark.parametrize("name", ["a[1]", "a*", "ä%s{} b"])
def test_a_run_is_resumed_whatever_its_data_set_is_called(tiny_settings: Callable, name: str) -> None:
    """And not with that of another data set whose name the pattern would match."""
    for dataset in (name, "a1"):
        rows = lagged_sequences(12, range(4, 8), n_items=10, lag=2, noise=0.1, seed=len(dataset))
        write_atomic_file(Path("data"), dataset, rows)
    settings = tiny_settings(data_path="data", topk=3, valid_metric="NDCG@3")
    for dataset in (name, "a1"):
        with pytest.raises(PowerCut):
            run("NoPESASRec", dataset, config_dict=settings, command_line=[], callback_fn=cut)
    (left,) = (
        file.parent for file in Path("saved").glob(f"*/{LAST_NAME}") if file.parent.name[11:].startswith(f"{name}-")
    )
    result = run("NoPESASRec", name, config_dict=settings, command_line=[], resume="auto")
    assert Path(result["checkpoint"]).parent == left and result["epochs"] == 2
    assert load(result["checkpoint"]).dataset.dataset_name == name

"""Models that read time: the batch's times reach every part, as those of the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_posattn import Config
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.training.load import prepare_data
from tests.timed import TIME_BIAS, TIMED, write_timed


@pytest.fixture(scope="module")
def timed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_timed(tmp_path_factory.mktemp("timed"))


@pytest.fixture
def timed(timed_path: Path) -> Callable[..., tuple[SASRecBase, tuple]]:
    """A model in float64 with random weights, and its loaders, for settings given as keywords."""

    def timed(model: str = "PosKernelSASRec", **changes: Any) -> tuple[SASRecBase, tuple]:
        common = {"data_path": str(timed_path), "MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 16, "train_batch_size": 16}
        config = Config(model, TIMED, config_dict={**common, **changes}, command_line=[])
        _, loaders = prepare_data(config)
        torch.manual_seed(0)
        recommender = config.model_class(config, loaders[0]._dataset).double().eval()
        with torch.no_grad():
            for name, parameter in recommender.named_parameters():
                parameter.normal_(std=1.0 if "kernel" in name or "encoding" in name or ".branch." in name else 0.3)
        return recommender, loaders

    return timed


def test_without_times_a_model_says_so(timed: Callable) -> None:
    model, _ = timed(**TIME_BIAS)
    with pytest.raises(ValueError, match="PosKernelSASRec reads the times between items, and got none"):
        model(torch.tensor([[3, 4]]), torch.tensor([2]))


@pytest.mark.parametrize("alignment", ["end", "start"])
def test_times_stand_where_the_items_do_and_never_fall(timed: Callable, alignment: str) -> None:
    model, _ = timed(**TIME_BIAS, position_alignment=alignment)
    times = torch.tensor([[-9.0, -20.0, -3.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    length = torch.tensor([4, 2])
    aligned = model._align_times(times, length).tolist()
    if model.newest_last:
        assert aligned == [[-9.0, -9.0, -3.0, 0.0], [-1.0, -1.0, -1.0, 0.0]]
    else:
        assert aligned == [[-9.0, -9.0, -3.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]
    assert model.newest_last == (alignment == "end")

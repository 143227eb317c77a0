"""Models on the tiny data set, with random weights in every part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recbole.data import create_dataset, data_preparation

from recbole_posattn import Config
from recbole_posattn.position.kernels import BANDED_STRUCTURES


@pytest.fixture(scope="session")
def prepared() -> dict:
    """Loaders by the settings that shape the data, so that each is prepared once."""
    return {}


@pytest.fixture
def build(tiny_settings: Callable, prepared: dict) -> Callable[..., tuple]:
    """A model in float64 with random kernels and encodings, and the loaders, for settings given as keywords."""

    def build(model: str = "PosKernelSASRec", **changes: object) -> tuple:
        banded = any(structure in str(changes.get("kernel_structure")) for structure in BANDED_STRUCTURES)
        settings = tiny_settings(**({"kernel_bandwidth": 3} if banded else {}), **changes)
        config = Config(model, "tiny", config_dict=settings)
        shaping = (config["train_objective"], config["MAX_ITEM_LIST_LENGTH"])
        if shaping not in prepared:
            prepared[shaping] = data_preparation(config, create_dataset(config))
        loaders = prepared[shaping]
        torch.manual_seed(0)
        recommender = config.model_class(config, loaders[0]._dataset).double().eval()
        with torch.no_grad():
            for name, parameter in recommender.named_parameters():
                if "kernel" in name or "encoding" in name:
                    parameter.normal_()
                elif parameter.dim() > 1 and name != "item_embedding.weight":
                    parameter.normal_(std=0.3)
        return recommender, loaders

    return build


@pytest.fixture
def histories() -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded item lists out of 20 items, as RecBole's, and their lengths."""
    length = torch.tensor([10, 1, 4, 7])
    items = torch.randint(1, 20, (4, 10), generator=torch.Generator().manual_seed(0))
    return items.masked_fill(torch.arange(10) >= length[:, None], 0), length

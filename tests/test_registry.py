"""RecBole finds our models where it finds its own."""

from __future__ import annotations

from pathlib import Path

from recbole_posattn.compat import lookups

import pytest
import recbole.data.dataset
import recbole.trainer
from recbole.model.sequential_recommender import SASRec
from recbole.utils import ModelType, get_model, get_trainer

from recbole_posattn import Config, PosKernelSASRec, register
from recbole_posattn.data.dataset import SequenceDataset
from recbole_posattn.errors import SettingError
from recbole_posattn.models.baselines import BASELINES
from recbole_posattn.models.filters import FILTER_MODELS
from recbole_posattn.settings.properties import recbole_model_names
from recbole_posattn.training.trainer import SequenceTrainer


@pytest.mark.parametrize("model", [PosKernelSASRec, *BASELINES, *FILTER_MODELS], ids=lambda model: model.__name__)
def test_recbole_finds_model_trainer_and_data_set(model: type) -> None:
    name = model.__name__
    assert get_model(name) is lookups.model_class(name) is model
    assert get_trainer(ModelType.SEQUENTIAL, name) is SequenceTrainer
    assert getattr(recbole.data.dataset, f"{name}Dataset") is SequenceDataset


@pytest.mark.parametrize("name", recbole_model_names())
def test_recboles_models_are_those_that_recbole_finds(name: str) -> None:
    assert lookups.model_class(name) is get_model(name)


@pytest.mark.parametrize("name", ["NoModel", "sasrec", "../sequential_recommender/sasrec", "", "Pöp"])
def test_an_unknown_model_ends_as_in_recbole(name: str) -> None:
    with pytest.raises((AttributeError, ImportError, ValueError)) as theirs:
        get_model(name)
    with pytest.raises(theirs.type):
        lookups.model_class(name)


def test_ones_own_model_gets_its_defaults(empty_folder: Path) -> None:
    class HomeMadeRec(SASRec):
        pass

    (empty_folder / "home.yaml").write_text("n_layers: 7\nloss_type: CE\nhome_made_key: 3\n")
    assert register(HomeMadeRec, properties="home.yaml") is HomeMadeRec
    settings = Config("HomeMadeRec", "ml-100k", config_dict={"home_made_key": 4}, command_line=[])
    assert settings.model_class is HomeMadeRec
    assert (settings["n_layers"], settings["home_made_key"]) == (7, 4)
    with pytest.raises(SettingError, match="Did you mean 'home_made_key'"):
        Config("HomeMadeRec", "ml-100k", config_dict={"home_mad_key": 4}, command_line=[])


def test_refuses_a_name_of_recboles_and_a_missing_file() -> None:
    with pytest.raises(SettingError, match="RecBole has one of that name"):
        register(SASRec)
    with pytest.raises(SettingError, match=r"properties of model 'Own' not found: .*nowhere\.yaml"):
        register(type("Own", (SASRec,), {}), properties="nowhere.yaml")

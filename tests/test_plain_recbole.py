"""RecBole code that does not use our ``Config`` does in this process what it does without us."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# RecBole's own way from settings to results, before and after the package was used for the same models.
PROGRAM = """
import json, pickle, sys
from recbole_posattn import compat
compat.apply()  # RecBole's Config cannot be made on numpy 2 without

import pandas, recbole.config, recbole.data.dataset, recbole.trainer
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

settings = json.loads(sys.argv[1])
sys.argv = ["plain.py"]
DATA_ONLY = ("GRU4RecKG", "DIEN")  # have data set classes of their own, and need embeddings of entities and labels
CLASSES = dict(vars(recbole.data.dataset))
READ_CSV = pandas.read_csv

def prepared(config):
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    return dataset, data_preparation(config, dataset)

def plain(model):
    config = recbole.config.Config(model, "tiny", config_dict=settings[model])
    dataset, loaders = prepared(config)
    batches = [repr([loader.dataset.inter_feat.interaction, next(iter(loader))]) for loader in loaders]
    classes = [f"{type(each).__module__}.{type(each).__qualname__}" for each in (dataset, *loaders)]
    if model in DATA_ONLY:
        return classes, batches, type(pickle.loads(pickle.dumps(dataset))).__name__
    init_seed(config["seed"], True)
    network = get_model(model)(config, loaders[0].dataset)
    trainer_class = get_trainer(config["MODEL_TYPE"], model)
    trainer = trainer_class(config, network)
    best = trainer.fit(loaders[0], loaders[1], saved=False, show_progress=False)
    metrics = trainer.evaluate(loaders[2], load_best_model=False)
    weights = [parameter.double().sum().item() for parameter in network.parameters()]
    return classes, trainer_class.__name__, batches, repr(best), repr(metrics), weights

before = {model: plain(model) for model in settings}
from recbole_posattn import Config, run
ours = {}
for model in settings:
    dataset, loaders = prepared(Config(model, "tiny", config_dict=settings[model]))
    ours[model] = [type(each).__name__ for each in (dataset, *loaders)]
    if model not in DATA_ONLY:
        assert run(model, "tiny", config_dict=settings[model])["test_result"]
assert pandas.read_csv is READ_CSV
after = {model: plain(model) for model in settings}
assert all(vars(recbole.data.dataset)[name] is value for name, value in CLASSES.items() if not name.startswith("__"))
print(json.dumps([before, ours, after]))
"""


@pytest.mark.slow
def test_plain_recbole_behaves_as_without_us(tiny_data_path: Path, empty_folder: Path) -> None:
    shutil.copytree(tiny_data_path / "tiny", empty_folder / "dataset" / "tiny")
    items = sorted(
        {line.split("\t")[1] for line in next((tiny_data_path / "tiny").iterdir()).read_text().split("\n")[1:-1]}
    )
    links = ["item_id:token\tentity_id:token", *(f"{item}\te{item}" for item in items)]
    triples = ["head_id:token\trelation_id:token\ttail_id:token"]
    triples += [f"e{head}\tr\te{tail}" for head, tail in itertools.pairwise(items)]
    (empty_folder / "dataset" / "tiny" / "tiny.link").write_text("\n".join(links) + "\n")
    (empty_folder / "dataset" / "tiny" / "tiny.kg").write_text("\n".join(triples) + "\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    base = {"data_path": "dataset", "epochs": 1, "show_progress": False, "load_col": columns, "use_gpu": False}
    leave_one_out = {"order": "TO", "split": {"LS": "valid_and_test"}, "mode": "full"}
    sequential = {**base, "train_neg_sample_args": None, "eval_args": leave_one_out, "MAX_ITEM_LIST_LENGTH": 8}
    knowledge = {**columns, "kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    settings = {
        "SASRec": {**sequential, "hidden_size": 8, "inner_size": 8, "n_layers": 1},
        "BPR": {**base, "embedding_size": 8},
        "GRU4RecKG": {**sequential, "load_col": knowledge, "additional_feat_suffix": None, "preload_weight": None},
        "DIEN": {**sequential, "eval_args": {**leave_one_out, "mode": "labeled"}},
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(settings)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, ours, after = json.loads(done.stdout.splitlines()[-1])
    assert after == before
    assert all(name.startswith("recbole.") for model in settings for name in before[model][0])
    assert [ours[model][0] for model in settings] == [
        *("LazySequentialDataset", "HeldOutDataset", "LazyKGSeqDataset", "ExactTimesDIENDataset"),
    ]
    assert all(ours[model][1] == "TrainLoader" for model in settings)

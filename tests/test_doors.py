"""RecBole's own functions with our models and checkpoints end in one line that names ours; docs/from_recbole.md."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recbole.config
import torch

import recbole_posattn
from recbole_posattn import PosKernelSASRec, load, run
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.registry import registered_model_names

PAGE = Path(recbole_posattn.__file__).parent.parent / "docs" / "from_recbole.md"
OURS = "recbole_posattn"


@pytest.fixture(scope="module")
def quick_start() -> Any:
    """RecBole's module, whose import takes seconds, for Ray."""
    pytest.importorskip("ray.tune")
    import recbole.quick_start

    return recbole.quick_start


@pytest.mark.parametrize("model", registered_model_names())
def test_recboles_config_names_ours(model: str) -> None:
    with pytest.raises(SettingError, match=f"Config cannot use {model}, .*: use {OURS}.Config instead") as refused:
        recbole.config.Config(model, "ml-100k")
    assert "\n" not in str(refused.value)


def test_all_keys_given_are_not_enough_for_recboles_config() -> None:
    """It would not derive the settings that make ``time_rope`` read times or batches hold whole histories."""
    for model in ("PosKernelSASRec", PosKernelSASRec):
        with pytest.raises(SettingError, match="Config cannot use PosKernelSASRec, whose settings it does not know"):
            recbole.config.Config(model, "ml-100k", [str(PROPERTIES / "model" / "PosKernelSASRec.yaml")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("run", "recbole_posattn.run"),
        ("run_recbole", "recbole_posattn.run"),
        ("run_recboles", "recbole_posattn.run with nproc"),
        ("objective_function", "recbole_posattn.experiments.tuning.objective.objective_function"),
    ],
)
def test_each_door_names_our_function(quick_start: Any, name: str, instead: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "run": lambda: quick_start.run("PosKernelSASRec", "ml-100k"),
        "run_recbole": lambda: quick_start.run_recbole(model="PosKernelSASRec", dataset="ml-100k"),
        "run_recboles": lambda: quick_start.run_recboles(
            0, "PosKernelSASRec", "ml-100k", None, {"config_dict": {"world_size": 2, "nproc": 2, "offset": 0}}
        ),
        "objective_function": lambda: quick_start.objective_function(
            {"model": "PosKernelSASRec", "dataset": "ml-100k"}
        ),
    }
    with pytest.raises(SettingError, match=f"RecBole's {name} cannot use PosKernelSASRec, .*: use {instead} instead"):
        calls[name]()
    assert callable(_attribute(instead.split()[0]))


def _attribute(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["recbole.quick_start", "recbole_posattn"])
def test_our_checkpoint_names_load_whatever_was_imported_first(first: str, tiny_settings: Callable) -> None:
    checkpoint = run("NoPESASRec", "tiny", config_dict=tiny_settings(epochs=1))["checkpoint"]
    imports = ["from recbole.quick_start import load_data_and_model", "from recbole_posattn import load"]
    imports = ["from recbole_posattn import compat", *(imports if first == "recbole.quick_start" else imports[::-1])]
    code = "; ".join([*imports, f"load_data_and_model({checkpoint!r})"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "RecBole's load_data_and_model cannot use plain settings" in last and "use recbole_posattn.load" in last


def test_recboles_logger_of_plain_settings_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"init_logger cannot use plain settings.*: use recbole_posattn.load"):
        recbole.utils.init_logger({"seed": 1})


# -- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PAGE.exists(), reason="the docs are part of a checkout, not of the wheel")
def test_the_page_names_what_there_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    commands = set(re.findall(r"recbole-posattn ([a-z]+)", text))
    assert commands <= cli.COMMANDS.keys() and len(commands) >= 6
    doors = ("run_recbole", "run_recboles", "objective_function", "load_data_and_model", "run_hyper.py")
    others = (
        "run_recbole_group.py",
        "significance_test.py",
        "save_dataset",
        "full_sort_topk",
        "log_wandb",
        "log_mlflow",
    )
    assert [name for name in (*doors, *others, "TensorBoard") if name not in text] == []


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="the docs are part of a checkout, not of the wheel")
def test_the_case_study_of_the_page_runs(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """On ml-100k, whose users it names, with a model of an epoch; and the lists are those of ``recommend``."""
    settings = {"epochs": 0, "hidden_size": 8, "n_layers": 1, "show_progress": False, "MAX_ITEM_LIST_LENGTH": 5}
    run("NoPESASRec", "ml-100k", config_dict={**settings, "epochs": 1, "max_minutes": 0.001}, test=False)
    folder = next(Path("saved").iterdir())
    block = next(
        b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S) if "topk" in b
    )
    Path("study.py").write_text(block.replace("saved/<run>", str(folder)))
    sys.argv = ["study.py"]
    result = runpy.run_path("study.py")
    loaded, items = load(folder), result["items"]
    expected = recbole_posattn.Recommender(loaded).recommend_users(["196", "186"], 10, split="test")
    dataset = loaded.dataset
    found = dataset.id2token(dataset.iid_field, items.cpu())
    users = dataset.token2id(dataset.uid_field, ["196", "186"])
    order = [["196", "186"][i] for i in torch.argsort(torch.tensor(users)).tolist()]
    by_user = expected.groupby("user")["item"].agg(list)
    assert sorted(map(list, found)) == sorted(by_user[user] for user in order)

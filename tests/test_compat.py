"""The work-arounds for RecBole on today's stack."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
import warnings
from pathlib import Path

from recbole_posattn.compat.tensorboard import tensorboard_folder, tensorboard_in

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.trainer import trainer as recbole_trainer
from recbole.utils import get_tensorboard
from scipy import sparse
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from recbole_posattn import Config, compat
from recbole_posattn.atomic_files.download import download_atomic_files
from recbole_posattn.training.plain import plain_other_parameter, restore_other_parameter
from recbole_posattn.training.run_log import run_logger
from recbole_posattn.version import UnsupportedVersionError, require_supported_versions
from tests.archives import serve, zip_of


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"recbole": "1.1.1"}, "RecBole 1.1.1 is installed, but recbole-posattn works with 1.2.x"),
        ({"recbole": "2.0.0"}, "recbole-posattn setup"),
        ({"pandas": "3.0.1"}, r'pandas 3.0.1 is installed.*pip install "pandas<3"'),
        ({"recbole": None}, "RecBole is not installed; install it with: recbole-posattn setup"),
    ],
)
def test_stops_on_versions_that_do_not_work(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None], message: str
) -> None:
    def version(package: str) -> str:
        found = versions.get(package, {"recbole": "1.2.1", "pandas": "2.3.3"}[package])
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UnsupportedVersionError, match=message):
        require_supported_versions()


def test_numpy_names_are_there_for_recboles_config() -> None:
    assert np.float_ is np.float64 and np.complex_ is np.complex128 and np.unicode_ is np.str_


def test_interactions_are_sorted_without_a_warning() -> None:
    """Stably, and by NumPy's way to make tensors of what it has computed, which it will insist on."""
    interaction = Interaction({"time": torch.tensor([3.0, 1.0, 2.0, 1.0]), "item": torch.tensor([30, 10, 20, 11])})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interaction.sort("time")
        order = np.argsort(interaction["time"])
    assert interaction["item"].tolist() == [10, 11, 20, 30]
    assert isinstance(order, torch.Tensor) and order.dtype == torch.int64


def test_arrays_of_tensors_are_what_numpy_asks_for() -> None:
    tensor = torch.tensor([1.5, 2.5])
    compat.patch_tensor_array_methods()  # twice is once
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared, copied, cast = np.asarray(tensor), np.array(tensor), np.array(tensor, dtype=np.int32)
        only_shared = np.array(tensor, copy=False)
        wrapped = torch.zeros(1).__array_wrap__(np.array([1.5, 2.5]), None, False)
    tensor[0] = 7
    assert shared[0] == only_shared[0] == 7 and copied[0] == 1.5
    assert cast.tolist() == [1, 2] and cast.dtype == np.int32
    with pytest.raises(ValueError, match="without a copy"):
        np.array(tensor, dtype=np.int32, copy=False)
    with pytest.raises(RuntimeError, match="requires grad"):
        np.array(torch.ones(2, requires_grad=True))
    assert torch.equal(wrapped, torch.tensor([1.5, 2.5], dtype=torch.float64))


@pytest.mark.slow
def test_warnings_that_nobody_can_act_on_stay_silent() -> None:
    code = (
        "import warnings; from recbole_posattn import Config; "
        "warnings.warn_explicit('chained', FutureWarning, 'dataset.py', 1, module='recbole.data.dataset'); "
        "warnings.warn_explicit('Grad strides do not match bucket view strides.', UserWarning, 'graph.py', 1); "
        "warnings.warn_explicit('invalid escape sequence', SyntaxWarning, '/lib/recbole/model/dien.py', 394); "
        "warnings.warn_explicit('invalid escape sequence', SyntaxWarning, '/home/mine/recbole.py', 1); "
        "warnings.warn_explicit('mine', FutureWarning, 'x.py', 1, module='x'); "
        "warnings.warn_explicit('ours', FutureWarning, 'x.py', 2, module='recbole_posattn.settings.config')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "chained" not in done.stderr and "strides" not in done.stderr
    assert "dien" not in done.stderr and "/home/mine/recbole.py" in done.stderr
    assert "mine" in done.stderr and "ours" in done.stderr


def test_other_parameters_survive_a_safe_checkpoint(empty_folder: Path) -> None:
    matrix = sparse.random(4, 5, density=0.4, format="csr", random_state=0)
    parameters = {
        "tensor": torch.arange(3),
        "array": np.arange(6.0).reshape(2, 3),
        "sparse": matrix,
        "number": np.float64(0.5),
        "nested": [torch.ones(2), {"deep": np.array([1, 2])}],
        "none": None,
        "layer": nn.Linear(2, 2),
    }
    torch.save(plain_other_parameter(parameters), "parameters.pth")
    restored = restore_other_parameter(torch.load("parameters.pth", weights_only=True))
    assert torch.equal(restored["tensor"], parameters["tensor"])
    np.testing.assert_array_equal(restored["array"], parameters["array"])
    assert restored["sparse"].format == "csr" and (restored["sparse"] != matrix).nnz == 0
    assert restored["number"] == 0.5 and restored["none"] is None
    np.testing.assert_array_equal(restored["nested"][1]["deep"], [1, 2])
    assert "layer" not in restored  # its weights are in the model's own state


def test_each_run_logs_to_its_own_file_and_leaves_the_host_alone(empty_folder: Path) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    for model in ("PosKernelSASRec", "SASRec"):
        config = Config(model, "ml-100k", command_line=[])
        with run_logger(config):
            root.info(f"message of {model}")
        (log,) = (empty_folder / "log" / model).iterdir()
        assert f"message of {model}" in log.read_text() and log.read_text().count("message") == 1
        assert (root.handlers, root.level) == before


def test_a_log_of_the_host_does_not_name_that_of_tensorboard(empty_folder: Path) -> None:
    host = logging.FileHandler(empty_folder / "host.log")
    root = logging.getLogger()
    root.addHandler(host)
    try:
        with run_logger(Config("SASRec", "ml-100k", command_line=[])):
            get_tensorboard(root).close()
    finally:
        root.removeHandler(host)
        host.close()
    (log,), (board,) = (empty_folder / "log" / "SASRec").iterdir(), (empty_folder / "log_tensorboard").iterdir()
    assert board.name == log.stem


def test_tensorboard_goes_on_when_the_working_folder_changes(
    empty_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread opens the file anew for every record."""
    with run_logger(Config("SASRec", "ml-100k", command_line=[])):
        new = get_tensorboard(logging.getLogger())
    name = tensorboard_folder(new)
    with tensorboard_in(name, 1):
        continued = recbole_trainer.get_tensorboard(logging.getLogger())
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for epoch, writer in enumerate((new, continued)):
        writer.add_scalar("loss", 0.5, epoch)
        writer.close()
    assert list(Path.cwd().iterdir()) == []
    events = EventAccumulator(str(empty_folder / "log_tensorboard" / name)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1]


def test_sparse_matrices_are_built_without_a_warning_and_for_recbole_alone() -> None:
    class Mine(LightGCN):
        pass

    module, theirs = sys.modules[LightGCN.__module__], torch.sparse.FloatTensor
    compat.patch_sparse_tensor_constructor(Mine)
    compat.patch_sparse_tensor_constructor(Mine)  # once is enough
    index, values = torch.tensor([[0, 1, 1], [2, 0, 2]]), torch.tensor([0.5, 2.0, -1.0])
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        for size in ((torch.Size((2, 4)),), ()):
            built = module.torch.sparse.FloatTensor(index, values, *size)
            with pytest.warns(UserWarning, match="SparseTensor"):
                expected = theirs(index, values, *size)
            assert built.dtype == expected.dtype and built.layout == expected.layout
            assert torch.equal(built.to_dense(), expected.to_dense())
    finally:
        torch.set_warn_always(before)
    assert torch.sparse.FloatTensor is theirs and module.torch is not torch and module.torch.Tensor is torch.Tensor


@pytest.fixture(scope="module")
def folder_of_fixtures() -> Path:
    return Path.cwd()


def test_no_fixture_works_in_the_clone(folder_of_fixtures: Path) -> None:
    clone = Path(__file__).parent.parent
    assert not folder_of_fixtures.is_relative_to(clone) and not Path.cwd().is_relative_to(clone)


def test_download_unpacks_and_renames(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    serve(monkeypatch, zip_of({"Amazon.inter": "user_id:token\n", "Amazon.item": "item_id:token\n"}))
    folder = empty_folder / "dataset" / "beauty"
    download_atomic_files("https://nowhere.invalid/Amazon.zip", folder, "beauty")
    assert sorted(path.name for path in folder.iterdir()) == ["beauty.inter", "beauty.item"]
    assert [path.name for path in folder.parent.iterdir()] == ["beauty"]


@pytest.mark.slow
def test_looking_up_a_model_leaves_anomaly_detection_alone() -> None:
    """In a process of its own: the module that switches it on is imported once."""
    code = "import torch; from recbole_posattn import Config; Config('SASRec', 'ml-100k', command_line=[]); "
    code += "from recbole.model.sequential_recommender import sine; print(torch.is_anomaly_enabled())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

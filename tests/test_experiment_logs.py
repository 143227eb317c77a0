"""TensorBoard, Weights & Biases and MLflow: what a run logs there, and how a resumed run goes on."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.utils import get_tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_posattn import Config, run
from recbole_posattn.analysis.kernel_tables import kernel_reach, lag_profiles
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import SettingError
from recbole_posattn.models.kernel_summaries import kernel_summaries
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.load import Loaded
from recbole_posattn.training.run_folder import LAST_NAME
from recbole_posattn.training.tensorboard import SafeWriter


def logs() -> list[Path]:
    return sorted(path for path in Path("log_tensorboard").iterdir())


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The values of each tag by step."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_a_run_logs_learning_rate_all_metrics_and_kernels(tiny_settings: Callable) -> None:
    settings = tiny_settings(epochs=2, learning_rate=0.002, kernel_structure="toeplitz-identity")
    result = run("PosKernelSASRec", "tiny", config_dict=settings, saved=False)
    (folder,) = logs()
    found = scalars(folder)
    assert found["Learning_rate"] == pytest.approx({0: 0.002, 1: 0.002})
    for metric in result["best_valid_result"]:
        expected = {point["epoch"]: point["valid"][metric] for point in result["curve"]}
        assert found[f"Valid/{metric}"] == pytest.approx(expected)
    kernels = {tag for tag in found if tag.startswith("Kernels/")}
    parts = [f"layer_{layer}/{part}" for layer in (1, 2) for part in ("U", "branch")]
    assert kernels == {f"Kernels/{part}/{name}" for part in parts for name in ("mean_lag", "lag_0_share")}
    histograms = EventAccumulator(str(folder)).Reload().Tags()["histograms"]
    assert sorted(histograms) == sorted(f"Kernels/{part}/weights" for part in parts)


def test_a_log_that_can_no_longer_be_written_is_one_warning(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    """As on a full disk; the thread that writes keeps the error for the next call."""
    Config("SASRec", "ml-100k", command_line=[])  # hooks RecBole
    writer = SafeWriter(get_tensorboard(logging.getLogger()))
    shutil.rmtree("log_tensorboard")
    for epoch in range(3):
        writer.add_scalar("loss", 0.5, epoch)
        writer.flush()
    writer.close()
    assert [record.message for record in caplog.records] == [
        "the TensorBoard log cannot be written: No such file or directory; the run continues without it"
    ]
    assert "Traceback" not in capfd.readouterr().err


def test_a_schedule_logs_its_own_rate_and_recboles_models_log_the_same(tiny_settings: Callable) -> None:
    settings = tiny_settings(epochs=2, lr_scheduler="linear", lr_decay_epochs=2)
    result = run("GRU4Rec", "tiny", config_dict={**settings, "embedding_size": 8}, saved=False)
    (folder,) = logs()
    found = scalars(folder)
    assert found["Learning_rate"] == pytest.approx({p["epoch"]: p["learning_rate"] for p in result["curve"]}, rel=1e-5)
    assert found["Learning_rate"][1] < found["Learning_rate"][0]
    assert {f"Valid/{metric}" for metric in result["best_valid_result"]} <= found.keys()
    assert not [tag for tag in found if tag.startswith("Kernels/")]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel_branch": "exponential", "kernel_branch_groups": "hidden_size"},
        {"kernel_structure": "lowrank-full", "kernel_branch": "time_variant"},
        {"model": "FMLPRec"},
        {"model": "FMLPRec", "train_objective": "augmented"},
        {"model": "BSARec"},
    ],
    ids=str,
)
def test_summaries_of_kernels_are_those_of_inspect(untrained: Callable[..., Loaded], changes: dict) -> None:
    changes = {"model": "PosKernelSASRec", **changes}
    model = untrained(changes.pop("model"), **changes).model
    found = {kernel.name: kernel for kernel in kernel_summaries(model)}
    reach = kernel_reach(lag_profiles(model))
    expected = {f"layer_{row.layer}/{row.kernel}": row for row in reach.itertuples() if row.kernel != "C"}
    assert found.keys() == expected.keys() and len(found) >= 2
    for name, row in expected.items():
        assert found[name].mean_lag == pytest.approx(row.mean_lag, rel=1e-4)
        assert found[name].lag_0_share == pytest.approx(row.lag_0_share, rel=1e-4)


def test_a_resumed_run_goes_on_in_its_own_folder(tiny_settings: Callable) -> None:
    first = run("NoPESASRec", "tiny", config_dict=tiny_settings(epochs=1))
    (folder,) = logs()
    again = run(command_line=["--epochs=3"], resume=Path(first["checkpoint"]).parent)
    assert logs() == [folder] and again["epochs"] == 3
    found = scalars(folder)
    assert sorted(found["Loss/Train"]) == sorted(found["Learning_rate"]) == [0, 1, 2]
    expected = {point["epoch"]: point["loss"] for point in again["curve"]}
    assert found["Loss/Train"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", "..", "", None, 3, "a\0b"], ids=repr)
def test_a_checkpoint_cannot_choose_another_place(tiny_settings: Callable, empty_folder: Path, name: Any) -> None:
    first = run("NoPESASRec", "tiny", config_dict=tiny_settings(epochs=1))
    file = Path(first["checkpoint"]).with_name(LAST_NAME)
    content = read_checkpoint(file)
    content["training"]["tensorboard"] = name
    write_checkpoint({key: value for key, value in content.items() if key != "format_version"}, file)
    before = {path.name for path in empty_folder.iterdir()}
    run(command_line=["--epochs=2"], resume=file.parent)
    assert {path.name for path in empty_folder.iterdir()} == before and not (empty_folder.parent / "elsewhere").exists()
    assert sum(len(scalars(folder).get("Loss/Train", {})) for folder in logs()) == 2


# -- services, replaced by modules that record what they are called with ---------------------------------------------


class Recorder(types.ModuleType):
    """What both services have in common: calls are recorded by the name of the function."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def record(self, name: str) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            self.calls.append(
                (name, options if not arguments else arguments[0] if not options else (arguments[0], options))
            )

        return call

    def of(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]


class Wandb(Recorder):
    """The part of wandb that is used."""

    run: Any = None

    def init(self, **options: Any) -> None:
        self.calls.append(("init", options))
        summary = types.SimpleNamespace(update=self.record("summary"))
        self.run = types.SimpleNamespace(id=options.get("id", "w1"), summary=summary)

    def finish(self, **options: Any) -> None:
        self.calls.append(("finish", options))
        self.run = None


class Mlflow(Recorder):
    """The part of mlflow that is used."""

    active: Any = None

    def active_run(self) -> Any:
        return self.active

    def start_run(self, **options: Any) -> None:
        self.calls.append(("start_run", options))
        self.active = types.SimpleNamespace(info=types.SimpleNamespace(run_id=options.get("run_id", "m1")))

    def end_run(self, status: str) -> None:
        self.calls.append(("end_run", status))
        self.active = None


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> tuple[Wandb, Mlflow]:
    wandb, mlflow = Wandb("wandb"), Mlflow("mlflow")
    for name in ("log", "define_metric"):
        setattr(wandb, name, wandb.record(name))
    for name in ("log_params", "log_metrics"):
        setattr(mlflow, name, mlflow.record(name))
    for module in (wandb, mlflow):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]  # find_spec looks at it
    return wandb, mlflow


def test_both_services_get_settings_and_metrics(services: tuple[Wandb, Mlflow], tiny_settings: Callable) -> None:
    wandb, mlflow = services
    settings = tiny_settings(epochs=2, log_wandb=True, log_mlflow=True, wandb_project="mine")
    result = run("NoPESASRec", "tiny", config_dict=settings)
    name = Path(result["checkpoint"]).parent.name
    (init,) = wandb.of("init")
    assert (init["project"], init["name"]) == ("mine", name) and init["config"]["hidden_size"] == 16
    assert mlflow.of("start_run") == [{"run_name": name}]
    parameters = {key: value for part in mlflow.of("log_params") for key, value in part.items()}
    assert parameters["hidden_size"] == "16" and parameters.keys() == init["config"].keys()
    assert max(map(len, mlflow.of("log_params"))) <= 100
    train = [call for call in wandb.of("log") if "train/train_loss" in call]
    valid = [call for call in wandb.of("log") if "valid/ndcg@10" in call]
    for epoch, point in enumerate(result["curve"]):
        assert train[epoch]["train/train_loss"] == pytest.approx(point["loss"]) and train[epoch]["train_step"] == epoch
        assert valid[epoch]["valid/ndcg@10"] == pytest.approx(point["valid"]["ndcg@10"])
    metrics = [
        (values, options["step"]) for values, options in (c for c in mlflow.of("log_metrics") if isinstance(c, tuple))
    ]
    assert [step for values, step in metrics if "valid/ndcg_at_10" in values] == [0, 1]
    (summary,) = wandb.of("summary")
    assert summary["test/ndcg@10"] == pytest.approx(result["test_result"]["ndcg@10"])
    assert summary["best_valid/hit@10"] == pytest.approx(result["best_valid_result"]["hit@10"])
    final = [values for values in mlflow.of("log_metrics") if not isinstance(values, tuple)]
    assert final == [{key.replace("@", "_at_"): value for key, value in summary.items()}]
    assert wandb.of("finish") == [{"exit_code": 0}] and mlflow.of("end_run") == ["FINISHED"]


def test_a_resumed_run_goes_on_in_the_services(services: tuple[Wandb, Mlflow], tiny_settings: Callable) -> None:
    wandb, mlflow = services
    settings = tiny_settings(epochs=1, log_wandb=True, log_mlflow=True)
    first = run("NoPESASRec", "tiny", config_dict=settings)
    n_parameters = len(mlflow.of("log_params"))
    run(command_line=["--epochs=2"], resume=Path(first["checkpoint"]).parent)
    assert wandb.of("init")[1]["id"] == "w1" and wandb.of("init")[1]["resume"] == "allow"
    assert mlflow.of("start_run")[1] == {"run_id": "m1"}
    assert len(mlflow.of("log_params")) == n_parameters  # which cannot be changed
    for head, metric in (("train", "train_loss"), ("valid", "ndcg@10")):
        steps = [call[f"{head}_step"] for call in wandb.of("log") if f"{head}/{metric}" in call]
        assert steps == [0, 1]


def test_a_run_of_the_calling_program_is_used_and_left_open(
    services: tuple[Wandb, Mlflow], tiny_settings: Callable
) -> None:
    wandb, mlflow = services
    wandb.init()
    mlflow.start_run()
    run("Pop", "tiny", config_dict=tiny_settings(log_wandb=True, log_mlflow=True))
    assert len(wandb.of("init")) == len(mlflow.of("start_run")) == 1
    assert wandb.of("finish") == mlflow.of("end_run") == [] and wandb.run is not None
    assert "test/ndcg@10" in wandb.of("summary")[0]


def test_a_run_that_fails_is_marked_as_failed(
    services: tuple[Wandb, Mlflow], tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, mlflow = services
    from recbole_posattn.models.baselines import NoPESASRec

    def diverged(model: Any, interaction: Any) -> torch.Tensor:
        return next(model.parameters()).sum() * torch.nan

    monkeypatch.setattr(NoPESASRec, "calculate_loss", diverged)
    with pytest.raises(ValueError, match="loss"):
        run("NoPESASRec", "tiny", config_dict=tiny_settings(log_wandb=True, log_mlflow=True))
    assert wandb.of("finish") == [{"exit_code": 1}] and mlflow.of("end_run") == ["FAILED"]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_service_whose_package_is_missing_is_one_line(
    package: str, tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_posattn.settings.run_keys.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=f"log_{package} must be False, or True where the package {package} is inst"):
        run("NoPESASRec", "tiny", config_dict=tiny_settings(**{f"log_{package}": True}))


# -- the table of results and the log --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["INFO", "WARNING"])
def test_the_table_goes_to_standard_output_and_the_log_does_not(
    state: str, tiny_data_path: Path, capfd: pytest.CaptureFixture
) -> None:
    flags = [f"--data_path={tiny_data_path}", "--dataset=tiny", "--epochs=1", "--hidden_size=16", f"--state={state}"]
    assert cli.main(["run", "--model=NoPESASRec", *flags, "--show_progress=False"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("NoPESASRec on tiny") and "ndcg@10" in out and re.search("checkpoint +saved/", out)
    assert "NoPESASRec on tiny" not in err and ("valid result" in err) == (state == "INFO")
    (log,) = Path("log/NoPESASRec").iterdir()
    assert ("NoPESASRec on tiny" in log.read_text(encoding="utf-8")) == (state == "INFO")


def test_in_python_the_table_is_in_the_log(tiny_settings: Callable, capfd: pytest.CaptureFixture) -> None:
    run("Pop", "tiny", config_dict=tiny_settings())
    out, err = capfd.readouterr()
    assert out == "" and "Pop on tiny" in err

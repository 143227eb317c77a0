"""Exported models against the models themselves, for every model, and the files beside them."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_posattn import load, run
from recbole_posattn.cli import export as command
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.serving import export as export_module
from recbole_posattn.serving.comparison import compare
from recbole_posattn.serving.export import Exported, export
from recbole_posattn.settings.registry import registered_model_names

LENGTH = 10
WITH_ONNX = all(importlib.util.find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not WITH_ONNX, reason="onnx, onnxscript or onnxruntime is not installed")


@pytest.fixture
def exported(untrained: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Exported]:
    """Export a model with random weights and compare the file's scores with the model's."""

    def exported(format: str, model: str, **changes: object) -> Exported:
        loaded = untrained(model, **changes)
        monkeypatch.setattr(export_module, "load", lambda checkpoint: loaded)
        written = export("best.pth", format, "out")
        assert_same_scores(loaded.model, READERS[format](Path("out")))
        return written

    return exported


def read_torch(folder: Path) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return torch.export.load(folder / "model.pt2").module()


def read_onnx(folder: Path) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")

    def scores(items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        inputs = {"item_id_list": items.numpy(), "item_length": length.numpy()}
        return torch.from_numpy(session.run(["scores"], inputs)[0])

    return scores


READERS = {"torch-export": read_torch, "onnx": read_onnx}


def assert_same_scores(model: SequentialRecommender, run: Callable) -> None:
    for n in (1, 7):
        length = torch.arange(n) % LENGTH + 1
        items = torch.randint(1, 21, (n, LENGTH), generator=torch.Generator().manual_seed(1))
        items = items.masked_fill(torch.arange(LENGTH) >= length[:, None], 0)
        scores = run(items, length)
        with torch.no_grad():
            own = model.full_sort_predict(Interaction({"item_id_list": items, "item_length": length})).view(n, 21)
        assert scores.shape == (n, 21) and (scores[:, 0] == -torch.inf).all()
        torch.testing.assert_close(scores[:, 1:], own[:, 1:], rtol=0, atol=1e-5)
        assert own.std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("model", registered_model_names())
def test_torch_export_scores_as_the_model(exported: Callable, model: str) -> None:
    assert exported("torch-export", model, n_layers=1).largest_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("PosKernelSASRec", {"position_alignment": "start", "backbone": "recbole", "n_layers": 2, "n_heads": 2}),
        ("PosKernelSASRec", {"kernel_structure": "adaptive_band-lowrank", "kernel_groups": "hidden_size"}),
        ("PosKernelSASRec", {"kernel_structure": "exponential-dilated", "kernel_groups": "n_heads", "n_heads": 2}),
        ("PosKernelSASRec", {"kernel_branch": "toeplitz"}),
        ("PosKernelSASRec", {"kernel_branch": "lowrank", "attention": "none", "kernel_branch_groups": 1}),
        ("BSARec", {"filter_padding": False, "n_heads": 2}),
        ("PosKernelSASRec", {"history_partition": True}),
        ("PosKernelSASRec", {"history_partition": True, "kernel_structure": "identity-toeplitz", "backbone": "ligr"}),
        ("HSTU", {"n_heads": 2, "read_times": False}),
        ("TiSASRec", {"n_heads": 2, "read_times": False}),
        ("PosKernelSASRec", {"score": "cosine", "score_temperature": 0.5}),
        ("PosKernelSASRec", {"preset": "paper", "n_layers": 2, "hidden_size": 16, "MAX_ITEM_LIST_LENGTH": 10}),
        ("SASRec", {"n_heads": 2}),
        ("GRU4Rec", {"embedding_size": 16}),
        ("BERT4Rec", {"n_heads": 2, "n_layers": 1}),
        ("SRGNN", {"embedding_size": 16}),
    ],
    ids=str,
)
def test_kernels_and_recboles_models_are_exported_as_well(exported: Callable, model: str, changes: dict) -> None:
    exported("torch-export", model, **changes)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (
            "PosKernelSASRec",
            {"position_encoding": ["absolute", "all_absolute", "rope", "cape", "t5_bias"], "n_heads": 2},
        ),
        ("ALiBiSASRec", {"position_alignment": "start", "backbone": "recbole", "score": "cosine", "n_heads": 2}),
        ("PosKernelSASRec", {"attention": "none", "kernel_branch": "time_variant"}),
        ("FMLPRec", {}),
        ("BSARec", {}),
        ("TVRec", {}),
    ],
    ids=str,
)
def test_onnx_scores_as_the_model(
    exported: Callable, model: str, changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every encoding, the branch and the filters; queries in blocks, as for long histories."""
    monkeypatch.setattr("recbole_posattn.nn.attention.ROWS", 6)
    assert exported("onnx", model, n_layers=1, **changes).largest_difference < 1e-5


@pytest.mark.slow
def test_says_what_the_numbers_mean(tiny_settings: Callable, capsys: pytest.CaptureFixture, empty_folder: Path) -> None:
    settings = tiny_settings(epochs=1, n_layers=1)
    file = run("NoPESASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]
    capsys.readouterr()
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)

    def call(*arguments: str) -> int:
        return cli._guarded(lambda: command.execute(parser.parse_args([file, "--format=torch-export", *arguments])))

    assert call() == 0
    folder = Path(file).parent / "export"
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [f"written: {folder / name}" for name in ("items.json", "model.pt2", "export.json")]
    assert out[3].startswith("largest difference from the model's own scores: ") and len(out) == 4
    assert out[3].endswith("; 40 lists of 20 items are the same")
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", "items.json", "model.pt2"]

    dataset = load(file).dataset
    tokens = json.loads((folder / "items.json").read_text())
    assert tokens[0] == "[PAD]" and len(tokens) == 21
    assert all(dataset.field2token_id["item_id"][token] == number for number, token in enumerate(tokens))
    description = json.loads((folder / "export.json").read_text())
    assert (description["model"], description["dataset"]) == ("NoPESASRec", "tiny")
    assert description["inputs"]["item_id_list"]["shape"] == ["batch", 10] and description["padding_item"] == 0
    assert description["versions"]["torch"] == torch.__version__
    compared = description["comparison"]
    assert (compared["histories"], compared["list_length"], compared["ties"]) == (40, 20, 0)
    assert compared["largest_difference"] == description["largest_difference"] < 1e-5

    before = (folder / "model.pt2").read_bytes()
    assert call() == 2
    assert "model.pt2 already exists; give another --output, or --overwrite" in capsys.readouterr().err
    for stale in ("model.onnx", "model.onnx.data"):  # of another export, whose items have gone
        (folder / stale).write_text("")
    assert call("--overwrite") == 0 and call("--output=other") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", "items.json", "model.pt2"]
    assert (folder / "model.pt2").read_bytes()[:4] == before[:4]
    (empty_folder / "file").write_text("")
    assert call("--output=file/out") == 2
    assert "file/out cannot be written: Not a directory" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "model", "changes", "message"),
    [
        ("torch-export", "BPR", {}, "BPR does not read histories, which are the input of an exported model"),
        ("torch-export", "FPMC", {}, "FPMC reads user_id; only item_id_list and item_length can be read here"),
        pytest.param(
            "onnx", "FEARec", {"n_heads": 2}, r"FEARec cannot be exported as onnx: [^\n]+\Z", marks=needs_onnx
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    exported: Callable, file_format: str, model: str, changes: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(CheckpointError, match=message):
        exported(file_format, model, **changes)
    assert capsys.readouterr().err == "" and list(Path("out").iterdir()) == []


def test_a_full_disk_is_an_error_that_python_sees(exported: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own writer of files aborts the process."""

    def full(file: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match=r"cannot be exported as torch-export: .* No space left on device"):
        exported("torch-export", "NoPESASRec", n_layers=1)
    assert list(Path("out").iterdir()) == []


def test_other_scores_are_not_let_out(exported: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def falsified(file: Path) -> Callable:
        return lambda items, length: read_torch(file.parent)(items, length) + 0.1

    monkeypatch.setitem(export_module._RUNNERS, "torch-export", falsified)
    with pytest.raises(CheckpointError, match=r"returns different scores when exported \(by 0.1\); nothing is written"):
        exported("torch-export", "NoPESASRec", n_layers=1)
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize(
    ("own", "exported", "outcome"),
    [
        ([[3.0, 2.0, 1.0]], [[3.0, 2.0, 1.0]], 0),
        ([[3.0, 2.0, 1.0]], [[3.001, 2.001, 1.001]], 0),  # the lists are equal
        ([[3.0, 3.0, 1.0]], [[3.0, 3.000001, 1.0]], 1),  # a tie
        ([[3.0, 2.99999, 1.0], [3.0, 2.0, 1.0]], [[3.0, 3.000001, 1.0], [3.0, 2.0, 1.0]], 1),  # but for rounding
        (
            [[3.0, 2.999, 1.0]],
            [[3.0, 3.0005, 1.0]],
            "returns different lists .*: the score of the item at rank 1 differs by 0.001 ",
        ),
        ([[9.0, 3.0, 2.999, 1.0]], [[9.0, 2.999, 3.0, 1.0]], "at rank 2"),
        ([[9.0, 8.0, 3.0, 2.999]], [[9.0, 8.0, 2.999, 3.0]], "at rank 3"),  # the list ends there
        (
            [[3e-4, 2e-4, 1e-4]],
            [[2e-4, 3e-4, 1e-4]],
            r"returns different scores .* \(by 0.0001\)",
        ),  # small scores, as shares are
        ([[3e-4, 2.999e-4, 1e-4]], [[3e-4, 3.0005e-4, 1e-4]], "returns different lists"),
        (
            [[9.0, 0.0, 0.0], [1e-3, 0.0, 0.0]],
            [[9.0, 0.0, 0.0], [0.0, 1e-3, 0.0]],
            "returns different scores",
        ),  # each by itself
        ([[3.0, 2.0, 1.0]], [[3.0, float("nan"), 1.0]], "returns different scores"),
        ([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]], 0),
    ],
)
def test_lists_are_compared(own: list, exported: list, outcome: int | str) -> None:
    """Scores that are near enough may make other lists; only items of equal score may stand in another order."""
    scores = torch.tensor(own), torch.tensor(exported)
    if isinstance(outcome, str):
        with pytest.raises(CheckpointError, match=outcome):
            compare(*scores, 3, "NoPESASRec")
        return
    difference, ties = compare(*scores, 3, "NoPESASRec")
    assert difference == float((scores[0] - scores[1]).abs().max()) and ties == outcome


def test_other_lists_are_not_let_out(exported: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores differ by less than a thousandth of the largest."""

    def falsified(file: Path) -> Callable:
        def scores(items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
            own = read_torch(file.parent)(items, length)
            noise = torch.rand(own.shape, generator=torch.Generator().manual_seed(0)) - 0.5
            return own + noise * own[:, 1:].abs().amax(dim=1, keepdim=True) * 1.9e-3

        return scores

    monkeypatch.setitem(export_module._RUNNERS, "torch-export", falsified)
    with pytest.raises(
        CheckpointError,
        match=r"returns different lists when exported: the score of the item at rank .* nothing is written",
    ):
        exported("torch-export", "NoPESASRec", n_layers=1)
    assert list(Path("out").iterdir()) == []


def test_needs_its_packages(untrained: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that write; without the one that runs, the scores are not compared."""
    monkeypatch.setattr(export_module, "_is_installed", lambda package: False)
    with pytest.raises(
        SettingError, match=r"format onnx needs onnx and onnxscript, not installed here: pip install onnx "
    ):
        export("best.pth", "onnx", "out")
    with pytest.raises(SettingError, match="format must be one of onnx, torch-export; got 'tflite'"):
        export("best.pth", "tflite", "out")
    loaded = untrained("NoPESASRec", n_layers=1)
    monkeypatch.setattr(export_module, "load", lambda checkpoint: loaded)
    monkeypatch.setattr(export_module, "_is_installed", lambda package: package != "onnxruntime")
    monkeypatch.setitem(export_module._WRITERS, "onnx", lambda program, file: file.write_bytes(b"model"))
    assert export("best.pth", "onnx", "out").largest_difference is None
    assert Path("out/model.onnx").read_bytes() == b"model"

"""Checkpoint files: whole, under a checksum, never executed; RecBole's own only when asked for."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import recbole.config
import recbole.trainer
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data import create_dataset, data_preparation

from recbole_posattn import load, run
from recbole_posattn.cli.main import main
from recbole_posattn.errors import CheckpointError, DataError
from recbole_posattn.training.checkpoint import (
    _append_checksum,
    check_vocabulary,
    read_checkpoint,
    read_plain,
    write_checkpoint,
)
from recbole_posattn.training.trainer import trainer_class
from tests.planted import lagged_sequences, write_atomic_file
from tests.systems import needs_posix


@pytest.fixture(scope="module")
def checkpoint(tiny_settings: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    settings = tiny_settings(epochs=1, checkpoint_dir=str(folder))
    return Path(run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"])


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Let the system refuse what is behind so many bytes of a file, as it does on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_a_fresh_process_knows_the_metrics_of_a_checkpoint(tiny_settings: Callable) -> None:
    """Those of this package, such as COV, which RecBole does not have."""
    settings = tiny_settings(epochs=1, metrics=["NDCG", "COV"])
    result = run("NoPESASRec", "tiny", config_dict=settings, command_line=[])
    code = "import sys; from recbole_posattn.training.load import load; load(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, result["checkpoint"]], check=True)


def test_any_reader_of_plain_torch_files_can_read_it(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert content["format_version"] == 1 and content["config"]["model"] == "PosKernelSASRec"
    mapped = torch.load(checkpoint, weights_only=True, mmap=True)["state_dict"]
    assert all(torch.equal(mapped[name], value) for name, value in content["state_dict"].items())


@pytest.mark.parametrize("n_bytes", [0, 1000, 20_000])
@needs_posix
def test_a_full_disk_leaves_the_old_file(empty_folder: Path, n_bytes: int) -> None:
    write_checkpoint({"weights": torch.zeros(10_000)}, "best.pth")
    before = Path("best.pth").read_bytes()
    with files_of_at_most(n_bytes), pytest.raises(CheckpointError, match=r"best.pth cannot be written: File too large"):
        write_checkpoint({"weights": torch.ones(10_000)}, "best.pth")
    assert Path("best.pth").read_bytes() == before
    assert [file.name for file in empty_folder.iterdir()] == ["best.pth"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "was not written by recbole-posattn"),
        (b"text", "was not written by recbole-posattn"),
        (b"text" * 100, "was not written by recbole-posattn"),
        (pickle.dumps(Evil()), "was not written by recbole-posattn"),
    ],
    ids=["missing", "empty", "text", "long text", "pickle"],
)
def test_other_files_are_refused_and_never_executed(empty_folder: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("other.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load("other.pth")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"config": Evil(), "state_dict": {}}, "holds more than tensors and plain data"),
        ({"config": {"model": Evil()}}, "holds more than tensors and plain data"),
        ({"state_dict": {}}, "holds no settings"),
    ],
    ids=["settings that run code", "a name that runs code", "no settings"],
)
def test_a_right_checksum_lets_nothing_be_executed(empty_folder: Path, content: dict, message: str) -> None:
    write_checkpoint(content, "crafted.pth")
    for arguments in (["inspect", "crafted.pth"], ["recommend", "crafted.pth"], ["run", "--resume=crafted.pth"]):
        assert main(arguments) == 2
    with pytest.raises(CheckpointError, match=message):
        load("crafted.pth")
    assert not Path("executed").exists()


def test_a_list_is_none_of_our_formats(empty_folder: Path) -> None:
    """Plain data under a right checksum, but nothing that this package writes."""
    with open("list.pth", "w+b") as stream:
        torch.save([torch.ones(1)], stream)
        _append_checksum(stream)
    with pytest.raises(CheckpointError, match="has format version None"):
        load("list.pth")


def test_another_format_version_is_told(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("recbole_posattn.training.checkpoint.FORMAT_VERSION", 9)
        write_checkpoint({"config": {}}, "new.pth")
    with pytest.raises(CheckpointError, match=r"format version 9, and this version .* reads 1"):
        read_checkpoint("new.pth")


@given(st.data())
def test_a_damaged_checkpoint_is_never_read(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut off, flipped anywhere, zeroed in parts as a crashed disk does, or longer than it was."""
    whole = checkpoint.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["cut", "flip", "zero", "longer"]))
    if how == "cut":
        damaged = whole[:position]
    elif how == "flip":
        damaged = bytearray(whole)
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "zero":
        size = data.draw(st.integers(1, 4096))
        damaged = whole[:position] + bytes(len(whole[position : position + size])) + whole[position + size :]
    else:
        damaged = whole + data.draw(st.binary(min_size=1, max_size=200))
    if bytes(damaged) == whole:
        return
    file = tmp_path_factory.mktemp("damaged") / "best.pth"
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"best.pth (is damaged|was not written by recbole-posattn)"):
        read_plain(file)


def test_weights_of_another_shape_are_refused(checkpoint: Path, empty_folder: Path) -> None:
    content = read_checkpoint(checkpoint)
    content["state_dict"]["item_embedding.weight"] = torch.zeros(5, 16)
    write_checkpoint(content, "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: the checkpoint does not fit the model: .*item_embedding"):
        load("other.pth")


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path, empty_folder: Path) -> None:
    content = read_checkpoint(checkpoint)
    content["config"]["model"] = "RoPESASRec"
    write_checkpoint(content, "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: the checkpoint does not fit the model"):
        load("other.pth")
    content["config"]["model"] = "NoSuchModel"
    write_checkpoint(content, "other.pth")
    assert main(["inspect", "other.pth"]) == 2


@pytest.mark.parametrize(
    ("n_users", "n_items", "prefix", "message"),
    [
        (60, 25, "", "item_id has 25 values, not 20"),
        (50, 20, "", "user_id has 50 values, not 60"),
        (60, 20, "new", "the values of item_id, or their order, are others"),
    ],
    ids=["more items", "fewer users", "other items"],
)
def test_a_data_set_that_has_changed_is_refused(
    checkpoint: Path, tmp_path: Path, n_users: int, n_items: int, prefix: str, message: str
) -> None:
    """The last one has tables of the same shape, in which every item would be taken for another."""
    rows = lagged_sequences(n_users, range(4, 25), n_items=n_items, lag=3, noise=0.1, seed=1)
    write_atomic_file(tmp_path, "tiny", [(user, prefix + item, time) for user, item, time in rows])
    with pytest.raises(CheckpointError, match=message):
        load(checkpoint, data_path=tmp_path)


def test_a_data_set_with_new_interactions_is_warned_of(
    checkpoint: Path, tiny_data_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its users and items are the same, but it is split differently."""
    load(checkpoint, data_path=tiny_data_path)
    assert "have changed" not in caplog.text
    (tmp_path / "tiny").mkdir()
    rows = (tiny_data_path / "tiny" / "tiny.inter").read_text()
    (tmp_path / "tiny" / "tiny.inter").write_text(rows + rows.splitlines()[-1] + "\n")
    load(checkpoint, data_path=tmp_path)
    n = len(rows.splitlines()) - 1
    changes = f"tiny.inter has {n + 1:,} rows, not {n:,}"
    assert f"the data in {tmp_path / 'tiny'} have changed since training: {changes}. The validation" in caplog.text


def test_data_that_were_moved_are_named(checkpoint: Path, tiny_data_path: Path, empty_folder: Path) -> None:
    content = read_checkpoint(checkpoint)
    content["config"]["data_path"] = "/elsewhere/tiny"
    write_checkpoint(content, "moved.pth")
    with pytest.raises(DataError, match="--data_path"):
        load("moved.pth")
    loaded = load("moved.pth", data_path=tiny_data_path)
    check_vocabulary(content, loaded.dataset)
    assert main(["recommend", "moved.pth", f"--data_path={tiny_data_path}", "--output=lists.csv"]) == 0
    assert Path("lists.csv").is_file()


def test_ml_100k_is_where_recbole_is_installed(empty_folder: Path) -> None:
    settings = {"epochs": 0, "hidden_size": 8, "show_progress": False}
    result = run("PosKernelSASRec", "ml-100k", config_dict=settings, command_line=[])
    content = read_checkpoint(result["checkpoint"])
    content["config"]["data_path"] = "/another/machine/site-packages/recbole/dataset_example/ml-100k"
    write_checkpoint(content, "moved.pth")
    assert load("moved.pth").dataset.item_num == 1683


@pytest.fixture
def recbole_checkpoint(tiny_data_path: Path, empty_folder: Path) -> tuple[Path, dict]:
    """A checkpoint that RecBole has written, with its ``Config`` in a pickle, and what RecBole says of the model."""
    settings = {
        "data_path": str(tiny_data_path),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,
        "epochs": 1,
        "hidden_size": 16,
        "n_heads": 1,
        "inner_size": 16,
        "n_layers": 1,
        "MAX_ITEM_LIST_LENGTH": 10,
    }
    config = recbole.config.Config("SASRec", "tiny", config_dict=settings)
    loaders = data_preparation(config, create_dataset(config))
    trainer = recbole.trainer.Trainer(config, config_model(config)(config, loaders[0].dataset))
    trainer.fit(loaders[0], loaders[1], saved=True)
    return Path(trainer.saved_model_file), dict(trainer.evaluate(loaders[2], load_best_model=False))


def config_model(config: recbole.config.Config) -> type:
    return recbole.utils.get_model(config["model"])


def test_recboles_own_checkpoint_is_refused_unless_asked_for(
    recbole_checkpoint: tuple[Path, dict], capsys: pytest.CaptureFixture
) -> None:
    file, recboles_result = recbole_checkpoint
    capsys.readouterr()
    assert main(["recommend", str(file), "--output=lists.csv"]) == 2
    assert "--allow_unsafe_checkpoint" in capsys.readouterr().err and not Path("lists.csv").exists()
    assert main(["recommend", str(file), "--output=lists.csv", "--allow_unsafe_checkpoint"]) == 0

    loaded = load(file, allow_unsafe_checkpoint=True)
    trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
    trainer.eval_collector.data_collect(loaded.train_data)
    assert dict(trainer.evaluate(loaded.test_data, load_best_model=False)) == recboles_result


def test_what_is_none_of_recboles_either_is_told(empty_folder: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth was not written by RecBole either"):
        load("other.pth", allow_unsafe_checkpoint=True)


@pytest.mark.parametrize("key", ["save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path"])
def test_pickled_caches_are_refused(tiny_settings: Callable, key: str, capsys: pytest.CaptureFixture) -> None:
    arguments = [f"--{name}={value}" for name, value in tiny_settings().items()]
    value = "cache.pth" if key.endswith("path") else "True"
    assert main(["run", "--dataset=tiny", *arguments, f"--{key}={value}"]) == 2
    assert f"{key} must be left out" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["dataset_save_path", "dataloaders_save_path"])
def test_a_checkpoint_names_no_cache(
    checkpoint: Path, empty_folder: Path, key: str, capsys: pytest.CaptureFixture
) -> None:
    """RecBole would unpickle, and so run, the file that its settings name."""
    Path("cache.pth").write_bytes(pickle.dumps(Evil()))
    content = read_checkpoint(checkpoint)
    content["config"][key] = "cache.pth"
    write_checkpoint(content, "crafted.pth")
    capsys.readouterr()
    for arguments in (["recommend", "crafted.pth", "--output=lists.csv"], ["export", "crafted.pth"]):
        assert main(arguments) == 2
        assert f"{key} must be left out" in capsys.readouterr().err
    assert not Path("executed").exists()


def test_a_pickle_with_the_name_of_a_cache_is_not_read(tiny_settings: Callable) -> None:
    """RecBole looks for one in ``checkpoint_dir`` whether it was asked to or not."""
    for name in ("tiny-SequentialDataset.pth", "tiny-SASRecDataset.pth", "tiny-for-SASRec-dataloader.pth"):
        Path("saved").mkdir(exist_ok=True)
        Path("saved", name).write_bytes(pickle.dumps(Evil()))
    for name in ("tiny-LazySequentialDataset.pth", "tiny-for-PosKernelSASRec-dataloader.pth"):
        Path("saved", name).write_bytes(pickle.dumps(Evil()))
    run("SASRec", "tiny", config_dict=tiny_settings(epochs=1, n_heads=1), command_line=[])
    run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=1), command_line=[])
    assert not Path("executed").exists()

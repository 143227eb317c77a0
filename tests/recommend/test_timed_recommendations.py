"""Recommendations and exported files of models that read time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from recbole_posattn.errors import DataError
from recbole_posattn.serving import export as export_module
from recbole_posattn.serving.export import export
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.training.load import Loaded
from tests.recommend.test_recommender import assert_same_lists, evaluated
from tests.test_export import needs_onnx
from tests.timed import START, TIME_BIAS, loaded_timed, timed_rows, write_timed

PARTS = {
    "encodings": {"position_encoding": ["time_bias", "time_rope", "forgetting"], "time_bias_positions": True},
    "HSTU": {"model": "HSTU", "history_partition": "auto", "time_is_order": False},
    "TiSASRec": {"model": "TiSASRec", "loss_type": "CE"},
    "kernels": {"kernel_structure": "time_decay-time_decay", "kernel_branch": "time_decay", "kernel_decays": 2},
}
TABLE = pd.DataFrame(timed_rows(), columns=["user", "item", "second"])


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., Loaded]:
    path = write_timed(tmp_path / "data")
    return lambda **changes: loaded_timed(path, **changes)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("changes", [{}, {"mask_history": "all"}, {"lazy_prefixes": False}], ids=str)
def test_lists_of_held_out_targets_are_those_of_the_evaluation(loaded: Callable, name: str, changes: dict) -> None:
    model = loaded(**PARTS[name], **changes)
    found = Recommender(model).recommend_users(split="test", k=7)
    assert_same_lists(found, evaluated(model, "test"))


@pytest.mark.parametrize("times", ["seconds", "dates", "dates of Python", "dates of Arrow"])
def test_new_histories_with_times_are_those_of_known_users(loaded: Callable, times: str) -> None:
    """The time may be in the unit of the data set or a date; rows may be in any order."""
    recommender = Recommender(loaded(**PARTS["encodings"]))
    table = TABLE.rename(columns={"second": "time"}).assign(time=START + TABLE["second"])
    if times != "seconds":
        table["time"] = pd.to_datetime(table["time"], unit="s", utc=True)
    if times == "dates of Python":
        table["time"] = pd.Series([time.to_pydatetime() for time in table["time"]], dtype=object)
    if times == "dates of Arrow":
        table["time"] = table["time"].convert_dtypes(dtype_backend="pyarrow")
    expected = recommender.recommend_users(sorted(table["user"].unique()), k=5, exclude_history=True)
    found = recommender.recommend(table.sort_values("user", kind="stable"), k=5, exclude_history=True)
    assert_same_lists(found, expected)


def test_histories_without_times_are_refused_in_one_line(loaded: Callable) -> None:
    recommender = Recommender(loaded(**TIME_BIAS))
    for histories in (TABLE[["user", "item"]], {"u1": ["i3", "i4"]}):
        with pytest.raises(DataError) as error:
            recommender.recommend(histories)
        assert str(error.value) == (
            "histories have no column 'time'; PosKernelSASRec reads the times between interactions: give rows of user, "
            "item and time, in the unit of the data set (usually Unix seconds) or as dates"
        )
    timeless = Recommender(loaded(position_encoding=["rope"]))
    assert len(timeless.recommend({"u1": ["i3", "i4"]}, k=3)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    ("format", "alignment"),
    # ONNX is translated from the program of torch.export
    [("torch-export", "end"), ("torch-export", "start"), pytest.param("onnx", "end", marks=needs_onnx)],
)
def test_exported_files_take_times(
    loaded: Callable, name: str, format: str, alignment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(**PARTS[name], n_heads=2, n_layers=1, position_alignment=alignment)
    monkeypatch.setattr(export_module, "load", lambda checkpoint: model)
    written = export("best.pth", format, "out")
    assert written.comparison is not None and written.largest_difference < 1e-4
    program = torch.export.load(Path("out") / "model.pt2").module() if format == "torch-export" else None
    if program is not None:
        items, length = torch.tensor([[3, 4, 5] + [0] * 7]), torch.tensor([3])
        seconds = [
            torch.tensor([[0.0, each, 90000.0] + [0.0] * 7], dtype=torch.float64) for each in (60.0, 60.0, 30000.0)
        ]
        scores = [program(items, length, START + each)[0, 1:] for each in seconds]
        assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[0], scores[2])


def test_the_description_of_an_exported_file_names_its_inputs(loaded: Callable) -> None:
    description = export_module._description(loaded(**TIME_BIAS), "onnx", None)
    assert list(description["inputs"]) == ["item_id_list", "item_length", "item_times"]
    assert description["inputs"]["item_times"]["type"] == "float64"
    assert list(export_module._description(loaded(), "onnx", None)["inputs"]) == ["item_id_list", "item_length"]

"""Models that read time: every part reads the times of the batch, and only those of the history."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_posattn import load, run
from recbole_posattn.data.fields import TIME_LIST_FIELD
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel
from recbole_posattn.nn.kernels.structures import positional_kernel
from tests.timed import TIME_BIAS, TIMED, loaded_timed, write_timed

# New weights move its outputs enough to be seen; the default block normalizes them away.
PAPERS_BLOCK = {"backbone": "sasrec", "inner_size": None, "hidden_act": "relu"}

PARTS: dict[str, dict[str, Any]] = {
    "time_bias": TIME_BIAS,
    "time_bias with positions, heads": {**TIME_BIAS, "time_bias_positions": True, "n_heads": 2},
    "time_rope": {"position_encoding": ["time_rope"], "kernel_structure": "identity-identity"},
    "U": {"kernel_structure": "time_decay-toeplitz", **PAPERS_BLOCK},
    "L": {"kernel_structure": "full-time_decay", "kernel_groups": "hidden_size"},
    "branch": {"kernel_branch": "time_decay"},
    "branch for all channels": {
        "kernel_branch": "time_decay",
        "kernel_branch_groups": 1,
        "attention": "none",
        **PAPERS_BLOCK,
    },
    "recbole": {
        "backbone": "recbole",
        "kernel_structure": "toeplitz-identity",
        "kernel_branch": "time_decay",
        "position_encoding": ["time_bias", "absolute"],
    },
    "ligr": {**TIME_BIAS, "backbone": "ligr", "kernel_branch": "time_decay"},
    "HSTU": {"model": "HSTU", "n_heads": 2},
    "padding attended": {"kernel_structure": "toeplitz-time_decay", "attend_padding": True},
}


@pytest.fixture(scope="module")
def timed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_timed(tmp_path_factory.mktemp("timed"))


@pytest.fixture
def timed(timed_path: Path) -> Callable[..., tuple[SASRecBase, Any, Any]]:
    """A model in float64 with random weights, and its training and validation loaders."""

    def timed(**changes: Any) -> tuple[SASRecBase, Any, Any]:
        loaded = loaded_timed(timed_path, **changes)
        return loaded.model.double(), loaded.train_data, loaded.valid_data

    return timed


@functools.cache
def sequences() -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded items, lengths and times, with equal ones among them."""
    random = torch.Generator().manual_seed(0)
    length = torch.tensor([10, 1, 4, 7])
    items = torch.randint(1, 20, (4, 10), generator=random)
    times = (10 ** torch.randint(0, 7, (4, 10), generator=random).double() - 1).cumsum(dim=1) - 1e6
    padding = torch.arange(10) >= length[:, None]
    return items.masked_fill(padding, 0), length, times.masked_fill(padding, 0.0)


@pytest.mark.parametrize("alignment", ["end", "start"])
@pytest.mark.parametrize("name", PARTS)
def test_models_that_read_time_keep_what_models_promise(timed: Callable, name: str, alignment: str) -> None:
    """Padding changes nothing, what comes later changes nothing, times change something, gradients reach all."""
    if alignment == "start" and "attend_padding" in PARTS[name]:
        pytest.skip("refused: padding behind the items is never attended")
    model, train_data, _ = timed(**PARTS[name], position_alignment=alignment)
    items, length, times = sequences()
    together = model(items, length, times)
    for row, n in enumerate(length.tolist()):
        alone = model(items[row : row + 1, :n], length[row : row + 1], times[row : row + 1, :n])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-8, atol=1e-9)
    with torch.no_grad():  # the last position alone
        torch.testing.assert_close(model(items, length, times), together, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(model(items, length, times - 1e8), together, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(model(items, length, 3 * times), together)

    whole, of_whole = items[:1], model._align_times(times[:1], length[:1])
    later = of_whole.clone()
    later[:, 6:] += 86400.0
    before, after = (model.encode(whole, times=each) for each in (of_whole, later))
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 6:], before[:, 6:])

    model.train().calculate_loss(next(iter(train_data))).backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        if not parameter_name.endswith("attention.key.bias"):
            assert (parameter.grad != 0).any(), parameter_name


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_losses_and_scores_are_those_of_the_times_in_the_batch(timed: Callable, objective: str) -> None:
    model, train_data, valid_data = timed(**PARTS["recbole"], train_objective=objective, hidden_dropout_prob=0.0)
    for data, result in ((train_data, model.calculate_loss), (valid_data, model.full_sort_predict)):
        batch = next(iter(data))
        batch = batch if data is train_data else batch[0]
        expected = result(batch)
        slower = {**batch.interaction, TIME_LIST_FIELD: 7 * batch[TIME_LIST_FIELD]}
        assert not torch.allclose(result(type(batch)(slower)), expected)
        later = {**batch.interaction, TIME_LIST_FIELD: batch[TIME_LIST_FIELD] + 1e5}
        torch.testing.assert_close(result(type(batch)(later)), expected, rtol=1e-6, atol=1e-7)


def test_the_scale_of_time_is_the_data_sets(timed: Callable) -> None:
    model, train_data, _ = timed(kernel_structure="time_decay-toeplitz", position_encoding=["time_rope"])
    gap = train_data._dataset.median_gap
    assert gap > 1
    scales = {name: float(value) for name, value in model.state_dict().items() if name.endswith("median_gap")}
    assert len(scales) == 4 and set(scales.values()) == {gap}  # of U and of the shared encoding in each layer


def test_without_times_a_model_says_so(timed: Callable) -> None:
    model, _, _ = timed(**TIME_BIAS)
    with pytest.raises(ValueError, match="PosKernelSASRec reads the times between items, but got none"):
        model(torch.tensor([[3, 4]]), torch.tensor([2]))


@pytest.mark.parametrize("alignment", ["end", "start"])
def test_times_stand_where_the_items_do_and_never_fall(timed: Callable, alignment: str) -> None:
    model, _, _ = timed(**TIME_BIAS, kernel_structure="toeplitz-full", position_alignment=alignment)
    times = torch.tensor([[-9.0, -20.0, -3.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    aligned = model._align_times(times, torch.tensor([4, 2])).tolist()
    behind = [-1.0, -1.0, -1.0, 0.0] if alignment == "end" else [-1.0, 0.0, 0.0, 0.0]
    assert aligned == [[-9.0, -9.0, -3.0, 0.0], behind]
    assert model.newest_last == (alignment == "end")


def test_parts_that_are_off_leave_the_model_without_them(timed: Callable) -> None:
    settings = {**PARTS["branch"], "kernel_structure": "time_decay-full", "position_encoding": ["time_bias", "rope"]}
    model, train_data, _ = timed(**settings, read_times=False)
    attention, branch = model.backbone.blocks[0].attention, model.backbone.blocks[0].branch
    assert [encoding.name for encoding in attention.encodings] == ["rope"]
    assert not any(isinstance(module, TimeDecayKernel) for module in model.modules())
    assert torch.equal(branch.kernel.dense(), torch.eye(10).double().expand(16, -1, -1))
    assert torch.equal(positional_kernel(attention.u_kernel, attention.l_kernel), attention.l_kernel.dense())
    assert not model.reads_time and model.calculate_loss(next(iter(train_data))) > 0


@pytest.mark.slow
def test_a_run_reads_time_and_is_resumed(timed_path: Path) -> None:
    settings = {
        "data_path": str(timed_path),
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 16,
        "show_progress": False,
        "kernel_structure": "toeplitz-time_decay",
        **TIME_BIAS,
    }
    whole = run(dataset=TIMED, config_dict={**settings, "epochs": 3, "checkpoint_dir": "whole"}, command_line=[])
    part = run(dataset=TIMED, config_dict={**settings, "epochs": 1, "checkpoint_dir": "part"}, command_line=[])
    resumed = run(resume=Path(part["checkpoint"]).parent, config_dict={"epochs": 3}, command_line=[])
    assert resumed["test_result"] == whole["test_result"]
    first, second = (load(result["checkpoint"]).model.state_dict() for result in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)

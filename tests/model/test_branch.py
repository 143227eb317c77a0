"""The kernel as a path beside the attention or in its place: its formula, its settings, and what is shown of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from recbole_posattn import Config
from recbole_posattn.analysis.attention_maps import attention_maps, positional_bias
from recbole_posattn.analysis.heatmaps import draw_kernels
from recbole_posattn.analysis.kernel_tables import kernel_reach, kernel_table, lag_profiles
from recbole_posattn.analysis.line_plots import draw_positions
from recbole_posattn.analysis.switches import positional_parts, switched_off
from recbole_posattn.errors import SettingError
from recbole_posattn.nn.backbone import BlockOptions, RecBoleBlock, SASRecBlock
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encoder import build_encoder
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.structures import STRUCTURES, build_kernel
from tests.model.test_models import assert_trains


def branch_of(structure: str, n_groups: int, gated: bool = True) -> KernelBranch:
    """A branch of 8 channels and 9 positions with random weights."""
    torch.manual_seed(0)
    options = KernelOptions("l", 9, n_groups=n_groups, normalization="none", bandwidth=3, n_decays=2, rank=2)
    branch = KernelBranch(build_kernel(structure, options), 8, gated=gated).double()
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.normal_()
    return branch


def by_the_formula(branch: KernelBranch, x: Tensor) -> Tensor:
    """γ ⊙ M x, channel by channel."""
    matrices = branch.kernel.dense(x.shape[1]).double()
    columns = [(matrices[c * len(matrices) // 8] @ x[:, :, c, None]).squeeze(-1) for c in range(8)]
    mixed = torch.stack(columns, dim=-1)
    return mixed if branch.gate is None else branch.gate * mixed


@pytest.mark.parametrize("n_groups", [1, 2, 8])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_branch_equals_its_formula(structure: str, n_groups: int) -> None:
    branch = branch_of(structure, n_groups)
    for length in (1, 5, 9):
        x = torch.randn(3, length, 8, dtype=torch.float64)
        expected = by_the_formula(branch, x)
        torch.testing.assert_close(branch(x), expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(branch(x, last_only=True), expected[:, -1:], rtol=1e-10, atol=1e-12)
        valid = torch.arange(length).expand(3, -1) >= length // 2
        masked = by_the_formula(branch, x * valid[..., None])
        torch.testing.assert_close(branch(x, valid), masked, rtol=1e-10, atol=1e-12)
        branch.mixes_padding = True
        torch.testing.assert_close(branch(x, valid), expected, rtol=1e-10, atol=1e-12)
        branch.mixes_padding = False
    assert torch.equal(branch_of(structure, n_groups, gated=False)(x), branch_of(structure, n_groups, False).kernel(x))


def test_dropout_of_the_branch_is_in_front_of_the_gate_and_for_training_only() -> None:
    torch.manual_seed(0)
    branch = KernelBranch(build_kernel("identity", KernelOptions("l", 40)), 8, dropout=0.5)
    x = torch.ones(20, 40, 8)
    with torch.no_grad():
        branch.gate.fill_(3.0)
    dropped = branch.train()(x)
    assert set(dropped.unique().tolist()) == {0.0, 6.0} and dropped.mean().item() == pytest.approx(3, abs=0.2)
    assert torch.equal(branch.eval()(x), 3 * x)


class _Half(nn.Module):
    """An attention that returns half of its query."""

    def forward(self, x_query: Tensor, x: Tensor, valid: Tensor | None, times: None) -> Tensor:
        return x_query / 2


@pytest.mark.parametrize("with_attention", [True, False])
@pytest.mark.parametrize("block_class", [SASRecBlock, RecBoleBlock])
def test_blocks_add_the_branch_beside_the_attention(block_class: type, with_attention: bool) -> None:
    branch = branch_of("toeplitz", 8)
    attention = _Half() if with_attention else None
    block = block_class(attention, BlockOptions(8, inner_size=16), branch).double().eval()
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    if block_class is SASRecBlock:
        h = block.attention_norm(x)
        y = block.feed_forward_norm(h + (h / 2 if with_attention else 0) + by_the_formula(branch, h))
        expected = y + block.feed_forward(y)
    else:
        attended = block.dense(x / 2) if with_attention else 0
        a = block.attention_norm(x + attended + by_the_formula(branch, x))
        expected = block.feed_forward_norm(a + block.feed_forward(a))
        assert hasattr(block, "dense") == with_attention
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(block(x, last_only=True), expected[:, -1:], rtol=1e-10, atol=1e-12)


def test_a_block_needs_something_that_mixes() -> None:
    with pytest.raises(ValueError, match="a block needs an attention or a branch, got neither"):
        SASRecBlock(None, BlockOptions(8))
    with pytest.raises(ValueError, match="n_groups is 3, which does not divide 8 channels"):
        KernelBranch(build_kernel("toeplitz", KernelOptions("l", 4, n_groups=3)), 8)


@pytest.mark.parametrize(
    ("structure", "attention"),
    [pair for pair in product(STRUCTURES, ("softmax", "none")) if pair != ("identity", "none")],
)
def test_every_structure_trains_as_a_branch(build: Callable, structure: str, attention: str) -> None:
    model, (train_data, _, _) = build(kernel_branch=structure, attention=attention)
    assert_trains(model, train_data)
    kernels = [block.branch.kernel for block in model.backbone.blocks]
    assert kernels[0] is not kernels[1] and all(kernel.n_groups == 16 for kernel in kernels)
    assert all((block.attention is None) == (attention == "none") for block in model.backbone.blocks)


def test_without_a_branch_nothing_changes(build: Callable) -> None:
    """The weights of models of before still fit."""
    assert not any("branch" in name for name in build(kernel_branch=None)[0].state_dict())


@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "identity"])
def test_a_branch_starts_near_zero_with_the_gate_at_one(structure: str) -> None:
    """Whatever the normalization of U and L: it is not for the branch, whose scale is the gate."""
    options = {"bandwidth": 4, "normalization": "frobenius"}
    torch.manual_seed(0)
    encoder = build_encoder(10, 64, 2, attention="none", kernel_branch=structure, kernel_options=options)
    for block in encoder.blocks:
        assert torch.equal(block.branch.gate, torch.ones(64)) and block.attention is None
        weights = block.branch.kernel.dense()
        assert 0 < weights.abs().max() < 0.2 and abs(weights.diagonal(dim1=-2, dim2=-1).mean()) < 0.01
        if structure == "toeplitz":
            assert block.branch.kernel.taps().std().item() == pytest.approx(0.02, rel=0.15)


def test_groups_of_a_branch_are_chosen_apart_from_those_of_the_kernels() -> None:
    assert build_encoder(10, 16, kernel_branch="full", kernel_branch_groups=1).blocks[0].branch.kernel.n_groups == 1


def test_widths_and_state_of_the_branch_are_told(build: Callable) -> None:
    model, _ = build(kernel_branch="adaptive_band", kernel_branch_groups="n_heads", n_heads=2)
    widths = model.learned()["kernel_widths"]
    assert set(widths) == {"branch"} and [len(layer) for layer in widths["branch"]] == [2, 2]
    names = {name for name in model.kernel_state() if "branch" in name}
    parts = ("kernel.free", "kernel.width_logit", "gate")
    assert names == {f"backbone.blocks.{layer}.branch.{part}" for layer in (0, 1) for part in parts}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention": "none", "kernel_branch": None},
            "attention 'none' needs kernel_branch, which mixes the positions instead",
        ),
        (
            {"attention": "none", "kernel_branch": "identity"},
            "attention 'none' needs kernel_branch, which mixes the positions instead, such as "
            "--kernel_branch=toeplitz; got identity",
        ),
        (
            {"attention": "none", "kernel_branch": "banded", "kernel_bandwidth": 1},
            "got banded with kernel_bandwidth 1.",
        ),
        (
            {"attention": "none", "kernel_branch": "time_decay", "read_times": False},
            "got time_decay with read_times False.",
        ),
        (
            {"attention": "none", "kernel_branch": "toeplitz", "kernel_structure": "toeplitz-full"},
            "kernel_structure 'toeplitz-full' is for the kernels U and L of the attention; got attention 'none'",
        ),
        (
            {"attention": "none", "kernel_branch": "full", "kernel_groups": 1},
            "kernel_groups 1 is for the kernels U and L",
        ),
        (
            {"attention": "none", "kernel_branch": "full", "kernel_sharing": "shared"},
            "kernel_sharing 'shared' is for the kernels U and L",
        ),
        (
            {"attention": "none", "kernel_branch": "full", "position_encoding": ["absolute", "rope"]},
            r"position_encoding ['rope'] acts inside the attention; got attention 'none', with which it must be any of "
            "absolute, sinusoidal",
        ),
        (
            {"kernel_branch_groups": 1, "kernel_branch": None},
            "kernel_branch_groups 1 is for a branch; got kernel_branch ~",
        ),
        ({"kernel_branch": "banded"}, "kernel_branch 'banded' needs kernel_bandwidth, the lags a banded kernel keeps"),
        (
            {"kernel_branch": "banded", "kernel_structure": "full-banded_toeplitz"},
            "kernel_structure 'full-banded_toeplitz' and kernel_branch 'banded' need kernel_bandwidth, the lags a",
        ),
        (
            {"kernel_branch": "toeplitz", "kernel_bandwidth": 3},
            "kernel_bandwidth 3 is for banded structures; got kernel_structure 'identity-identity' and "
            "kernel_branch 'toeplitz'",
        ),
        ({"kernel_branch": "banded", "kernel_bandwidth": 51}, "kernel_bandwidth must be at most MAX_ITEM_LIST_LENGTH"),
        ({"kernel_branch": "lowrank", "kernel_rank": 51}, "kernel_rank must be at most MAX_ITEM_LIST_LENGTH"),
        ({"kernel_branch": "toeplitz-full"}, "kernel_branch must be one of identity, toeplitz"),
        ({"attention": "linear"}, "attention must be one of softmax, none; got 'linear'"),
        ({"bsarec_alpha": 0.5}, "PosKernelSASRec has no key 'bsarec_alpha': it belongs to other models"),
        ({"inner_size": "3x"}, "inner_size must be 4x or a positive integer, or ~; got '3x'"),
        ({"model": "BSARec", "bsarec_cutoff": 0}, "bsarec_cutoff must be a positive integer; got 0"),
        (
            {"model": "BSARec", "bsarec_cutoff": 51},
            "bsarec_cutoff must be at most MAX_ITEM_LIST_LENGTH, which is 50; got 51",
        ),
        ({"model": "BSARec", "bsarec_alpha": 1.5}, r"bsarec_alpha must be a number in [0, 1]; got 1.5"),
        ({"model": "TVRec", "filter_padding": True}, "TVRec has no key 'filter_padding'"),
        ({"model": "FMLPRec", "n_heads": 2}, "FMLPRec has no key 'n_heads'"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)):
        Config(changes.pop("model", "PosKernelSASRec"), "ml-100k", config_dict=changes, command_line=[])


def test_settings_that_make_sense_are_accepted() -> None:
    for changes in (
        {"attention": "none", "kernel_branch": "toeplitz", "position_encoding": ["absolute"]},
        {"kernel_branch": "banded_toeplitz", "kernel_bandwidth": 3, "inner_size": "4x"},
        {"kernel_branch": "adaptive_band", "kernel_width_penalty": 0.1},
        {"attention": "none", "kernel_branch": "lowrank", "kernel_branch_groups": 1},
    ):
        settings = Config("PosKernelSASRec", "ml-100k", config_dict=changes, command_line=[])
        assert all(settings[key] == value for key, value in changes.items())


# -- what is shown of it ---------------------------------------------------------------------------------------------


def test_inspection_shows_the_gated_branch_beside_the_kernels(build: Callable) -> None:
    parts = {"kernel_structure": "toeplitz-full", "kernel_branch": "toeplitz", "kernel_branch_groups": "n_heads"}
    model, _ = build(**parts, n_heads=2)
    with torch.no_grad():
        for block in model.backbone.blocks:
            block.branch.gate.normal_()
    assert positional_parts(model) == ["U", "L", "branch"]
    assert set(kernel_table(model)["kernel"]) == {"U", "L", "C", "branch"}
    profile = lag_profiles(model)
    for layer, block in enumerate(model.backbone.blocks, start=1):
        of_layer = profile[(profile["kernel"] == "branch") & (profile["layer"] == layer)]
        for group in (0, 1):
            expected = block.branch.kernel.taps()[group] * block.branch.gate[8 * group : 8 * group + 8].mean()
            weights = of_layer[of_layer["group"] == group + 1].sort_values("lag")["weight"].to_numpy(float)
            torch.testing.assert_close(torch.tensor(weights), expected.detach(), rtol=1e-9, atol=1e-12)
    assert set(kernel_reach(profile)["kernel"]) == {"U", "L", "C", "branch"}


def test_a_branch_that_is_switched_off_keeps_its_diagonal(build: Callable, histories: tuple) -> None:
    model, _ = build(kernel_branch="toeplitz")
    before, kernel = model(*histories), model.backbone.blocks[0].branch.kernel
    with switched_off(model, ["branch"]):
        assert not torch.allclose(model(*histories), before)
        dense = model.backbone.blocks[0].branch.kernel.dense()
        torch.testing.assert_close(dense, torch.diag_embed(kernel.diagonal()))
    assert torch.equal(model(*histories), before) and model.backbone.blocks[0].branch.kernel is kernel


def test_kernels_of_different_numbers_of_groups_are_drawn_side_by_side(build: Callable) -> None:
    """U, L and C for all channels, the branch in two groups: the second row of a layer has the branch alone."""
    parts = {"kernel_structure": "toeplitz-full", "kernel_branch": "toeplitz", "kernel_branch_groups": "n_heads"}
    model, _ = build(**parts, n_heads=2, n_layers=1)
    figure = draw_kernels(SimpleNamespace(kernels=kernel_table(model)))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [
        *("U, layer 1", "L, layer 1", "C, layer 1", "branch, layer 1, group 1", "branch, layer 1, group 2"),
    ]
    model, _ = build(kernel_branch="toeplitz", n_layers=1)
    figure = draw_kernels(SimpleNamespace(kernels=kernel_table(model)))
    assert "branch, layer 1, mean of all groups" in [axis.get_title() for axis in figure.axes]


@pytest.mark.parametrize("model", ["FMLPRec", "TVRec"])
def test_models_without_attention_are_measured_as_far_as_they_go(build: Callable, histories: tuple, model: str) -> None:
    recommender, _ = build(model)
    parts = positional_parts(recommender)
    assert attention_maps(recommender, *histories, parts).empty
    positions = positional_bias(recommender, *histories, parts)
    assert positions.empty and draw_positions([SimpleNamespace(positions=positions)]) is None


def test_maps_of_a_model_whose_padding_takes_part_are_of_its_items(build: Callable, histories: tuple) -> None:
    """A history is at the end of all positions, however short the longest of the batch is."""
    model, _ = build("BSARec", n_heads=2)
    items, lengths = histories[0][2:3], histories[1][2:3]
    maps = attention_maps(model, items, lengths, positional_parts(model))
    weights = maps[maps["kind"] == "attention"].groupby(["layer", "head", "query"])["weight"].sum()
    assert len(weights) == 2 * 2 * int(lengths[0]) and weights.to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("model", ["FMLPRec", "BSARec", "TVRec"])
def test_filters_are_shown_with_their_lags(build: Callable, model: str) -> None:
    """A filter that looks ahead has lags of either sign."""
    recommender, _ = build(model)
    profile = lag_profiles(recommender)
    assert set(profile["kernel"]) == {"branch"}
    assert profile["lag"].min() == (0 if model == "TVRec" else -9)
    expected = ["branch"] if model == "TVRec" else ["branch", "absolute"]
    assert positional_parts(recommender) == expected

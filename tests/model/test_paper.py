"""``preset: paper`` against reference outputs of the authors' released model, and the keys that it consists of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_posattn import Config, PosKernelSASRec, run
from recbole_posattn.errors import SettingError
from recbole_posattn.models.poskernelsasrec import kernel_options
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.backbone import BlockOptions, FeedForward, RecBoleBlock
from recbole_posattn.nn.kernels.by_lag import ToeplitzKernel
from recbole_posattn.nn.kernels.by_position import FullKernel
from recbole_posattn.nn.kernels.structures import build_kernel
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.yaml import read_yaml
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.load import build_model, load, prepare_data
from recbole_posattn.training.trainer import trainer_class

COPY = Path(__file__).parent / "authors_reference.npz"
ORIGINAL = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "authors_reference.pt"
ENTRIES = ["toeplitz-full", "toeplitz-toeplitz", "toeplitz-full, 2 heads"]
N_ITEMS, LENGTH, HIDDEN_SIZE = 30, 10, 16


def reference(entry: str) -> dict[str, Tensor]:
    """Inputs, outputs and weights of the authors' model, the latter as ``state/<name>``."""
    with np.load(COPY, allow_pickle=False) as file:
        return {
            name.removeprefix(f"{entry}/"): torch.from_numpy(file[name])
            for name in file.files
            if name.startswith(f"{entry}/")
        }


def paper_model(**changes: object) -> PosKernelSASRec:
    """A model with the preset, of the sizes of the reference, in evaluation mode."""
    sizes = {"hidden_size": HIDDEN_SIZE, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": LENGTH}
    config = Config("PosKernelSASRec", "ml-100k", config_dict={"preset": "paper", **sizes, **changes}, command_line=[])
    torch.manual_seed(0)
    return PosKernelSASRec(config, SimpleNamespace(num=lambda field: N_ITEMS)).eval()


def model_of(entry: str, **changes: object) -> PosKernelSASRec:
    """The model of a reference with its weights."""
    n_heads = 2 if entry.endswith("2 heads") else 1
    structure = entry.partition(",")[0]
    model = paper_model(kernel_structure=structure, n_heads=n_heads, **changes)
    state = {name.removeprefix("state/"): value for name, value in reference(entry).items() if "state/" in name}
    model.load_state_dict(our_names(state, structure), strict=not changes)
    return model


def our_names(theirs: dict[str, Tensor], structure: str) -> dict[str, Tensor]:
    """The authors' weights by our names."""
    state = {"item_embedding.weight": theirs["item_emb.weight"]}
    taps = "conv.parametrizations.weight.0.kernel"
    pairs = {"attention_layernorms.{}": "attention_norm", "forward_layernorms.{}": "feed_forward_norm"}
    pairs |= {"attention_layers.{}.out_proj": "attention.output"}
    for i in range(2):
        block, attention = f"backbone.blocks.{i}", f"backbone.blocks.{i}.attention"
        assert (theirs[f"custom_A1_layers.{i}.{taps}._g0"] == 1).all()
        state[f"{attention}.u_kernel.free"] = theirs[f"custom_A1_layers.{i}.{taps}._g_rest"].reshape(1, -1)
        if structure.endswith("full"):
            position, lag = FullKernel(LENGTH).entry
            state[f"{attention}.l_kernel.free"] = theirs[f"custom_A2_layers.{i}.A"][position, position - lag][None]
        else:
            g = [theirs[f"custom_A2_layers.{i}.{taps}.{part}"].flatten() for part in ("_g0", "_g_rest")]
            state[f"{attention}.l_kernel.free"] = torch.cat(g)[None]
        for kind in ("weight", "bias"):
            stacked = theirs[f"attention_layers.{i}.in_proj_{kind}"].chunk(3)
            for name, value in zip(("query", "key", "value"), stacked, strict=True):
                state[f"{attention}.{name}.{kind}"] = value
            for their_name, our_name in pairs.items():
                state[f"{block}.{our_name}.{kind}"] = theirs[f"{their_name.format(i)}.{kind}"]
            for n in (1, 2):
                dense = theirs[f"forward_layers.{i}.conv{n}.{kind}"]
                state[f"{block}.feed_forward.dense_{n}.{kind}"] = dense.squeeze(-1) if kind == "weight" else dense
            state[f"backbone.norm.{kind}"] = theirs[f"last_layernorm.{kind}"]
    return state


@pytest.mark.parametrize("padded", ["", "_padded"])
@pytest.mark.parametrize("entry", ENTRIES)
@torch.no_grad()
def test_the_preset_is_the_authors_model(entry: str, padded: str) -> None:
    """At every item, and at the newest one by the way of an evaluation, whose histories have their padding behind."""
    model, given = model_of(entry), reference(entry)
    x, logits = given[f"x{padded}"], given[f"logits{padded}"]
    is_item = x > 0
    scores = model.encode(x) @ model.item_embedding.weight.T
    torch.testing.assert_close(scores[is_item], logits[is_item], rtol=0, atol=1e-5)
    assert logits[is_item].std() > 0.1
    length = is_item.sum(dim=1)
    behind = torch.stack([row.roll(int(n) - LENGTH) for row, n in zip(x, length)])
    newest = model._scores(model(behind, length))
    torch.testing.assert_close(newest, logits[:, -1], rtol=0, atol=1e-5)
    for row, n in enumerate(length.tolist()):  # alone, and without room for the padding
        alone = model._scores(model(behind[row : row + 1, :n], length[row : row + 1]))
        torch.testing.assert_close(alone, logits[row : row + 1, -1], rtol=0, atol=1e-5)


@pytest.mark.skipif(not ORIGINAL.is_file(), reason="the file from which the copy was made is not here")
def test_the_copy_is_the_reference() -> None:
    for entry, content in torch.load(ORIGINAL, weights_only=True).items():
        copied = reference(entry)
        state = {f"state/{name}": value for name, value in content.pop("state").items()}
        tensors = {name: value for name, value in (content | state).items() if name in copied}
        assert {"x", "x_padded", "logits", "logits_padded"} <= set(tensors) and set(tensors) == set(copied)
        assert all(torch.equal(copied[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("changes", "whole", "padded"),
    [
        ({"output_projection": False}, True, True),
        ({"attend_padding": False}, False, True),
        ({"kernel_normalization": "none"}, True, True),
        ({"backbone": "recbole", "output_projection": False}, True, True),
    ],
    ids=str,
)
@torch.no_grad()
def test_each_key_changes_what_it_says(changes: dict, whole: bool, padded: bool) -> None:
    """Outputs of whole sequences, and of those with padding in front."""
    given = reference("toeplitz-full")
    changed, paper = model_of("toeplitz-full", **changes), model_of("toeplitz-full")
    for x, differs in ((given["x"], whole), (given["x_padded"][:3], padded)):
        newest = [model.encode(x)[:, -1] for model in (changed, paper)]
        assert torch.allclose(*newest, rtol=0, atol=1e-6) != differs


@torch.no_grad()
def test_the_norms_eps_counts_where_a_kernel_is_small() -> None:
    for kernel in paper_model().modules():
        if isinstance(kernel, (FullKernel, ToeplitzKernel)):
            assert kernel.normalization_eps == 1e-10
    small = ToeplitzKernel(3)
    small.free.copy_(torch.tensor([[3e-9, 4e-9, 0.0]]))
    small.normalization_eps = 1e-9
    torch.testing.assert_close(small.taps(), torch.tensor([[0.5, 4 / 6, 0.0]]))


# -- start -----------------------------------------------------------------------------------------------------------


def bound(*shape: int) -> float:
    return math.sqrt(6 / sum(shape))


def test_starts_as_the_authors_model() -> None:
    model = paper_model(hidden_size=64)
    table = model.item_embedding.weight
    assert bound(N_ITEMS, 64) > table.abs().max() > 0.95 * bound(N_ITEMS, 64)
    assert (table[0] != 0).any()
    for block in model.backbone.blocks:
        attention = block.attention
        for projection in (attention.query, attention.key, attention.value):
            assert 0.95 * bound(3 * 64, 64) < projection.weight.abs().max() < bound(3 * 64, 64)
            assert (projection.bias == 0).all()
        for dense in (attention.output, block.feed_forward.dense_1, block.feed_forward.dense_2):
            assert 0.95 * bound(64, 64) < dense.weight.abs().max() < bound(64, 64)
        assert (attention.output.bias == 0).all()
        for dense in (block.feed_forward.dense_1, block.feed_forward.dense_2):
            assert 0.8 / 8 < dense.bias.abs().max() <= 1 / 8  # 1 / √64
        assert attention.u_kernel is not attention.l_kernel
        assert (attention.l_kernel.diagonal() > 0.2).all()
    first, second = (block.attention for block in model.backbone.blocks)
    assert first.l_kernel is second.l_kernel and first.u_kernel is not second.u_kernel


def test_a_toeplitz_l_starts_small_everywhere() -> None:
    """As in the authors' code; U's first weight is 1, and by default so is L's."""
    config = Config("PosKernelSASRec", "ml-100k", config_dict={"preset": "paper"}, command_line=[])
    options = kernel_options(config)._replace(role="l")
    torch.manual_seed(0)
    taps = torch.stack([build_kernel("toeplitz", options).free[0] for _ in range(50)])
    assert (taps >= 0).all() and taps.max() < 0.15
    assert taps[:, 0].square().mean().sqrt().item() == pytest.approx(0.02, rel=0.35)
    for structure in ("banded_toeplitz", "adaptive_band", "dilated"):
        changes = {"kernel_structure": f"toeplitz-{structure}"}
        changes |= {"kernel_bandwidth": 3} if structure.startswith("banded") else {}
        assert paper_model(**changes).backbone.blocks[0].attention.l_kernel.free[0, 0] < 0.15
    default = paper_model(kernel_structure="full-toeplitz", kernel_first_tap_start="identity")
    assert default.backbone.blocks[0].attention.l_kernel.free[0, 0] == 1


def test_xavier_without_stacking_takes_each_matrix_for_itself() -> None:
    model = paper_model(hidden_size=64, initializer="xavier_uniform", init_padding_row=False, feed_forward_bias="zeros")
    query = model.backbone.blocks[0].attention.query.weight
    assert 0.95 * bound(64, 64) < query.abs().max() < bound(64, 64)
    assert (model.item_embedding.weight[0] == 0).all()
    biases = [module.bias for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert all((bias == 0).all() for bias in biases)


def test_the_padding_item_trains_as_a_negative() -> None:
    model = paper_model()
    before = model.item_embedding.weight[0].clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.loss(torch.randn(5, HIDDEN_SIZE), torch.tensor([1, 2, 3, 4, 5]), model.item_embedding.weight).backward()
    optimizer.step()
    assert (model.item_embedding.weight[0] != before).any()


# -- training --------------------------------------------------------------------------------------------------------


def test_only_the_last_targets_of_a_user_are_trained_on(tiny_settings: Callable) -> None:
    settings = tiny_settings(preset="paper", MAX_ITEM_LIST_LENGTH=5, protocol="leave_one_out")
    _, (train, _, _) = prepare_data(Config("PosKernelSASRec", "tiny", config_dict=settings, command_line=[]))
    _, (all_windows, _, _) = prepare_data(
        Config("PosKernelSASRec", "tiny", config_dict={**settings, "last_window_only": False}, command_line=[])
    )
    dataset = train._dataset
    rows = dataset.inter_feat
    position, user = rows.position, rows["user_id"]
    last = {int(u): position[user == u].sort().values[-5:].tolist() for u in user.unique()}
    row = dataset.windows.gather(torch.arange(len(dataset.windows)), 5)[-1]
    assert len(dataset.windows) == len(last) < len(all_windows._dataset.windows)
    trained = position[row[row >= 0]].sort().values.tolist()
    assert trained == sorted(place for places in last.values() for place in places)


@pytest.mark.parametrize("model", ["PosKernelSASRec", "GRU4Rec", "BPR"])
def test_learner_args_reach_the_optimizer(tiny_settings: Callable, model: str) -> None:
    arguments = {"betas": [0.9, 0.98], "eps": 1e-6}
    settings = tiny_settings(learner_args=arguments, weight_decay=0.25, learning_rate=0.5)
    config = Config(
        model,
        "tiny",
        config_dict={**settings, "train_neg_sample_args": None} if model == "GRU4Rec" else settings,
        command_line=[],
    )
    _, (train, _, _) = prepare_data(config)
    recommender = build_model(config, train)
    trainer = trainer_class(config)(config, recommender)
    (group,) = trainer.optimizer.param_groups
    assert type(trainer.optimizer) is torch.optim.Adam
    assert [group[key] for key in ("lr", "weight_decay", "eps")] == [0.5, 0.25, 1e-6] and list(group["betas"]) == [
        0.9,
        0.98,
    ]
    assert len(group["params"]) == len(list(recommender.parameters()))
    by_hand = torch.optim.Adam(
        [p.detach().clone().requires_grad_() for p in group["params"]],
        lr=0.5,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.25,
    )
    for own, other in zip(group["params"], by_hand.param_groups[0]["params"]):
        own.grad = torch.ones_like(own)
        other.grad = torch.ones_like(other)
    for optimizer in (trainer.optimizer, by_hand):
        optimizer.step()
        optimizer.step()
    for own, other in zip(group["params"], by_hand.param_groups[0]["params"]):  # Adam of our models is fused
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner_args": {"beta": 0.9}}, "learner_args must hold arguments of adam: betas, eps, amsgrad"),
        ({"learner_args": {"lr": 0.1}}, "learner_args: lr is the key learning_rate; give that one"),
        ({"learner_args": {"betas": [0.9, 1.5]}}, "does not work with adam: Invalid beta parameter at index 1: 1.5"),
        ({"learner_args": {"betas": [0.9]}}, "learner_args: betas must be a list of 2 numbers; got [0.9]"),
        ({"learner_args": {"betas": [0.9, 0.98, 0.99]}}, "learner_args: betas must be a list of 2 numbers; got"),
        ({"learner_args": {"betas": 0.9}}, "learner_args: betas must be a list of 2 numbers; got 0.9"),
        ({"learner_args": {"amsgrad": 2}}, "learner_args: amsgrad must be True or False; got 2"),
        ({"learner_args": {"eps": "small"}}, "learner_args: eps must be a number; got 'small'"),
        ({"learner_args": {"eps": True}}, "learner_args: eps must be a number; got True"),
        ({"learner": "sgd", "learner_args": {"momentum": [0.9]}}, "learner_args: momentum must be a number; got [0.9]"),
        (
            {"learner": "sgd", "learner_args": {"momentum": 0.9, "nesterov": [1]}},
            "learner_args: nesterov must be True or False; got [1]",
        ),
        ({"learner_args": 0.98}, "learner_args must be a mapping of further arguments of the optimizer; got 0.98"),
        ({"learner": "sgd", "learner_args": {"betas": [0.9, 0.98]}}, "arguments of sgd: momentum, dampening, nesterov"),
        ({"preset": "papr"}, "preset must be one of paper, or a YAML file; got 'papr'. Did you mean 'paper'?"),
        ({"preset": "paper", "backbone": "recbole"}, "output_projection is for backbone 'sasrec'; got 'recbole'"),
        ({"preset": "paper", "position_alignment": "start"}, "attend_padding needs position_alignment 'end'"),
        ({"preset": "paper", "train_objective": "augmented"}, "last_window_only is for train_objective 'sequence'"),
        ({"last_window_only": True, "window_stride": 5}, "last_window_only leaves one window of a history"),
        ({"initializer": "xavier"}, "initializer must be one of normal, xavier_uniform, xavier_uniform_stacked"),
    ],
    ids=str,
)
def test_refuses_what_makes_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(SettingError) as error:
        Config("PosKernelSASRec", "ml-100k", config_dict=settings, command_line=[])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_values_of_learner_args_in_a_checkpoint_are_those_that_worked() -> None:
    plain = Config("NoPESASRec", "ml-100k", config_dict={"learner": "sgd"}, command_line=[]).plain()
    arguments = {"momentum": 0.9, "nesterov": 1}
    assert Config.from_plain({**plain, "learner_args": arguments})["learner_args"] == arguments


def test_the_recbole_backbone_has_a_projection_already() -> None:
    kernel = ToeplitzKernel(3)
    with pytest.raises(ValueError, match="output_projection is for the sasrec backbone"):
        RecBoleBlock(PositionKernelAttention(4, 1, kernel, kernel), BlockOptions(4, output_projection=True))


# -- the preset as settings ------------------------------------------------------------------------------------------


def test_a_preset_is_between_tuned_settings_and_given_ones(tmp_path: Path) -> None:
    tuned = read_yaml(PROPERTIES / "tuned" / "amazon-beauty" / "PosKernelSASRec.yaml")
    preset = read_yaml(PROPERTIES / "preset" / "paper.yaml")
    file = tmp_path / "mine.yaml"
    file.write_text("preset: paper\nn_layers: 5\nn_heads: 2\nlearning_rate: 0.1\n")

    def settings(files: list, given: dict, command_line: list[str]) -> Config:
        return Config("PosKernelSASRec", "amazon-beauty", files, given, command_line)

    assert settings([], {}, [])["learning_rate"] == tuned["learning_rate"] != preset["learning_rate"]
    resolved = settings([], {"preset": "paper"}, [])
    assert {key: resolved[key] for key in preset} == {
        **preset,
        "train_neg_sample_args": resolved["train_neg_sample_args"],
    }
    resolved = settings([file], {"n_heads": 4, "learning_rate": 0.2}, ["--learning_rate=0.3"])
    assert [resolved[key] for key in ("hidden_size", "n_layers", "n_heads", "learning_rate")] == [128, 5, 4, 0.3]
    assert settings([], {}, ["--preset=paper"])["output_projection"] is True
    assert settings([file], {}, ["--preset=~"])["output_projection"] is False


def test_every_key_of_the_preset_is_commented_and_marked_if_it_differs() -> None:
    text = (PROPERTIES / "preset" / "paper.yaml").read_text(encoding="utf-8")
    default = Config("PosKernelSASRec", "ml-100k", command_line=[])
    preset = read_yaml(PROPERTIES / "preset" / "paper.yaml")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, comment = line.partition(":")[0], line.partition(" # ")[2] or line.partition("# ")[2]
            differs = key != "train_neg_sample_args" and default[key] != preset[key]
            assert comment.startswith("* (" if differs else "("), line
            assert comment.endswith("."), line


@pytest.mark.parametrize("model", ["NoPESASRec", "APESASRec", "AllAPESASRec", "RoPESASRec", "CAPESASRec"])
def test_the_other_encodings_take_what_concerns_them(model: str) -> None:
    config = Config(model, "ml-100k", config_dict={"preset": "paper"}, command_line=[])
    assert config["output_projection"] and config["learner_args"] == {"betas": [0.9, 0.98]}
    assert "kernel_structure" not in config


def test_a_preset_is_for_our_models() -> None:
    with pytest.raises(SettingError, match=r"preset 'paper' is for PosKernelSASRec and .* got SASRec: leave it out"):
        Config("SASRec", "ml-100k", config_dict={"preset": "paper"}, command_line=[])
    with pytest.raises(SettingError, match=r"on its backbone; got ESASRec: leave it out"):  # whose blocks are its own
        Config("ESASRec", "ml-100k", config_dict={"preset": "paper"}, command_line=[])


def test_a_file_of_ones_own_is_for_any_model(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("hidden_size: 24\n")
    for model in ("HSTU", "BSARec", "ESASRec", "SASRec"):
        assert Config(model, "ml-100k", config_dict={"preset": str(file)}, command_line=[])["hidden_size"] == 24
    file.write_text("kernel_structure: full-full\n")
    with pytest.raises(SettingError, match=r"own.yaml: RoPESASRec has no key 'kernel_structure'; leave it out"):
        Config("RoPESASRec", "ml-100k", config_dict={"preset": str(file)}, command_line=[])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hiden_size: 3\n", "key 'hiden_size' is unknown. Did you mean 'hidden_size'?"),
        ("model: Pop\n", "key 'model' cannot be set by a preset; give it in addition to the preset"),
        ("preset: paper\n", "key 'preset' cannot be set by a preset"),
        ("data_path: elsewhere\n", "key 'data_path' cannot be set by a preset"),
        ("hidden_size: wide\n", "hidden_size must be a positive integer; got 'wide'"),
        ("- a\n", "must hold lines of 'key: value', got a list"),
    ],
)
def test_a_file_of_ones_own_is_checked(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(SettingError) as error:
        Config("PosKernelSASRec", "ml-100k", config_dict={"preset": str(file)}, command_line=[])
    assert message in str(error.value)


def test_a_checkpoint_needs_no_preset_file(tiny_settings: Callable, tmp_path: Path) -> None:
    """Trained, resumed and loaded; the file of the preset is gone by then."""
    file = tmp_path / "own.yaml"
    file.write_text((PROPERTIES / "preset" / "paper.yaml").read_text(encoding="utf-8"))
    sizes = {
        "n_layers": 1,
        "hidden_size": 8,
        "train_batch_size": 64,
        "epochs": 1,
        "topk": [5],
        "valid_metric": "NDCG@5",
    }
    settings = tiny_settings(preset=str(file), **sizes)
    first = run("PosKernelSASRec", "tiny", config_dict=settings)
    file.unlink()
    folder = Path(first["checkpoint"]).parent
    resumed = run(config_dict={"data_path": settings["data_path"], "epochs": 2, "show_progress": False}, resume=folder)
    assert resumed["epochs"] == 2 and resumed["changes"] == []
    loaded = load(resumed["checkpoint"])
    assert loaded.config["output_projection"] and loaded.config["learner_args"] == {"betas": [0.9, 0.98]}
    attentions = [module for module in loaded.model.modules() if isinstance(module, PositionKernelAttention)]
    assert len(attentions) == 1 and attentions[0].attend_padding
    assert isinstance(attentions[0].output, torch.nn.Linear)
    last = read_checkpoint(folder / "last.pth")
    assert all(list(group["betas"]) == [0.9, 0.98] for group in last["optimizer"]["param_groups"])
    with pytest.raises(SettingError, match="has learner_args"):
        run(config_dict={"data_path": settings["data_path"], "learner_args": {"eps": 1e-3}}, resume=folder)


def test_feed_forward_networks_are_reached() -> None:
    assert sum(isinstance(module, FeedForward) for module in paper_model().modules()) == 2

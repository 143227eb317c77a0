"""The models: equal to RecBole's SASRec where they should be, and to themselves under padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recbole.data import create_dataset
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from torch.nn import functional as F

from recbole_posattn import Config, PosKernelSASRec, run
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.models.baselines import BASELINES
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.encoder import init_weights
from recbole_posattn.nn.encodings.build import AT_INPUT, ENCODINGS, MEANINGLESS_TOGETHER
from recbole_posattn.nn.encodings.build import READS_TIME as ENCODINGS_OF_TIME
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.nn.kernels.structures import STRUCTURES

SHARINGS = ["per_layer", "shared", {"u": "per_layer", "l": "shared"}, {"u": "shared", "l": "per_layer"}]


def copy_from_sasrec(model: PosKernelSASRec, sasrec: SASRec) -> None:
    """Put the weights of RecBole's SASRec into the ``recbole`` backbone with absolute positions."""
    parts = {
        "multi_head_attention.query": "attention.query",
        "multi_head_attention.key": "attention.key",
        "multi_head_attention.value": "attention.value",
        "multi_head_attention.dense": "dense",
        "multi_head_attention.LayerNorm": "attention_norm",
        "feed_forward.dense_1": "feed_forward.dense_1",
        "feed_forward.dense_2": "feed_forward.dense_2",
        "feed_forward.LayerNorm": "feed_forward_norm",
    }
    outside = {
        "item_embedding": "item_embedding",
        "position_embedding": "backbone.input_encodings.0.embedding",
        "LayerNorm": "backbone.norm",
    }
    state = {}
    for name, value in sasrec.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if module.startswith("trm_encoder.layer."):
            _, _, layer, part = module.split(".", 3)
            state[f"backbone.blocks.{layer}.{parts[part]}.{leaf}"] = value
        else:
            state[f"{outside[module]}.{leaf}"] = value
    model.load_state_dict(state, strict=True)


@pytest.mark.parametrize("n_heads", [1, 2])
def test_recbole_backbone_with_absolute_positions_is_recboles_sasrec(
    build: Callable, tiny_settings: Callable, n_heads: int
) -> None:
    shape = {"n_heads": n_heads, "inner_size": 40, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    model, (train_data, valid_data, _) = build(
        backbone="recbole",
        kernel_structure="identity-identity",
        kernel_branch=None,
        history_partition=False,
        position_encoding=["absolute"],
        position_alignment="start",
        train_objective="augmented",
        **shape,
    )
    torch.manual_seed(1)
    config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(**shape), command_line=[])
    sasrec = SASRec(config, train_data._dataset).eval()
    model = model.float()
    copy_from_sasrec(model, sasrec)

    for batch, _, _, _ in valid_data:
        scores = model.full_sort_predict(batch)
        torch.testing.assert_close(scores, sasrec.full_sort_predict(batch), rtol=1e-5, atol=1e-5)
        assert scores.std() > 1e-3
        torch.testing.assert_close(model.predict(batch), sasrec.predict(batch), rtol=1e-5, atol=1e-5)
    for batch in train_data:
        ours, theirs = model.calculate_loss(batch), sasrec.calculate_loss(batch)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def assert_trains(model: SASRecBase, train_data: Iterable) -> None:
    """The loss is finite and its gradients reach every parameter."""
    model.train().calculate_loss(next(iter(train_data))).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("attention.key.bias"):  # the same in all logits of a row: softmax does not see it
            assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("kernel_structure", ["-".join(pair) for pair in itertools.product(STRUCTURES, repeat=2)])
def test_every_pair_trains(build: Callable, kernel_structure: str) -> None:
    model, (train_data, _, _) = build(kernel_structure=kernel_structure)
    assert_trains(model, train_data)


@pytest.mark.parametrize("sharing", SHARINGS, ids=str)
@pytest.mark.parametrize("kernel_structure", ["toeplitz-full", "exponential-adaptive_band"])
def test_every_sharing_trains(build: Callable, kernel_structure: str, sharing: object) -> None:
    model, (train_data, _, _) = build(kernel_structure=kernel_structure, kernel_sharing=sharing)
    assert_trains(model, train_data)
    blocks = model.backbone.blocks
    sharing_u, sharing_l = (sharing["u"], sharing["l"]) if isinstance(sharing, dict) else (sharing, sharing)
    assert (blocks[0].attention.u_kernel is blocks[1].attention.u_kernel) == (sharing_u == "shared")
    assert (blocks[0].attention.l_kernel is blocks[1].attention.l_kernel) == (sharing_l == "shared")


@pytest.mark.parametrize("name", [name.__name__ for name in BASELINES])
def test_every_baseline_trains(build: Callable, name: str) -> None:
    model, (train_data, _, _) = build(name)
    assert_trains(model, train_data)


@st.composite
def hybrids(draw: st.DrawFn) -> dict:
    """Settings of PosKernelSASRec with any kernels, branches and encodings that go together, without times."""
    encodings = draw(
        st.lists(st.sampled_from(sorted(ENCODINGS.keys() - ENCODINGS_OF_TIME)), unique=True, min_size=1, max_size=3)
    )
    if any(set(pair) <= set(encodings) for pair in MEANINGLESS_TOGETHER):
        encodings = encodings[:1]
    alignment, backbone = draw(st.sampled_from(["end", "start"])), draw(st.sampled_from(["sasrec", "recbole"]))
    settings = {
        "position_alignment": alignment,
        "backbone": backbone,
        "n_heads": draw(st.sampled_from([1, 2])),
        "attend_padding": alignment == "end" and draw(st.booleans()),
        "output_projection": backbone == "sasrec" and draw(st.booleans()),
    }
    groups, structure = (
        st.sampled_from([1, "n_heads", "hidden_size"]),
        st.sampled_from(sorted(STRUCTURES.keys() - STRUCTURES_OF_TIME)),
    )
    if draw(st.booleans()):
        settings |= {"kernel_branch": draw(structure), "kernel_branch_groups": draw(groups)}
        if settings["kernel_branch"] != "identity" and draw(st.booleans()):
            return settings | {
                "attention": "none",
                "position_encoding": [name for name in encodings if name in AT_INPUT],
                "attend_padding": False,
                "output_projection": False,
            }
    return settings | {
        "kernel_structure": "-".join(draw(st.tuples(structure, structure))),
        "kernel_sharing": draw(st.sampled_from(SHARINGS)),
        "kernel_groups": draw(groups),
        "position_encoding": encodings,
    }


@pytest.mark.slow
@given(changes=hybrids())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hybrids_train_and_keep_what_models_promise(build: Callable, histories: tuple, changes: dict) -> None:
    model, (train_data, _, _) = build(**changes)
    assert_padding_changes_nothing(model, *histories)
    assert_causal(model, histories[0][:1])
    assert_trains(model, train_data)


@pytest.mark.parametrize("alignment", ["end", "start"])
@pytest.mark.parametrize("name", [name.__name__ for name in BASELINES])
def test_baselines_keep_what_models_promise(build: Callable, histories: tuple, name: str, alignment: str) -> None:
    model, _ = build(name, position_alignment=alignment, n_heads=2)
    assert_padding_changes_nothing(model, *histories)
    assert_causal(model, histories[0][:1])


def assert_padding_changes_nothing(model: SASRecBase, item_seq: torch.Tensor, length: torch.Tensor) -> None:
    """A batch of padded sequences gives each what it gets alone."""
    together = model(item_seq, length)
    for row, n in enumerate(length.tolist()):
        alone = model(item_seq[row : row + 1, :n], length[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-10)


def assert_causal(model: SASRecBase, item_seq: torch.Tensor) -> None:
    """Changing an item of (1, s) changes its own and later outputs only."""
    changed = item_seq.clone()
    changed[0, 6] = item_seq[0, 6] % 19 + 1
    before, after = model.encode(item_seq), model.encode(changed)
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 6:], before[:, 6:])


@given(changes=hybrids(), same_length=st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_output_alone_is_that_among_all(
    build: Callable, histories: tuple, changes: dict, same_length: bool
) -> None:
    """``forward`` computes no more of the last block than it gives."""
    model, _ = build(**changes)
    item_seq, length = histories
    length = torch.full_like(length, 4) if same_length else length
    item_seq = item_seq.clamp(min=1).masked_fill(torch.arange(10) >= length[:, None], 0)
    every = model.encode(model._align(item_seq, length))
    newest = torch.full_like(length, every.shape[1] - 1) if model.newest_last else length - 1
    expected = every[torch.arange(len(length)), newest]
    torch.testing.assert_close(model(item_seq, length), expected, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(model(item_seq, length), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backbone", ["sasrec", "recbole"])
@pytest.mark.parametrize("alignment", ["end", "start"])
@pytest.mark.parametrize("encoding", [[], ["absolute"]], ids=str)
@pytest.mark.parametrize("groups", [1, "n_heads", "hidden_size"])
@pytest.mark.parametrize("kernel_structure", ["toeplitz-full", "banded-banded_toeplitz", "toeplitz-toeplitz"])
def test_padding_never_changes_a_score(
    build: Callable,
    histories: tuple,
    kernel_structure: str,
    groups: object,
    encoding: list,
    alignment: str,
    backbone: str,
) -> None:
    model, _ = build(
        kernel_structure=kernel_structure,
        kernel_groups=groups,
        position_encoding=encoding,
        position_alignment=alignment,
        backbone=backbone,
        n_heads=2,
    )
    assert_padding_changes_nothing(model, *histories)


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_structure": "toeplitz-full", "position_alignment": "start"},
        {"kernel_structure": "full-banded", "position_alignment": "start", "position_encoding": ["absolute"]},
        {"kernel_structure": "toeplitz-banded_toeplitz", "position_alignment": "end"},
        {"kernel_structure": "identity-toeplitz", "position_alignment": "end", "backbone": "recbole"},
    ],
    ids=str,
)
def test_objectives_give_equal_losses_for_sequences_that_fit(build: Callable, changes: dict) -> None:
    """Dropout off. Weights that depend on the place of an item in the window need the same place in both objectives."""
    long_enough = {"MAX_ITEM_LIST_LENGTH": 24}
    model, (sequence, _, _) = build(**long_enough, **changes, train_objective="sequence")
    _, (augmented, _, _) = build(**long_enough, **changes, train_objective="augmented")
    windows = sequence._dataset.windows
    rows = augmented._dataset.inter_feat.dense()

    hidden = model(rows["item_id_list"], rows["item_length"])
    from_prefixes = F.cross_entropy(model._scores(hidden), rows["item_id"], reduction="none")

    item_list, length, _, target_row = windows.gather(torch.arange(len(windows)), 24)
    aligned = model.encode(model._align(item_list, length))
    row = model._align(target_row + 1, length) - 1
    order = row[row >= 0]
    at_positions = F.cross_entropy(model._scores(aligned[row >= 0]), rows["item_id"][order], reduction="none")
    assert len(order) == len(rows)
    torch.testing.assert_close(at_positions, from_prefixes[order], rtol=1e-8, atol=1e-9)

    # and so the mean over all is the loss that each trains on
    batch = sequence._dataset[torch.arange(len(windows))]
    torch.testing.assert_close(model.calculate_loss(batch), from_prefixes.mean(), rtol=1e-8, atol=1e-9)
    model.train_objective = "augmented"
    torch.testing.assert_close(model.calculate_loss(rows), from_prefixes.mean(), rtol=1e-8, atol=1e-9)


def test_loss_is_taken_over_targets_only(build: Callable, histories: tuple) -> None:
    model, _ = build()
    item_seq, length = histories
    labels = torch.zeros_like(item_seq)
    labels[0, 9], labels[2, 3] = 5, 7
    batch = Interaction({"item_id_list": item_seq, "item_length": length, TARGET_LIST_FIELD: labels})
    scores = model._scores(model(item_seq, length))
    expected = F.cross_entropy(scores[[0, 2]], torch.tensor([5, 7]))
    torch.testing.assert_close(model.calculate_loss(batch), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_bucketing_by_length_changes_neither_loss_nor_gradients(build: Callable, objective: str) -> None:
    """Dropout off; sequences of 1 to 24 items, which make three buckets."""
    settings = {"MAX_ITEM_LIST_LENGTH": 24, "train_objective": objective, "position_encoding": ["absolute"]}
    losses, gradients = [], []
    for length_bucketing in (False, True):
        model, (train, _, _) = build(**settings, length_bucketing=length_bucketing)
        batch = train._dataset[torch.arange(len(train._dataset))]
        assert len(model._buckets(batch["item_length"])) == (3 if length_bucketing else 1)
        loss = model.calculate_loss(batch)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


LOSS_SETTINGS = [
    pytest.param({"loss_type": "CE", "loss_chunk_size": None}, marks=pytest.mark.slow),
    {"loss_type": "CE", "loss_chunk_size": 7},
    {"loss_type": "SSM", "train_neg_sample_args": {"distribution": "popularity", "sample_num": 15}},
    pytest.param({"loss_type": "BCE"}, marks=pytest.mark.slow),
    {"loss_type": "gBCE", "train_neg_sample_args": {"sample_num": 1}, "gbce_calibration": 0.25},
    pytest.param(
        {"loss_type": "BPR", "train_neg_sample_args": {"sample_num": 3}, "train_objective": "augmented"},
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", LOSS_SETTINGS, ids=str)
def test_every_loss_learns_the_planted_pattern(tiny_settings: Callable, changes: dict) -> None:
    """Far above the 0.15 of a guess among 20 items; noise leaves 0.9 at most."""
    batch_size = 64 if changes.get("train_objective") == "augmented" else 16
    settings = tiny_settings(
        epochs=25, learning_rate=0.01, train_batch_size=batch_size, topk=[3], valid_metric="Hit@3", hidden_size=32
    )
    result = run("PosKernelSASRec", "tiny", config_dict={**settings, **changes})
    assert result["best_valid_score"] > 0.35


def test_buckets_waste_at_most_half_and_keep_all_rows(build: Callable) -> None:
    model, _ = build()
    length = torch.randint(1, 200, (64,), generator=torch.Generator().manual_seed(0))
    buckets = model._buckets(length)
    assert torch.cat(buckets).sort().values.tolist() == list(range(64))
    for bucket in buckets:
        assert length[bucket].min() > length[bucket].max() / 2 or length[bucket].max() <= 8


def test_identity_kernels_know_no_order(build: Callable, histories: tuple) -> None:
    model, _ = build(kernel_branch=None, position_encoding=[], n_layers=1)
    item_seq, length = histories
    item_seq, length = item_seq[:1], length[:1]
    shuffled = torch.cat([item_seq[:, :-1].flip(1), item_seq[:, -1:]], dim=1)
    torch.testing.assert_close(model(shuffled, length), model(item_seq, length), rtol=1e-9, atol=1e-10)


def test_starts_as_documented(tiny_settings: Callable) -> None:
    config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(hidden_size=64))
    dataset = create_dataset(config)
    model = PosKernelSASRec(config, dataset)
    weight = model.item_embedding.weight
    assert (weight[0] == 0).all()
    assert weight[1:].std().item() == pytest.approx(config["initializer_range"], rel=0.1)
    assert all((module.bias == 0).all() for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert not model.newest_last  # every kernel of the default depends on lags alone
    by_position = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(kernel_structure="toeplitz-full"))
    assert PosKernelSASRec(by_position, dataset).newest_last


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *(("NoPESASRec", []), ("APESASRec", ["absolute"]), ("AllAPESASRec", ["all_absolute"])),
        *(("SinusoidalSASRec", ["sinusoidal"]), ("RoPESASRec", ["rope"]), ("CAPESASRec", ["cape"])),
        *(("ALiBiSASRec", ["alibi"]), ("T5BiasSASRec", ["t5_bias"])),
    ],
)
def test_a_baseline_is_its_encoding_without_a_kernel(
    build: Callable, histories: tuple, name: str, encoding: list[str]
) -> None:
    baseline, _ = build(name)
    paper = {"backbone": "sasrec", "inner_size": None, "hidden_act": "relu"} if name == "SinusoidalSASRec" else {}
    model, _ = build(kernel_structure="identity-identity", kernel_branch=None, position_encoding=encoding, **paper)
    model.load_state_dict(baseline.state_dict(), strict=True)
    torch.testing.assert_close(baseline(*histories), model(*histories), rtol=0, atol=0)
    changes_something = not torch.allclose(baseline(*histories), build("NoPESASRec", **paper)[0](*histories))
    assert changes_something == bool(encoding)


def test_width_penalty_is_added_to_the_loss(build: Callable) -> None:
    plain, (train_data, _, _) = build(kernel_structure="adaptive_band-toeplitz")
    batch = next(iter(train_data))
    penalized, _ = build(kernel_structure="adaptive_band-toeplitz", kernel_width_penalty=0.5)
    share = torch.cat([block.attention.u_kernel.width_share() for block in plain.backbone.blocks]).mean()
    expected = plain.calculate_loss(batch) + 0.5 * share
    torch.testing.assert_close(penalized.calculate_loss(batch), expected, rtol=1e-12, atol=1e-12)


def test_widths_are_told_by_role_layer_and_group(build: Callable) -> None:
    model, _ = build(kernel_structure="adaptive_band-toeplitz", kernel_groups="n_heads", n_heads=2)
    widths = model.learned()["kernel_widths"]
    assert set(widths) == {"u"} and [len(layer) for layer in widths["u"]] == [2, 2]
    assert all(1 <= width <= 10 for layer in widths["u"] for width in layer)
    assert build(history_partition=False)[0].learned() == {}


@pytest.mark.parametrize("model", ["PosKernelSASRec", "TiSASRec"])
def test_stacked_projections_start_as_one_matrix(build: Callable, model: str) -> None:
    """Var(W) = 2 / (d + 3 d), as of ``nn.MultiheadAttention``'s ``in_proj_weight``, in every attention."""
    size = 48
    built, _ = build(model, hidden_size=size, n_heads=1, n_layers=1)
    built.apply(partial(init_weights, std=0.02, initializer="xavier_uniform_stacked"))
    attention = built.backbone.blocks[0].attention
    for projection in (attention.query, attention.key, attention.value):
        assert projection.weight.std().item() == pytest.approx(math.sqrt(2 / (4 * size)), rel=0.05)

"""A kernel, an encoding and a loss from outside the package, from the page of the documentation that shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recbole_posattn
from recbole_posattn import Config, load, register_encoding, register_kernel, register_loss, run
from recbole_posattn.analysis.inspection import inspect_checkpoint
from recbole_posattn.analysis.report import report_files
from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.trials import Trial, checked_folders
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.spec import Search, check_search
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.encoder import build_encoder
from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.encodings.build import ENCODINGS
from recbole_posattn.nn.kernels.base import LearnedKernel
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.nn.losses.base import ItemLoss
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.nn.losses.sampled import TargetNegativesLoss
from recbole_posattn.settings.model_keys import MODEL_RULES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extend.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
OURS = {"kernel_structure": "two_tap-full", "position_encoding": ["recency"], "loss_type": "smoothed"}


pytestmark = pytest.mark.usefixtures("registrations")


@pytest.fixture
def page() -> dict:
    """What the first example of the page defines and registers, up to its run."""
    names: dict = {}
    definitions, _, rest = BLOCKS[0].partition("run(\n")
    assert "config_dict" in rest
    exec(compile(definitions, "extend.md", "exec"), names)
    return names


@pytest.mark.slow
def test_parts_from_outside_train_and_are_inspected(page: dict, tiny_settings: Callable) -> None:
    result = run(dataset="tiny", config_dict=tiny_settings(**OURS, epochs=1), command_line=[])
    loaded = load(result["checkpoint"])
    attention = loaded.model.backbone.blocks[0].attention
    assert type(attention.u_kernel) is page["TwoTapKernel"] and type(loaded.model.loss) is page["SmoothedCrossEntropy"]
    assert [type(encoding) for encoding in attention.encodings] == [page["RecencyBias"]]
    assert attention.u_kernel.a.item() != 0 and attention.encodings[0].factor.item() != 0  # both are trained
    a = attention.u_kernel.a.item()
    expected = torch.eye(4) + a * torch.diag(torch.ones(3), -1)
    torch.testing.assert_close(attention.u_kernel.dense(4)[0], expected / math.hypot(1, a))
    report = report_files([inspect_checkpoint(result["checkpoint"], max_users=10)])
    assert "inspect.html" in report and "recency" in str(report["inspect.html"])


def test_it_computes_what_the_classes_say(page: dict) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(6, 8, 1, kernel_structure="two_tap-identity", encodings=["recency"]).double()
    attention = encoder.blocks[0].attention
    assert isinstance(attention, PositionKernelAttention)
    with torch.no_grad():
        attention.u_kernel.a.fill_(0.5)
        attention.encodings[0].factor.fill_(-0.3)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    mixed = (x + 0.5 * F.pad(x, (0, 0, 1, 0))[:, :-1]) / math.hypot(
        1, 0.5
    ) @ attention.key.weight.T + attention.key.bias
    lag = torch.arange(6)[:, None] - torch.arange(6)
    logits = (attention.query(x) @ mixed.mT / math.sqrt(8) - 0.3 * lag).masked_fill(lag < 0, -math.inf)
    torch.testing.assert_close(attention(x, x), logits.softmax(-1) @ attention.value(x))


def test_every_rule_and_message_knows_the_names(page: dict, tiny_settings: Callable) -> None:
    assert "two_tap" in MODEL_RULES["kernel_structure"].allowed
    with pytest.raises(SettingError, match=r"one of CE, .*smoothed; got 'smothed'"):
        Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(loss_type="smothed"), command_line=[])
    with pytest.raises(SettingError, match="Did you mean 'two_tap-full'"):
        Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(kernel_structure="twotap-full"), command_line=[])
    with pytest.raises(SettingError, match=r"any of .*recency"):
        Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(position_encoding=["recent"]), command_line=[])


class PairwiseHinge(TargetNegativesLoss):
    def of_scores(self, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        return F.relu(1 - positive.unsqueeze(-1) + negative).mean(dim=-1)


def test_a_sampled_loss_draws_negatives(tiny_settings: Callable) -> None:
    register_loss("hinge", PairwiseHinge)
    settings = tiny_settings(loss_type="hinge", train_neg_sample_args={"sample_num": 3}, epochs=1)
    result = run(dataset="tiny", config_dict=settings, command_line=[])
    loss = load(result["checkpoint"]).model.loss
    assert type(loss) is PairwiseHinge and loss.n_negatives == 3


class OwnEncoding(PositionEncoding):
    enters = "attention_input"
    per_layer = True

    def at_attention_input(self, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        return x


def test_an_encoding_per_layer_is_built_for_each() -> None:
    assert register_encoding("own", OwnEncoding) is OwnEncoding and OwnEncoding.name == "own"
    first, second = (block.attention.encodings[0] for block in build_encoder(4, 8, encodings=["own"]).blocks)
    assert first is not second


class Empty(LearnedKernel):
    pass


REFUSED = {
    "a kernel's taken name": (register_kernel, "full", Empty, "kernel 'full' cannot be registered: there is one of"),
    "a dash in a name": (register_kernel, "my-own", Empty, "letters, digits and underscores.*got 'my-own'"),
    "no name": (register_loss, 3, ItemLoss, "letters, digits and underscores.*got 3"),
    "no kernel": (register_kernel, "own", nn.Linear, "derived from .*PositionKernel; got"),
    "an instance": (register_loss, "own", ItemLoss(), "must be a class derived from .*ItemLoss; got"),
    "a kernel without its methods": (register_kernel, "own", Empty, "Empty must define dense and _mix"),
    "an encoding without a place": (register_encoding, "own", PositionEncoding, "enters must be one of input, .*None"),
    "another encoding's class": (register_encoding, "own", type(ENCODINGS), "derived from .*PositionEncoding; got"),
    "a loss without forward": (register_loss, "own", ItemLoss, "ItemLoss must define forward"),
    "a loss without scores": (register_loss, "own", TargetNegativesLoss, "must define of_scores"),
    "a loss's taken name": (register_loss, "BPR", PairwiseHinge, "loss 'BPR' cannot be registered: there is one of"),
}


@pytest.mark.parametrize("function, name, part, message", REFUSED.values(), ids=REFUSED)
def test_refuses_names_and_classes(function: Callable, name: str, part: type, message: str) -> None:
    before = [*STRUCTURES, *ENCODINGS, *LOSSES]
    with pytest.raises(SettingError, match=message) as refused:
        function(name, part)
    assert "\n" not in str(refused.value)
    assert before == [*STRUCTURES, *ENCODINGS, *LOSSES]


def test_leaderboards_and_searches_say_that_their_processes_do_not_know_the_names(
    page: dict, tiny_settings: Callable, empty_folder: Path
) -> None:
    settings = tiny_settings(model="PosKernelSASRec", dataset="tiny")
    for key, value in OURS.items():
        with pytest.raises(SettingError, match=f"^mine: {key} '.*' was registered by this program"):
            checked_folders([Trial("mine", {**settings, key: value})], empty_folder)
        with pytest.raises(SettingError, match=f"^{key} '.*' was registered by this program"):
            check_search(Search(settings, Space([Dimension(key, "choice", (value,), {})]), n_trials=1))
    assert len(checked_folders([Trial("theirs", settings)], empty_folder)) == 1


def test_the_public_names_are_lazy_and_listed() -> None:
    assert {"register_encoding", "register_kernel", "register_loss"} <= set(recbole_posattn.__all__)


def test_the_encoder_of_the_page() -> None:
    code = BLOCKS[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    names: dict = {}
    exec(compile(code, "extend.md", "exec"), names)
    assert names["hidden"].shape == (8, 50, 64)
    with pytest.raises(ValueError, match="backbone must be one of sasrec, recbole, ligr, got 'other'"):
        build_encoder(4, backbone="other")


@pytest.mark.parametrize("backbone", ["sasrec", "recbole"])
def test_an_encoder_equals_the_models(build: Callable, backbone: str) -> None:
    sizes = {"hidden_size": 16, "n_heads": 2, "inner_size": 24, "hidden_act": "relu"}
    settings = {"kernel_structure": "exponential-lowrank", "position_encoding": ["alibi", "absolute"]}
    sharing = {"kernel_sharing": "shared", "kernel_rank": 3, "backbone": backbone}
    settings |= {"kernel_branch": None, "kernel_normalization": "frobenius"}
    model, _ = build(MAX_ITEM_LIST_LENGTH=7, **sizes, **settings, **sharing)
    encoder = build_encoder(
        7,
        16,
        n_heads=2,
        kernel_structure=settings["kernel_structure"],
        encodings=settings["position_encoding"],
        backbone=backbone,
        kernel_sharing="shared",
        kernel_options={"rank": 3},
        block_options={"inner_size": 24},
    ).double()
    encoder.load_state_dict(model.backbone.state_dict())
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(encoder.eval()(x), model.backbone(x))

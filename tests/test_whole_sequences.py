"""``train_objective: sequence`` for RecBole's models: the loss of whole sequences is that of all their prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import gru4rec, sasrec
from torch import Tensor

from recbole_posattn import Config, register, run
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.data.shorter import HistoryCutter
from recbole_posattn.errors import SettingError
from recbole_posattn.settings.combinations import WHOLE_SEQUENCE_MODELS
from recbole_posattn.settings.properties import model_properties
from recbole_posattn.training.load import build_model, prepare_data
from recbole_posattn.training.trim_check import find_trimming
from recbole_posattn.training.whole_sequences import require_whole_sequences, whole_sequence_loss
from tests.features import DATASET, settings_of

L = 10
WHOLE = {"train_objective": "sequence"}


@pytest.fixture
def prepared_model(features_path: Path) -> Callable[..., tuple]:
    """A model in float64 and evaluation mode, its settings and its loaders."""

    def prepared_model(name: str, **changes: object) -> tuple:
        base = {"data_path": str(features_path), "MAX_ITEM_LIST_LENGTH": L, "train_batch_size": 8, "state": "ERROR"}
        config = Config(name, DATASET, config_dict={**base, **settings_of(name), **changes}, command_line=[])
        _, loaders = prepare_data(config)
        model = build_model(config, loaders[0]).double().eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
        return config, model, loaders

    return prepared_model


def finetuned(prepared_model: Callable, name: str, **changes: object) -> tuple:
    """A prepared model, of S3Rec one in its last stage, which needs no checkpoint here."""
    if name != "S3Rec":
        return prepared_model(name, **WHOLE, **changes)
    config, model, _ = prepared_model(name, **changes)
    model.train_stage, model.loss_fct = "finetune", torch.nn.CrossEntropyLoss()
    return config, model, prepared_model("SASRec", **WHOLE, **changes)[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE_SEQUENCE_MODELS)
def test_the_loss_is_the_mean_over_all_prefixes(prepared_model: Callable, name: str) -> None:
    """In evaluation mode; prefix by prefix, each in a batch of its own."""
    _, model, (train_data, *_) = finetuned(prepared_model, name)
    batch = train_data.collate_fn([0, 1, 2])
    losses = []
    for row in range(len(batch)):
        for position in torch.nonzero(batch[TARGET_LIST_FIELD][row]).flatten().tolist():
            history = torch.zeros(1, L, dtype=torch.int64)
            history[0, : position + 1] = batch["item_id_list"][row, : position + 1]
            prefix = {
                "user_id": batch["user_id"][row : row + 1],
                "item_id_list": history,
                "item_length": torch.tensor([position + 1]),
                "item_id": batch[TARGET_LIST_FIELD][row, position : position + 1],
            }
            losses.append(model.calculate_loss(Interaction(prefix)))
    assert len(losses) > 10
    torch.testing.assert_close(whole_sequence_loss(model, batch), torch.stack(losses).mean())
    assert "gather_indexes" not in vars(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE_SEQUENCE_MODELS)
def test_whole_sequences_are_trimmed_as_well(prepared_model: Callable, name: str) -> None:
    config, model, (train_data, *_) = finetuned(prepared_model, name)
    cutter = HistoryCutter(config, train_data._dataset)
    found = find_trimming(model, cutter, train_data, lambda batch: whole_sequence_loss(model, batch))
    assert found.trimming.plain() == {"training": "groups", "by_targets": True, "evaluation": True}, found


@pytest.mark.parametrize("name", ["SASRec", pytest.param("GRU4RecKG", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lazy", [True, False])
def test_the_targets_are_those_of_the_prefixes(prepared_model: Callable, name: str, lazy: bool) -> None:
    def targets(of_batch: Callable[[Interaction], Tensor], **changes: object) -> Counter:
        _, _, (train_data, *_) = prepared_model(name, lazy_prefixes=lazy, **changes)
        return Counter(pair for batch in train_data for pair in of_batch(batch))

    def of_windows(batch: Interaction) -> list:
        window, _ = labelled = torch.nonzero(batch[TARGET_LIST_FIELD], as_tuple=True)
        return list(zip(batch["user_id"][window].tolist(), batch[TARGET_LIST_FIELD][labelled].tolist()))

    augmented = targets(lambda batch: zip(batch["user_id"].tolist(), batch["item_id"].tolist()))
    assert targets(of_windows, **WHOLE) == augmented
    assert targets(of_windows, **WHOLE, window_stride=3) == augmented and augmented.total() > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec"])
def test_a_run(tiny_settings: Callable, name: str) -> None:
    """Whole sequences are off by default, learn, and are evaluated like any model."""
    config = Config(name, "tiny", config_dict=tiny_settings(), command_line=[])
    assert config["train_objective"] is None
    settings = tiny_settings(epochs=2, learning_rate=0.01, n_heads=1, **WHOLE)
    result = run(name, "tiny", config_dict=settings, command_line=[])
    losses = [epoch["loss"] for epoch in result["curve"]]
    assert losses[-1] < losses[0] and result["test_result"]["hit@10"] > 0
    half = run(name, "tiny", config_dict={**settings, "epochs": 1, "checkpoint_dir": "half"}, command_line=[])
    resumed = run(resume=Path(half["checkpoint"]).parent, config_dict={"epochs": 2}, command_line=[])
    assert [epoch["loss"] for epoch in resumed["curve"]] == losses
    assert resumed["test_result"] == result["test_result"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("NARM", {}, "train_objective 'sequence' is not possible with NARM, .*of RecBole's models, FDSA, GRU4Rec, "),
        ("BERT4Rec", {}, "not possible with BERT4Rec"),
        ("S3Rec", {}, "needs train_stage finetune with S3Rec; got pretrain"),
        (
            "SASRec",
            {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}},
            "needs loss_type CE with SASRec, .*got 'BPR'",
        ),
        ("SASRec", {"train_objective": "prefix"}, "train_objective must be one of sequence, augmented; got 'prefix'"),
        ("SASRec", {"window_stride": 0}, "window_stride must be a positive integer"),
        ("SASRec", {"window_stride": 11}, "window_stride must be at most MAX_ITEM_LIST_LENGTH, which is 10; got 11"),
        ("SASRec", {"window_stride": 3, "train_objective": "augmented"}, "'augmented', which has no windows"),
        ("SASRec", {"transform": "inverse_itemseq"}, "does not have; leave it out"),
        ("SASRec", {"torch_compile": True}, "torch_compile is not possible with train_objective 'sequence' and SASRec"),
    ],
)
def test_what_is_not_possible_is_refused(tiny_settings: Callable, name: str, changes: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message) as refused:
        Config(name, "tiny", config_dict=tiny_settings(**{**WHOLE, **changes}), command_line=[])
    assert "\n" not in str(refused.value)


def test_models_without_histories_do_not_have_the_key(tiny_settings: Callable) -> None:
    assert Config("BPR", "tiny", config_dict=tiny_settings(**WHOLE), command_line=[])["MAX_ITEM_LIST_LENGTH"] == L


class LooksAhead(sasrec.SASRec):
    """Attends to later items as well."""

    def get_attention_mask(self, item_seq: Tensor, bidirectional: bool = False) -> Tensor:
        return super().get_attention_mask(item_seq, bidirectional=True)


class TwiceTheOutput(gru4rec.GRU4Rec):
    """Changes nothing of what makes whole sequences possible."""

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return 2 * super().forward(item_seq, item_seq_len)


def test_a_model_derived_from_one_of_them_is_compared(tiny_settings: Callable, tmp_path: Path) -> None:
    (tmp_path / "ahead.yaml").write_text("n_layers: 1\nn_heads: 1\ninner_size: 8\nhidden_act: gelu\n")
    defaults = {
        **dict.fromkeys(("hidden_dropout_prob", "attn_dropout_prob", "dropout_prob"), 0.1),
        **{"layer_norm_eps": 1e-12, "initializer_range": 0.2, "loss_type": "CE", "embedding_size": 8, "num_layers": 1},
    }
    register(LooksAhead, properties=tmp_path / "ahead.yaml")
    register(TwiceTheOutput)
    try:
        settings = tiny_settings(epochs=1, **WHOLE, **defaults)
        with pytest.raises(SettingError, match="not possible with LooksAhead, whose outputs depend on more"):
            run("LooksAhead", "tiny", config_dict=settings, saved=False)
        assert run("TwiceTheOutput", "tiny", config_dict=settings, saved=False)["epochs"] == 1
    finally:
        for name in ("LooksAhead", "TwiceTheOutput"):
            model_properties.pop(name)


def test_short_sequences_do_not_hide_that_a_model_looks_ahead(tiny_settings: Callable, tmp_path: Path) -> None:
    """The first users of the file have one target in training, and nothing is ahead of it."""
    rows = [f"short{user}\ti{item}\t{item}" for user in range(6) for item in range(4)]
    rows += [f"long{user}\ti{(user + item) % 20}\t{item}" for user in range(20) for item in range(15)]
    (tmp_path / "few").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *rows]
    (tmp_path / "few" / "few.inter").write_text("\n".join(lines) + "\n")
    settings = tiny_settings(epochs=1, **WHOLE, data_path=str(tmp_path), n_layers=1, hidden_size=8)
    with pytest.raises(SettingError, match="not possible with LooksAhead, whose outputs depend on more"):
        run(LooksAhead, "few", config_dict=settings, saved=False)


def test_a_class_that_is_not_registered_has_the_keys_of_its_base(
    tiny_settings: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    own = Config(LooksAhead, "tiny", config_dict=tiny_settings(hidden_size=8, hidden_act="relu"), command_line=[])
    base = Config("SASRec", "tiny", config_dict=tiny_settings(hidden_size=8, hidden_act="relu"), command_line=[])
    keys = ("hidden_size", "hidden_act", "inner_size", "loss_type", "n_heads", "layer_norm_eps")
    assert {key: own[key] for key in keys} == {key: base[key] for key in keys} and own["inner_size"] == 256
    assert "without effect" not in caplog.text


@pytest.mark.parametrize("name", ["NARM", "SRGNN", "LightSANs", "CORE"])
def test_other_models_would_not_pass_the_comparison(prepared_model: Callable, name: str) -> None:
    """Those that are refused by name are so for a reason."""
    _, model, _ = prepared_model(name)
    _, _, (train_data, *_) = prepared_model("SASRec", **WHOLE)
    with pytest.raises(SettingError, match="depend on more than the items up to their position"):
        require_whole_sequences(model.float(), train_data)

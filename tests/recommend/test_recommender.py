"""Recommendations against the evaluation of the same model, against plain readings of it, and what is refused."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from recbole_posattn.compat.tensorboard import without_tensorboard

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from recbole_posattn import run
from recbole_posattn.data.splits import count_up
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.serving import recommender as module
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.registry import registered_model_names
from recbole_posattn.training.load import Loaded
from recbole_posattn.training.trainer import trainer_class

OURS = registered_model_names()
K = 7
BY_TIME = {"order": "TO", "mode": "full", "group_by": "none"}


def evaluated(loaded: Loaded, split: str, k: int = K) -> pd.DataFrame:
    """The best items in the matrix of scores that the trainer evaluates, list by list."""
    with without_tensorboard():
        trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
    data = loaded.valid_data if split == "valid" else loaded.test_data
    dataset = loaded.dataset
    trainer.tot_item_num, trainer.item_tensor = dataset.item_num, dataset.get_item_feature()
    tables = []
    with torch.no_grad():
        for batch in data:
            interaction, scores, _, _ = trainer._full_sort_batch_eval(batch)
            best, item = torch.topk(scores, k)
            user = interaction[dataset.uid_field][:, None].expand(-1, k)
            columns = {"user": user, "item": item, "score": best, "rank": torch.arange(1, k + 1).expand_as(best)}
            tables.append(pd.DataFrame({name: column.flatten().numpy() for name, column in columns.items()}))
    table = pd.concat(tables, ignore_index=True)
    table = table[table["score"] > -math.inf].reset_index(drop=True)
    tokens = {field: dataset.id2token(field, table[name]) for name, field in (("user", "user_id"), ("item", "item_id"))}
    return table.assign(user=tokens["user_id"], item=tokens["item_id"])[["user", "rank", "item", "score"]]


def assert_same_lists(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_history": "all"},
        {"mask_history": "none", "position_alignment": "start", "backbone": "recbole", "score": "cosine"},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", OURS)
def test_lists_are_those_of_the_evaluation(untrained: Callable, model: str, changes: dict) -> None:
    of_model = yaml.safe_load((PROPERTIES / "model" / f"{model}.yaml").read_text(encoding="utf-8")).keys()
    loaded = untrained(model, **{key: changes[key] for key in changes if key in of_model or key == "mask_history"})
    for split in ("valid", "test"):
        found = Recommender(loaded).recommend_users(k=K, split=split)
        assert_same_lists(found, evaluated(loaded, split))
        assert found["user"].nunique() > 50 and found["score"].nunique() > len(found) / 2


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("PosKernelSASRec", {"mask_history": "except_target", "position_alignment": "start"}),
        ("PosKernelSASRec", {}),
        ("PosKernelSASRec", {"lazy_prefixes": False}),
        ("PosKernelSASRec", {"protocol": "temporal", "eval_args": {**BY_TIME, "split": {"TQ": [0.6, 0.8]}}}),
        ("GRU4Rec", {"mask_history": "all", "embedding_size": 16}),
        ("SASRec", {"n_heads": 2}),
        ("BERT4Rec", {"n_heads": 2}),
        ("FPMC", {"mask_history": "except_target"}),
        ("BPR", {}),
        ("BPR", {"protocol": "leave_one_out_masked"}),
    ],
    ids=str,
)
def test_lists_are_those_of_the_evaluation_for_any_model_and_protocol(
    untrained: Callable, model: str, changes: dict
) -> None:
    loaded = untrained(model, **changes)
    assert_same_lists(Recommender(loaded).recommend_users(k=K, split="test"), evaluated(loaded, "test"))


# -- a trained model, from its checkpoint ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_settings: Callable) -> dict:
    """What a run returned."""
    saved = {"checkpoint_dir": str(tmp_path_factory.mktemp("saved")), "epochs": 1}
    settings = tiny_settings(**saved, mask_history="all", metrics=["Hit", "MRR"], valid_metric="MRR@10")
    return run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])


@pytest.fixture(scope="module")
def recommender(trained: dict) -> Recommender:
    return Recommender.load(trained["checkpoint"])


@pytest.fixture(scope="module")
def sequences(tiny_data_path: Path) -> dict[str, list[str]]:
    """Each user's items in the file, oldest first."""
    rows = pd.read_csv(tiny_data_path / "tiny" / "tiny.inter", sep="\t", names=["user", "item", "time"], header=0)
    return {user: group["item"].tolist() for user, group in rows.sort_values("time").groupby("user", sort=False)}


def test_metrics_of_the_run_follow_from_the_lists(
    trained: dict, recommender: Recommender, sequences: Mapping[str, list[str]]
) -> None:
    found = recommender.recommend_users(split="test")
    target = found["user"].map({user: items[-1] for user, items in sequences.items()})
    hits = found[found["item"] == target]
    assert len(hits) / len(sequences) == pytest.approx(trained["test_result"]["hit@10"], abs=1e-4)
    assert (1 / hits["rank"]).sum() / len(sequences) == pytest.approx(trained["test_result"]["mrr@10"], abs=1e-4)


def by_user(table: pd.DataFrame) -> dict[str, list[str]]:
    return table.groupby("user", sort=False)["item"].agg(list).to_dict()


@pytest.mark.parametrize("exclude_history", [None, False])
def test_new_histories_are_as_good_as_known_ones(
    recommender: Recommender, sequences: Mapping[str, list[str]], exclude_history: bool | None
) -> None:
    """As a mapping and as rows in any order; the users are strangers of the same history."""
    known = recommender.recommend_users(k=5, exclude_history=exclude_history)
    strangers = {f"stranger {user}": items for user, items in sequences.items()}
    found = recommender.recommend(strangers, 5, exclude_history=exclude_history)
    assert list(by_user(found)) == list(strangers)
    rows = pd.DataFrame([(user, item) for user, items in strangers.items() for item in items], columns=["user", "item"])
    rows["time"] = count_up(torch.tensor([len(items) for items in strangers.values()])).numpy() * 0.5
    shuffled = rows.sample(frac=1, random_state=0)
    for table in (
        rows.drop(columns="time"),
        shuffled,
        shuffled.assign(time=pd.to_datetime(shuffled["time"], unit="D")),
    ):
        again = recommender.recommend(table, 5, exclude_history=exclude_history)
        again = again.set_index("user").loc[list(strangers)].reset_index()
        pd.testing.assert_frame_equal(again, found, rtol=1e-5)
    known = known.assign(user="stranger " + known["user"]).set_index("user").loc[list(by_user(found))].reset_index()
    pd.testing.assert_frame_equal(found, known, rtol=1e-5)


def test_the_whole_history_is_left_out_as_in_the_evaluation_or_as_told(
    recommender: Recommender, sequences: Mapping[str, list[str]]
) -> None:
    """Users have up to 24 interactions, of which the model reads 10."""
    for found in (recommender.recommend_users(k=20), recommender.recommend_users(k=20, exclude_history=True)):
        lists = by_user(found)
        for user, items in sequences.items():
            assert set(lists[user]) == {f"i{i}" for i in range(20)} - set(items)
    kept = by_user(recommender.recommend_users(k=20, exclude_history=False))
    assert all(len(items) == 20 for items in kept.values())
    assert any(len(set(items)) > 10 for items in sequences.values())


def test_items_are_restricted_and_excluded(recommender: Recommender) -> None:
    allowed = ["i3", "i5", "i7", "i11"]
    everything = by_user(recommender.recommend_users(k=20, exclude_history=False))
    found = by_user(
        recommender.recommend_users(k=3, exclude_history=False, restrict_to=[*allowed, "i12"], exclude=["i12"])
    )
    for user, items in everything.items():
        assert found[user] == [item for item in items if item in allowed][:3]
    ranks = recommender.recommend_users(["u1"], k=3, exclude_history=False, restrict_to=["i3", "i5"])["rank"]
    assert ranks.tolist() == [1, 2]
    with pytest.raises(SettingError, match="restrict_to and exclude leave no item of the data set to recommend"):
        recommender.recommend_users(restrict_to=["i3"], exclude=["i3"])


def test_what_is_unknown_is_skipped_and_told(recommender: Recommender, caplog: pytest.LogCaptureFixture) -> None:
    expected = recommender.recommend({"a": ["i1", "i2"]}, 4)
    with caplog.at_level(logging.WARNING):
        found = recommender.recommend({"a": ["i1", "x", "i2", "[PAD]"], "b": ["y"], "c": []}, 4, exclude=["z"])
    pd.testing.assert_frame_equal(found, expected)
    assert [record.message for record in caplog.records] == [
        "3 of 5 interactions have an item that the model does not know, skipped: x, [PAD], y",
        "2 of 3 users have no item that it knows, and get no recommendations: b, c",
        "1 of 1 items of exclude are not in the data set, skipped: z",
    ]
    caplog.clear()
    names = [f"v{i}" for i in range(7)]
    users = recommender.recommend_users(["u9", *names, "u4", "u9"], 2)["user"]
    assert users.tolist() == ["u9", "u9", "u4", "u4"]
    (record,) = caplog.records
    assert record.message == "7 of 10 users are not in the data, skipped: v0, v1, v2, v3, v4 and 2 more"


def test_lists_do_not_depend_on_blocks(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recommender.recommend_users(k=5)
    monkeypatch.setattr(module, "REQUESTS_PER_BLOCK", 7)
    monkeypatch.setitem(module.REQUESTS_PER_BATCH, "cpu", 3)
    tables = list(recommender.blocks(recommender.known_users(), 5))
    assert len(tables) == math.ceil(60 / 7)
    in_blocks = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
    pd.testing.assert_frame_equal(in_blocks, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("k", [0, -1, 21, 2.0, "3", True, None])
def test_k_is_an_integer_up_to_the_number_of_items(recommender: Recommender, k: object) -> None:
    with pytest.raises(SettingError, match=r"k must be an integer from 1 to 20, the number of items; got "):
        recommender.recommend_users(["u1"], k)


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (pd.DataFrame({"user": ["a"], "thing": ["i1"]}), "histories have no column 'item'; they have user, thing"),
        (pd.DataFrame({"user": ["a", "b"], "item": ["i1", None]}), "row 2 has no item, and each row needs one"),
        (pd.DataFrame({"user": ["a"], "item": ["i1"], "time": ["noon"]}), "must be numbers or dates; got 'noon'"),
        (pd.DataFrame({"user": [], "item": []}), "no history has an item that the model knows"),
        ({"a": ["x"]}, "no history has an item that the model knows; 1 of 1 interactions"),
        ({"a": "i1"}, "user 'a' needs a list of items, oldest first; got 'i1'"),
        ({"a": {"i1"}}, "user 'a' needs a list of items, oldest first; got {'i1'}"),  # a set has no order
        (pd.DataFrame({"user": ["a"], "item": [["i1"]]}), r"column 'item' must hold strings or numbers; got \['i1'\]"),
        (
            pd.DataFrame({"user": ["a"], "item": [np.array(["i1", "i2"])]}),  # as lists in JSON and Parquet are read
            "column 'item' must hold strings or numbers; got array",
        ),
        ({}, "no history has an item that the model knows"),
        (
            pd.DataFrame({"user": [], "item": [], "time": []}, dtype=object),  # as a file with a header only is read
            "no history has an item that the model knows",
        ),
        ([["i1"]], r"histories must be a DataFrame of user and item, or a mapping .*; got \[\['i1'\]\]"),
        (None, "histories must be a DataFrame of user and item, or a mapping"),
        (pd.Series([["i1"], ["i2"]], index=["a", "a"]), "histories: user 'a' has more than one list of items"),
    ],
    ids=str,
)
def test_histories_that_cannot_be_used_are_refused(recommender: Recommender, histories: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recommender.recommend(histories)


def test_items_and_users_may_be_any_iterable_but_a_string(recommender: Recommender) -> None:
    lists = recommender.recommend({"a": (f"i{k}" for k in (1, 2))}, 3)
    assert lists.equals(recommender.recommend({"a": ["i1", "i2"]}, 3))
    table = pd.DataFrame({"user": ["a", "a"], "item": ["i1", "i2"]})
    assert lists.equals(recommender.recommend(table.groupby("user")["item"].agg(list), 3))
    some = recommender.recommend_users((f"u{k}" for k in (1, 2)), 3)
    assert some.equals(recommender.recommend_users(["u1", "u2"], 3))
    for split in ("all", "test"):
        with pytest.raises(SettingError, match="users must be a list of tokens; got 'u1'"):
            recommender.recommend_users("u1", split=split)
    for name in ("restrict_to", "exclude"):
        with pytest.raises(SettingError, match=f"{name} must be a list of tokens; got 'i5'"):
            recommender.recommend_users(["u1"], **{name: "i5"})


def test_users_and_splits_that_are_not_there_are_refused(recommender: Recommender, untrained: Callable) -> None:
    with pytest.raises(DataError, match="data set 'tiny': 1 of 1 users are not in the data, skipped: nobody"):
        recommender.recommend_users(["nobody"])
    with pytest.raises(SettingError, match="split must be one of all, valid, test; got 'train'"):
        recommender.recommend_users(split="train")
    eval_args = {**BY_TIME, "split": {"LS": "test_only"}, "group_by": "user"}
    with pytest.raises(DataError, match="data set 'tiny', valid split: there are no users to recommend to"):
        Recommender(untrained("NoPESASRec", eval_args=eval_args)).recommend_users(split="valid")
    with pytest.raises(DataError, match="data set 'tiny', valid split: there are no users to recommend to"):
        Recommender(untrained("BPR", eval_args={**eval_args, "mode": "full"})).recommend_users(split="valid")
    eval_args = {"split": {"RS": [8, 1, 1]}, "order": "RO", "mode": "uni4", "group_by": "user"}
    sampled = Recommender(untrained("BPR", eval_args=eval_args))
    assert len(sampled.recommend_users(k=1, exclude_history=False)) == 60
    with pytest.raises(SettingError, match=r"split 'test' needs full ranking for BPR \(eval_args, mode full\)"):
        sampled.recommend_users(split="test")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("BPR", "BPR does not read histories: it knows only the users of its data set"),
        ("FPMC", "FPMC reads user_id; only item_id_list and item_length can be read here"),
        ("DIN", "DIN does not score all items at once"),
    ],
)
def test_models_that_cannot_recommend_from_histories_are_refused(untrained: Callable, model: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Recommender(untrained(model)).recommend({"a": ["i1"]})


def test_scores_that_are_no_numbers_are_refused(untrained: Callable) -> None:
    loaded = untrained("NoPESASRec")
    with torch.no_grad():
        loaded.model.item_embedding.weight[5] = math.nan
    with pytest.raises(CheckpointError, match="NoPESASRec returns NaN: its training has diverged"):
        Recommender(loaded).recommend({"a": ["i1"]})


def test_equal_scores_are_told_apart_by_the_data_set(tiny_settings: Callable) -> None:
    """Pop knows how often an item was bought, and many were as often."""
    checkpoint = run("Pop", "tiny", config_dict=tiny_settings(), command_line=[])["checkpoint"]
    recommender = Recommender.load(checkpoint)
    table = recommender.recommend_users(["u1"], k=20, exclude_history=False)
    assert table["score"].nunique() < 20
    number = table["item"].map(recommender.loaded.dataset.field2token_id["item_id"])
    expected = table.assign(number=number).sort_values(["score", "number"], ascending=[False, True])
    assert table["item"].tolist() == expected["item"].tolist()


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("PosKernelSASRec", {}),
        ("PosKernelSASRec", {"lazy_prefixes": False}),
        ("PosKernelSASRec", {"protocol": "temporal"}),
        ("BPR", {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}),
        ("BPR", {"protocol": "leave_one_out_masked"}),
    ],
    ids=str,
)
def test_known_histories_are_those_of_the_file(
    untrained: Callable, sequences: Mapping[str, list[str]], model: str, changes: dict
) -> None:
    recommender = Recommender(untrained(model, **changes))
    requests = recommender.known_users()
    row, item = requests.histories.flat()
    dataset = recommender.loaded.dataset
    found: dict[str, list[str]] = {user: [] for user in requests.user}
    for user, token in zip(requests.user[row.numpy()], dataset.id2token("item_id", item.numpy())):
        found[user].append(token)
    assert found == sequences
    assert dataset.id2token("user_id", requests.user_id.numpy()).tolist() == requests.user.tolist()


def test_histories_of_a_split_that_were_cut_cannot_be_left_out(untrained: Callable) -> None:
    eager = Recommender(untrained("PosKernelSASRec", lazy_prefixes=False))
    with pytest.raises(SettingError, match="lazy_prefixes: False keeps only the newest items of it"):
        eager.recommend_users(split="test", exclude_history=True)
    whole = Recommender(untrained("PosKernelSASRec")).recommend_users(k=3, exclude_history=True)
    assert_same_lists(eager.recommend_users(k=3, exclude_history=True), whole)

"""Files that are split already: their rows against plain readings of them, and scores against ``recommend``'s."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data import create_dataset
from recbole.data.dataset import SequentialDataset

from recbole_posattn import Config, load, run
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.training.load import prepare_data
from tests.planted import lagged_sequences
from tests.presplit import PARTS, Row, last_ones_held_out, newest, read_rows, with_histories, write_parts
from tests.recommend.test_recommender import assert_same_lists, evaluated

L = 6
PLAIN, WRITTEN = "user_id:token\titem_id:token\ttimestamp:float", "user_id:token\titem_id_list:token_seq\titem_id:token"
SETTINGS = {
    "data_path": "data",
    "benchmark_filename": PARTS,
    "MAX_ITEM_LIST_LENGTH": L,
    "epochs": 1,
    "hidden_size": 8,
    "train_batch_size": 32,
    "topk": 5,
    "valid_metric": "NDCG@5",
    "show_progress": False,
}
INTERACTIONS = lagged_sequences(20, range(3, 16), n_items=12, lag=3, noise=0.2, seed=2)
HELD_OUT = last_ones_held_out(INTERACTIONS)
ROWS = with_histories(HELD_OUT)

MODELS = {
    "sequence": {"model": "PosKernelSASRec"},
    "augmented": {"model": "PosKernelSASRec", "train_objective": "augmented"},
    "eager": {"model": "PosKernelSASRec", "lazy_prefixes": False},
    "masked": {"model": "PosKernelSASRec", "mask_history": "all"},
    "NoPE": {"model": "NoPESASRec"},
    "SASRec": {"model": "SASRec"},
    "GRU4Rec": {"model": "GRU4Rec"},
    "GRU4Rec eager": {"model": "GRU4Rec", "lazy_prefixes": False},
}
models = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def write_plain(parts: dict = HELD_OUT) -> None:
    write_parts(Path("data"), "mine", parts, PLAIN)


def write_written(parts: dict[str, list[Row]] = ROWS) -> None:
    rows = {part: [(user, " ".join(history), item) for user, history, item in found] for part, found in parts.items()}
    write_parts(Path("data"), "mine", rows, WRITTEN)


def parts_of(model: str = "SASRec", **changes: object) -> tuple:
    config = Config(model, "mine", config_dict={**SETTINGS, **changes}, command_line=[])
    ensure_atomic_files(config)
    dataset, loaders = prepare_data(config)
    return dataset, [loader._dataset for loader in loaders], loaders


def refused(message: str, model: str = "SASRec", **changes: object) -> None:
    with pytest.raises((DataError, SettingError), match=message):
        parts_of(model, **changes)


# -- rows ------------------------------------------------------------------------------------------------------------


@models
@pytest.mark.parametrize("write", [write_plain, write_written], ids=["plain", "written"])
def test_rows_have_the_newest_items_of_all_that_came_before(settings: dict, write: Callable) -> None:
    """Users have up to 15 interactions, and a history holds 6."""
    write()
    _, parts, _ = parts_of(**settings)
    assert max(len(row.history) for row in ROWS["test"]) > 2 * L
    for part, rows in zip(parts[1:], list(ROWS.values())[1:]):
        assert read_rows(part) == newest(rows, L)
        assert part.inter_feat["item_id_list"].shape == (len(rows), L)
    assert Counter(read_rows(parts[0])) == Counter(newest(ROWS["train"], L))


@pytest.mark.parametrize("changes", [{}, {"lazy_prefixes": False}], ids=["lazy", "eager"])
def test_three_files_are_split_like_one(changes: dict) -> None:
    """The rows of RecBole's own leave-one-out, and the windows that are cut from them."""
    write_plain()
    Path("data/mine/mine.inter").write_text("\n".join([PLAIN, *("\t".join(map(str, row)) for row in INTERACTIONS), ""]))
    whole = {
        "benchmark_filename": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    }
    _, ours, (train, *_) = parts_of("PosKernelSASRec", **changes)
    _, theirs, (reference, *_) = parts_of("PosKernelSASRec", **whole)
    # RecBole keeps a user's first target for training; these have three interactions
    short = {user for user, count in Counter(user for user, *_ in INTERACTIONS).items() if count < 4}
    for our_part, their_part in zip(ours, theirs):
        our_rows, their_rows = (
            Counter(row for row in read_rows(part) if row.user not in short) for part in (our_part, their_part)
        )
        assert our_rows == their_rows and our_rows
    assert len(train._dataset.windows) <= len(reference._dataset.windows) + len(short)


@pytest.mark.parametrize("write", [write_plain, write_written], ids=["plain", "written"])
@pytest.mark.parametrize("changes", [{}, {"lazy_prefixes": False}], ids=["lazy", "eager"])
def test_each_training_row_is_a_label_once(write: Callable, changes: dict) -> None:
    write()
    dataset, _, (train, *_) = parts_of("PosKernelSASRec", **changes)
    labels = Counter()
    for batch in train:
        for user, items in zip(batch["user_id"], batch[TARGET_LIST_FIELD]):
            tokens = dataset.id2token("item_id", items[items > 0].numpy())
            labels.update((str(dataset.id2token("user_id", int(user))), str(token)) for token in tokens)
    assert labels == Counter((user, item) for user, _, item in ROWS["train"])
    # no more windows than the longest sequences need, though each row came with its history
    needed = Counter(user for user, *_ in ROWS["train"])
    assert len(train._dataset.windows) == sum(-(-count // L) for count in needed.values())


def test_the_order_is_that_of_times_and_then_of_the_files() -> None:
    parts = {
        "train": [("u", "c", 20), ("u", "a", 5), ("v", "a", 1), ("u", "b", 5), ("v", "d", 2)],
        "valid": [("v", "c", 2), ("u", "d", 20)],
        "test": [("u", "f", 22), ("v", "e", 9), ("u", "e", 21)],
    }
    write_plain(parts)
    _, (train, valid, test), _ = parts_of()
    assert sorted(read_rows(train)) == [Row("u", ("a",), "b"), Row("u", ("a", "b"), "c"), Row("v", ("a",), "d")]
    assert read_rows(valid) == [Row("v", ("a", "d"), "c"), Row("u", ("a", "b", "c"), "d")]
    assert read_rows(test)[0] == Row("u", ("a", "b", "c", "d", "e"), "f")
    _, (train, valid, test), _ = parts_of(load_col={"inter": ["user_id", "item_id"]})
    assert sorted(read_rows(train)) == [Row("u", ("c",), "a"), Row("u", ("c", "a"), "b"), Row("v", ("a",), "d")]
    assert read_rows(test)[0] == Row("u", ("c", "a", "b", "d"), "f")


def test_close_times_are_told_apart() -> None:
    """In 32 bits these Unix seconds are all the same."""
    write_plain(
        {
            "train": [("a", "d", 1600000030), ("a", "c", 1600000020), ("a", "b", 1600000010), ("a", "a", 1600000000)],
            "valid": [("a", "e", 1600000040)],
            "test": [("a", "f", 1600000050)],
        }
    )
    _, (_, valid, test), _ = parts_of()
    assert read_rows(valid) == [Row("a", ("a", "b", "c", "d"), "e")]
    assert read_rows(test) == [Row("a", ("a", "b", "c", "d", "e"), "f")]


def test_a_held_out_row_without_a_history_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    write_plain({**HELD_OUT, "test": [*HELD_OUT["test"], ("new", "i1", 99)]})
    with caplog.at_level(logging.WARNING):
        _, (*_, test), _ = parts_of()
    assert read_rows(test) == newest(ROWS["test"], L)
    assert "1 of 21 test rows are their user's first interactions" in caplog.text


@pytest.mark.filterwarnings("ignore:using <built-in function len> in Series.agg:FutureWarning")
def test_histories_have_the_numbers_of_items(caplog: pytest.LogCaptureFixture) -> None:
    """Also of items and places that are in histories only; the numbers are RecBole's own with the alias."""
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\tplace_list:token_seq\tplace:token"
    rows = {
        "train": [("u", "z a", "b", "q p", "q"), ("v", "b", "a", "p", "p")],
        "valid": [("u", "z a b", "c", "q p q", "p")],
        "test": [("u", "a b c", "y", "q p q", "r")],
    }
    write_parts(Path("data"), "mine", rows, header)
    with caplog.at_level(logging.INFO):
        dataset, parts, _ = parts_of(load_col=None)
    assert "item_id_list shares the numbering of item_id" in caplog.text
    assert dataset.item_num == 1 + len("abcyz")
    assert read_rows(parts[2]) == [Row("u", ("a", "b", "c"), "y")]
    places = parts[2].inter_feat[torch.tensor([0])]
    assert dataset.id2token("place", places["place_list"][0, :3].numpy()).tolist() == ["q", "p", "q"]
    assert dataset.id2token("place", places["place"].numpy()) == ["r"]
    settings = {**SETTINGS, "load_col": None, "alias_of_item_id": ["item_id_list"]}
    config = Config("SASRec", "mine", config_dict=settings, command_line=[])
    reference = SequentialDataset(config).build()
    for ours, theirs in zip(create_dataset(config).build(), reference, strict=True):
        for field in ("user_id", "item_id", "item_length", "place"):
            assert torch.equal(ours.inter_feat[field], theirs.inter_feat[field]), field
        assert torch.equal(ours.inter_feat["item_id_list"][:, :3], theirs.inter_feat["item_id_list"])
    assert dataset.field2id_token["item_id"].tolist() == reference[0].field2id_token["item_id"].tolist()


def test_models_without_histories_get_the_files_as_recbole_does() -> None:
    write_plain()
    _, parts, _ = parts_of("BPR")
    for part, rows in zip(parts, HELD_OUT.values()):
        user, item = (part.id2token(field, part.inter_feat[field].numpy()) for field in ("user_id", "item_id"))
        assert list(zip(user, item)) == [(user, item) for user, item, _ in rows]


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["PosKernelSASRec", "BPR"])
def test_masked_histories_are_whole(model: str) -> None:
    """However few items the model reads, and also of models that read none."""
    write_plain()
    dataset, parts, (_, valid, test) = parts_of(model, mask_history="all", eval_args={"order": "TO", "mode": "full"})
    for loader, rows in ((valid, ROWS["valid"]), (test, ROWS["test"])):
        histories = loader._dataset.histories
        row, item = histories.flat()
        found = [tuple(dataset.id2token("item_id", item[row == k].numpy())) for k in range(len(histories))]
        assert found == [history for _, history, _ in rows]
        assert [str(token) for token in dataset.id2token("item_id", histories.target.numpy())] == [
            item for *_, item in rows
        ]
    counts = Counter(item for _, item, _ in HELD_OUT["train"])
    tokens = dataset.field2id_token["item_id"]
    assert {str(token): int(n) for token, n in zip(tokens, parts[1].training_counts) if n} == counts


def test_masks_of_written_histories_are_these() -> None:
    write_written()
    dataset, parts, (*_, test) = parts_of("PosKernelSASRec", mask_history="all", drop_unseen_targets=True)
    row, item = test._dataset.histories.flat()
    found = [tuple(dataset.id2token("item_id", item[row == k].numpy())) for k in range(len(ROWS["test"]))]
    trained = {item for _, item, _ in HELD_OUT["train"]}
    assert found == [history for _, history, target in ROWS["test"] if target in trained]
    # an interaction counts once, in however many histories it stands
    train = {user: (*history, item) for user, history, item in ROWS["train"]}
    counts = Counter(item for items in train.values() for item in items)
    tokens = dataset.field2id_token["item_id"]
    assert {str(token): int(n) for token, n in zip(tokens, parts[1].training_counts) if n} == counts


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_the_loss_leaves_out_whole_written_histories(objective: str) -> None:
    """Those of a user's first row too, which may be longer than the window."""
    rows = {part: [*found] for part, found in ROWS.items()}
    first = Row("long", tuple(f"i{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8)), "i9")  # two more than L
    rows["train"] += [first, Row("long", (*first.history, "i9"), "i10")]
    write_written(rows)
    dataset, (train, *_), _ = parts_of(
        "PosKernelSASRec", mask_history="all", train_mask_history=True, train_objective=objective
    )
    batch = train[torch.arange(len(train))]
    found = {}
    for earlier, items, labels in zip(
        batch["earlier_item_list"],
        batch["item_id_list"],
        batch[TARGET_LIST_FIELD if objective == "sequence" else "item_id"],
    ):
        for place in labels.nonzero().flatten() if labels.dim() else [len(items) - 1]:
            known = torch.cat([earlier, items[: place + 1]])
            names = dataset.id2token("item_id", known[known > 0].numpy())
            target = labels[place] if labels.dim() else labels
            found.setdefault(str(dataset.id2token("item_id", int(target))), []).append(tuple(names))
    for row in rows["train"]:
        assert row.history in found[row.item]


# -- scores ----------------------------------------------------------------------------------------------------------


@models
@pytest.mark.parametrize("write", [write_plain, write_written], ids=["plain", "written"])
def test_a_trained_model_scores_as_recommend_does(settings: dict, write: Callable) -> None:
    write()
    result = run(dataset="mine", config_dict={**SETTINGS, **settings}, command_line=[])
    loaded = load(result["checkpoint"])
    recommender = Recommender(loaded)
    given = {row.user: list(row.history) for row in ROWS["test"]}
    masked = settings.get("mask_history", "none") != "none"
    from_outside = recommender.recommend(given, k=5, exclude_history=masked)
    of_split = recommender.recommend_users(split="test", k=5)
    assert_same_lists(from_outside, of_split)
    assert_same_lists(of_split, evaluated(loaded, "test", 5))
    whole = recommender.recommend({row.user: [*row.history, row.item] for row in ROWS["test"]}, k=5)
    of_all = recommender.recommend_users(k=5)
    assert_same_lists(*(table.sort_values(["user", "rank"], ignore_index=True) for table in (whole, of_all)))
    assert np.isfinite(of_all["score"]).all() and len(of_all) > 50


def test_whole_histories_after_a_gap_have_each_interaction_once() -> None:
    """A user without a validation row, whose test history has an item that no row has as its target."""
    rows = {part: [*found] for part, found in ROWS.items()}
    rows["train"].append(Row("gap", ["i1", "i2"], "i3"))
    rows["test"].append(Row("gap", ["i1", "i2", "i3", "i4"], "i5"))
    write_written(rows)
    for eager in (True, False):
        result = run("PosKernelSASRec", "mine", config_dict={**SETTINGS, "lazy_prefixes": not eager}, command_line=[])
        requests = Recommender.load(result["checkpoint"]).known_users(["gap"])
        numbers = load(result["checkpoint"]).dataset.id2token("item_id", requests.histories.flat()[1])
        assert numbers.tolist() == ["i1", "i2", "i3", "i4", "i5"]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("history", ["", " ", "   ", "NA"])
@pytest.mark.parametrize("quoted", [False, True])
def test_an_empty_history_is_told_by_line_and_column(history: str, quoted: bool) -> None:
    rows = {part: [(user, " ".join(items), item) for user, items, item in found] for part, found in ROWS.items()}
    rows["valid"][3] = ("u3", history, "i1")
    if quoted:
        rows["valid"][0] = ('"u0"', *rows["valid"][0][1:])
    write_parts(Path("data"), "mine", rows, WRITTEN)
    refused(r"mine\.valid\.inter, line 5: column 'item_id_list' (has no value|is 'NA')")
    refused(r"mine\.valid\.inter, line 5: column 'item_id_list'", "PosKernelSASRec", seq_separator=" ")
    _, parts, _ = parts_of("BPR", load_col={"inter": ["user_id", "item_id"]})  # which reads no histories
    assert len(parts[1]) == len(ROWS["valid"])


@pytest.mark.parametrize(
    ("header", "rows", "changes", "message"),
    [
        (
            f"{WRITTEN}\ttimestamp_list:float_seq\ttimestamp:float",
            {"test": [("u", "a b", "c", "1 2", 3), ("u", "a b", "c", "1", 3)]},
            {"load_col": None},
            r"mine\.test\.inter, row 2 below the header: column 'timestamp_list' has 1 values, but .* has 2",
        ),
        (WRITTEN.replace("token_seq", "token"), {}, {}, "column 'item_id_list' must be of type token_seq"),
        (PLAIN.replace("p:float", "p:token"), {}, {}, "column 'timestamp' must be of type float"),
        (
            PLAIN,
            {"train": [("u", "a", 1), ("u", "b", 5)], "valid": [("u", "c", 3)], "test": [("u", "d", 6)]},
            {},
            "user 'u' has an interaction in the file 'valid' that is earlier than one in 'train'",
        ),
        (
            WRITTEN,
            {},
            {"model": "BPR", "mask_history": "all", "eval_args": {"order": "TO"}},
            "which BPR does not read; mask_history needs",
        ),
        (WRITTEN, {}, {"model": "DIEN", "metrics": ["AUC"], "valid_metric": "AUC"}, "DIEN has its own data set class"),
    ],
)
def test_what_would_be_misread_is_refused(header: str, rows: dict, changes: dict, message: str) -> None:
    n_columns = header.count("\t") + 1
    some = {part: [("u", "a b", "c", "1 2", 3)[:n_columns], ("v", "a", "b", "1", 3)[:n_columns]] for part in PARTS}
    if header == PLAIN:
        some = {part: [("u", "a", k)] for k, part in enumerate(PARTS)}
    write_parts(Path("data"), "mine", {**some, **rows}, header)
    refused(message, **changes)


def test_files_with_different_columns_are_refused() -> None:
    write_plain()
    write_parts(Path("data"), "mine", {"test": [(*row, 3) for row in HELD_OUT["test"]]}, f"{PLAIN}\trating:float")
    refused("must have the same columns: .*train.inter has no rating and .*test.inter has rating:float", load_col=None)
    _, parts, _ = parts_of()  # which does not read it
    assert read_rows(parts[2]) == newest(ROWS["test"], L)


def test_filters_without_effect_are_told(caplog: pytest.LogCaptureFixture) -> None:
    write_plain()
    with caplog.at_level(logging.WARNING):
        parts_of()
        assert "not filtered" not in caplog.text
        parts_of(user_inter_num_interval="[4,inf)", rm_dup_inter="first")
    assert "(benchmark_filename) are not filtered; without effect: rm_dup_inter, user_inter_num" in caplog.text


def test_histories_that_are_not_loaded_are_made_of_the_rows(caplog: pytest.LogCaptureFixture) -> None:
    write_written()
    with caplog.at_level(logging.WARNING):
        _, (*_, test), _ = parts_of(load_col={"inter": ["user_id", "item_id"]})
    assert "has histories in the column 'item_id_list', but load_col leaves it out" in caplog.text
    rows = {part: [(user, item) for user, _, item in found] for part, found in ROWS.items()}
    assert read_rows(test) == newest(with_histories(rows)["test"], L)

"""Lazy prefixes against RecBole's own classes: every batch of every split, tensor by tensor."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data import create_dataset
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader, TrainDataLoader
from recbole.data.dataset import DIENDataset, KGSeqDataset, SequentialDataset
from recbole.data.interaction import Interaction, cat_interactions
from recbole.data.utils import create_samplers, data_preparation
from recbole.utils import init_seed

from recbole_posattn import Config
from recbole_posattn.data.dataset import LazyKGSeqDataset, LazySequentialDataset
from recbole_posattn.data.prefixes import LazyPrefixes, PrefixColumn, history_lengths, sequences_of
from recbole_posattn.settings.datasets import knows_histories

SPLITS = {
    "leave two out": {"split": {"LS": "valid_and_test"}, "group_by": "user"},
    "leave one out for validation": {"split": {"LS": "valid_only"}, "group_by": "user"},
    "leave one out for testing": {"split": {"LS": "test_only"}, "group_by": "user"},
    "ratios of each user": {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user"},
    "uneven ratios of each user": {"split": {"RS": [7, 1, 2]}, "group_by": "user"},
    "ratios of all": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "none"},
    "time boundary": {"split": {"TS": [0.7, 0.15, 0.15]}, "group_by": "user"},
}


@pytest.fixture(scope="module")
def rich_data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set ``rich`` with a feature of each type, some missing, users of 1 to 16 interactions, times with ties."""
    folder = tmp_path_factory.mktemp("data") / "rich"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token\tstars:float\ttimestamp:float\tplace:token\ttags:token_seq\tmood:float_seq"]
    lines[0] += "\tnote:token\texact:float"
    for user in range(30):
        for _ in range(1 + user % 16):
            tags = " ".join(f"t{tag}" for tag in random.integers(0, 5, random.integers(0, 4)))
            mood = " ".join(f"{value:.2f}" for value in random.random(random.integers(1, 3)))
            stars = "" if random.random() < 0.2 else f"{random.integers(1, 6)}"
            columns = (f"u{user}", f"i{random.integers(0, 25)}", stars, random.integers(0, 60), f"p{user % 3}")
            note = random.choice(["ä", '"in ""quotes"""', "", "1.0", "NA", "a b"])
            exact = random.choice(["0.1", "123456789.123456789", "1e-3", '"2.5"', "0.30000000000000004"])
            lines.append("\t".join(map(str, (*columns, tags, mood, note, exact))))
    random.shuffle(lines[1:])
    (folder / "rich.inter").write_text("\n".join(lines) + "\n")
    items = ["item_id:token\tkind:token\tprice:float", *(f"i{i}\tk{i % 4}\t{i / 3:.2f}" for i in range(25))]
    (folder / "rich.item").write_text("\n".join(items) + "\n")
    return folder.parent


@pytest.fixture
def rich_config(rich_data_path: Path) -> Callable[..., Config]:
    def config(model: str = "GRU4Rec", eval_args: dict = SPLITS["leave two out"], **changes: object) -> Config:
        settings = {
            "data_path": str(rich_data_path),
            "load_col": {"inter": "*", "item": "*"},
            "MAX_ITEM_LIST_LENGTH": 6,
            "train_batch_size": 32,
            "eval_batch_size": 7,
            "numerical_features": ["stars"],
            "eval_args": {"order": "TO", "mode": "full", **eval_args},
        }
        return Config(model, "rich", config_dict={**settings, **changes}, command_line=[])

    return config


def whole(column: torch.Tensor | PrefixColumn) -> torch.Tensor:
    return column.tensor() if isinstance(column, PrefixColumn) else column


def recboles_loaders(config: Config) -> list:
    """RecBole's own classes, from the file to the batches."""
    init_seed(config["seed"], config["reproducibility"])
    dataset = SequentialDataset(config)
    parts = dataset.build()
    samplers = create_samplers(config, dataset, parts)
    evaluation = FullSortEvalDataLoader if config["eval_args"]["mode"]["test"] == "full" else NegSampleEvalDataLoader
    classes = (TrainDataLoader, evaluation, evaluation)
    return [
        loader(config, part, sampler, shuffle=loader is TrainDataLoader and config["shuffle"])
        for loader, part, sampler in zip(classes, parts, samplers)
    ]


def our_loaders(config: Config) -> tuple:
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    assert type(dataset) is LazySequentialDataset
    loaders = data_preparation(config, dataset)
    assert isinstance(dataset.inter_feat, LazyPrefixes)
    assert all(isinstance(loader._dataset.inter_feat, LazyPrefixes) for loader in loaders)
    return loaders


def assert_equal_rows(ours: Interaction, theirs: Interaction) -> None:
    assert type(ours) is Interaction and ours.length == theirs.length
    assert sorted(ours.columns) == sorted(theirs.columns)
    for field in theirs.columns:
        assert ours[field].dtype == theirs[field].dtype, field
        assert torch.equal(ours[field], theirs[field]), field


def assert_equal_batches(ours: object, theirs: object) -> int:
    """Compare all batches of two loaders; returns their number."""
    pairs = list(zip(ours, theirs, strict=True))
    for our_batch, their_batch in pairs:
        if isinstance(their_batch, Interaction):
            assert_equal_rows(our_batch, their_batch)
            continue
        assert_equal_rows(our_batch[0], their_batch[0])
        for our_part, their_part in zip(our_batch[1:], their_batch[1:], strict=True):
            assert (our_part is None) == (their_part is None)
            assert our_part is None or torch.equal(our_part, their_part)
    return len(pairs)


@pytest.mark.parametrize("eval_args", SPLITS.values(), ids=SPLITS)
def test_batches_are_recboles(rich_config: Callable, eval_args: dict) -> None:
    config = rich_config(eval_args=eval_args)
    theirs = recboles_loaders(config)
    for split, (our_loader, their_loader) in enumerate(zip(our_loaders(config), theirs, strict=True)):
        assert len(our_loader) == len(their_loader)
        n_batches = assert_equal_batches(our_loader, their_loader)
        assert split > 0 or n_batches > 3
        # the second epoch, too, is shuffled alike
        assert_equal_batches(our_loader, their_loader)
    fields = next(iter(theirs[0])).columns
    assert {"stars_list", "place_list", "tags_list", "mood_list", "timestamp_list", "kind"} <= set(fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 2, "alpha": 1.0}},
        {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "popularity", "sample_num": 1, "alpha": 0.5}},
        {"eval_args": {**SPLITS["leave two out"], "mode": "uni5"}},
        {"transform": "inverse_itemseq"},
        {"unused_col": {"inter": ["timestamp", "place"]}},
        {"MAX_ITEM_LIST_LENGTH": 1},
        {"shuffle": False},
        {"filter_inter_by_user_or_item": True, "user_inter_num_interval": "[3,inf)"},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_batches_are_recboles_under_other_settings(rich_config: Callable, changes: dict) -> None:
    config = rich_config(**changes)
    init_seed(0, True)
    theirs = recboles_loaders(config)
    for ours, their in zip(our_loaders(config), theirs, strict=True):
        init_seed(0, True)  # the samplers of negatives draw from NumPy's generator
        our_batches = list(ours)
        init_seed(0, True)
        assert_equal_batches(our_batches, list(their))


@pytest.mark.slow
def test_real_data_are_equal_too() -> None:
    """ml-100k with all its columns, out of RecBole's wheel; the rows of the splits at once, not batch by batch."""
    config = Config("SASRec", "ml-100k", config_dict={"MAX_ITEM_LIST_LENGTH": 20}, command_line=[])
    written_out = Config("SASRec", "ml-100k", config_dict={"MAX_ITEM_LIST_LENGTH": 20, "lazy_prefixes": False})
    for ours, theirs in zip(create_dataset(config).build(), create_dataset(written_out).build(), strict=True):
        assert isinstance(ours.inter_feat, LazyPrefixes) and not isinstance(theirs.inter_feat, LazyPrefixes)
        assert_equal_rows(ours.inter_feat.dense(), theirs.inter_feat)


def test_files_are_read_as_recbole_reads_them(rich_config: Callable) -> None:
    """By another parser of pandas: quotes, gaps, words that mean a gap, and numbers to the last bit."""
    ours, theirs = LazySequentialDataset(rich_config()), SequentialDataset(rich_config())
    pd.testing.assert_frame_equal(ours.inter_feat, theirs.inter_feat, check_exact=True)
    pd.testing.assert_frame_equal(ours.item_feat, theirs.item_feat, check_exact=True)
    assert {field: list(tokens) for field, tokens in ours.field2id_token.items()} == {
        field: list(tokens) for field, tokens in theirs.field2id_token.items()
    }


def test_switched_off_it_is_recboles(rich_config: Callable) -> None:
    dataset = create_dataset(rich_config(lazy_prefixes=False))
    for part in dataset.build():
        assert type(part.inter_feat) is Interaction
        assert part.inter_feat["item_id_list"].shape == (len(part), 6)


def test_models_with_data_of_their_own_keep_it(rich_config: Callable) -> None:
    """DIEN writes negative histories beside the histories."""
    dataset = create_dataset(rich_config("DIEN", {**SPLITS["leave two out"], "mode": "labeled"}))
    assert isinstance(dataset, DIENDataset) and not isinstance(dataset, LazySequentialDataset)


def test_knowledge_graph_models_get_it_too() -> None:
    """With files of a graph: tests/test_plain_recbole.py."""
    config = Config("GRU4RecKG", "ml-100k", config_dict={"protocol": "leave_one_out"}, command_line=[])
    assert config["lazy_prefixes"] and knows_histories("GRU4RecKG")
    assert issubclass(LazyKGSeqDataset, KGSeqDataset)


@pytest.mark.parametrize("eval_args", [SPLITS["leave two out"], SPLITS["ratios of all"]])
def test_statistics_and_matrices_are_recboles(rich_config: Callable, eval_args: dict) -> None:
    config = rich_config(eval_args=eval_args)
    for ours, theirs in zip(create_dataset(config).build(), SequentialDataset(config).build(), strict=True):
        assert str(ours) == str(theirs) and ours.item_counter == theirs.item_counter
        assert (ours.inter_matrix("csr") != theirs.inter_matrix("csr")).nnz == 0
        assert (ours.inter_matrix("csr", "timestamp") != theirs.inter_matrix("csr", "timestamp")).nnz == 0


SELECTIONS = [
    slice(3, 9),
    slice(None, None, 2),
    range(2, 12, 3),
    [5, 1, 1, -1],
    [],
    np.array([4, 0]),
    torch.tensor([7, 2, 2]),
    7,
]


def test_rows_behave_like_an_interaction(rich_config: Callable) -> None:
    config = rich_config()
    ours, theirs = (part[0].inter_feat for part in (create_dataset(config).build(), SequentialDataset(config).build()))
    for index in [*SELECTIONS, torch.arange(len(theirs)) % 3 == 0, (np.arange(len(theirs)) % 2 == 0)]:
        selected, expected = ours[index], theirs[index]
        assert isinstance(selected, LazyPrefixes)
        for field in expected.columns:
            assert torch.equal(whole(selected[field]), expected[field]), (index, field)
            assert torch.equal(ours[field][index], theirs[field][index]), (index, field)
    for method in (lambda rows: rows.sort("timestamp"), lambda rows: rows.sort(["item_id", "stars"])):
        copies = copy.deepcopy(ours), copy.deepcopy(theirs)
        for rows in copies:
            method(rows)
        assert_equal_rows(copies[0].dense(), copies[1])
    copies = copy.deepcopy(ours), copy.deepcopy(theirs)
    for rows in copies:
        torch.manual_seed(0)
        rows.shuffle()
        rows.drop("stars")
        rows.drop("tags_list")
        rows.update(Interaction({"extra": torch.arange(len(rows))}))
        del rows["place"]
    assert_equal_rows(copies[0].dense(), copies[1])
    assert "stars" not in copies[0] and "extra" in copies[0] and set(copies[0]) == set(copies[1])
    with pytest.raises(ValueError, match="'nothing' is not among"):
        ours.drop("nothing")
    assert_equal_rows(pickle.loads(pickle.dumps(ours)).dense(), theirs)
    assert str(ours) == str(theirs)
    assert torch.equal(ours.item_id, theirs.item_id) and torch.equal(ours.tags_list[:], theirs.tags_list)
    assert not hasattr(ours, "nothing")


ALL_ROWS = {
    "to": lambda rows: rows.to("cpu"),
    "cpu": lambda rows: rows.cpu(),
    "numpy": lambda rows: rows.numpy(),
    "repeat": lambda rows: rows.repeat(2),
    "repeat_interleave": lambda rows: rows.repeat_interleave(3),
    "cat_interactions": lambda rows: cat_interactions([rows, rows]),
}


@pytest.mark.parametrize("use", ALL_ROWS.values(), ids=ALL_ROWS)
def test_rows_do_not_build_their_histories_unasked(
    rich_config: Callable, use: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (
        part[0].inter_feat for part in (create_dataset(rich_config()).build(), SequentialDataset(rich_config()).build())
    )
    expected, done = use(theirs), use(ours.dense())
    if isinstance(expected, Interaction):
        assert_equal_rows(done, expected)
    monkeypatch.setattr(PrefixColumn, "tensor", lambda self: pytest.fail("the tensor was built"))
    assert {field: column.shape for field, column in ours.interaction.items()} == {
        field: column.shape for field, column in theirs.interaction.items()
    }
    assert str(ours) == str(theirs)
    with pytest.raises(
        (TypeError, AttributeError), match=r"take the rows you need, .* and for all columns rows\.dense"
    ):
        use(ours)


def test_a_list_column_has_the_rows_of_its_tensor(rich_config: Callable) -> None:
    config = rich_config()
    ours, theirs = (part[0].inter_feat for part in (create_dataset(config).build(), SequentialDataset(config).build()))
    column, expected = ours["tags_list"], theirs["tags_list"]
    assert column.shape == expected.shape and column.dtype == expected.dtype and len(column) == len(expected)
    assert torch.equal(column[:, 0], expected[:, 0]) and torch.equal(column[4, 2:], expected[4, 2:])
    assert torch.equal(column[:], expected) and torch.equal(column.tensor(), expected)
    assert not hasattr(column, "no_such_thing")


WHOLE = {
    "torch.cat": lambda column: torch.cat([column, column]),
    "torch.equal": lambda column: torch.equal(column, torch.zeros(1)),
    "torch.sum": lambda column: torch.sum(column, dim=1),
    "a method": lambda column: column.sum(dim=1),
    "numpy()": lambda column: column.numpy(),
    "np.asarray": np.asarray,
    "list": list,
    "for": lambda column: [row for row in column],
    "to": lambda column: column.to("cpu"),
}


@pytest.mark.parametrize("use", WHOLE.values(), ids=WHOLE)
def test_a_list_column_does_not_build_its_tensor_unasked(
    rich_config: Callable, use: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = create_dataset(rich_config()).build()[0].inter_feat["tags_list"]
    monkeypatch.setattr(PrefixColumn, "tensor", lambda self: pytest.fail("the tensor was built"))
    with pytest.raises((TypeError, AttributeError), match=r"take the rows you need, column\[rows\], or all of them"):
        use(column)


@given(users=st.lists(st.integers(0, 5), max_size=40), max_length=st.integers(1, 7))
def test_rows_of_sorted_users(users: list[int], max_length: int) -> None:
    user = torch.tensor(sorted(users), dtype=torch.int64)
    before = [sum(1 for other in range(i) if user[other] == user[i]) for i in range(len(user))]
    assert history_lengths(user, max_length).tolist() == [min(n, max_length) for n in before]
    start, count = sequences_of(user)
    assert start.tolist() == [i for i, n in enumerate(before) if n == 0]
    assert count.tolist() == [users.count(user) for user in sorted({*users})]


def test_memory_does_not_grow_with_the_length(rich_config: Callable) -> None:
    """What is stored besides the interactions: a position for each row, and the length of the history of each."""
    stored = {}
    for max_length in (5, 500):
        rows = create_dataset(rich_config(MAX_ITEM_LIST_LENGTH=max_length)).build()[0].inter_feat
        stored[max_length] = sum(
            tensor.untyped_storage().nbytes()
            for tensor in [*rows._rows.interaction.values(), *rows.targets.values(), *rows.sequences.values()]
        )
    assert stored[5] == stored[500]

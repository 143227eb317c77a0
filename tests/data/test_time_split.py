"""Splits in time against plain pandas: the cuts, ties, and what becomes of items that training does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn import Config, Recommender
from recbole_posattn.data.splits import TimeSplit
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.settings.properties import ML_100K
from recbole_posattn.training.load import Loaded, prepare_data
from tests.planted import write_atomic_file

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
MOST_VALID = 50_000


def authors_parts(time: pd.Series) -> pd.Series:
    """0, 1 or 2 by time, as the authors' code splits with [0.95, 0.97]."""
    valid_from, test_from = 0.95 + 0.97 - 1, (1 - 0.95) / (1 - (0.95 + 0.97 - 1))
    if len(time) * (1 - valid_from) * test_from > MOST_VALID:
        valid_from = 1 - MOST_VALID / (len(time) * test_from)
    in_training = time < time.quantile(valid_from, interpolation="nearest")
    in_valid = time < time[~in_training].quantile(test_from, interpolation="nearest")
    return (~in_training).astype(int) + (~in_valid & ~in_training).astype(int)


def authors_data(file: Path, items: set[str] | None = None) -> pd.DataFrame:
    """The interactions with items of training, in time order: ``user``, ``item``, ``part``, ``nth`` of its user."""
    table = pd.read_csv(file, sep="\t", dtype=str)[["user_id:token", "item_id:token", "timestamp:float"]]
    table.columns = ["user", "item", "time"]
    table = table if items is None else table[table["item"].isin(items)]
    table["time"] = table["time"].astype(float)
    table["part"] = authors_parts(table["time"])
    table = table[table["item"].isin(table.loc[table["part"] == 0, "item"])]
    table = table.sort_values("time", kind="stable")
    return table.assign(nth=table.groupby("user").cumcount())


def loaded_as(model: str, dataset: str, data_path: Path | None = None, **settings: object) -> Loaded:
    where = {} if data_path is None else {"data_path": str(data_path)}
    config = Config(model, dataset, config_dict={"protocol": "temporal_paper", **where, **settings}, command_line=[])
    interactions, loaders = prepare_data(config)
    return Loaded(config, None, interactions, *loaders)


def tokens(dataset: object, field: str, numbers: object) -> list[str]:
    return [str(token) for token in dataset.id2token(field, np.asarray(numbers))]


def assert_is_the_authors(loaded: Loaded, table: pd.DataFrame) -> None:
    """Targets, histories, catalogue and training data are those of plain pandas."""
    dataset = loaded.dataset
    assert set(tokens(dataset, "item_id", range(1, dataset.item_num))) == set(table.loc[table["part"] == 0, "item"])
    by_user = {user: rows["item"].tolist() for user, rows in table.groupby("user")}
    for part, loader in ((1, loaded.valid_data), (2, loaded.test_data)):
        targets = table[(table["part"] == part) & (table["nth"] > 0)]
        held_out = loader._dataset
        users = tokens(held_out, "user_id", held_out.inter_feat["user_id"])
        items = tokens(held_out, "item_id", held_out.inter_feat["item_id"])
        histories = held_out.histories
        found = list(zip(users, items, histories.length.tolist()))
        assert sorted(found) == sorted(zip(targets["user"], targets["item"], targets["nth"]))
        row, item = histories[:20].flat()
        for number in range(20):
            user, _, length = found[number]
            assert tokens(held_out, "item_id", item[row == number]) == by_user[user][:length]
    counts = table[table["part"] == 0]["item"].value_counts().to_dict()
    trained = loaded.test_data._dataset.training_counts.tolist()
    assert dict(zip(tokens(dataset, "item_id", range(1, dataset.item_num)), trained[1:])) == counts


@pytest.mark.parametrize("model", ["PosKernelSASRec", "BPR"])
def test_temporal_paper_is_the_authors_split(model: str) -> None:
    """For models that read sequences and others; users without a history lose their first held-out interaction."""
    table = authors_data(ML_100K / "ml-100k.inter")
    assert ((table["part"] > 0) & (table["nth"] == 0)).any()
    loaded = loaded_as(model, "ml-100k")
    assert_is_the_authors(loaded, table)
    n_all = len(pd.read_csv(ML_100K / "ml-100k.inter", sep="\t"))
    assert len(table) < n_all and loaded.dataset.item_num - 1 < 1682  # some items are new after training


@pytest.mark.slow
def test_items_of_a_knowledge_graph_are_left_out_too() -> None:
    """CKE knows no items but those of the graph; the cuts are those of their interactions."""
    graph, link = (pd.read_csv(ML_100K / f"ml-100k.{kind}", sep="\t", dtype=str) for kind in ("kg", "link"))
    entities = {*graph["head_id:token"], *graph["tail_id:token"]}
    linked = set(link.loc[link["entity_id:token"].isin(entities), "item_id:token"])
    columns = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    load_col = {"inter": ["user_id", "item_id", "timestamp"], **columns}
    loaded = loaded_as("CKE", "ml-100k", load_col=load_col)
    assert_is_the_authors(loaded, authors_data(ML_100K / "ml-100k.inter", linked))


def test_items_of_an_item_file_are_left_out_too() -> None:
    load_col = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "release_year"]}
    loaded = loaded_as("PosKernelSASRec", "ml-100k", load_col=load_col)
    assert_is_the_authors(loaded, authors_data(ML_100K / "ml-100k.inter"))
    assert len(loaded.dataset.item_feat) == loaded.dataset.item_num


def test_training_rows_are_those_of_training() -> None:
    table = authors_data(ML_100K / "ml-100k.inter")
    in_training = table[table["part"] == 0]
    assert len(loaded_as("BPR", "ml-100k").train_data._dataset.inter_feat) == len(in_training)
    windows = loaded_as("PosKernelSASRec", "ml-100k", MAX_ITEM_LIST_LENGTH=50).train_data._dataset.windows
    labelled = (windows.gather(np.arange(len(windows)), 50)[3] >= 0).sum()
    assert labelled == (in_training["nth"] > 0).sum()


@pytest.mark.parametrize("scaled", [None, ["timestamp"]])
def test_scaled_times_are_cut_where_the_times_are(scaled: list | None) -> None:
    """RecBole scales them after the items of no training are left out, which needs the cuts before."""
    loaded = loaded_as("PosKernelSASRec", "ml-100k", normalize_all=None, normalize_field=scaled)
    assert (loaded.dataset.inter_feat["timestamp"].max() > 1) == (scaled is None)
    assert_is_the_authors(loaded, authors_data(ML_100K / "ml-100k.inter"))


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ml-1m-timed").is_dir(), reason="no ml-1m-timed here")
def test_validation_of_a_million_interactions_is_limited() -> None:
    table = authors_data(SHARED / "ml-1m-timed" / "ml-1m-timed.inter")
    assert (table["part"] == 1).sum() <= MOST_VALID
    assert_is_the_authors(loaded_as("BPR", "ml-1m-timed", SHARED), table)


def test_the_cuts_of_movielens_1m() -> None:
    """1,000,209 interactions; 47 of those behind the first cut have items of no training (34 and 13), ties apart."""
    time = np.arange(1_000_209.0)
    settings = Config("Pop", "ml-100k", config_dict={"protocol": "temporal_paper"}, command_line=[])
    part = TimeSplit.of(settings).part(time, time)
    assert np.bincount(part).tolist() == [920_208, 49_966 + 34, 29_988 + 13]
    assert part.tolist() == authors_parts(pd.Series(time)).tolist()


times = st.lists(st.integers(0, 12), min_size=2, max_size=40)


@given(
    time=times,
    first=st.floats(0.05, 0.9),
    second=st.floats(0.05, 0.95),
    second_of=st.sampled_from(["all", "rest"]),
    method=st.sampled_from(["linear", "lower", "higher", "midpoint", "nearest"]),
    tie=st.sampled_from(["earlier", "later"]),
    most=st.one_of(st.none(), st.integers(1, 20)),
)
def test_every_key_does_what_it_says(
    time: list[int], first: float, second: float, second_of: str, method: str, tie: str, most: int | None
) -> None:
    if second_of == "all":
        first, second = sorted((first, second))
    series = pd.Series(time, dtype=float)
    expected_valid = len(time) * (second - first if second_of == "all" else (1 - first) * second)
    moved = first
    if most is not None and expected_valid > most:
        moved = second - most / len(time) if second_of == "all" else 1 - most / len(time) / second
    is_later = {"earlier": series.gt, "later": series.ge}[tie]
    in_rest = is_later(np.quantile(series, moved, method=method))  # pandas rounds otherwise
    of = series if second_of == "all" else series[in_rest]
    in_test = is_later(np.quantile(of, second, method=method)) & in_rest if len(of) else in_rest & False
    split = TimeSplit((first, second), second_of, method, tie, most)
    assert split.part(series.to_numpy(), series.to_numpy()).tolist() == (in_rest.astype(int) + in_test).tolist()


def test_temporal_cuts_as_it_did() -> None:
    """95 % and 97 % of all times; what is at a cut is earlier, and new items stay in the catalogue."""
    table = pd.read_csv(ML_100K / "ml-100k.inter", sep="\t")
    time = table["timestamp:float"]
    loaded = loaded_as("BPR", "ml-100k", protocol="temporal")
    assert len(loaded.train_data._dataset.inter_feat) == (time <= time.quantile(0.95)).sum()
    assert loaded.dataset.item_num - 1 == table["item_id:token"].nunique()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"time_split_tie": "later"},
            "time_split_tie 'later' is for the split TQ of eval_args, like {TQ: [0.95, 0.97]}",
        ),
        ({"protocol": "leave_one_out", "drop_unseen_items": True}, "drop_unseen_items True is for the split TQ"),
        ({"protocol": "leave_one_out", "max_valid_rows": 9}, "got the split {'LS': 'valid_and_test'}"),
        ({"protocol": "temporal_paper", "max_valid_rows": 0}, "max_valid_rows must be a positive integer, or ~; got 0"),
        ({"protocol": "temporal_paper", "time_split_method": "best"}, "time_split_method must be one of linear, lower"),
        ({"protocol": "temporal_paper", "time_split_second_of": "half"}, "must be one of all, rest; got 'half'"),
        ({"protocol": "temporal_paper", "drop_unseen_items": "later"}, "drop_unseen_items must be one of True, False"),
        (
            {"protocol": "temporal_paper", "time_split_second_of": "all"},
            "TQ must be two ascending quantiles of time in (0, 1), like [0.95, 0.97]; got [0.92, 0.625]",
        ),
        (
            {"protocol": "temporal_paper", "eval_args": {"split": {"TQ": [0.9, 1.0]}, "order": "TO", "mode": "full"}},
            "TQ must be two quantiles of time in (0, 1), like [0.92, 0.625]; got [0.9, 1.0]",
        ),
        (
            {"protocol": "temporal_paper", "benchmark_filename": ["train", "valid", "test"]},
            "drop_unseen_items True is for the split TQ of eval_args, like {TQ: [0.95, 0.97]}; got benchmark_filename "
            "['train', 'valid', 'test'], which is already split",
        ),
        ({"protocol": "temporal_papr"}, "Did you mean 'temporal_paper'?"),
    ],
    ids=str,
)
def test_refuses_what_makes_no_split(settings: dict, message: str) -> None:
    with pytest.raises(SettingError) as error:
        Config("PosKernelSASRec", "ml-100k", config_dict=settings, command_line=[])
    assert message in str(error.value) and "\n" not in str(error.value)


def late_users(tmp_path: Path) -> pd.DataFrame:
    """Interactions at different times; some users come when validation or the test has begun, with new items."""
    rng = np.random.default_rng(3)
    time = rng.permutation(400)
    rows = [(f"u{nth % 20}", f"i{rng.integers(12)}", at) for nth, at in enumerate(time[time < 360])]
    rows += [(f"late{at // 6}", f"new{at % 3}", at) for at in time[time >= 340]]
    table = pd.DataFrame(rows, columns=["user", "item", "time"]).sort_values("time", ignore_index=True)
    (tmp_path / "late").mkdir()
    names = ["user_id:token", "item_id:token", "timestamp:float"]
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "late" / "late.inter", sep="\t", header=names, index=False)
    return table.assign(nth=table.groupby("user").cumcount())


@pytest.mark.parametrize("model", ["BPR", "PosKernelSASRec"])
@pytest.mark.parametrize("split", ["RS", "TS"])
def test_recboles_splits_in_time_train_on_nothing_later(model: str, split: str, tmp_path: Path) -> None:
    """A user's first interaction is no target; after the cut, it is no training either."""
    table = late_users(tmp_path)
    targets = table[table["nth"] > 0]
    if split == "RS":
        n_held_out = int(len(targets) * 0.1)
        trained, begin = targets.iloc[: -2 * n_held_out], targets["time"].iloc[-2 * n_held_out]
    else:
        early = targets[targets["time"] <= np.percentile(targets["time"], 90)]
        n_trained = (early.groupby("user")["time"].transform("size") * (0.8 / 0.9)).astype(int)
        trained = early[early.groupby("user").cumcount() < n_trained]
        begin = targets.loc[targets["time"] > early["time"].max(), "time"].min()
    first = table[table["nth"] == 0]
    assert (first["time"] >= begin).any()
    expected = pd.concat([trained, first[first["time"] < begin]])
    of_kind = {"split": {split: [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "none" if split == "RS" else "user"}
    loaded = loaded_as(
        model,
        "late",
        tmp_path,
        protocol=None,
        mask_history="none",
        eval_args={**of_kind, "mode": "full"},
        topk=[3],
        valid_metric="NDCG@3",
        drop_unseen_targets=True,
    )
    held_out = loaded.test_data._dataset
    counts = dict(zip(loaded.dataset.field2id_token["item_id"], held_out.training_counts.tolist(), strict=True))
    assert {item: count for item, count in counts.items() if count} == expected["item"].value_counts().to_dict()
    assert set(tokens(held_out, "item_id", held_out.inter_feat["item_id"])) <= set(expected["item"])
    if model == "BPR":
        rows = loaded.train_data._dataset.inter_feat
        assert sorted(rows["timestamp"].tolist()) == sorted(expected["time"])


@pytest.mark.parametrize("model", ["BPR", "PosKernelSASRec"])
@pytest.mark.parametrize("split", [{"RS": [0.8, 0.1, 0.1]}, {"TS": [0.8, 0.1, 0.1]}, {"TQ": [0.8, 0.9]}], ids=str)
def test_times_that_are_numerical_features_are_cut_alike(model: str, split: dict, tmp_path: Path) -> None:
    """RecBole makes pairs of them."""
    late_users(tmp_path)
    evaluation = {"split": split, "order": "TO", "group_by": "user" if "TS" in split else "none", "mode": "full"}
    settings = {
        "protocol": None,
        "mask_history": "none",
        "eval_args": evaluation,
        "topk": [3],
        "valid_metric": "NDCG@3",
    }
    plain = loaded_as(model, "late", tmp_path, **settings)
    paired = loaded_as(model, "late", tmp_path, **settings, numerical_features=["timestamp"])
    assert paired.dataset.inter_feat["timestamp"].dim() == 2
    for name in ("valid_data", "test_data"):
        one, other = (getattr(loaded, name)._dataset.inter_feat["item_id"] for loaded in (plain, paired))
        assert len(one) and one.equal(other)
    assert plain.test_data._dataset.training_counts.equal(paired.test_data._dataset.training_counts)


def test_new_items_are_not_recommended_and_skipped_in_histories(tmp_path: Path) -> None:
    rows = [(f"u{user}", f"i{(user + step) % 5}", 100 * step + user) for user in range(6) for step in range(5)]
    rows += [
        (f"u{user}", "new" if step == 1 else f"i{user % 5}", 600 + 10 * step + user)
        for user in range(6)
        for step in range(3)
    ]
    folder = tmp_path / "few"
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows), ""]
    (folder / "few.inter").write_text("\n".join(lines))
    split = {"split": {"TQ": [0.7, 0.5]}, "order": "TO", "mode": "full"}
    loaded = loaded_as("PosKernelSASRec", "few", tmp_path, eval_args=split, topk=[3], valid_metric="NDCG@3")
    assert set(loaded.dataset.field2id_token["item_id"]) == {"[PAD]", "i0", "i1", "i2", "i3", "i4"}
    held_out = loaded.test_data._dataset
    assert "new" not in tokens(held_out, "item_id", held_out.histories.flat()[1])
    said: list[str] = []
    model = loaded.config.model_class(loaded.config, loaded.train_data._dataset).eval()
    recommender = Recommender(loaded._replace(model=model), said.append)
    lists = recommender.recommend({"anna": ["new", "i1"], "otto": ["new"]}, k=5, exclude_history=False)
    assert set(lists["user"]) == {"anna"} and sorted(lists["item"]) == ["i0", "i1", "i2", "i3", "i4"]
    assert any("2 of 3 interactions have an item that the model does not know" in line for line in said)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_times_that_leave_nothing_to_train_on_are_named(model: str, tmp_path: Path) -> None:
    write_atomic_file(tmp_path, "same", [(f"u{user}", f"i{item}", 7) for user in range(5) for item in range(6)])
    with pytest.raises(DataError, match=r"no interaction is in the training part .* the times go from 7\.0 to 7\.0"):
        loaded_as(model, "same", tmp_path)

"""Data of which negatives cannot be drawn are refused at once; RecBole draws for ever, or divides by zero."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from recbole.data import create_dataset
from recbole.sampler import KGSampler

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.settings.registry import find_model
from recbole_posattn.training.load import prepare_data

SETTINGS = {"data_path": "data", "topk": 1, "valid_metric": "NDCG@1", "show_progress": False, "train_batch_size": 8}
MOST = [(f"u{user}", f"i{item}", 10 * item + user) for user in range(4) for item in range(6 if user == 0 else 4)]
ONE_ITEM = [(f"u{user}", "i0", time) for user in range(3) for time in range(5)]
POPULAR = {"distribution": "popularity", "sample_num": 1, "alpha": 1.0}
IN_ORDER = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"}
UNIFORM = {**POPULAR, "distribution": "uniform"}


@pytest.fixture(autouse=True)
def an_end() -> Iterator[None]:
    """A loop without end is a failure."""

    def stop(*_: object) -> None:
        raise TimeoutError("no end after 60 s")

    if not hasattr(signal, "SIGALRM"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write(rows: list[tuple], n_items: int = 0) -> None:
    """Interactions, and a file of items with more than these have."""
    folder = Path("data/mine")
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows), ""]
    (folder / "mine.inter").write_text("\n".join(lines))
    if n_items:
        (folder / "mine.item").write_text("\n".join(["item_id:token", *(f"i{item}" for item in range(n_items)), ""]))


def prepare(model: str, **changes: object) -> list:
    """The first batches of training, validation and test, with their negatives."""
    config = Config(model, "mine", config_dict={**SETTINGS, **changes}, command_line=[])
    ensure_atomic_files(config)
    _, loaders = prepare_data(config)
    config.model_class(config, loaders[0]._dataset)
    return [next(iter(loader)) for loader in loaders]


ALL_ITEMS = "user 'u0' has all 6 items that popularity negatives are drawn from, so none is left"
SINGLE = "there is only one item to draw {} negatives from"


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("BPR", {"eval_args": {"mode": "pop3"}}, ALL_ITEMS),
        ("BPR", {"eval_args": {"mode": {"valid": "full", "test": "pop3"}}}, ALL_ITEMS),
        ("BPR", {"train_neg_sample_args": {**POPULAR, "alpha": 1000.0}}, "alpha of the popularity distribution is too"),
        (
            "BPR",
            {"train_neg_sample_args": {**POPULAR, "alpha": 300.0}, "eval_args": IN_ORDER},
            "user 'u0' has all 4 items that popularity negatives are drawn from",
        ),
    ],
)
def test_a_user_who_has_all_that_can_be_drawn(model: str, changes: dict, message: str) -> None:
    write(MOST, n_items=9)
    with pytest.raises((DataError, SettingError), match=message):
        prepare(model, **{"load_col": {"inter": "*", "item": "*"}, **changes})


def test_an_entity_that_is_linked_to_all_that_can_be_drawn() -> None:
    """With so large an alpha the most popular entity only, and all others are linked to it."""
    write([*MOST, ("u1", "i8", 99)])
    linked = "item_id:token\tentity_id:token\n" + "".join(f"i{k}\te{k}\n" for k in range(9))
    graph = "head_id:token\trelation_id:token\ttail_id:token\n" + "".join(f"e{k}\tr\te0\n" for k in range(1, 9))
    for suffix, rows in {"link": linked, "kg": graph}.items():
        Path(f"data/mine/mine.{suffix}").write_text(rows)
    dataset = create_dataset(Config("CKE", "mine", config_dict=SETTINGS, command_line=[]))
    dataset.build()
    KGSampler(dataset, "popularity", 1.0)
    with pytest.raises(DataError, match="entity 'e1' has all 1 items that popularity negatives are drawn from"):
        KGSampler(dataset, "popularity", 300.0)


@pytest.mark.parametrize("mode", ["uni3", "pop3"])
def test_others_are_drawn_as_ever(mode: str) -> None:
    """The user lacks an item, or negatives are drawn of all items."""
    write(MOST, n_items=9 if mode == "uni3" else 0)
    if mode == "pop3":
        write([*MOST, ("u1", "i8", 99)])
    changes = {"load_col": {"inter": "*", "item": "*"}} if mode == "uni3" else {}
    batches = prepare("BPR", eval_args={"mode": mode}, train_neg_sample_args=UNIFORM, **changes)
    assert all(len(batch[0] if isinstance(batch, tuple) else batch) > 0 for batch in batches)


@pytest.mark.parametrize(
    ("model", "changes", "kind"),
    [
        ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": UNIFORM}, "uniform"),
        ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": POPULAR}, "popularity"),
        ("SASRec", {"eval_args": {"mode": "pop3", "order": "TO"}}, "popularity"),
        ("PosKernelSASRec", {"eval_args": {"mode": "uni3", "order": "TO"}}, "uniform"),
        (
            "DIEN",
            {
                "metrics": ["AUC"],
                "valid_metric": "AUC",
                "eval_args": {"mode": "labeled", "order": "TO"},
                "LABEL_FIELD": "timestamp",
            },
            "uniform",
        ),
    ],
)
def test_one_item_and_none_beside_it(model: str, changes: dict, kind: str) -> None:
    write(ONE_ITEM)
    with pytest.raises(DataError, match=SINGLE.format(kind)):
        prepare(model, **changes)


def test_a_full_ranking_draws_nothing() -> None:
    """RecBole makes a sampler for it all the same."""
    write(ONE_ITEM)
    assert len(prepare("SASRec", loss_type="CE")) == 3


def test_a_history_that_has_all_items() -> None:
    """BERT4Rec draws negatives for what it masks, S3Rec in its pretraining."""
    write([(f"u{user}", f"i{item % 4}", item) for user in range(3) for item in range(9)])
    with pytest.raises(DataError, match="a history has all 4 items, so none is left to draw as a negative"):
        prepare("BERT4Rec", MAX_ITEM_LIST_LENGTH=8)
    write([(f"u{user}", f"i{item}", item) for user in range(3) for item in range(9)])
    prepare("BERT4Rec", MAX_ITEM_LIST_LENGTH=8)
    model = find_model("S3Rec").__new__(find_model("S3Rec"))
    object.__setattr__(model, "n_items", 5)
    with pytest.raises(DataError, match="a history has all 4 items"):
        model._neg_sample([0, 1, 2, 3, 4])
    assert model._neg_sample([0, 1, 3, 4]) == 2


def test_an_item_of_all_users() -> None:
    """LINE draws users who have not had an item."""
    write([(f"u{user}", f"i{item}", item) for user in range(4) for item in (0, user + 1, user + 2, user + 3, user + 4)])
    with pytest.raises(DataError, match="all 4 users have item number 1 in training"):
        prepare("LINE", eval_args=IN_ORDER)
    prepare("LINE", eval_args=IN_ORDER, order=1)

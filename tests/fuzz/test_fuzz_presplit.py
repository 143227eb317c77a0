"""Any three files that are split already give each target what its user did before, or are refused in one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.training.load import prepare_data
from tests.fuzz.harness import call, cases, empty_folder, refused, tiny_flags
from tests.presplit import PARTS, Row, newest, read_rows, with_histories, write_parts

Parts = dict[str, list[tuple]]

users, items = st.sampled_from(["u", "v", "w"]), st.sampled_from(["a", "b", "c", "d", "007", "é"])
models = st.sampled_from(["PosKernelSASRec", "NoPESASRec", "SASRec", "GRU4Rec"])
BEGIN = {"train": 0, "valid": 5, "test": 9}


@st.composite
def plain_parts(draw: st.DrawFn) -> tuple[Parts, bool]:
    """Interactions of three files, mostly in time order over them, and whether there are times."""
    timed, in_order, least = draw(st.booleans()), draw(st.integers(0, 4)) > 0, draw(st.sampled_from([0, 1, 2, 2, 2, 3]))
    parts = {}
    for part, size in zip(PARTS, (10, 4, 4)):
        time = st.integers(0, 12) if not in_order else st.integers(0, 4).map(lambda time, part=part: BEGIN[part] + time)
        rows = draw(st.lists(st.tuples(users, items, time), min_size=least, max_size=size))
        parts[part] = [(user, item, 1_700_000_000 + time) if timed else (user, item) for user, item, time in rows]
    return parts, timed


def comes_back(parts: Parts) -> bool:
    """Whether a user has a row of a file before one of an earlier file, by time."""
    rows = [(user, place, time) for place, part in enumerate(PARTS) for user, _, time in parts[part]]
    return any(
        user == other and place < earlier and time < after
        for user, earlier, time in rows
        for other, place, after in rows
    )


histories = st.lists(items, min_size=1, max_size=7)


@st.composite
def written_parts(draw: st.DrawFn) -> dict[str, list[Row]]:
    """Rows with histories of any kind, some of them each the one before with its target; a few are empty."""
    parts = {}
    for part, size in zip(PARTS, (8, 3, 3)):
        rows: list[Row] = []
        for user, history, item in draw(st.lists(st.tuples(users, histories, items), min_size=1, max_size=size)):
            goes_on = draw(st.booleans()) and rows
            rows.append(
                Row(rows[-1].user, (*rows[-1].history, rows[-1].item), item)
                if goes_on
                else Row(user, tuple(history), item)
            )
        parts[part] = rows
    if draw(st.integers(0, 9)) == 0:
        parts[draw(st.sampled_from(PARTS))].append(Row("u", (), "a"))
    return parts


def write_plain(parts: Parts, timed: bool) -> None:
    write_parts(Path("data"), "tiny", parts, "user_id:token\titem_id:token" + "\ttimestamp:float" * timed)


def write_written(parts: dict[str, list[Row]]) -> None:
    rows = {part: [(user, " ".join(history), item) for user, history, item in found] for part, found in parts.items()}
    write_parts(Path("data"), "tiny", rows, "user_id:token\titem_id_list:token_seq\titem_id:token")


def read(kind: str, model: str, **changes: object) -> tuple[dict[str, list[Row]] | None, Exception | None]:
    """The rows of the three parts as a model gets them; or the refusal."""

    def load() -> dict[str, list[Row]]:
        settings = {"data_path": "data", "benchmark_filename": PARTS, "topk": 1, "valid_metric": "NDCG@1", **changes}
        config = Config(model, "tiny", config_dict={**settings, "state": "ERROR"}, command_line=[])
        ensure_atomic_files(config)
        _, loaders = prepare_data(config)
        return {part: read_rows(loader._dataset) for part, loader in zip(PARTS, loaders)}

    return refused(kind, load)


def expect(rows: dict[str, list[Row]] | None, found: dict[str, list[Row]] | None, error: Exception | None) -> None:
    """Training rows in any order, the others in that of their file."""
    if rows is None or not rows["train"]:
        assert error is not None, found
        return
    assert error is None, error
    assert Counter(found["train"]) == Counter(rows["train"])
    assert (found["valid"], found["test"]) == (rows["valid"], rows["test"])


@cases(80)
@given(plain_parts(), st.integers(1, 6), models, st.booleans())
def test_histories_are_cut_from_plain_files(case: tuple[Parts, bool], longest: int, model: str, lazy: bool) -> None:
    parts, timed = case
    rows = None
    if all(parts.values()) and not (timed and comes_back(parts)):
        rows = {part: newest(found, longest) for part, found in with_histories(parts).items()}
    with empty_folder():
        write_plain(parts, timed)
        found = read("pre-split files: plain", model, MAX_ITEM_LIST_LENGTH=longest, lazy_prefixes=lazy)
    expect(rows, *found)


@cases(80)
@given(written_parts(), st.integers(1, 6), models, st.booleans(), st.booleans())
def test_written_histories_are_read_from_their_newest_end(
    parts: dict[str, list[Row]], longest: int, model: str, lazy: bool, named: bool
) -> None:
    good = all(row.history for found in parts.values() for row in found)
    rows = {part: newest(found, longest) for part, found in parts.items()} if good else None
    alias = {"alias_of_item_id": ["item_id_list"]} if named else {}
    with empty_folder():
        write_written(parts)
        found = read("pre-split files: written", model, MAX_ITEM_LIST_LENGTH=longest, lazy_prefixes=lazy, **alias)
    expect(rows, *found)


@cases(15)
@given(
    plain_parts(),
    written_parts(),
    st.booleans(),
    models | st.sampled_from(["BPR", "Pop"]),
    st.sampled_from([None, "all", "except_target"]),
)
def test_whole_runs(
    plain: tuple[Parts, bool], written: dict[str, list[Row]], has_histories: bool, model: str, mask: str | None
) -> None:
    masked = {"mask_history": mask, "eval_args": {"order": "TO", "mode": "full"}} if mask else {}
    with empty_folder():
        if has_histories:
            write_written(written)
        else:
            write_plain(*plain)
        flags = tiny_flags(model=model, benchmark_filename=PARTS, topk=1, valid_metric="NDCG@1", **masked)
        outcome = call("pre-split files: whole runs", ["run", *flags])
        assert outcome.code == 2 or any(file.endswith("result.json") for file in outcome.files)

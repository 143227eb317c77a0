"""Trials of earlier searches that count in a new one of the same definition."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.leaderboard.spec import read_spec
from recbole_posattn.experiments.leaderboard.tuned import Tuning, _slugs, tune_rows
from recbole_posattn.experiments.trials import Resources
from recbole_posattn.experiments.tuning.records import (
    DIED,
    FAILED,
    FINISHED,
    PRUNED,
    TrialRecord,
    append_record,
    open_search,
    read_records,
)
from recbole_posattn.experiments.tuning.search import run_search
from recbole_posattn.experiments.tuning.shared import data_of_trials, earlier_trials, search_identity
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.spec import Search

RATES = Space([Dimension("learning_rate", "loguniform", (1e-4, 1e-2), {})])


@pytest.fixture
def search(tiny_settings: Callable) -> Search:
    return Search(tiny_settings(model="NoPESASRec", dataset="tiny", use_gpu=False), RATES, 3)


def trial(number: int, state: str, rate: float) -> TrialRecord:
    return TrialRecord(number, state, {"learning_rate": rate}, [(1, rate)] if state in (FINISHED, PRUNED) else [], 2.5)


def searched(folder: Path, search: Search, *records: TrialRecord) -> Path:
    """The folder of an earlier search with these trials."""
    open_search(folder, search.plain(), search.space, 5, False, search_identity(search).plain())
    for record in records:
        append_record(folder, record)
    return folder


def settings_of(records: list[TrialRecord]) -> list[float]:
    return [record.settings["learning_rate"] for record in records]


def test_finished_and_pruned_trials_of_the_same_search_are_taken(search: Search, tmp_path: Path) -> None:
    """Of a longer search the first ones; what failed, died or is known is run again or left out."""
    long = searched(
        *(tmp_path / "results" / "a" / "long", search._replace(n_trials=9), trial(3, FINISHED, 0.004)),
        *(trial(0, FAILED, 0.001), trial(1, PRUNED, 0.002), trial(2, DIED, 0.003), trial(4, FINISHED, 0.005)),
    )
    searched(tmp_path / "results" / "b", search, trial(0, FINISHED, 0.004), trial(1, FINISHED, 0.006))
    own, console = searched(tmp_path / "own", search, trial(0, FINISHED, 0.005)), Console(file=io.StringIO())
    found = earlier_trials(search, [tmp_path, tmp_path / "results"], own, console)
    assert settings_of(found) == [0.002, 0.004, 0.005]
    assert {record.source for record in found} == {str(long)}
    assert settings_of(earlier_trials(search._replace(n_trials=9), [tmp_path], own, console))[3:] == [0.006]

    # with these it is complete: nothing is run, not even a Ray started
    told: list[TrialRecord] = []
    records = run_search(search, own, Resources(address="nowhere"), True, told.append, found)
    assert settings_of(records) == [0.005, 0.002, 0.004] and [record.number for record in records] == [0, 1, 2]
    assert told == records == read_records(own) and [record.source is None for record in records] == [
        True,
        False,
        False,
    ]
    assert records[1].seconds == 2.5 and records[1].curve == [(1, 0.002)]


@pytest.mark.parametrize(
    "other",
    [
        lambda search: search._replace(grace_period=5),
        lambda search: search._replace(scheduler="none"),
        lambda search: search._replace(space=Space([Dimension("learning_rate", "uniform", (1e-4, 1e-2), {})])),
        lambda search: search._replace(settings={**search.settings, "seed": 1}),
        lambda search: search._replace(settings={**search.settings, "n_layers": 1}),
    ],
)
def test_trials_of_another_search_are_not_taken(search: Search, tmp_path: Path, other: Callable) -> None:
    searched(tmp_path / "earlier", other(search), trial(0, FINISHED, 0.002))
    assert earlier_trials(search, [tmp_path], tmp_path / "own", Console(file=io.StringIO())) == []


def test_trials_that_draw_their_inputs_may_have_other_data(search: Search) -> None:
    features = Dimension("additional_feat_suffix", "choice", (None, ["extra"]), {})
    identity = search_identity(search)
    assert data_of_trials(search, identity) == identity.data
    assert data_of_trials(search._replace(space=Space([*search.space.dimensions, features])), identity) is None


def test_trials_of_other_encodings_are_not_taken(search: Search, tmp_path: Path) -> None:
    """``auto`` is RoPE with the default structure, but a trial that draws kernels has none."""
    structures = Space([Dimension("kernel_structure", "choice", ("identity-identity", "toeplitz-full"), {})])
    auto = Search({**search.settings, "model": "PosKernelSASRec"}, structures, 3)
    rope = auto._replace(settings={**auto.settings, "position_encoding": ["rope"]})
    console = Console(file=io.StringIO())
    record = TrialRecord(0, FINISHED, {"kernel_structure": "toeplitz-full"}, [(1, 0.5)], 2.5)
    searched(tmp_path / "rope", rope, record)
    assert earlier_trials(auto, [tmp_path], tmp_path / "own", console) == []
    assert len(earlier_trials(rope, [tmp_path], tmp_path / "own", console)) == 1
    # Where no key that decides it is searched, auto is RoPE.
    rates = auto._replace(space=RATES)
    searched(tmp_path / "rates", rates, trial(0, FINISHED, 0.002))
    assert len(earlier_trials(rates._replace(settings=rope.settings), [tmp_path], tmp_path / "own", console)) == 1


def test_a_search_with_other_defaults_is_not_continued(search: Search, tmp_path: Path) -> None:
    folder = searched(tmp_path / "search", search, trial(0, FINISHED, 0.002))
    content = json.loads((folder / "search.json").read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        (
            {"config": {**content["identity"]["config"], "n_layers": 7}},
            r"its trials had n_layers 7, and new ones would",
        ),
        ({"results_version": 1}, "its trials come from a version of this package that computes different results"),
        ({"data_digest": "other"}, "the data set has changed since"),
    ]
    for change, message in changes:
        (folder / "search.json").write_text(json.dumps({**content, "identity": {**content["identity"], **change}}))
        before = (folder / "search.json").read_text()
        with pytest.raises(SettingError, match=f"search cannot be continued: {message}.*; give another --output"):
            run_search(search, folder, Resources(address="nowhere"), True, lambda record: None)
        assert (folder / "search.json").read_text() == before


@pytest.mark.parametrize(("before", "now", "enough"), [(None, 5, True), (5, 5, True), (5, 4, True), (4, 5, False)])
def test_trials_that_had_less_time_are_not_taken(
    search: Search, tmp_path: Path, before: float | None, now: float, enough: bool
) -> None:
    earlier, new = (search._replace(settings={**search.settings, "max_minutes": each}) for each in (before, now))
    folder = searched(tmp_path / "earlier", earlier, trial(0, FINISHED, 0.002))
    if not enough:
        with pytest.raises(
            SettingError, match="cannot be continued: its trials were stopped earlier than new ones would"
        ):
            run_search(new, folder, Resources(address="nowhere"), True, lambda record: None)
    assert bool(earlier_trials(new, [tmp_path], tmp_path / "own", Console(file=io.StringIO()))) == enough
    unlimited = earlier_trials(search, [tmp_path], tmp_path / "own", Console(file=io.StringIO()))
    assert bool(unlimited) == (before is None)


def test_folders_of_rows_differ() -> None:
    slugs = _slugs(["a b", "a+b", "модель", "模型", "RoPE"])
    assert slugs["RoPE"] == "RoPE" and len(set(slugs.values())) == 5 and all(slugs.values())
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", slug) for slug in slugs.values())


def test_folders_of_data_sets_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two.yaml").write_text("{models: [NoPESASRec], datasets: [a-b, a_b]}")
    spec, folders = read_spec(tmp_path / "two.yaml", {}, {}), []

    def run_nothing(search: Search, folder: Path, *_: object) -> list[TrialRecord]:
        folders.append(folder)
        return []

    tuned = "recbole_posattn.experiments.leaderboard.tuned"
    monkeypatch.setattr(f"{tuned}.check_search", lambda _: {"valid_metric": "NDCG@10", "valid_metric_bigger": True})
    monkeypatch.setattr(f"{tuned}.earlier_trials", lambda *_: [])
    monkeypatch.setattr(f"{tuned}.run_search", run_nothing)
    rest = 2, tmp_path, Resources(address="nowhere"), Console(file=io.StringIO()), [], Tuning(), Budget()
    for dataset in spec.datasets:
        tune_rows(spec, dataset, spec.protocols[0], *rest)
    assert len(set(folders)) == 2


def test_places_do_not_matter_but_data_and_versions_do(search: Search, tmp_path: Path) -> None:
    before = search._replace(settings={**search.settings, "show_progress": True})
    folder = searched(tmp_path / "earlier", before, trial(0, FINISHED, 0.002))
    told = io.StringIO()
    assert len(earlier_trials(search, [tmp_path], tmp_path / "own", Console(file=told))) == 1
    content = json.loads((folder / "search.json").read_text())
    for change in ({"results_version": 1}, {"data_digest": "other"}):
        changed = {**content, "identity": {**content["identity"], **change}}
        (folder / "search.json").write_text(json.dumps(changed))
        assert earlier_trials(search, [tmp_path], tmp_path / "own", Console(file=told)) == []
    assert told.getvalue().count("\n") == 1 and "its trials are not reused" in told.getvalue()
    for text in ("{", "[]", json.dumps({**search.plain()})):
        (folder / "search.json").write_text(text)
        assert earlier_trials(search, [tmp_path], tmp_path / "own", Console(file=told)) == []


def test_a_leaderboard_says_how_many_trials_each_row_had(tiny_settings: Callable, tmp_path: Path) -> None:
    """A row takes all its trials from an earlier search, one has nothing to search; then the budget is spent."""
    spec = read_spec(
        None,
        {"models": ["NoPESASRec", "Pop"], "datasets": ["tiny"], "seeds": [7]},
        tiny_settings(use_gpu=False),
    )
    known: dict[str, Any] = {}

    def remember(search: Search, *_: Any) -> list[TrialRecord]:
        known["search"] = search
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recbole_posattn.experiments.leaderboard.tuned.earlier_trials", remember)
        patch.setattr("recbole_posattn.experiments.leaderboard.tuned.run_search", lambda *_: [])
        tune(spec, tmp_path / "unused", Tuning(), Budget())
    drawn = {key: known["search"].settings.get(key, 0.001) for key in known["search"].space.keys}
    rates = (0.001, 0.002)
    records = [
        TrialRecord(number, state, {**drawn, "learning_rate": rate}, [(1, rate)], 60.0)
        for number, (state, rate) in enumerate(zip((PRUNED, FINISHED), rates))
    ]
    searched(tmp_path / "earlier", known["search"], *records)
    tuning = Tuning()
    winners = tune(spec, tmp_path / "own", tuning, Budget(), tmp_path / "earlier")
    assert winners == {"NoPESASRec": records[1].settings}
    (row,) = tuning.rows
    assert row == {
        **{"dataset": "tiny", "protocol": "leave_one_out", "row": "NoPESASRec", "trials": 2, "finished": 1},
        **{"pruned": 1, "failed": 0, "reused": 2, "seconds": 120.0, "settings": records[1].settings},
    }
    assert "2 trials (1 pruned, 0 failed, 2 taken from earlier searches), 120 s: " in tuning.notes[1]
    assert tuning.notes[2] == "tiny, leave_one_out: Pop: nothing to search."
    with pytest.MonkeyPatch.context() as patch:  # a folder in which a longer search ran before
        patch.setattr("recbole_posattn.experiments.leaderboard.tuned.earlier_trials", remember)
        longer = [*records, records[1]._replace(number=2, curve=[(1, 0.9)])]
        patch.setattr("recbole_posattn.experiments.leaderboard.tuned.run_search", lambda *_: longer)
        assert tune(spec, tmp_path / "longer", tuning, Budget()) == winners and tuning.rows[1]["trials"] == 2
    spent = Tuning()
    assert tune(spec, tmp_path / "late", spent, Budget(0)) == {} and spent.rows == []
    assert "NoPESASRec: not tuned, as the budget of 0 minutes was spent." in spent.notes[1]


def tune(spec: Any, folder: Path, tuning: Tuning, budget: Budget, *searches: Path) -> dict[str, dict[str, Any]]:
    console = Console(file=io.StringIO())
    where = Resources(address="nowhere")
    return tune_rows(spec, "tiny", "leave_one_out", 2, folder, where, console, searches, tuning, budget)

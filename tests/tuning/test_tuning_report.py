"""What a search's report says: the winner as settings, a table of all trials, a page in a browser."""

from __future__ import annotations

import io
import itertools
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console

from recbole_posattn import Config
from recbole_posattn.experiments.tuning.figures import draw_history, draw_importance, draw_parallel
from recbole_posattn.experiments.tuning.importance import importances
from recbole_posattn.experiments.tuning.live import LiveSearch
from recbole_posattn.experiments.tuning.records import DIED, FAILED, FINISHED, PRUNED, TrialRecord
from recbole_posattn.experiments.tuning.report import SearchResult, html, report_files
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.reporting.page import write_files

SPACE = Space(
    [
        Dimension("learning_rate", "loguniform", (1e-4, 1e-2), {}),
        Dimension("hidden_size", "choice", (16, 32), {}),
        Dimension("kernel_structure", "choice", ("toeplitz-full", "banded-full"), {}),
        Dimension("kernel_bandwidth", "choice", (2, 4), {"kernel_structure": ["banded*"]}),
        Dimension("kernel_sharing", "choice", ("shared", {"u": "per_layer", "l": "shared"}), {}),
        Dimension("hidden_dropout_prob", "quniform", (0.1, 0.5, 0.1), {}),
    ]
)


def make_records(n_trials: int = 12) -> list[TrialRecord]:
    """The score follows the learning rate alone; every third trial is pruned, the last two fail."""
    records = []
    for number in range(n_trials):
        exponent = (number * 7 % n_trials) / (n_trials - 1)
        settings = {
            "learning_rate": 1e-4 * 100**exponent,
            "hidden_size": 16 * (1 + number % 2),
            "kernel_structure": "banded-full" if number % 2 else "toeplitz-full",
            **({"kernel_bandwidth": 2} if number % 2 else {}),
            "kernel_sharing": {"u": "per_layer", "l": "shared"},
            "hidden_dropout_prob": 0.3,
        }
        n_epochs = 3 if number % 3 == 1 else 9
        curve = [(epoch, round(0.1 * exponent + 0.01 * math.sqrt(epoch), 4)) for epoch in range(1, n_epochs + 1)]
        records.append(TrialRecord(number, PRUNED if n_epochs == 3 else FINISHED, settings, curve, 1.5))
    for number, state in ((n_trials, FAILED), (n_trials + 1, DIED)):
        records.append(TrialRecord(number, state, records[0].settings, [], 0.5, "<script>alert(1)</script> & nan"))
    return records


def make_found(**changes: Any) -> SearchResult:
    records = make_records()
    finished = [record for record in records if record.state == FINISHED]
    fields = {
        "model": "PosKernelSASRec",
        "dataset": "ml-100k",
        "metric": "ndcg@10",
        "bigger": True,
        "space": SPACE,
        "given": {"model": "PosKernelSASRec", "epochs": 7, "eval_args": {"order": "TO", "mode": "full"}},
        "fixed": {"backbone": "sasrec"},
        "records": records,
        "best": max(finished, key=lambda record: record.best(True)),
        "valid_result": {"ndcg@10": 0.13, "hit@10": 0.2},
        "test_result": {"ndcg@10": 0.12, "hit@10": 0.19},
        "tested": [7],
        "command": "recbole-posattn tune --model=<b>",
        "origin": [("date", "2026-11-25"), ("seed", "2020")],
    }
    return SearchResult(**{**fields, **changes})


def test_the_winner_is_a_file_of_settings(tmp_path: Path) -> None:
    found = make_found()
    write_files(tmp_path, report_files(found))
    settings = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert settings == {**found.given, **found.best.settings}
    config = Config(dataset="ml-100k", config_file_list=[tmp_path / "best.yaml"], command_line=[])
    assert all(config[key] == value for key, value in found.best.settings.items() if key != "learning_rate")
    assert config["learning_rate"] == pytest.approx(found.best.settings["learning_rate"], rel=1e-12)
    assert config["epochs"] == 7


def test_the_table_has_every_trial() -> None:
    found = make_found()
    table = pd.read_csv(io.StringIO(report_files(found)["trials.csv"]))
    assert table.columns.tolist() == [
        *("trial", "state", "ndcg@10", "best_epoch", "last_epoch", "seconds", "error"),
        *(key for key in SPACE.keys),
    ]
    for record, row in zip(found.records, table.itertuples(index=False), strict=True):
        assert (row.trial, row.state, row.seconds) == (record.number, record.state, record.seconds)
        assert row.last_epoch == len(record.curve)
        if record.curve:
            assert (row[2], row.best_epoch) == (record.best(True), record.curve[-1][0])
            assert pd.isna(row.error)
        else:
            assert pd.isna(row[2]) and row.error == record.error
    assert table["kernel_bandwidth"].isna().sum() == 6 + 2


def test_importance_is_with_the_key_that_matters() -> None:
    found = importances(make_records(), SPACE, {}, bigger=True)
    assert next(iter(found)) == "learning_rate" and found["learning_rate"] > 0.9
    assert sum(found.values()) == pytest.approx(1)
    assert "kernel_bandwidth" not in found  # not all trials have it
    assert importances(make_records()[:3], SPACE, {}, bigger=True) == {}
    same = [record._replace(curve=[(1, 0.5)]) for record in make_records()]
    assert importances(same, SPACE, {}, bigger=True) == {}


@pytest.mark.parametrize(("n_trials", "cautious"), [(8, True), (20, False)])
def test_importances_of_few_trials_come_with_a_caution(n_trials: int, cautious: bool) -> None:
    """Trials without a score do not count; the picture says it, too, as it is seen without the page."""
    records = make_records(n_trials)
    records.append(TrialRecord(99, FINISHED, records[0].settings, [(1, math.nan)], 1.0))
    (axis,) = draw_importance(records, SPACE, {}, bigger=True).axes
    assert axis.get_title() == ("Caution: 8 trials are too few to rank keys." if cautious else "")
    files = report_files(make_found(records=records))
    assert ("Caution: 8 trials are too few" in str(files["report.html"])) == cautious


def test_labels_of_many_keys_do_not_overlap() -> None:
    """Neither those of values, with the next axis or each other, nor the names of keys; twelve keys, long values."""
    long = tuple(f"banded_toeplitz-banded_toeplitz-{number}" for number in range(6))
    dimensions = [Dimension(f"kernel_structure_number_{number}", "choice", long, {}) for number in range(12)]
    records = [
        TrialRecord(number, FINISHED, {each.key: long[number % 6] for each in dimensions}, [(1, 0.1 + 0.01 * number)])
        for number in range(9)
    ]
    figure = draw_parallel(records, Space(dimensions), "ndcg@10", bigger=True)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    values = [text.get_window_extent() for text in axis.texts]
    for one, other in itertools.combinations(values, 2):
        assert not one.shrunk(0.98, 0.98).overlaps(other)
    lines = axis.transData.transform([(place, 0) for place in range(len(dimensions) + 1)])[:, 0]
    assert not any(box.x0 < line < box.x1 for box in values for line in lines)
    names = [label for label in axis.get_xticklabels() if label.get_text()]
    angle = math.radians(names[0].get_rotation())
    size = names[0].get_fontsize() * figure.dpi / 72
    assert (lines[1] - lines[0]) * math.sin(angle) > size  # slanted lines of text, this far apart


def test_the_progress_bar_names_a_search_as_it_is() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=110)
    with LiveSearch("SASRec [ours] [/x]", 2, "ndcg@10", True, console) as live:
        live.add(make_records(2)[0])
    assert "SASRec [ours] [/x] " in console.file.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_each_trial_is_one_short_line(is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=110)
    records = make_records(5)
    with LiveSearch("PosKernelSASRec on ml-100k", len(records), "ndcg@10", True, console) as live:
        for record in records:
            live.add(record._replace(error="a NaN") if record.error else record)
    printed = console.file.getvalue()
    lines = [line.strip() for line in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", printed).splitlines() if "trial " in line]
    start = "PosKernelSASRec on ml-100k"
    assert lines == [
        f"{start}  1/7  trial 0, finished, ndcg@10 0.0300, epoch 9, 2 s (best so far)",
        f"{start}  2/7  trial 1, pruned, ndcg@10 0.0673, epoch 3, 2 s",
        f"{start}  3/7  trial 2, finished, ndcg@10 0.1300, epoch 9, 2 s (best so far)",
        f"{start}  4/7  trial 3, finished, ndcg@10 0.0550, epoch 9, 2 s",
        f"{start}  5/7  trial 4, pruned, ndcg@10 0.0923, epoch 3, 2 s",
        f"{start}  6/7  trial 5, failed, a NaN, 0 s",
        f"{start}  7/7  trial 6, died, a NaN, 0 s",
    ]


def test_a_pruned_trial_is_called_so_everywhere() -> None:
    text = html(make_found(), [])
    assert "stopped early" not in text and "pruned" in text
    assert "{u: per_layer, l: shared}" in text
    assert "learning_rate</dt><dd>0.01</dd>" in text.replace("\n", "")


@pytest.mark.slow
def test_the_best_so_far_goes_on_after_a_trial_without_a_score() -> None:
    records = [TrialRecord(n, FINISHED, {}, [(1, score)]) for n, score in enumerate((0.1, math.nan, 0.3, 0.2))]
    (axis,) = draw_history(records, "ndcg@10", bigger=True).axes
    (line,) = [line for line in axis.lines if line.get_drawstyle() == "steps-post"]
    assert (*line.get_xdata(),) == (0, 2, 3) and (*line.get_ydata(),) == (0.1, 0.3, 0.3)


def test_the_page_says_how_often_the_test_set_was_used() -> None:
    page = str(report_files(make_found())["report.html"])
    assert "The test set was used once: after the search, for this trial." in page
    page = str(report_files(make_found(tested=[3, 7]))["report.html"])
    assert "The test set was used 2 times" in page and "for the trials\n3, 7, each the best at its time." in page


def test_each_figure_is_there_or_left_out() -> None:
    files = report_files(make_found())
    pictures = {name for name, content in files.items() if name.endswith(".png")}
    assert pictures == {"history.png", "importance.png", "parallel.png", "curves.png"}
    assert all(files[name].startswith(b"\x89PNG") for name in pictures)
    records = make_records()[:1]
    few = report_files(make_found(records=records, best=records[0]))
    assert "importance.png" not in few and "history.png" in few
    lower = make_found(bigger=False)
    assert set(report_files(lower)) == set(files)


def test_a_page_escapes_what_it_is_told() -> None:
    text = html(make_found(), [])
    assert "<script>alert" not in text and "--model=<b>" not in text and "&lt;script&gt;alert" in text


@pytest.mark.slow
def test_the_page_opens_in_a_browser(browser: Any, tmp_path: Path) -> None:
    found = make_found()
    write_files(tmp_path, report_files(found))
    browser.get((tmp_path / "report.html").as_uri())
    table = browser.find_element("css selector", "#trials table")

    def order() -> list[str]:
        return [th.get_attribute("data-value") for th in table.find_elements("css selector", "tbody th")]

    assert order()[0] == str(found.best.number) and len(order()) == len(found.records)
    headers = table.find_elements("css selector", "thead th")

    def click(name: str) -> None:
        next(th for th in headers if th.text.startswith(name)).find_element("css selector", "button").click()

    click("learning_rate")
    rates = {str(record.number): record.settings["learning_rate"] for record in found.records}
    assert [rates[number] for number in order()] == sorted(rates.values())
    click("trial")
    assert order() == [str(number) for number in range(len(found.records))]  # 10 after 9
    click("state")
    states = {str(record.number): record.state for record in found.records}
    assert [states[number] for number in order()] == sorted(states.values())
    assert len(browser.find_elements("css selector", "figure svg")) == 4
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.get_log("browser") == []


def test_trials_without_a_score_and_trials_with_the_same_settings_are_no_reason_to_fail(tmp_path: Path) -> None:
    without = [TrialRecord(20 + n, FINISHED, make_records()[n].settings, [(1, math.nan)], 1.0) for n in range(3)]
    found = make_found()
    write_files(tmp_path, report_files(found._replace(records=[*found.records, *without])))
    assert (tmp_path / "report.html").is_file() and (tmp_path / "best.yaml").is_file()
    space, settings = Space([Dimension("hidden_size", "choice", (64, 128), {})]), {"hidden_size": 64}
    records = [TrialRecord(n, PRUNED, settings, [(1, 0.1 + 0.01 * (n == 0))], 1.0) for n in range(4)]
    assert importances(records, space, {"hidden_size": 64}, bigger=True) == {}


def test_a_searched_number_of_epochs_does_not_hide_those_trained(tmp_path: Path) -> None:
    records = [TrialRecord(0, PRUNED, {"epochs": 50}, [(1, 0.1), (2, 0.2)], 1.0)]
    space = Space([Dimension("epochs", "choice", (3, 50), {})])
    write_files(tmp_path, report_files(make_found(records=records, best=records[0], space=space)))
    table = pd.read_csv(tmp_path / "trials.csv")
    assert table["last_epoch"].tolist() == [2] and table["epochs"].tolist() == [50]

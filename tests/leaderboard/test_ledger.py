"""A leaderboard that outlives its machine: gone on with from its records, made again from them, published as JSON."""

from __future__ import annotations

import gc
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import matplotlib
import pandas as pd
import pytest

from recbole_posattn.cli import main as cli
from recbole_posattn.errors import DataError, UserError
from recbole_posattn.experiments import trials
from recbole_posattn.experiments.identity import identify
from recbole_posattn.experiments.leaderboard.leaderboard import make_leaderboard, remake_leaderboard
from recbole_posattn.experiments.leaderboard.public import SCHEMA, json_report
from recbole_posattn.experiments.leaderboard.spec import Spec, read_spec
from recbole_posattn.experiments.records import read_header
from recbole_posattn.experiments.run_folders import run_in_folder
from recbole_posattn.experiments.trials import Outcome, Resources
from recbole_posattn.settings.properties import named_file
from tests.leaderboard.test_report import PROVENANCE, PUBLISHED, make_board
from tests.test_house import ROOT

# Leaderboards of this clone that have their records.
COMMITTED = sorted(file.parent for file in (ROOT / "results").glob("*/leaderboard.md"))
DRAWN = {"density", "kernel_ablation_ml-100k", "loss_precision", "recipe_controls_ml-100k", "times_beauty"}

FILES = [f"leaderboard.{suffix}" for suffix in ("md", "csv", "tex", "html", "json")]


@pytest.fixture(scope="module", autouse=True)
def frozen_objects() -> Iterator[None]:
    """statsmodels collects garbage for each correction, through all objects of this process that are not frozen."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def spec(tiny_settings: Callable) -> Spec:
    settings = tiny_settings(use_gpu=False, epochs=1, metrics=["NDCG"], topk=[10])
    flags = {"models": ["NoPESASRec", "Pop"], "datasets": ["tiny"], "protocols": ["leave_one_out_masked"], "seeds": 2}
    return read_spec(None, flags, settings)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Trials run in this process, one after the other, in place of Ray; the started ones, by row and seed."""
    started: list[tuple[str, int]] = []

    def run_here(waiting: list, where: Resources, budget: Any) -> Iterator[Outcome]:
        for trial, folder in waiting:
            started.append((trial.name, trial.settings["seed"]))
            error = run_in_folder(trial.settings, folder, 1, deadline=budget.deadline)
            yield Outcome(trial, folder, error)

    handler = signal.getsignal(signal.SIGINT)  # which a run in a process of its own ignores
    monkeypatch.setattr(trials, "_run_on_ray", run_here)
    yield started
    signal.signal(signal.SIGINT, handler)


def scores(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "leaderboard.csv")
    return table[(table["kind"] == "metric") | table["metric"].isin(["parameters", "best_epoch"])]


def validated(folder: Path) -> dict[str, Any]:
    """The content of ``leaderboard.json``, which has the published format."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, schema)
    return content


def test_runs_without_a_test_target_are_failures_with_that_reason(
    spec: Spec, here: list, tmp_path: Path, tiny_data_path: Path
) -> None:
    """The newest interactions are all of items that do not occur before, so none is a target."""
    data = tmp_path / "data" / "new"
    data.mkdir(parents=True)
    rows = [f"u{u}\ti{(u + t) % 7}\t{t}" for u in range(20) for t in range(8)]
    rows += [f"u{u}\tnew{u}\t8" for u in range(20)]
    (data / "new.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows) + "\n")
    shutil.copytree(tiny_data_path / "tiny", tmp_path / "data" / "tiny")
    settings = {**spec.settings, "drop_unseen_targets": True, "data_path": str(tmp_path / "data"), "load_col": None}
    models = {name: {**row, **settings} for name, row in spec.models.items()}
    new = spec._replace(models=models, datasets=["new"], seeds=[2020])
    for _ in range(2):  # the second time, nothing runs
        with pytest.raises(
            UserError, match="all runs failed, the first one: NoPESASRec: its test split has no targets"
        ):
            make_leaderboard(new, tmp_path / "board", Resources())
        assert len(here) == 2
    both = make_leaderboard(new._replace(datasets=["new", "tiny"], settings={}), tmp_path / "board", Resources())
    assert [board.dataset for board in both.boards] == ["tiny"] and len(both.unfinished) == 2


@pytest.mark.slow
def test_half_a_board_goes_on_in_a_fresh_folder_and_is_made_again_from_its_records(
    spec: Spec, here: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after two runs, its ``runs/`` copied: both ends have the same table, each made once."""
    whole, half, fresh = (tmp_path / name for name in ("whole", "half", "fresh"))
    make_leaderboard(spec, whole, Resources())
    runs = [("NoPESASRec", 2020), ("Pop", 2020), ("NoPESASRec", 2021), ("Pop", 2021)]
    assert here == runs

    def stop(outcome: Outcome) -> None:
        if len(list(half.glob("runs/*/result.json"))) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "recbole_posattn.experiments.leaderboard.live.LiveTable.add", lambda table, outcome: stop(outcome)
        )
        make_leaderboard(spec, half, Resources())
    shutil.copytree(half / "runs", fresh / "runs", ignore=shutil.ignore_patterns("*.pth", "log*"))
    here.clear()
    make_leaderboard(spec, fresh, Resources())
    assert here == runs[2:]
    pd.testing.assert_frame_equal(scores(fresh), scores(whole))

    # A third one, elsewhere and with another name for a row, takes all from two folders; nothing is run.
    here.clear()
    renamed = spec._replace(models={"mine" if name == "Pop" else name: row for name, row in spec.models.items()})
    other = tmp_path / "other"
    make_leaderboard(renamed, other, Resources(), runs=[half, whole / "runs"])
    assert here == [] and len(list(other.glob("runs/*/users.parquet"))) == 4
    pd.testing.assert_frame_equal(scores(other), scores(whole).replace("Pop", "mine"))

    # From the records alone, on a machine without the data.
    content, bytes_before = validated(other), {name: (other / name).read_bytes() for name in FILES}
    assert [row["name"] for row in content["boards"][0]["rows"]] == scores(other)["model"].unique().tolist()
    folders = {folder.name for folder in (other / "runs").iterdir() if folder.is_dir()}
    assert {run["fingerprint"] for run in content["boards"][0]["runs"]} == folders
    clone = tmp_path / "clone"
    shutil.copytree(other / "runs", clone / "runs")
    shutil.copyfile(other / "leaderboard.json", clone / "leaderboard.json")
    monkeypatch.setattr("recbole_posattn.data.digest.data_digest", lambda config: pytest.fail("reads the data"))
    files = remake_leaderboard(clone, clone).files
    assert [file.name for file in files] == FILES
    assert {name: (clone / name).read_bytes() for name in FILES} == bytes_before
    damaged = next(folder for folder in (clone / "runs").iterdir() if folder.is_dir())
    for name in ("users.parquet", "result.json"):
        (damaged / name).write_text("{")
        with pytest.raises(DataError, match="a record of tiny, leave_one_out_masked cannot be read: "):
            remake_leaderboard(clone, clone)
    shutil.rmtree(damaged)
    with pytest.raises(DataError, match=r"result\.json is missing, the record of .*, seed 202"):
        remake_leaderboard(clone, clone)
    assert {name: (clone / name).read_bytes() for name in FILES} == bytes_before


@pytest.mark.slow
def test_the_page_says_what_is_missing_stopped_or_of_other_code(
    spec: Spec, here: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The budget is spent within the third of four runs; the first one is of another revision of the code."""
    out = tmp_path / "out"

    def next_run(table: Any, outcome: Outcome) -> None:
        file = outcome.folder / "result.json"
        if outcome.trial.settings["seed"] == 2020 and outcome.trial.name == "NoPESASRec":
            result = {**json.loads(file.read_text()), "git_revision": "0123abcd+changes"}
            result["seconds"]["training"] = 120.0
            file.write_text(json.dumps(result))
        if outcome.trial.settings["seed"] == 2021 and outcome.trial.name == "NoPESASRec":
            result = json.loads(file.read_text())
            result["config"]["max_minutes"] = 0.5
            file.write_text(json.dumps({**result, "stopped_by": "max_minutes", "epochs": 3}))
            monkeypatch.setattr("recbole_posattn.experiments.budget.Budget.is_spent", True)

    def run_here(waiting: list, where: Resources, budget: Any) -> Iterator[Outcome]:
        for trial, folder in waiting:
            if budget.is_spent:
                yield trials._without_time(trial, folder, budget)
            else:
                run_in_folder(trial.settings, folder, 1)
                yield Outcome(trial, folder)

    monkeypatch.setattr(trials, "_run_on_ray", run_here)
    monkeypatch.setattr("recbole_posattn.experiments.leaderboard.live.LiveTable.add", next_run)
    unfinished = make_leaderboard(spec, out, Resources(), minutes=60).unfinished
    assert [(outcome.trial.name, outcome.started) for outcome in unfinished] == [("Pop", False)]
    for name in ("leaderboard.md", "leaderboard.html"):
        text = (out / name).read_text(encoding="utf-8").replace("\\", "")
        assert "Pop, seed 2021: the budget of 60 minutes was spent" in text
        assert "NoPESASRec, seed 2021: stopped by max_minutes 0.5 after 3 epochs; the best one so far, epoch 1" in text
        assert "Trained longer than stopped runs" in text
        assert "NoPESASRec, seed 2020: 2 minutes instead of 0.5" in text
        assert "Pop, seed 2020: " not in text
        assert "0123abcd+changes: NoPESASRec" in text and "Different revisions of the code" in text
        assert "1 of 2" in text and ("1.0 of 2.0, stopped" in text or name.endswith(".md"))  # a chosen column
    content = validated(out)
    (board,) = content["boards"]
    assert board["not_started"] == [{"row": "Pop", "seed": 2021, "reason": "the budget of 60 minutes was spent"}]
    assert [run["stopped_by"] for run in board["runs"]] == [None, "max_minutes", None]
    before = {name: (out / name).read_bytes() for name in FILES}
    remake_leaderboard(out, out)
    assert {name: (out / name).read_bytes() for name in FILES} == before


def test_a_budget_of_nothing_is_no_table(tiny_data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["leaderboard", "--models=Pop", "--datasets=tiny", f"--data_path={tiny_data_path}", f"--output={tmp_path}"]
    assert cli.main([*given, "--budget=0"]) == cli.EXIT_USER_ERROR
    assert "no run was started, the first one: Pop: the budget of 0 minutes was spent" in capsys.readouterr().err


def test_the_format_holds_all_that_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.json").write_text(json_report([make_board()], PUBLISHED))
    content = validated(tmp_path)
    (board,) = content["boards"]
    (pop,) = [row for row in board["rows"] if row["name"] == "Pop"]
    assert pop["scores"]["ndcg@10"] == {
        **{"mean": 0.01, "deviation": 0.0, "low": 0.005, "high": 0.015, "p": 0.0004},
        **{"verdict": "worse", "few_seeds": True, "best": False, "seeds": {"1": 0.01, "2": 0.01}},
    }
    assert pop["costs"]["parameters"] == 1 and board["reference"] == "SASRec" and board["n_users"] == 943
    assert len(board["curves"]) == len(make_board().curves) and len(board["groups"]) == 8
    assert board["failures"][0]["seed"] == 2 and content["notes"] == PROVENANCE.notes
    assert [entry["model"] for entry in content["published"]] == ["BSARec", "SASRec"]
    assert content["command"] == PROVENANCE.command and content["versions"] == PROVENANCE.versions


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_leaderboards_have_the_format_and_their_records(folder: Path) -> None:
    content = validated(folder)
    recorded = {record.parent.name for record in folder.glob("runs/*/users.parquet")}
    assert recorded == {run["fingerprint"] for board in content["boards"] for run in board["runs"]}


@pytest.mark.slow
@pytest.mark.skipif(not COMMITTED, reason="the results are part of a clone, not of the wheel")
def test_committed_records_are_known_to_this_version() -> None:
    """Their settings lack the keys that were added since: see ``before`` in ``settings/key.py`` if this fails."""
    block = {"backbone": "sasrec", "inner_size": None, "hidden_act": "relu"}
    defaults = {"train_mask_history": False, **block}  # of the time
    spec = read_spec(named_file("leaderboard", "encodings"), {"protocols": ["temporal"], "seeds": 1}, defaults)
    folder = ROOT / "results" / "encodings_ml-100k_temporal" / "runs"
    results = [read_header(file) for file in folder.glob("*/result.json")]
    identities = {
        trial.name: identify(trial.settings)
        for trial in spec.trials("ml-100k", "temporal")
        if trial.settings["model"] != "PosKernelSASRec"
        or trial.name.endswith("no branch")  # its defaults are others since
    }
    unknown = [name for name, identity in identities.items() if sum(map(identity.is_of, results)) != 1]
    assert unknown == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_leaderboards_are_made_again_from_their_records(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte; but another version of Matplotlib than that of the constraints may draw a figure otherwise.

    Figures take most of the time, so the pages of some leaderboards stand for all.
    """
    names = ["leaderboard.md", "leaderboard.tex"]
    if folder.name in DRAWN:
        names.append("leaderboard.html")
    else:
        monkeypatch.setattr("recbole_posattn.experiments.leaderboard.page.draw_board", lambda board: [])
    remake_leaderboard(folder, tmp_path)
    pinned = f"matplotlib=={matplotlib.__version__}" in (ROOT / "constraints.txt").read_text().splitlines()
    for name in names:
        made, committed = ((where / name).read_text(encoding="utf-8") for where in (tmp_path, folder))
        if not pinned:
            made, committed = (re.sub(r"<svg.*?</svg>", "", text, flags=re.S) for text in (made, committed))
        assert made == committed, name
    tables = [pd.read_csv(where / "leaderboard.csv") for where in (tmp_path, folder)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "leaderboard.json cannot be read: No such file or directory; a leaderboard writes it when it ends"),
        ("{", "is not a leaderboard of this package: JSONDecodeError"),
        ("[]", "is not a leaderboard of this package: TypeError"),
        ('{"format_version": 99}', "has format version 99, and this package reads 1"),
        ('{"format_version": 1}', "is not a leaderboard of this package: KeyError"),
    ],
)
def test_what_is_no_leaderboard_is_not_made_again(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if text is not None:
        (tmp_path / "leaderboard.json").write_text(text)
    assert cli.main(["leaderboard", f"--from={tmp_path}"]) == cli.EXIT_USER_ERROR
    told = capsys.readouterr()
    assert told.out == "" and message in told.err and told.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["leaderboard.json"][: text is not None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--from=x", "--models=Pop"], "--from reads everything but --output from the leaderboard; leave out --models"),
        (["--from=x", "--jobs=2", "--cpus=1", "--budget=0"], "leave out --jobs --cpus --budget"),
        (["--from=x", "--num_samples=3", "--plugin=mine"], "leave out --plugin --num_samples"),
        (["--from=x", "encodings", "--epochs=1"], "leave out encodings --epochs=1"),
        (["--models=Pop", "--num_samples=5"], "num_samples 5 is for --tune; give --tune as well, or leave it out"),
        (["--models=Pop", "--budget=-1"], "budget must be a number of minutes, at least 0; got -1.0"),
        (["--models=Pop", "--budget=nan"], "budget must be a number of minutes"),
        (["--models=Pop", "--runs=nowhere"], "there is no folder nowhere"),
        (["--models=Pop", f"--runs={'x' * 3000}"], "there is no folder xxx"),
        ([f"--from={'x' * 3000}"], "cannot be read: File name too long"),
        (["--from=a\0b"], "is not a leaderboard of this package: ValueError"),
        (["--models=Pop", f"--published={'x' * 3000}"], "cannot be read: File name too long"),
        (["--models=Pop", "--max_minutes=0"], "max_minutes must be a number above 0"),
        (["--models=Pop", "--published=nowhere.json"], "published file nowhere.json cannot be read: No such file"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(
    given: list[str], message: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    assert cli.main(["leaderboard", *given]) == cli.EXIT_USER_ERROR
    told = capsys.readouterr()
    assert told.out == "" and message in told.err and told.err.count("\n") == 1
    assert not list(empty_folder.rglob("leaderboard.*"))

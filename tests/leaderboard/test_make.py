"""A leaderboard from the command line: stopped and taken up again, with a run that fails, with bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from recbole_posattn import run
from recbole_posattn.cli import main as cli
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.leaderboard import leaderboard as make
from recbole_posattn.experiments.leaderboard import tuned
from recbole_posattn.experiments.leaderboard.spec import Spec
from recbole_posattn.experiments.run_folders import FAILURE_NAME
from recbole_posattn.experiments.trials import Outcome, Resources, Trial
from recbole_posattn.experiments.tuning.records import FAILED, TrialRecord
from tests.systems import needs_posix

# A leaderboard whose process is killed when the first run has ended; Ray's processes have not ended yet.
KILLED_AFTER_A_RUN = """
import os, signal, sys
from recbole_posattn.cli import main as cli
from recbole_posattn.experiments.leaderboard.live import LiveTable

LiveTable.add = lambda table, outcome: os.kill(os.getpid(), signal.SIGKILL)
cli.main(sys.argv[1:])
"""


def flags(data_path: Path, output: Path, *more: str) -> list[str]:
    """A leaderboard of seconds, without its models and seeds."""
    return [
        *("--datasets=tiny", f"--data_path={data_path}", f"--output={output}"),
        *("--protocols=leave_one_out_masked", "--cpus=1", "--epochs=3", "--hidden_size=16"),
        *("--MAX_ITEM_LIST_LENGTH=10", "--use_gpu=False", *more),
    ]


def scores(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "leaderboard.csv")
    return table[table["kind"] == "metric"].reset_index(drop=True)


@needs_posix
@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_killed_and_started_again_it_ends_with_the_same_table(
    tiny_data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture, request: pytest.FixtureRequest
) -> None:
    """It is killed when one of its three runs is finished and another in progress."""
    whole, killed, file = tmp_path / "whole", tmp_path / "killed", tmp_path / "mine.yaml"
    file.write_text("models: {NoPESASRec: NoPESASRec, Pop: {model: Pop, seeds: [1]}}\nseeds: [1, 2]\n")

    def arguments(output: Path, *more: str) -> list[str]:
        return ["leaderboard", str(file), *flags(tiny_data_path, output, *more)]

    killed_one = [sys.executable, "-c", KILLED_AFTER_A_RUN, *arguments(killed, "--jobs=2")]
    died = subprocess.run(killed_one, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    finished = len(list(killed.glob("runs/*/result.json")))
    assert 1 <= finished < 3 and not (killed / "leaderboard.md").exists()
    capsys.readouterr()
    assert cli.main(arguments(killed, "--jobs=2")) == 0
    again = capsys.readouterr()
    assert again.err.count(": reused") >= finished and "written: " in again.out
    assert again.err.count(": reused") + again.err.count(": done") == 3

    request.getfixturevalue("without_ray")
    assert cli.main(arguments(whole)) == 0
    assert "NoPESASRec" in (whole / "leaderboard.md").read_text(encoding="utf-8")
    pd.testing.assert_frame_equal(scores(killed), scores(whole))


@pytest.mark.parametrize(
    ("given", "seeds"), [("2", [2020, 2021]), ("[7]", [7]), ("[7, 5]", [7, 5]), ("7,5", [7, 5]), (" 1 ", [2020])]
)
def test_seeds_are_a_number_or_a_list(
    given: str, seeds: list[int], monkeypatch: pytest.MonkeyPatch, tiny_data_path: Path, tmp_path: Path
) -> None:
    class Read(Exception):
        pass

    def stop(spec: Spec, *_: object, **__: object) -> None:
        assert spec.seeds == seeds
        raise Read

    monkeypatch.setattr(make, "make_leaderboard", stop)
    with pytest.raises(Read):
        cli.main(["leaderboard", *flags(tiny_data_path, tmp_path), "--models=NoPESASRec,Pop", f"--seeds={given}"])


@pytest.mark.parametrize("given", ["a", "1.5", "[]", "[1", "1,,2", "[[1]]"])
def test_seeds_that_are_neither_are_refused(given: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["leaderboard", "--models=Pop", f"--seeds={given}"])
    assert stop.value.code == cli.EXIT_USER_ERROR
    assert "argument --seeds: must be a number of seeds, such as 3, or a list" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_a_failed_run_stands_in_the_report_and_the_exit_code(
    tiny_data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "models: {fine: NoPESASRec, exploding: {model: BPR, learning_rate: 1e+30, epochs: 30}}\n"
        "seeds: [1]\nnot_run: {BERT4Rec: takes a day}\nnotes: [Nothing was tuned.]\n"
    )
    arguments = [argument for argument in flags(tiny_data_path, tmp_path / "out") if "epochs" not in argument]
    assert cli.main(["leaderboard", str(file), *arguments]) == cli.EXIT_FAILURE
    output = capsys.readouterr()
    assert "exploding, seed 1, failed: " in output.err and "nan" in output.err
    report = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "Failed:" in report and "exploding, seed 1" in report and "takes a day" in report
    assert "Nothing was tuned" in report
    assert len(list(tmp_path.glob(f"out/runs/*/{FAILURE_NAME}"))) == 1


@pytest.mark.slow
def test_failures_are_told_where_no_run_of_a_protocol_finishes(
    tiny_data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run under the first protocol is a real one; under the second it is said to have failed."""

    def run_trials(trials: dict[Path, Trial], where: Resources, budget: Budget) -> Iterator[Outcome]:
        for folder, trial in trials.items():
            failed = trial.settings["protocol"] == "temporal"
            if not failed:
                result = run(config_dict=trial.settings, command_line=[])
                Path(result["checkpoint"]).parent.rename(folder)
            yield Outcome(trial, folder, "out of memory" if failed else None)

    monkeypatch.setattr(make, "run_trials", run_trials)
    arguments = flags(tiny_data_path, tmp_path / "out", "--show_progress=False")
    arguments = [argument for argument in arguments if not argument.startswith("--protocols")]
    protocols = "--protocols=leave_one_out,temporal"
    assert cli.main(["leaderboard", "--models=Pop", "--seeds=1", protocols, *arguments]) == cli.EXIT_FAILURE
    assert "Pop, seed 2020, failed: out of memory" in capsys.readouterr().err
    report = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "tiny, temporal: no run finished. Pop, seed 2020: out of memory" in report and "## tiny, leave" in report


def test_a_row_tuned_to_the_settings_of_another_is_left_out(
    tiny_data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    """Even the reference; the row of more seeds stays."""
    monkeypatch.setattr(make, "tune_rows", lambda *_: {"a": {"n_layers": 1}})
    file = tmp_path / "mine.yaml"
    file.write_text(
        "models: {b: {model: NoPESASRec, n_layers: 1, seeds: [1]}, a: {model: NoPESASRec, n_layers: 2}, Pop: Pop}\n"
        "seeds: [1, 2]\nreference: b\n"
    )
    assert cli.main(["leaderboard", str(file), *flags(tiny_data_path, tmp_path), "--tune"]) == 0
    report = json.loads((tmp_path / "leaderboard.json").read_text())
    assert "tiny, leave_one_out_masked: b is left out: it was tuned to the settings of a." in report["notes"]
    (board,) = report["boards"]
    runs = {(run["row"], run["seed"]) for run in board["runs"]}
    assert board["reference"] == "a" and runs == {(row, seed) for row in ("a", "Pop") for seed in (1, 2)}


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray", "without_ray")
def test_every_row_is_tuned_by_as_many_trials(
    tiny_data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Keys that a row sets itself are not searched, a row without a space is not tuned, a second call searches nothing.

    The trials run on Ray, the runs with the best settings in this process.
    """
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text("models: {wide: {model: NoPESASRec, n_layers: 1}, Pop: Pop}\nseeds: [1]\n")
    arguments = ["leaderboard", str(file), *flags(tiny_data_path, out), "--tune", "--num_samples=2", "--jobs=2"]
    assert cli.main(arguments) == 0
    (search,) = out.glob("tuning/*/*/trials.jsonl")
    trials = [json.loads(line) for line in search.read_text().split("\n") if line]
    assert len(trials) == 2 and not any({"n_layers", "hidden_size"} & set(trial["settings"]) for trial in trials)
    finished = [trial for trial in trials if trial["state"] == "finished"]
    best = max(finished, key=lambda trial: max(score for _, score in trial["curve"]))["settings"]
    configs = {
        result["model"]: result["config"]
        for result in (json.loads(found.read_text()) for found in out.glob("runs/*/result.json"))
    }
    assert {key: configs["NoPESASRec"][key] for key in best} == best and configs["NoPESASRec"]["n_layers"] == 1
    assert set(configs) == {"NoPESASRec", "Pop"}
    report = (out / "leaderboard.md").read_text(encoding="utf-8")
    assert "each row was tuned by 2 trials" in report and "Pop: nothing to search" in report
    capsys.readouterr()
    before = search.stat().st_mtime
    assert cli.main(arguments) == 0 and search.stat().st_mtime == before
    assert capsys.readouterr().err.count(": reused") == 2


@pytest.mark.slow
def test_a_row_whose_trials_all_fail_is_in_the_exit_code(
    tiny_data_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    without_ray: None,
) -> None:
    """It runs with its own settings, and the report says so."""
    failed = [TrialRecord(0, FAILED, {}, [], error="hidden_size must be a multiple of n_heads")]
    monkeypatch.setattr(tuned, "run_search", lambda *_: failed)
    given = flags(tiny_data_path, tmp_path)
    arguments = ["leaderboard", *given, "--models=NoPESASRec", "--seeds=1", "--tune", "--num_samples=1", "--topk=[10]"]
    assert cli.main(arguments) == cli.EXIT_FAILURE
    expected = "NoPESASRec is not tuned, as no trial finished: hidden_size must be a multiple of n_heads\n"
    assert expected in capsys.readouterr().err
    report = (tmp_path / "leaderboard.md").read_text()
    assert "no trial finished, so its settings are unchanged" in report
    assert "topk [10] instead of the protocol's [5, 10, 20]" in report.replace("\\", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--models=Popp"], "model 'Popp' is unknown. Did you mean 'Pop'"),
        (["--models=Pop", "--jobs=0"], "jobs and cpus must be positive integers"),
        (["--models=Pop", "--datasets=tinny"], "data set 'tinny' not found"),
        (["--models=NoPESASRec", "--hidden_size=0"], "NoPESASRec: hidden_size must be a positive integer; got 0"),
        (["--models=Pop", "surplus", "more"], "argument 'more' is not understood"),
        (["nothing.yaml"], "or a YAML file; got 'nothing.yaml'"),
        ([], "no models; name some with --models"),
        (["--models=Pop", "--output=/dev/null/here"], "/dev/null/here cannot be written"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(
    given: list[str], message: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    assert cli.main(["leaderboard", *given]) == cli.EXIT_USER_ERROR
    output = capsys.readouterr()
    assert output.out == "" and message in output.err and output.err.count("\n") == 1
    assert not list(empty_folder.rglob("leaderboard.*"))

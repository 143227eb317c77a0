"""The launcher and the command as a user meets them: what is printed, written, and the exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recbole_posattn
from recbole_posattn.cli import main as cli

LAUNCHER = Path(recbole_posattn.__file__).parent.parent / "run_recbole_posattn.py"


@pytest.fixture
def tiny_flags(tiny_data_path: Path) -> list[str]:
    return [
        "--dataset=tiny",
        f"--data_path={tiny_data_path}",
        *("--epochs=1", "--hidden_size=16", "--MAX_ITEM_LIST_LENGTH=10", "--show_progress=False"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not LAUNCHER.exists(), reason="the launcher is part of a checkout, not of the wheel")
def test_launcher_trains_and_prints_the_table(tiny_flags: list[str], empty_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), "--model=PosKernelSASRec", *tiny_flags], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PosKernelSASRec on tiny") and "ndcg@10" in done.stdout
    assert "PosKernelSASRec on tiny" not in done.stderr and "valid result" in done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in empty_folder.iterdir()) == ["log", "log_tensorboard", "saved"]


@pytest.mark.slow
@pytest.mark.skipif(not LAUNCHER.exists(), reason="the launcher is part of a checkout, not of the wheel")
def test_launcher_says_which_version_does_not_work(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = empty_folder / "pandas-3.0.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: pandas\nVersion: 3.0.0\n")
    monkeypatch.setenv("PYTHONPATH", str(empty_folder))
    done = subprocess.run([sys.executable, str(LAUNCHER)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("recbole-posattn: pandas 3.0.0 is installed")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("prefix", [[], ["run"]])
def test_flags_are_recboles(prefix: list[str], tiny_flags: list[str], empty_folder: Path) -> None:
    (empty_folder / "a.yaml").write_text("n_layers: 3\nseed: 5\n")
    (empty_folder / "b.yaml").write_text("seed: 6\n")
    start = cli.main if prefix else cli.launch
    assert (
        start([*prefix, "-m", "PosKernelSASRec", "--config_files", "a.yaml b.yaml", "--n_layers=1", *tiny_flags]) == 0
    )
    (folder,) = (empty_folder / "saved").iterdir()
    report = (folder / "result.json").read_text()
    assert '"n_layers": 1' in report and '"seed": 6' in report


def test_without_arguments_it_is_poskernelsasrec_on_ml_100k(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "recbole_posattn.training.run.ensure_atomic_files", lambda config, **options: seen.update(config.plain())
    )
    monkeypatch.setattr("recbole_posattn.training.run.run_logger", lambda config: sys.exit(0))
    with pytest.raises(SystemExit):
        cli.launch([])
    assert (seen["model"], seen["dataset"]) == ("PosKernelSASRec", "ml-100k")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=Foo"], "model 'Foo' is unknown"),
        (["--dataset=nowhere"], "data set 'nowhere' not found"),
        (["--kernel_structure=toplitz-full"], "Did you mean 'toeplitz-full'?"),
        (["--kernel_structure=banded-full"], "needs kernel_bandwidth"),
        (["--kernel_structure=banded-full", "--kernel_bandwidth=0"], "kernel_bandwidth must be a positive integer"),
        (["--kernel_structure=banded-full", "--kernel_bandwidth=99"], "at most MAX_ITEM_LIST_LENGTH"),
        (["--n_heads=3"], "hidden_size must be a multiple of n_heads"),
        (["--config_files=nowhere.yaml"], "config file nowhere.yaml cannot be read"),
        (["epochs=3"], "argument 'epochs=3' is not understood; give settings as --key=value"),
        (["--epochs", "3"], "argument '--epochs' is not understood; give settings as --epochs=VALUE, with an equals"),
        (["--seed=010"], "seed must be an integer"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    assert cli.launch(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert err.startswith("recbole-posattn: ") and err.count("\n") == 1
    assert [path for path in empty_folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=BPR", "-m", "Pop"], "argument --model/-m: was given twice, as 'BPR' and 'Pop'; give it once"),
        (["--nproc=1", "--nproc=2"], "argument --nproc: was given twice, as 1 and 2; give it once"),
        (["--config_files=a.yaml", "--config_files=b.yaml"], "argument --config_files: was given twice"),
    ],
)
def test_a_flag_given_twice_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.launch(arguments)
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["models", "--type=general", "--type=sequential"])


@pytest.mark.parametrize("arguments", [["--output="], ["--output", ""], ["--exclude", ""], ["--users="]], ids=str)
def test_an_empty_value_is_refused(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    """It is usually that of an unset shell variable, and would stand for the default or the current folder."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["recommend", "saved/run", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0].rstrip('=')}" in (error := capsys.readouterr().err) and "needs a value" in error


def test_a_flag_may_be_repeated_with_one_value_and_from_call_to_call(capsys: pytest.CaptureFixture) -> None:
    parser = cli.parsers()["run"]
    assert parser.parse_args(["--model=Pop", "-m", "Pop", "--plugin=a", "--plugin=b"]).plugin == ["a", "b"]
    assert parser.parse_args(["--model=BPR"]).model == "BPR"


def test_a_plugin_does_not_hide_a_flag_of_the_launcher(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["leaderboard", "--models=Pop", "--plugin=json", "--config_files=a.yaml"]) == 2
    assert "--config_files is a flag of the commands run, " in capsys.readouterr().err


def test_bad_rows_end_in_code_2_too(capsys: pytest.CaptureFixture, empty_folder: Path) -> None:
    folder = empty_folder / "dataset" / "mine"
    folder.mkdir(parents=True)
    (folder / "mine.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ti\tsoon\nu\tj\t2\n")
    assert cli.launch(["--dataset=mine"]) == 2
    assert (
        "recbole-posattn: dataset/mine/mine.inter, line 2: column 'timestamp' must be a number"
        in capsys.readouterr().err
    )


def test_interrupt_ends_in_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_posattn.training.run.run", interrupted)
    assert cli.launch([]) == 130
    assert capsys.readouterr().err == "recbole-posattn: interrupted\n"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("recbole_posattn.training.run.run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.launch([])


def test_version_and_help(capsys: pytest.CaptureFixture) -> None:
    for flag, text in (("--version", f"recbole-posattn {recbole_posattn.__version__}"), ("--help", "run")):
        with pytest.raises(SystemExit) as stop:
            cli.main([flag])
        assert stop.value.code == 0 and text in capsys.readouterr().out

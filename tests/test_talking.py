"""What the command line says: nearest names for mistyped ones, lists of models and keys, and the shell's completion."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from recbole_posattn.cli import main as cli
from recbole_posattn.cli.parser import Parser, names_in
from recbole_posattn.errors import counted, did_you_mean
from recbole_posattn.experiments import cluster
from recbole_posattn.experiments.cluster import Resources
from recbole_posattn.settings.catalogue import key_entries, model_entries
from recbole_posattn.settings.keys import KEYS
from recbole_posattn.settings.properties import PROPERTIES, recbole_model_names
from recbole_posattn.settings.registry import registered_model_names
from recbole_posattn.training import cpu_watch, environment
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME, checkpoint_file


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """The line in which a command line is refused."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("recbole-posattn: "), (code, out, err)
    return err.removeprefix("recbole-posattn: ").strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recomend", "best.pth"], "must be one of setup, run, leaderboard, overview, tune, data, recommend, export"),
        (["recomend", "best.pth"], "got 'recomend'. Did you mean 'recommend'? (see recbole-posattn --help)"),
        (["train"], "Did you mean 'run'?"),
        (["Predict"], "got 'Predict'."),
        (["predict"], "Did you mean 'recommend'?"),
        (["convert", "log.csv"], "Did you mean 'data convert'?"),
        (["data", "stats", "mine", "--jsn"], "Did you mean '--json'? (see recbole-posattn data stats --help)"),
        (["data", "convrt"], "Did you mean 'convert'? (see recbole-posattn data --help)"),
        (["--verson"], "a command comes before its flags; got '--verson'. Did you mean '--version'?"),
        (["--model=SASRec"], "got '--model=SASRec'. Did you mean 'recbole-posattn run --model=SASRec'?"),
        (["--epochs=3", "run"], "got '--epochs=3'. Did you mean 'recbole-posattn run --epochs=3'?"),
        (["--from=results/a"], "got '--from=results/a'. Did you mean 'recbole-posattn leaderboard --from=results/a'?"),
        (["--jobs=2"], "a command (leaderboard, tune) comes before its flags; got '--jobs=2'. (see recbole-posattn"),
        (["--attention=none"], "got '--attention=none'. Did you mean 'recbole-posattn run --attention=none'?"),
        (["--help=x"], "comes before its flags; got '--help=x'. Did you mean '--help'?"),
        (["--"], "keys, completion) comes before its flags; got '--'. (see recbole-posattn --help)"),
        (["-x"], "keys, completion) comes before its flags; got '-x'. (see recbole-posattn --help)"),
        (["recommend", "best.pth", "--retsrict_to=x"], "--retsrict_to=x. Did you mean '--restrict_to'? (see recbole-"),
        (["recommend", "best.pth", "--history=inlude"], "got 'inlude'. Did you mean 'include'?"),
        (["inspect", "best.pth", "--max-users=3"], "Did you mean '--max_users'?"),
        (["data", "convert", "log.csv", "--name=x", "--min-rating=3"], "Did you mean '--min_rating'?"),
        (
            ["export", "best.pth", "--format=onx"],
            "argument --format: must be one of onnx, torch-export; got 'onx'.",
        ),
        (["interference", "a.pth", "b.pth", "c.pth"], "unrecognized arguments: b.pth c.pth. (see"),
        (
            ["inspect", "a.pth", "--output=x", "b.pth"],
            "unrecognized arguments: b.pth. Name all files and folders before the first flag.",
        ),
        (["run", "--modle=SASRec"], "argument '--modle=SASRec' is not understood. Did you mean --model?"),
        (["run", "--nprocs=2"], "argument '--nprocs=2' is not understood. Did you mean --nproc?"),
        (["run", "--datset", "mine"], "argument '--datset' is not understood. Did you mean --dataset?"),
        (["leaderboard", "--jbos=2"], "argument '--jbos=2' is not understood. Did you mean --jobs?"),
        (["tune", "--num_sample=3"], "argument '--num_sample=3' is not understood. Did you mean --num_samples?"),
    ],
    ids=str,
)
def test_what_is_mistyped_gets_the_nearest_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert message in refused(arguments, capsys)


def test_a_key_that_resembles_a_flag_is_a_key() -> None:
    """``seed`` resembles the flag ``--seeds`` of leaderboards, and a key of a model may resemble one as well."""
    from recbole_posattn.cli.parser import check_flags

    check_flags(
        ["--seed=3", "--epochs=2", "--n_layers=2", "--my_own=1", "word"], ["--seeds", "--epoch", "--n_layer"], {}
    )


def test_a_setting_that_contains_a_space_is_a_setting(capsys: pytest.CaptureFixture) -> None:
    setting = "--learner_args={betas: [0.9, 0.98]}"
    for arguments in ([setting, "baselines"], ["baselines", setting], [setting]):
        message = refused(["leaderboard", *arguments, "--models=Popp"], capsys)
        assert "model 'Popp' is unknown" in message
    assert names_in('A, "B, C",\nD') == ["A", "B, C", "D"]
    _, rest = Parser(prog="x").parse_known_args(["--b={c: d}", "--a=1", "--b={c: e}"])
    assert rest == ["--b={c: d}", "--a=1", "--b={c: e}"]


def test_output_may_have_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a pipe on Windows, which has no γ."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", output)
    assert cli.main(["keys", "PosKernelSASRec"]) == 0
    assert b"kernel_branch" in output.buffer.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--jobs=2"], "--jobs is a flag of the commands leaderboard, tune, not of this command"),
        (["run", "--jobs", "2"], "--jobs is a flag of the commands leaderboard, tune, not of this command"),
        (["run", "--models=Pop"], "--models is a flag of the commands leaderboard, overview, not of this command"),
        (["leaderboard", "--models=Pop", "--grace_period=5"], "--grace_period is a flag of the command tune, not of"),
        (
            ["leaderboard", "--models=Pop", "--config_files=a.yaml"],
            "--config_files is a flag of the commands run, tune",
        ),
        (["tune", "--nproc=2"], "--nproc is a flag of the command run, not of this command"),
        (["tune", "--budget=5"], "--budget is a flag of the command leaderboard, not of this command"),
    ],
    ids=str,
)
def test_a_flag_of_another_command_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert message in refused(arguments, capsys)


def test_a_key_that_is_a_flag_of_another_command_is_a_key() -> None:
    from recbole_posattn.cli.parser import check_flags

    check_flags(["--k=3", "--encoding=utf-8", "--data_path=here"], [], cli.parsers())


def test_no_command_is_misled_by_a_shortened_flag(capsys: pytest.CaptureFixture) -> None:
    assert "unrecognized arguments: --overwrit" in refused(["export", "best.pth", "--overwrit"], capsys)


# -- one name for one thing ------------------------------------------------------------------------------------------


def test_every_command_that_writes_takes_output_and_its_old_name() -> None:
    writing = {name for name, parser in cli.parsers().items() if "--output" in parser.flags()}
    assert writing == {*("leaderboard", "overview", "tune", "data", "recommend", "export", "inspect", "interference")}
    assert all("--out" in parser.flags() for name, parser in cli.parsers().items() if name in writing)


def test_flags_of_one_meaning_have_one_name() -> None:
    """The old spellings are still read, into the same place."""
    of_commands = cli.parsers()
    for arguments in (["--cpus=2", "--gpus=0.5"], ["--resources=cpu=2,gpu=0.5"]):
        options = of_commands["tune"].parse_args(arguments)
        from recbole_posattn.cli.tune import resources_of

        assert resources_of(options) == {"cpus": 2, "gpus": 0.5}
    for flag in ("--name", "--dataset", "-d"):
        assert of_commands["data"].parse_args(["convert", "log.csv", flag, "mine"]).name == "mine"
    for history in ("include", "keep"):
        assert of_commands["recommend"].parse_args(["best.pth", f"--history={history}"]).history == history
    help_text = next(a for a in of_commands["recommend"]._actions if a.dest == "history").metavar
    assert help_text == "{exclude,include}"


# -- lists -----------------------------------------------------------------------------------------------------------


def test_models_lists_each_with_a_line(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["models"]) == 0
    out, _ = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if re.match(r"^\w+  ", line))
    assert lines.keys() >= {*registered_model_names(), *recbole_model_names()}
    assert re.match(r"sequential +Self-attention with learnable kernels over positions", lines["PosKernelSASRec"])
    assert lines["SASRec"].endswith('"Self-Attentive Sequential Recommendation." in ICDM 2018.')
    assert lines["KGAT"].startswith("knowledge aware") and "Graph Attention" in lines["KGAT"]
    assert lines["LightGBM"].startswith("exlib")
    assert cli.main(["models", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == lines.keys()


def test_every_model_of_this_package_says_what_it_is() -> None:
    ours = {file.stem for file in (PROPERTIES / "model").glob("*.yaml")}
    entries = [entry for entry in model_entries() if entry.name in ours]
    assert len(entries) == len(ours) and all(len(entry.about) > 20 and "\n" not in entry.about for entry in entries)
    assert sum(bool(entry.about) for entry in model_entries()) > 90


def test_keys_of_a_model_come_with_their_defaults(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["keys", "PosKernelSASRec"]) == 0
    out, _ = capsys.readouterr()
    of_model, of_runs = out.split("Keys of every run")
    assert re.search(r"^kernel_structure +identity-identity +\(str\) .+", of_model, flags=re.M)
    assert re.search(r"^mask_history +~ +\(str\) Items left out", of_runs, flags=re.M)
    assert not re.search(r"^kernel_structure", of_runs, flags=re.M) and "MODEL_TYPE" not in out
    assert cli.main(["keys", "GRU4Rec"]) == 0
    assert re.search(r"^num_layers +1 +\(int\) The number of layers in GRU", capsys.readouterr().out, flags=re.M)
    assert cli.main(["keys"]) == 0
    assert capsys.readouterr().out.startswith("Keys of every run")


def test_keys_of_every_run_are_those_of_the_table() -> None:
    found = {entry.name: entry for entry in key_entries()}
    assert found.keys() <= KEYS.keys() and {"epochs", "trim_padding", "log_mlflow", "topk"} <= found.keys()
    assert found["epochs"].default == 300 and "kernel_structure" not in found
    assert all(entry.about for entry in found.values())


def test_an_unknown_model_has_no_keys(capsys: pytest.CaptureFixture) -> None:
    assert "model 'SASRek' is unknown. Did you mean 'SASRec'?" in refused(["keys", "SASRek"], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["keys"], ["models"]], ids=str)
def test_a_reader_that_has_enough_is_no_error(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from recbole_posattn.cli import main as cli; sys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *command], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1234, "1,234 rows")], ids=str
)
def test_counts_have_singular_and_plural(number: int, text: str) -> None:
    assert counted(number, "row") == text
    assert counted(number, "process", "processes") == text.replace("rows", "processes").replace("row", "process")


# -- completion ------------------------------------------------------------------------------------------------------


def completions(line: str, folder: Path) -> list[str]:
    """What bash offers at the end of a line."""
    program = folder / "bin" / "recbole-posattn"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        code = "import sys; from recbole_posattn.cli import main as cli; sys.exit(cli.main())"
        program.write_text(f"#!{sys.executable}\n# PYTHON_ARGCOMPLETE_OK\n{code}\n")
        program.chmod(0o755)
    script = f"""
eval "$({program} completion bash)"
COMP_LINE={json.dumps(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
COMP_WORDS=($COMP_LINE); [[ "$COMP_LINE" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete recbole-posattn
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment_with = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment_with, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_flags_models_and_data_sets(empty_folder: Path) -> None:
    (empty_folder / "dataset" / "mine").mkdir(parents=True)
    assert {"recommend"} == set(completions("recbole-posattn reco", empty_folder))
    assert {"--history", "--histories"} <= set(completions("recbole-posattn recommend --hist", empty_folder))
    assert {"exclude", "include"} <= set(completions("recbole-posattn recommend --history ", empty_folder))
    assert set(completions("recbole-posattn run --model PosK", empty_folder)) == {"PosKernelSASRec"}
    assert "mine" in completions("recbole-posattn run --dataset mi", empty_folder)
    models = completions("recbole-posattn leaderboard --models SASRec,GRU4", empty_folder)
    assert "SASRec,GRU4Rec" in models and all(each.startswith("SASRec,") for each in models)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_code_for_each_shell_names_both_programs(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["completion", shell]) == 0
    out, _ = capsys.readouterr()
    assert "recbole-posattn" in out and "run_recbole_posattn.py" in out and "_ARGCOMPLETE" in out


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("nope", ("NPE", "NoPESASRec"), "NoPESASRec"),  # its beginning
        ("train", ("train_objective", "train_batch_size"), None),  # of several
        ("no", ("NoPESASRec", "NARM"), None),
        ("epoch", ("epochs", "eval_step"), "epochs"),
        ("GRU4Rek", ("GRU4Rec", "GRU4RecF"), "GRU4Rec"),
    ],
)
def test_the_nearest_name(name: str, known: tuple[str, ...], meant: str | None) -> None:
    assert did_you_mean(name, known) == ("" if meant is None else f" Did you mean {meant!r}?")


# -- a busy machine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "cpus", "own", "others", "message"),
    [
        (2, 2, 2.0, 0.0, None),
        (1, 2, 1.0, 2.0, None),
        (2, 2, 0.2, 0.3, None),
        (2, 2, 0.2, 1.9, "other processes use 1.9 of 2 CPUs, and this run has 2 threads, which wait for each other"),
        (4, 8, 1.0, 6.0, "OMP_NUM_THREADS=2 is likely faster"),
        (16, 4, 4.0, 0.0, "this run has 16 threads for 4 CPUs"),
        (16, 0.5, 0.5, 0.0, "this run has 16 threads for 0.5 CPU, which"),
    ],
    ids=str,
)
def test_an_oversubscribed_machine_is_noticed_once(
    threads: int, cpus: float, own: float, others: float, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr(cpu_watch.time, "perf_counter", lambda: next(clock))
    times = iter([0.0, 10 * own])
    monkeypatch.setattr(cpu_watch.time, "process_time", lambda: next(times))
    busy = iter([100.0, 100.0 + 10 * (own + others)])
    monkeypatch.setattr(cpu_watch, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(cpu_watch, "available_cpus", lambda: cpus)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    watch = cpu_watch.CpuWatch()
    line = watch.warning(torch.device("cpu"))
    assert (line is None) == (message is None) and (message is None or message in line)
    if line is not None:
        assert watch.warning(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("jobs", "threads", "others", "message"),
    [
        (2, 1, 0.0, None),
        (1, 1, 2.0, None),  # one thread waits for no other
        (3, 1, 2.0, None),
        (1, 2, 1.0, "other processes use 1.0 of 2 CPUs, and each run has 2 threads, which wait for each other"),
        (1, 2, 1.0, "; --jobs=1 --cpus=1 is likely faster"),
        (2, 2, 0.0, "2 runs at a time have 4 threads for 2 CPUs, which wait for each other"),
        (2, 2, 0.0, "; --jobs=2 --cpus=1 is likely faster"),
    ],
    ids=str,
)
def test_an_oversubscribed_machine_is_noticed_before_runs_start(
    jobs: int, threads: int, others: float, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, busy = iter([0.0, 0.0, 10.0]), iter([100.0, 100.0, 100.0 + 10 * others])
    monkeypatch.setattr(cpu_watch.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(cpu_watch.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(cpu_watch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cpu_watch, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(cpu_watch, "available_cpus", lambda: 2.0)
    line = cpu_watch.CpuWatch().warning_before_runs(jobs, threads)
    assert (line is None) == (message is None) and (message is None or message in line)


def test_runs_share_the_cpus_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "available_cpus", lambda: 2.0)
    assert [Resources(jobs).threads for jobs in (1, 2, 3)] == [2, 1, 1] and Resources(1, cpus=5).threads == 5
    monkeypatch.setattr(
        cluster.CpuWatch, "warning_before_runs", lambda self, jobs, threads: f"busy: {jobs} × {threads}"
    )
    for where in (Resources(2), Resources(2, gpus=1.0)):  # on a GPU, threads hardly matter
        cluster._connect(SimpleNamespace(init=lambda *args, **kwargs: None), where, None)
    assert caplog.messages == ["busy: 2 × 1"]


def test_a_gpu_and_a_short_time_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_watch, "available_cpus", lambda: 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert cpu_watch.CpuWatch().warning(torch.device("cpu")) is None  # no time has passed
    watch = cpu_watch.CpuWatch()
    watch._started -= 60
    assert watch.warning(torch.device("cuda")) is None and watch.warning(torch.device("cpu")) is not None


def test_cpus_are_those_of_the_affinity_and_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_watch, "_QUOTA", tmp_path / "cpu.max")
    allowed = len(psutil.Process().cpu_affinity())
    assert cpu_watch.available_cpus() == allowed
    quotas = {"max 100000": allowed, "50000 100000": 0.5, "9900000 100000": min(99, allowed), "": allowed}
    for text, expected in quotas.items():
        (tmp_path / "cpu.max").write_text(f"{text}\n")
        assert cpu_watch.available_cpus() == expected
    assert cpu_watch._busy_seconds() > 0


def test_the_line_is_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(environment.cpu_watch, "warning", lambda device: "The machine is oversubscribed: …")
    environment.warn_of_busy_machine(torch.device("cpu"))
    assert caplog.messages == ["The machine is oversubscribed: …"]


# -- the folder of a run ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "written"),
    [
        (["inspect", "--max_users=20"], "inspect/inspect.html"),
        (["interference"], "interference_metrics.csv"),
        (["export", "--format=torch-export"], "export/model.pt2"),
        (["recommend", "--k=2"], "recommendations.csv"),
    ],
    ids=str,
)
def test_commands_take_the_folder_of_a_run(command: list[str], written: str, finished_run: Callable[..., Path]) -> None:
    """And write where they write for its checkpoint."""
    folder = finished_run()
    assert cli.main([command[0], str(folder), *command[1:]]) == 0
    assert (folder / written).is_file()
    assert cli.main([command[0], str(folder / BEST_NAME), *command[1:], "--out=other.csv"]) == 0
    assert Path("other.csv").exists()


def test_a_folder_that_is_no_run_names_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def message(path: Path) -> str:
        return refused(["inspect", str(path)], capsys)

    assert "it has no best.pth; name the folder of a run below saved/, or a checkpoint" in message(tmp_path)
    (tmp_path / LAST_NAME).write_text("")
    assert f"it has no best.pth; name one of its files: {tmp_path / LAST_NAME}" in message(tmp_path)
    for number in range(5):
        (tmp_path / f"run{number}").mkdir()
        (tmp_path / f"run{number}" / BEST_NAME).write_text("")
        os.utime(tmp_path / f"run{number}" / BEST_NAME, (1000 + number, 1000 + number))
    newest = ", ".join(str(tmp_path / f"run{number}") for number in (4, 3, 2))
    assert f"name one of its runs, the newest first: {newest}, …" in message(tmp_path)
    assert checkpoint_file(tmp_path / "run1") == tmp_path / "run1" / BEST_NAME
    assert checkpoint_file(tmp_path / "nowhere") == tmp_path / "nowhere"

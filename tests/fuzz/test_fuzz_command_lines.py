"""Any command line does what it says or is refused in one line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_posattn import run
from recbole_posattn.cli import main as cli
from recbole_posattn.cli.settings import parsed_settings
from recbole_posattn.errors import UserError
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.run_keys import RUN_RULES
from recbole_posattn.settings.yaml import parse_value
from tests.fuzz.harness import ROWS, TINY_RUN, call, cases, empty_folder, refused, tiny_flags, words, write_data

LAUNCHER = "run_recbole_posattn.py"

# Keys of which any value in VALUES either is refused or makes no run longer than tenths of a second.
KEYS = sorted({*RUN_RULES, *MODEL_RULES, "hiden_size", "é", "a b", "my_own"} - {"worker", "torch_compile"})
VALUES = [
    *words("0 1 -1 2.5 1e-3 nan inf -inf 1e400 NaN None ~ true False x é [ ] {} [] [1 {a: = == --x - % * | :: $HOME"),
    *words("!!python/name:os.system __import__('os').getcwd() b'x' 1_0 ١ ../.. /dev/null . ' \""),
    *("", " ", "a b", "9" * 30, "9" * 5000, "x" * 3000, "\u2028", "\x07", "\udcff", "a\nb", "&a [*a]", "{a: 1, a: 2}"),
]


# What can be meant, so that many cases get to their end.
MEANT = {
    "--k": ["1", "2", "7"],
    "--split": ["all", "valid", "test"],
    "--history": ["exclude", "include", "keep"],
    "--users": ["users.txt"],
    "--histories": ["log.csv"],
    "--restrict_to": ["items.txt"],
    "--exclude": ["items.txt"],
    "--overwrite": [None],
    "--max_users": ["1", "3"],
    "--json": [None],
    "--rating": ["r"],
    "--min_rating": ["0", "4.5"],
    "--time_format": ["s", "ms", "auto", "order"],
    "--deduplicate": ["exact", "first", "last"],
    "--on_error": ["strict", "skip"],
    "--encoding": ["utf-8", "latin-1"],
    "--min_user_interactions": ["1", "2"],
    "--models": ["SASRec,Pop"],
    "--protocols": ["temporal", "leave_one_out_masked"],
    "--seeds": ["1", "2"],
    "--jobs": ["1", "2"],
    "--gpus": ["0", "0.5"],
    "--cpus": ["1"],
    "--num_samples": ["1", "3"],
    "--budget": ["0", "0.5", "60"],
    "--runs": ["data", "."],
    "--from": ["data"],
    "--published": ["given.yaml"],
    "--search": ["random", "tpe"],
    "--scheduler": ["asha", "none"],
    "--resources": ["cpu=1", "cpu=2,gpu=0.5"],
    "--model": ["PosKernelSASRec", "SASRec", "BPR"],
    "--nproc": ["1"],
}
MEANT_SETTINGS = {
    "--seed": ["3", "0x10"],
    "--epochs": ["0", "1", "2"],
    "--n_layers": ["1", "2"],
    "--n_heads": ["2", "4"],
    "--kernel_structure": ["full-full", "identity-identity", "exponential-lowrank"],
    "--kernel_groups": ["n_heads", "hidden_size"],
    "--kernel_rank": ["2"],
    "--position_encoding": ["[rope]", "['absolute']", "[cape, alibi]"],
    "--loss_type": ["CE", "BPR", "SSM"],
    "--train_objective": ["augmented", "sequence"],
    "--learner": ["sgd", "AdamW"],
    "--clip_grad_norm": ["{max_norm: 1}", "{'max_norm': 0.5, 'norm_type': 1}"],
    "--protocol": ["temporal", "temporal_paper", "leave_one_out_masked"],
    "--preset": ["paper", "~"],
    "--learner_args": ["{eps: 1e-6}", "{'betas': [0.9, 0.98]}"],
    "--attend_padding": ["True"],
    "--initializer": ["xavier_uniform"],
    "--mask_history": ["all", "~", "None"],
    "--weight_decay": ["0.1", "0"],
    "--shuffle": ["False", "false"],
    "--topk": ["[1, 3]", "3"],
    "--metrics": ["NDCG", "[NDCG, Hit, MRR]"],
    "--gpu_id": ["0", "0,1"],
    "--load_col": ["{inter: [user_id, item_id, timestamp]}", "{'inter': '*'}"],
    "--user_inter_num_interval": ["[2,inf)"],
    "--rm_dup_inter": ["first"],
    "--my_own": ["1", ""],
}


def options_of(command: str, sub_command: str | None = None) -> list[str]:
    """The flags of a command, read off its parser."""
    parser = argparse.ArgumentParser()
    cli.COMMANDS[command].module.add_arguments(parser)
    if sub_command is not None:
        parser = next(action for action in parser._actions if action.dest == "data_command").choices[sub_command]
    return [flag for action in parser._actions for flag in action.option_strings]


@st.composite
def arguments(draw: st.DrawFn, flags: list[str], settings: bool = False) -> list[str]:
    """Some arguments: half the time such as are meant; else known and unknown flags, without values, doubled, torn."""
    found: list[str] = []
    meant = {flag: MEANT[flag] for flag in flags if flag in MEANT} | (MEANT_SETTINGS if settings else {})
    if meant and draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(sorted(meant)), max_size=3, unique=True))
        values = [(flag, draw(st.sampled_from(meant[flag]))) for flag in chosen]
        return [flag if value is None else f"{flag}={value}" for flag, value in values]
    for _ in range(draw(st.integers(0, 3))):
        flag = draw(st.sampled_from(flags) | st.sampled_from(KEYS).map("--{}".format))
        value = draw(st.sampled_from(VALUES) | st.text(max_size=3))
        form = draw(st.sampled_from(["joined", "joined", "joined", "apart", "alone", "twice", "torn"]))
        found += {
            "joined": [f"{flag}={value}"],
            "apart": [flag, value],
            "alone": [flag],
            "twice": [f"{flag}={value}", f"{flag}={draw(st.sampled_from(VALUES))}"],
            "torn": [
                draw(st.sampled_from(["--=x", "--", "-", "=", "--=", "---", f"={value}", f"--{value}", value, "-x"]))
            ],
        }[form]
    return found


def key_of(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0]


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case ends where it would start processes, which takes seconds."""

    def stop(*_: object, **__: object) -> None:
        raise UserError("the fuzzed case ends here, before processes are started")

    for name in (
        "experiments.leaderboard.leaderboard.run_trials",
        "experiments.tuning.tune.run_search",
        "distributed.launch",
    ):
        monkeypatch.setattr(f"recbole_posattn.{name}", stop)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the rows of the harness."""
    folder = tmp_path_factory.mktemp("trained")
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in ROWS)]
    file = folder / "data" / "tiny" / "tiny.inter"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(lines) + "\n")
    settings = {**TINY_RUN, "data_path": str(folder / "data"), "checkpoint_dir": str(folder / "saved")}
    return Path(run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"])


# -- run -------------------------------------------------------------------------------------------------------------


@cases(60)
@given(arguments(options_of("run"), settings=True), st.booleans())
@example([], True)
@example(["--=x"], True)
@example(["--epochs"], False)
@example(["--epochs", "1"], False)
@example(["--seed=1", "--seed=2"], False)
@example(["--seed=1", "--seed=1"], False)
@example(["--learning_rate=1e400"], False)
@example(["--learning_rate=nan"], True)
@example(["--field_separator=|"], False)
@example(["--hidden_size=" + "9" * 5000], False)
@example(["--seed=0x" + "f" * 5000], False)
@example(["--gpu_id=\ud800"], False)
@example(["--checkpoint_dir=a\nb"], False)
@example(["--data_path=" + "x" * 3000], False)
@example(["--config_files=" + "x" * 3000], False)
@example(["--checkpoint_dir=" + "x" * 3000], False)
@example(["--nproc=1000000000"], False)
@example(["--port=é", "--nproc=2"], False)
def test_run(given_arguments: list[str], by_launcher: bool) -> None:
    keys = {key_of(argument) for argument in given_arguments}
    keys |= {"dataset"} if "d" in keys else set()
    base = [flag for flag in tiny_flags() if key_of(flag) not in keys]
    with empty_folder():
        write_data()
        if by_launcher:
            call(f"command lines: {LAUNCHER}", [*base, *given_arguments], cli.launch)
        else:
            call("command lines: run", ["run", *base, *given_arguments])


# -- commands that train ---------------------------------------------------------------------------------------------


@cases(40)
@given(
    arguments(options_of("leaderboard"), settings=True),
    st.sampled_from([[], ["encodings"], ["nowhere"], ["given.yaml"], ["--models=SASRec"]]),
)
@example(["--gpus=nan"], ["--models=SASRec"])
@example(["--gpus=inf"], ["--models=SASRec"])
@example(["--output=given.yaml"], ["--models=SASRec"])
@example(["--seeds=9999999999"], ["--models=SASRec"])
def test_leaderboard(given_arguments: list[str], spec: list[str]) -> None:
    with empty_folder():
        write_data()
        Path("given.yaml").write_text("models: {a: {model: SASRec, grid: {n_layers: [1, 2]}}}\nseeds: 2\n")
        call(
            "command lines: leaderboard",
            ["leaderboard", *spec, *tiny_flags(dataset=None), "--datasets=tiny", *given_arguments],
        )


@cases(40)
@given(arguments(options_of("tune"), settings=True))
@example(["--resources=cpu=nan"])
@example(["--resources=gpu=1e400"])
@example(["--num_samples=99999999999999999999"])
@example(["--params_file=data/tiny/tiny.inter"])
@example(["--space=" + "x" * 3000 + ".yaml"])
def test_tune(given_arguments: list[str]) -> None:
    keys = {key_of(argument) for argument in given_arguments}
    base = [flag for flag in tiny_flags() if key_of(flag) not in keys]
    with empty_folder():
        write_data()
        call("command lines: tune", ["tune", *base, *given_arguments])


# -- commands on data and checkpoints --------------------------------------------------------------------------------


@cases(40)
@given(arguments(options_of("data", "convert")), st.sampled_from(["log.csv", "log.jsonl", "nowhere", ".", "", "data"]))
@example(["--min_rating=nan", "--rating=r"], "log.csv")
@example(["--name=../x"], "log.csv")
@example(["--name=" + "x" * 3000], "log.csv")
@example(["--name="], "log.csv")
@example(["--separator="], "log.csv")
@example(["--separator=\n"], "log.csv")
@example(["--fields=a,a,b"], "log.csv")
@example(["--data_path=log.csv"], "log.csv")
@example([], "x" * 3000)
def test_data_convert(given_arguments: list[str], source: str) -> None:
    keys = {key_of(argument) for argument in given_arguments}
    base = [flag for flag in ("--name=made", "--user=u", "--item=i", "--time=t") if key_of(flag) not in keys]
    with empty_folder():
        Path("data").mkdir()
        Path("log.csv").write_text("u,i,t,r\n1,2,3,4\n1,3,4,5\n")
        Path("log.jsonl").write_text('{"u": 1, "i": 2, "t": 3}\n')
        call("command lines: data convert", ["data", "convert", source, *base, *given_arguments])


@cases(15)
@given(arguments(options_of("data", "stats")), st.sampled_from(["tiny", "nowhere", "", "..", "a/b", "x" * 3000, "é"]))
@example([], "tiny")
@example(["--output=data/tiny/tiny.inter", "--json"], "tiny")
def test_data_stats(given_arguments: list[str], name: str) -> None:
    with empty_folder():
        write_data()
        call("command lines: data stats", ["data", "stats", name, "--data_path=data", *given_arguments])


HEAVY = {"--format"}  # of export, whose tracing takes seconds


@pytest.mark.parametrize("command", ["recommend", "export", "inspect", "interference"])
def test_commands_on_a_checkpoint(command: str, checkpoint: Path) -> None:
    flags = [flag for flag in options_of(command) if flag not in HEAVY]
    paths = st.sampled_from(["nowhere.pth", "data/tiny/tiny.inter", ".", "", "x" * 3000, "damaged.pth"])
    if command in ("recommend", "interference"):  # the others draw or trace, which takes seconds
        paths = st.just(str(checkpoint)) | st.just(str(checkpoint)) | paths

    @cases(20)
    @given(arguments(flags), paths)
    @example(["--k=" + "9" * 30], str(checkpoint))
    @example(["--output=\udcff"], str(checkpoint))
    @example(["--output=" + "x" * 3000 + ".csv"], "nowhere.pth")
    def check(given_arguments: list[str], path: str) -> None:
        named = {key_of(argument) for argument in given_arguments}
        place = ["--output=lists.csv" if command == "recommend" else "--output=out"] if "output" not in named else []
        with empty_folder():
            write_data()
            content = checkpoint.read_bytes()
            Path("damaged.pth").write_bytes(content[: len(content) // 2])
            Path("users.txt").write_text("u1\nu2\n")
            Path("items.txt").write_text("i1\ni2\ni4\n")
            Path("log.csv").write_text("user,item,time\nx,i1,1\nx,i2,2\n")
            call(f"command lines: {command}", [command, path, *place, *given_arguments])

    check()


@cases(40)
@given(
    st.lists(
        st.sampled_from(["", "ru", "run", "tune", "data", "--help", "--version", "-h", "--", "é", "--=x", "run=1"]),
        max_size=3,
    )
)
def test_names_of_commands(given_arguments: list[str]) -> None:
    if given_arguments[:1] == ["run"] or given_arguments[:1] == ["tune"]:
        given_arguments = [given_arguments[0], "--dataset=nowhere", *given_arguments[1:]]
    with empty_folder():
        call("command lines: commands", given_arguments)


# -- settings by themselves ------------------------------------------------------------------------------------------


@cases(100)
@given(
    st.lists(
        st.builds("--{}={}".format, st.sampled_from("abc"), st.sampled_from(VALUES) | st.text(max_size=5))
        | st.text(max_size=8).map("--{}".format)
        | st.text(max_size=6),
        max_size=3,
    )
)
@example(["--a=1", "--a=2"])
@example(["--=x"])
@example(["--"])
def test_settings_are_parsed_or_refused(given_arguments: list[str]) -> None:
    found, error = refused("command lines: settings", lambda: parsed_settings(given_arguments))
    pairs = [argument.removeprefix("--").partition("=") for argument in given_arguments]
    formed = all(argument.startswith("--") for argument in given_arguments) and all(key and eq for key, eq, _ in pairs)
    single = len({(key, value) for key, _, value in pairs}) == len({key for key, *_ in pairs})
    assert (error is None) == (formed and single)
    if error is None:
        assert [repr(found[key]) for key, *_ in pairs] == [repr(parse_value(value)) for *_, value in pairs]


@pytest.mark.parametrize(
    "text", ["|", "::", "#", " ", ">", "a #b", "- a", "a: b", "? x", "&a x", "*", "!x y", "%", "@", "`"]
)
def test_marks_of_yaml_alone_stay_text(text: str) -> None:
    """Such as a separator, which would else be an empty text, a mapping or nothing."""
    assert parse_value(text) == text

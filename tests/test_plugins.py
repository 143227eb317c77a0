"""Plugins: named by a flag, a file or an installed package, imported in every process, never because a file says so."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from recbole_posattn import Config, PosKernelSASRec, load, register, register_kernel, run
from recbole_posattn.cli import main as cli
from recbole_posattn.data.dataset import SequenceDataset
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.experiments.leaderboard.spec import read_spec
from recbole_posattn.experiments.run_folders import FAILURE_NAME, run_in_folder
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.experiments.trials import Trial, checked_folders, from_anywhere
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.spec import Search, check_search
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.settings import plugins
from recbole_posattn.settings.plugins import import_plugins, with_plugins
from recbole_posattn.settings.registry import registered_model_names
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.trainer import SequenceTrainer, trainer_class

pytestmark = pytest.mark.usefixtures("registrations")

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "my_model"

KERNEL = """
import torch
from recbole_posattn import register_kernel
from recbole_posattn.nn.kernels.by_lag import LagKernel

class Halving(LagKernel):
    def taps(self):
        return self._normalized(0.5 ** torch.arange(self.max_length).expand(self.n_groups, -1))

register_kernel("halving", Halving)
"""
BIASED = """
from recbole_posattn import PosKernelSASRec, register

class {name}(PosKernelSASRec):
    pass

register({name}{options})
"""


@pytest.fixture
def module(empty_folder: Path) -> Callable[..., str]:
    """Write a module below the current folder; returns its name."""

    def module(name: str, text: str = KERNEL) -> str:
        file = empty_folder / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return name

    return module


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def config(settings: dict, **changes: object) -> Config:
    return Config("PosKernelSASRec", "tiny", config_dict={**settings, **changes}, command_line=[])


# -- how they are named ----------------------------------------------------------------------------------------------


def test_flags_files_and_dicts_add_up(module: Callable, tiny_settings: Callable, empty_folder: Path) -> None:
    names = [module(f"plugin_{letter}", "") for letter in "abcd"]
    Path("one.yaml").write_text("plugins: [plugin_a]\n")
    Path("two.yaml").write_text("plugins: plugin_b\n")
    settings = Config(
        dataset="tiny",
        config_file_list=["one.yaml", "two.yaml"],
        config_dict=tiny_settings(plugins=["plugin_c", "plugin_a"]),
        command_line=["--plugin=plugin_d", "--plugin=plugin_a"],
    )
    assert settings["plugins"] == ["plugin_a", "plugin_b", "plugin_c", "plugin_d"]
    assert set(names) <= sys.modules.keys()
    assert with_plugins({"a": 1}, {"a": 2}) == {"a": 2}
    listed = Config(dataset="tiny", config_dict=tiny_settings(), command_line=["--plugins=['plugin_b']"])
    assert listed["plugins"] == ["plugin_b"]


def test_a_plugin_registers_before_its_names_are_looked_up(module: Callable, tiny_settings: Callable) -> None:
    module("mine.kernels")
    settings = config(tiny_settings(), plugins=["mine.kernels"], kernel_structure="halving-full")
    assert settings["kernel_structure"] == "halving-full" and "halving" in STRUCTURES
    # and it is named with what uses it, for the record, though it is not named again
    assert config(tiny_settings(), kernel_structure="toeplitz-halving")["plugins"] == ["mine.kernels"]
    assert config(tiny_settings())["plugins"] == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("my-plugin", r"plugins: each must be the dotted name of a module, such as .*; got 'my-plugin'\.$"),
        ("my_package/module.py", r"got 'my_package/module\.py'\. Did you mean 'my_package\.module'\?"),
        ("./module.py", r"Did you mean 'module'\?"),
        ([3], r"got 3\.$"),
        ({"a": 1}, r"plugins must be a list of dotted names of modules, .*; got \{'a': 1\}"),
        ("no_such_plugin", r"plugin 'no_such_plugin' cannot be imported: there is no module of that name installed"),
        ("json.no_such_part", r"plugin 'json\.no_such_part' cannot be imported: there is no module of that name"),
    ],
)
def test_what_is_no_plugin_is_one_line(value: object, message: str, tiny_settings: Callable) -> None:
    with pytest.raises(SettingError, match=message) as error:
        config(tiny_settings(), plugins=value)
    one_line(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("raise SystemExit('two\\nlines')", "SystemExit: two lines"),
    ],
)
def test_a_plugin_that_fails_is_one_line(module: Callable, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"^plugin 'broken' cannot be imported: {message}") as error:
        import_plugins([module("broken", text)])
    one_line(error)


def test_a_plugin_that_failed_can_be_mended_and_imported_again(module: Callable) -> None:
    module("late", KERNEL + "1 / 0\n")
    with pytest.raises(SettingError, match="ZeroDivisionError"):
        import_plugins(["late"])
    module("late", KERNEL + "\n\nmended = True\n")  # of another size, which Python's cache of bytecode notices
    import_plugins(["late"])
    assert sys.modules["late"].mended and "halving" in STRUCTURES


def test_a_misspelt_model_or_key_points_to_plugins(tiny_settings: Callable) -> None:
    with pytest.raises(SettingError, match=r"model 'ShortcutSASRec' is unknown.*your own model needs --plugin=MOD"):
        Config("ShortcutSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    with pytest.raises(SettingError, match=r"key 'plugin' is unknown. Did you mean 'plugins'"):
        config(tiny_settings(), plugin="json")


@pytest.mark.parametrize("command", ["run", "leaderboard", "tune", "recommend", "export", "inspect", "interference"])
def test_the_flag_is_in_the_help(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert "--plugin MODULE" in capsys.readouterr().out


# -- names that are taken --------------------------------------------------------------------------------------------


def test_a_name_of_two_plugins_is_one_line(module: Callable) -> None:
    import_plugins([module("first")])
    with pytest.raises(SettingError) as error:
        import_plugins([module("second")])
    assert one_line(error) == (
        "plugin 'second' cannot be used: kernel 'halving' cannot be registered: there is one of that name, registered "
        "by plugin 'first'; choose another name."
    )
    import_plugins([module("one", BIASED.format(name="TwiceSASRec", options=""))])
    with pytest.raises(SettingError, match=r"model 'TwiceSASRec' .* registered by plugin 'one'; rename the class"):
        import_plugins([module("two", BIASED.format(name="TwiceSASRec", options=""))])


def test_a_model_of_this_package_keeps_its_name_and_ones_own_can_be_defined_again(tiny_settings: Callable) -> None:
    with pytest.raises(SettingError, match="'NoPESASRec' cannot be registered: there is one of that name, of this pac"):
        register(type("NoPESASRec", (PosKernelSASRec,), {}))
    first, second = (type("NotebookSASRec", (PosKernelSASRec,), {}) for _ in range(2))
    assert register(first) is first and register(second) is second
    assert Config("NotebookSASRec", "tiny", config_dict=tiny_settings(), command_line=[]).model_class is second


def test_a_model_inherits_defaults_data_set_and_trainer(module: Callable, tiny_settings: Callable) -> None:
    Path("own.yaml").write_text("n_layers: 1\nmy_key: 3\n")
    import_plugins([module("inheriting", BIASED.format(name="OwnSASRec", options=", properties='own.yaml'"))])
    settings = Config("OwnSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    assert (settings["n_layers"], settings["my_key"], settings["kernel_structure"]) == (1, 3, "identity-identity")
    assert settings["plugins"] == ["inheriting"]
    assert trainer_class(settings) is SequenceTrainer
    assert sys.modules["recbole.data.dataset"].OwnSASRecDataset is SequenceDataset
    assert "OwnSASRec" in registered_model_names()


# -- installed packages ----------------------------------------------------------------------------------------------


@pytest.fixture
def installed(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Declare a module as the plugin of an installed package, and forget that plugins were looked for."""

    def installed(name: str) -> None:
        folder = empty_folder / "their_package-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{plugins.GROUP}]\ntheirs = {name}\n")
        monkeypatch.syspath_prepend(str(empty_folder))
        assert importlib.metadata.entry_points(group=plugins.GROUP)
        plugins._installed_are_imported = False

    return installed


def test_the_plugin_of_an_installed_package_needs_no_flag(
    module: Callable, installed: Callable, tiny_settings: Callable, empty_folder: Path
) -> None:
    installed(module("their_module"))
    settings = tiny_settings(kernel_structure="halving-full", model="PosKernelSASRec", dataset="tiny")
    assert Config(config_dict=settings, command_line=[])["plugins"] == ["their_module"]
    assert len(checked_folders([Trial("theirs", settings)], empty_folder)) == 1  # workers import it, too
    import_plugins(["their_module"])  # named as well


def test_a_broken_installed_plugin_is_one_line_each_time(module: Callable, installed: Callable) -> None:
    installed(module("their_module", "1 / 0"))
    for _ in range(2):
        with pytest.raises(SettingError) as error:
            Config("SASRec", "ml-100k", command_line=[])
        assert one_line(error) == (
            "plugin 'their_module' of the installed package 'their-package' cannot be imported: ZeroDivisionError: "
            "division by zero."
        )


# -- checkpoints -----------------------------------------------------------------------------------------------------

HOSTILE = "import pathlib\npathlib.Path('harm').touch()\n"


@pytest.fixture
def trained(module: Callable, tiny_settings: Callable) -> Path:
    """The checkpoint of a run with a kernel of a plugin."""
    settings = tiny_settings(plugins=[module("honest")], kernel_structure="halving-full", epochs=0)
    result = run(dataset="tiny", config_dict=settings)
    return Path(result["checkpoint"])


def changed(checkpoint: Path, **settings: object) -> Path:
    """A copy of a checkpoint with other settings, as a forger writes it."""
    content = read_checkpoint(checkpoint)
    file = checkpoint.with_name("forged.pth")
    write_checkpoint({**content, "config": {**content["config"], **settings}}, file)
    return file


def forget_plugins() -> None:
    """As in a new process, except for modules that are no test's own, such as those of the standard library."""
    for name in plugins._imported:
        if Path(getattr(sys.modules.get(name), "__file__", None) or "/").is_relative_to(Path.cwd()):
            sys.modules.pop(name, None)
    plugins._imported.clear()
    STRUCTURES.pop("halving", None)


@pytest.mark.parametrize("name", ["hostile", "hostile.inner", "no.such.module"])
def test_a_checkpoint_cannot_make_anything_be_imported(
    module: Callable, trained: Path, name: str, tmp_path: Path
) -> None:
    module("hostile/__init__", HOSTILE)
    module("hostile.inner", HOSTILE)
    forged = changed(trained, plugins=[name])
    before = set(sys.modules)
    assert load(forged).config["plugins"] == [name]  # shown, and no more
    forget_plugins()
    with pytest.raises(SettingError) as error:
        load(forged)
    assert f"--plugin={name}" in one_line(error)
    assert not Path("harm").exists() and not {each for each in set(sys.modules) - before if "hostile" in each}


@pytest.mark.parametrize("names", ["hostile", {"hostile": 1}, 7, [7], ["a b"], ["x" * 10**5], ["a\nb", "--x"]])
def test_names_that_are_none_are_refused_in_one_line(module: Callable, trained: Path, names: object) -> None:
    module("hostile", HOSTILE)
    forged = changed(trained, plugins=names)
    for _ in range(2):
        with pytest.raises((SettingError, CheckpointError)) as error:
            load(forged)
        assert len(one_line(error)) < 1000
        forget_plugins()
    assert not Path("harm").exists()


def test_a_checkpoint_names_the_flag_to_add(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert read_checkpoint(trained)["config"]["plugins"] == ["honest"]
    forget_plugins()
    for command in (["inspect"], ["recommend"], ["export"], ["interference"]):
        assert cli.main([*command, str(trained)]) == cli.EXIT_USER_ERROR
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "kernel_structure 'halving' is unknown here" in error
        assert "add --plugin=honest" in error
    assert cli.main(["recommend", "--plugin=honest", str(trained), "--k=3", "--output=-"]) == 0
    assert capsys.readouterr().out.startswith('"user","rank","item","score"\n')


@pytest.mark.parametrize("lost", [{}, {"model": "LostSASRec"}])
def test_a_resumed_run_names_the_flag_to_add_and_goes_on_with_it(
    module: Callable, tiny_settings: Callable, lost: dict
) -> None:
    settings = tiny_settings(plugins=[module("honest")], kernel_structure="halving-full", epochs=1)
    folder = Path(run(dataset="tiny", config_dict=settings)["checkpoint"]).parent
    if lost:
        changed(folder / "last.pth", **lost).rename(folder / "last.pth")
    forget_plugins()
    place = {"data_path": settings["data_path"]}
    message = "model 'LostSASRec'" if lost else "kernel_structure 'halving'"
    with pytest.raises(SettingError, match=f"{message} is unknown here: .* add --plugin=honest") as error:
        run(config_dict=place, resume=folder)
    one_line(error)
    if not lost:
        result = run(config_dict={**place, "epochs": 2}, resume=folder, command_line=["--plugin=honest"])
        assert result["epochs"] == 2 and read_checkpoint(folder / "last.pth")["config"]["plugins"] == ["honest"]


# -- processes of their own ------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tiny_settings: Callable) -> dict:
    return tiny_settings(model="PosKernelSASRec", dataset="tiny", protocol="leave_one_out", use_gpu=False, epochs=1)


def test_names_that_processes_do_not_know_are_refused(module: Callable, settings: dict, empty_folder: Path) -> None:
    module("aside")
    import_plugins(["aside"])
    given = {**settings, "kernel_structure": "halving-full"}
    with pytest.raises(
        SettingError, match=r"mine: kernel_structure 'halving' belongs to plugin 'aside', .*add aside to plu"
    ):
        checked_folders([Trial("mine", given)], empty_folder)
    assert len(checked_folders([Trial("mine", {**given, "plugins": ["aside"]})], empty_folder)) == 1
    check_search(Search({**given, "plugins": ["aside"]}, Space([Dimension("n_layers", "choice", (1, 2), {})]), 1))
    register(type("ScriptSASRec", (PosKernelSASRec,), {}))
    with pytest.raises(SettingError, match=r"model 'ScriptSASRec' was registered by this program.*docs/extend.md"):
        checked_folders([Trial("mine", {**settings, "model": "ScriptSASRec"})], empty_folder)


def test_a_module_that_the_program_imported_first_is_known_to_processes(
    module: Callable, settings: dict, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(empty_folder))
    __import__(module("by_hand"))
    given = {**settings, "kernel_structure": "halving-full", "plugins": ["by_hand"]}
    assert len(checked_folders([Trial("mine", given)], empty_folder)) == 1


def test_a_script_can_be_its_own_plugin(module: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported again, under its own name, after it has registered its names as the program."""
    own: dict = {"__name__": "__main__"}
    exec(KERNEL, own)
    assert own["Halving"].__module__ == "__main__"
    import_plugins([module("script")])
    assert STRUCTURES["halving"].__self__ is sys.modules["script"].Halving
    with pytest.raises(SettingError, match="there is one of that name, registered by plugin 'script'"):
        register_kernel("halving", own["Halving"])


def test_a_process_finds_the_plugin_below_the_folder_of_the_command(
    module: Callable,
    settings: dict,
    empty_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module("near")
    given = from_anywhere({**settings, "plugins": ["near"], "kernel_structure": "halving-full"})
    monkeypatch.chdir(tmp_path_factory.mktemp("worker"))
    assert run_in_folder(given, empty_folder / "run", 1, empty_folder) is None
    assert read_result(empty_folder / "run")["config"]["plugins"] == ["near"]
    reason = run_in_folder({**given, "plugins": ["far"]}, empty_folder / "other", 1, empty_folder)
    assert reason.startswith("plugin 'far' cannot be imported: there is no module of that name")
    assert (empty_folder / "other" / FAILURE_NAME).is_file()


def test_paths_do_not_depend_on_the_folder_of_a_process(empty_folder: Path) -> None:
    Path("bpr.pth").touch()
    found = from_anywhere({"pre_model_path": "bpr.pth", "data_path": "mine", "protocol": "temporal"})
    assert found == {
        "pre_model_path": str(empty_folder / "bpr.pth"),
        "data_path": str(empty_folder / "mine"),
        "protocol": "temporal",
    }
    assert from_anywhere({})["data_path"] == str(empty_folder / "dataset")


def test_a_leaderboard_imports_the_plugins_of_its_file_rows_and_flags(module: Callable) -> None:
    import_names = [module(f"part_{letter}", "") for letter in "abcd"]
    module("model_part", BIASED.format(name="RowSASRec", options=""))
    Path("mine.yaml").write_text(
        "plugins: [part_a]\nsettings: {plugins: [part_b]}\n"
        "models: {a: {model: RowSASRec, plugins: model_part}, b: NoPESASRec}\n"
    )
    spec = read_spec("mine.yaml", {"plugins": ["part_c"]}, {"plugins": ["part_d"]})
    assert sorted(spec.plugins) == sorted([*import_names, "model_part"])
    for trial in spec.trials("tiny", "leave_one_out"):
        assert trial.settings["plugins"] == spec.plugins
    with pytest.raises(SettingError, match=r"model 'RowSSARec' is unknown. Did you mean 'RowSASRec'"):
        read_spec(None, {"models": ["RowSSARec"]}, {})


# -- the template ----------------------------------------------------------------------------------------------------


def copied(folder: Path) -> Path:
    """A copy of the example, as the page says, without what Python has left in it."""
    return shutil.copytree(EXAMPLE, folder / "example", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def template(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The parts of the example by their names."""
    import_plugins(["my_model"], copied(tmp_path_factory.mktemp("template")))
    return vars(sys.modules["my_model"])


def test_the_page_and_the_template_name_each_other(template: dict) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
    assert "examples/my_model" in page
    declared = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'\[project.entry-points."{re.escape(plugins.GROUP)}"\]\nmy_model = "my_model"', declared)


def test_the_templates_parts_compute_their_formulas(template: dict) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    kernel = template["PowerLawKernel"](5)
    kernel.exponent.data.fill_(0.7)
    weights = torch.tensor([(k + 1) ** -0.7 for k in range(5)])
    torch.testing.assert_close(kernel.dense()[0, :, 0], weights / weights.norm())
    encoding = template["LogDistanceBias"]()
    bias = encoding.logit_bias(torch.randn(1, 1, 2, 4), torch.randn(1, 1, 5, 4), torch.randn(1, 1, 2, 4), first=3)
    r = float(torch.tensor(2.0).log())  # softplus(0)
    expected = [[-r * torch.log(torch.tensor(1 + r * max(t - s, 0))) for s in range(5)] for t in (3, 4)]
    torch.testing.assert_close(bias[0, 0], torch.tensor(expected))
    hidden, target, items = torch.randn(3, 4), torch.tensor([1, 5, 2]), torch.randn(6, 4)
    p = (hidden @ items.T).softmax(-1)[range(3), target]
    torch.testing.assert_close(template["FocalCrossEntropy"]()(hidden, target, items), (-(1 - p) * p.log()).mean())


@pytest.mark.slow
def test_the_templates_model_trains_is_exported_and_inspected(
    template: dict, tiny_settings: Callable, tmp_path: Path
) -> None:
    from recbole_posattn.analysis.inspection import inspect_checkpoint
    from recbole_posattn.serving.export import export

    settings = tiny_settings(position_encoding=["log_distance"], loss_type="focal", shortcut_start=0.5)
    result = run("ShortcutSASRec", "tiny", config_dict=settings)
    loaded = load(result["checkpoint"])
    assert loaded.config["plugins"] == ["my_model"] and loaded.config["kernel_structure"] == "power_law-full"
    assert type(loaded.model) is template["ShortcutSASRec"] and type(loaded.model.loss) is template["FocalCrossEntropy"]
    assert not (loaded.model.shortcut == 0.5).all()  # it is trained
    exported = export(Path(result["checkpoint"]), "torch-export", tmp_path / "export", overwrite=True)
    assert exported.comparison is None or exported.comparison.largest_difference < 1e-4
    assert inspect_checkpoint(result["checkpoint"], max_users=10).parts == ["U", "L", "branch", "log_distance"]


@pytest.mark.slow
def test_the_template_goes_through_every_command(
    tiny_data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by the flag in the folder of the example; the processes of tune and leaderboard are Ray's."""
    monkeypatch.chdir(copied(tmp_path))
    small = [
        *("--dataset=tiny", f"--data_path={tiny_data_path}", "--hidden_size=16", "--MAX_ITEM_LIST_LENGTH=10"),
        *("--train_batch_size=16", "--epochs=1", "--use_gpu=False", "--show_progress=False"),
    ]
    parts = ["--position_encoding=[log_distance]", "--loss_type=focal"]
    saved = tmp_path / "saved"
    run_flags = ["--plugin=my_model", "--model=ShortcutSASRec", *small, *parts, f"--checkpoint_dir={saved}"]
    assert cli.main(["run", *run_flags, "--nproc=2"]) == 0
    (checkpoint,) = saved.glob("*/best.pth")
    assert cli.main(["inspect", "--plugin=my_model", str(checkpoint), f"--out={tmp_path / 'inspect'}"]) == 0
    assert (tmp_path / "inspect" / "inspect.html").is_file()

    tune = ["tune", "--plugin=my_model", "--model=ShortcutSASRec", "--space=space.yaml", "--num_samples=1"]
    assert cli.main([*tune, *small, f"--output={tmp_path / 'tune'}", "--resources=cpu=1"]) == 0
    best = yaml.safe_load((tmp_path / "tune" / "best.yaml").read_text())
    assert best["plugins"] == ["my_model"] and best["kernel_structure"] in ("power_law-full", "toeplitz-full")

    rows = tmp_path / "rows.yaml"
    rows.write_text(
        "plugins: [my_model]\nseeds: 1\nmodels:\n  kernel: {model: PosKernelSASRec, kernel_structure: power_law-full}\n"
        "  own: {model: ShortcutSASRec, position_encoding: [log_distance], loss_type: focal}\n"
    )
    board = ["leaderboard", str(rows), "--datasets=tiny", *small[1:], "--cpus=1", f"--output={tmp_path / 'board'}"]
    assert cli.main(board) == 0
    report = (tmp_path / "board" / "leaderboard.md").read_text(encoding="utf-8")
    assert "own" in report and "failed" not in report
    results = [read_result(file.parent) for file in tmp_path.glob("board/runs/*/result.json")]
    assert {result["model"] for result in results} == {"PosKernelSASRec", "ShortcutSASRec"}
    assert all(result["config"]["plugins"] == ["my_model"] for result in results)

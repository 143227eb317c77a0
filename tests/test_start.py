"""What is imported, and what changes in RecBole, when the package is imported and when a command is parsed."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import recbole_posattn
from recbole_posattn import Config

PACKAGE = Path(recbole_posattn.__file__).parent
MODULES = {
    ".".join(("recbole_posattn", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Each takes a tenth of a second or more, and torch and RecBole seconds.
SLOW = {"matplotlib", "numpy", "optuna", "pandas", "pyarrow", "ray", "recbole", "scipy", "torch"}
LIGHT_COMMANDS = [
    *(["--version"], ["--help"], [], ["trian"], ["--verson"]),
    *(
        [name, "--help"]
        for name in ("setup", "run", "leaderboard", "tune", "data", "recommend", "export", "inspect", "overview")
    ),
    *(["interference", "--help"], ["data", "convert", "--help"], ["data", "stats", "--help"]),
    *(["models", "--help"], ["keys", "--help"], ["completion", "--help"], ["completion", "csh"]),
    *(["run", "epochs=3"], ["run", "--epochs", "3"], ["run", "--nproc=two"], ["run", "--seed=1", "--seed=2"]),
    *(["data"], ["data", "convrt"], ["data", "convert", "log.csv"], ["data", "stats", "mine", "--jsn"]),
    *(["export"], ["export", "best.pth", "--format=onx"], ["inspect", "best.pth", "--max_user=3"]),
    *(["recommend", "best.pth", "--histories=h.csv", "--split=test"], ["recommend", "best.pth", "--split=tset"]),
    *(["leaderboard", "--jobs=0"], ["leaderboard", "spec", "seeds=3"], ["interference"]),
    *(["tune", "--num_samples=0"], ["tune", "--search=gird"], ["tune", "hidden_size=3"]),
]


def python(code: str, *arguments: str) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_slow() -> None:
    loaded = python("import recbole_posattn, sys; print(*sys.modules)").split()
    assert not SLOW & set(loaded)


def test_version_help_and_mistyped_commands_import_nothing_slow() -> None:
    code = f"""
import contextlib, io, json, sys
from recbole_posattn.cli import main as cli
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = cli.main(arguments)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([arguments, code, bool(out.getvalue() or err.getvalue()), sorted({SLOW!r} & set(sys.modules))]))
"""
    lines = [json.loads(line) for line in python(code, json.dumps(LIGHT_COMMANDS)).splitlines()]
    asks = {"--version", "--help"}
    assert lines == [[each, 0 if asks & set(each) else 2, True, []] for each in LIGHT_COMMANDS]


def test_launchers_help_imports_nothing_slow() -> None:
    code = f"""
import sys
from recbole_posattn.cli import main as cli
try:
    cli.launch(["--help"])
except SystemExit as stop:
    print(stop.code, sorted({SLOW!r} & set(sys.modules)))
"""
    assert python(code).splitlines()[-1] == "0 []"


def test_a_conversion_imports_neither_torch_nor_recbole(empty_folder: Path) -> None:
    Path("log.csv").write_text("u,i,t\nanna,a,1\nanna,b,2\nbert,a,3\n")
    code = "import sys; from recbole_posattn.cli import main as cli; code = cli.main(sys.argv[1:]); "
    code += "print(code, {'torch', 'recbole', 'scipy', 'matplotlib'} & set(sys.modules))"
    flags = ["log.csv", "--name=mine", "--user=u", "--item=i", "--time=t"]
    assert python(code, "data", "convert", *flags).splitlines()[-1] == "0 set()"
    assert len(Path("dataset/mine/mine.inter").read_text().splitlines()) == 4


def test_a_sequential_model_is_found_without_scikit_learn_and_the_general_models() -> None:
    code = """
import sys
from recbole_posattn import Config
for model in ("PosKernelSASRec", "SASRec"):
    Config(model, "ml-100k", command_line=[])
later = {"sklearn", "scipy.stats", "recbole.model.general_recommender"}
print(later & set(sys.modules))
from recbole.evaluator import metrics
print(metrics.mean_absolute_error([1.0, 2.0], [1.5, 4.0]), metrics.mean_squared_error([1.0, 2.0], [1.5, 4.0]))
print(metrics.sk_auc([0.0, 0.5, 1.0], [0.0, 1.0, 1.0]), "sklearn" in sys.modules)
from sklearn import metrics as whole
print(whole.f1_score([0, 1], [0, 1]))
"""
    assert python(code).splitlines()[-4:] == ["set()", "1.25 2.125", "0.75 True", "1.0"]


@pytest.mark.slow
def test_public_names_are_there_without_being_imported() -> None:
    code = """
import recbole_posattn, sys
print(set(recbole_posattn.__all__) <= set(dir(recbole_posattn)), "torch" in sys.modules)
for name in recbole_posattn.__all__:
    assert getattr(recbole_posattn, name) is getattr(recbole_posattn, name), name
print(hasattr(recbole_posattn, "Confg"))
"""
    assert python(code).split() == ["True", "False", "False"]
    with pytest.raises(AttributeError, match="module 'recbole_posattn' has no attribute 'Confg'"):
        _ = recbole_posattn.Confg


@pytest.mark.slow
def test_importing_the_package_changes_nothing_until_a_public_name_is_used() -> None:
    code = """
import sys, types, warnings
import numpy, recbole.config, recbole.data, recbole.data.dataset, recbole.evaluator, recbole.trainer, torch
from scipy.sparse import dok_matrix

def state():
    modules = {name: m for name, m in sys.modules.items() if name.split(".")[0] in ("recbole", "numpy")}
    found = {(name, key): id(value) for name, m in modules.items() for key, value in vars(m).items()}
    classes = [value for m in modules.values() for value in vars(m).values() if isinstance(value, type)]
    classes = [each for each in classes if each.__module__.split(".")[0] == "recbole"] + [torch.Tensor]
    found |= {
        (f"{each.__module__}.{each.__qualname__}", key): id(value)
        for each in classes for key, value in vars(each).items() if key != "__annotations__"  # made when it is read
    }
    register = recbole.evaluator.register
    tables = [sorted(t) for t in (register.metrics_dict, register.metric_information, register.metric_types)]
    finders = [each for each in sys.meta_path if type(each).__name__ != "MovedModules"]  # of our own old names only
    return found, list(warnings.filters), tables, finders, list(sys.path_hooks), vars(dok_matrix).keys()

before = state()
import recbole_posattn
assert state() == before
recbole_posattn.Config("SASRec", "ml-100k", command_line=[])

then, now = before[0], state()[0]
known, modules = {name for name, _ in then}, {id(module) for module in sys.modules.values()}
changed = {
    f"{name}.{key}" for (name, key), value in now.items()
    if name in known and value not in modules and then.get((name, key)) != value
}
listed = {"recbole.data.utils.get_dataloader", "recbole.data.dataset.SASRecDataset"}
loader = "recbole.data.dataloader.abstract_dataloader.AbstractDataLoader"
listed |= {f"{loader}.{name}" for name in ("__getstate__", "multiprocessing_context")}
samplers = ("Sampler.set_phase", "RepeatableSampler.set_phase", "SeqSampler.sample_neg_sequence")
samplers += ("KGSampler.get_used_ids", "AbstractSampler._build_alias_table")
listed |= {f"recbole.sampler.sampler.{name}" for name in samplers}
listed |= {"recbole.data.transform.MaskItemSequence._neg_sample"}
listed |= {"recbole.config.configurator.Config._load_internal_config_dict", "recbole.utils.init_logger"}
listed |= {"recbole.utils.utils.SummaryWriter"}
for model in recbole_posattn.settings.registry.registered_model_names():
    listed |= {f"recbole.data.dataset.{model}Dataset", f"recbole.trainer.{model}Trainer"}
of_numpy = {"float_", "complex_", "unicode_"}
of_numpy |= {"bool", "int", "float", "complex", "object", "str", "long", "unicode"}  # by RecBole's own Config
where_missing = {f"numpy.{name}" for name in of_numpy}
where_missing |= {f"{torch.Tensor.__module__}.Tensor.{name}" for name in ("__array__", "__array_wrap__")}
assert changed - where_missing == listed, sorted((changed - where_missing) ^ listed)[:20]
from recbole_posattn import compat
names = recbole_posattn.settings.registry.registered_model_names()
of_models = {f"{model}{kind}" for model in names for kind in ("Dataset", "Trainer")}
named_alone = {name.rsplit(".", 1)[1] for name in listed} - of_models - {"SASRecDataset"}
assert all(name in compat.__doc__ for name in named_alone), named_alone
assert sorted(set(state()[2][0]) - set(before[2][0])) == ["cov"]
from recbole.utils import ModelType, get_model, get_trainer
print(get_model("PosKernelSASRec").__name__, get_trainer(ModelType.SEQUENTIAL, "PosKernelSASRec").__name__)
print("ray" in sys.modules)
"""
    assert python(code).split() == ["PosKernelSASRec", "SequenceTrainer", "False"]


def imports_of(path: Path) -> list[str]:
    """The modules that a file imports when it is imported itself, in their order; names of the package in full."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [member if member in MODULES else str(node.module) for member in members]
    return found


def test_recbole_is_imported_after_what_prepares_for_it() -> None:
    """Whichever module of the package comes first."""
    checked = []
    for name, path in MODULES.items():
        imported = imports_of(path)
        of_recbole = [index for index, each in enumerate(imported) if each.split(".")[0] == "recbole"]
        if of_recbole:
            checked.append(name)
            assert any(each.startswith("recbole_posattn.compat") for each in imported[: of_recbole[0]]), path
    assert len(checked) > 20


def test_each_module_can_be_imported_first() -> None:
    """No two of them import each other, by whatever way."""
    below = {name: [each for each in imports_of(path) if each in MODULES] for name, path in MODULES.items()}
    order = list(TopologicalSorter(below).static_order())  # raises CycleError
    assert set(order) == set(MODULES) and order.index("recbole_posattn.settings.config") < order.index(
        "recbole_posattn.training.trainer"
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PosKernelSASRec", "SASRec"])
def test_unpickled_settings_make_recbole_find_the_model(
    model: str, tiny_settings: Callable[..., dict], empty_folder: Path
) -> None:
    """As in a worker process that was not forked."""
    config = Config(model, "tiny", config_dict=tiny_settings(), command_line=[])
    Path("config.pickle").write_bytes(pickle.dumps(config))
    code = """
import pickle, sys
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer
with open("config.pickle", "rb") as file:
    config = pickle.load(file)
loaders = data_preparation(config, create_dataset(config))
print(get_model(config["model"]).__module__, get_trainer(config["MODEL_TYPE"], config["model"]).__name__)
print(*(type(each).__name__ for each in (loaders[0].dataset, *loaders)))
"""
    module, trainer, *classes = python(code).split()
    if model == "SASRec":
        assert (module, trainer) == ("recbole.model.sequential_recommender.sasrec", "Trainer")
        assert classes == ["LazySequentialDataset", "TrainLoader", *["FullSortEvalLoader"] * 2]
    else:
        assert module.startswith("recbole_posattn.") and trainer == "SequenceTrainer"
        assert classes == ["SequenceDataset", "TrainLoader", *["FullSortEvalLoader"] * 2]

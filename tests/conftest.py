"""Shared fixtures: an empty working folder for every test, a tiny data set with a planted pattern, models on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_posattn.compat import anomaly_detection_unchanged

import pytest
import torch
from hypothesis import settings
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_posattn import Config, run
from recbole_posattn.data import shorter
from recbole_posattn.experiments.cluster import Resources, ray_cluster
from recbole_posattn.nn.encodings.build import ENCODINGS, PER_LAYER
from recbole_posattn.nn.encodings.build import READS_TIME as ENCODINGS_OF_TIME
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, STRUCTURES
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.nn.losses.build import LOSSES, LOSSES_WITHOUT_HISTORIES, SAMPLED_LOSSES
from recbole_posattn.nn.losses.negatives import NegativeItems
from recbole_posattn.settings import origins, plugins
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.part_rules import part_rules
from recbole_posattn.settings.properties import model_properties
from recbole_posattn.training.load import Loaded, prepare_data
from tests.features import write_features
from tests.planted import lagged_sequences, write_atomic_file

TINY = "tiny"

# The first call of anything in torch is slow; how long an example takes says nothing here. The profile can be named by
# the environment or by pytest's --hypothesis-profile: "nightly" by `make fuzz`, "fast" by `make test-fast`.
settings.register_profile("recbole-posattn", deadline=None, print_blob=True)
settings.register_profile("nightly", settings.get_profile("recbole-posattn"), max_examples=1000)
settings.register_profile("fast", settings.get_profile("recbole-posattn"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "recbole-posattn"))

with anomaly_detection_unchanged():  # several tests import RecBole's models themselves
    import recbole.model.sequential_recommender  # noqa: F401

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")

# Files whose tests use Ray, in the order in which one process runs them. All but the first share one Ray.
_ON_RAY = ("test_ray.py", "test_make.py", "test_search.py", "test_trials.py")

# Other slow files, the longest first: if one came last, its process would work on it alone.
_LONG = (
    *("test_resume.py", "test_timed_recommendations.py", "test_distributed.py", "test_ledger.py", "test_plugins.py"),
    *("test_second_device.py", "test_fuzz_command_lines.py", "test_protocols.py", "test_inspect.py"),
    *("test_tutorial.py", "test_supply_chain.py", "test_planted_lag.py", "test_wheel.py", "test_soak.py"),
)

torch.set_num_threads(1)  # the tensors here are tiny: threads would wait for each other longer than they work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files come first."""
    first = {name: place for place, name in enumerate((*_ON_RAY, *_LONG))}
    items.sort(key=lambda item: first.get(item.path.name, len(first)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2 --dist loadfile``, each process takes whole files in this order, and one takes all files on Ray.

    The tests of a file share fixtures that are expensive to make. By default, pytest-xdist begins with the files that
    have the most tests, however short. Its groups (``--dist loadgroup``) have no effect: version 3.8 sets an attribute
    that pytest 9.2 does not read.
    """
    from xdist.scheduler import LoadFileScheduling

    if config.getvalue("dist") != "loadfile":
        return None

    class WholeFiles(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "files on Ray" if file.rsplit("/", 1)[-1] in _ON_RAY else file

    config.option.loadscopereorder = False
    return WholeFiles(config, log)


@pytest.fixture(scope="session", autouse=True)
def outside_the_clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures of modules and of the session write below the working folder, too, before a test has its own."""
    with contextlib.chdir(tmp_path_factory.mktemp("session")):
        yield


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs write below the working folder and read ``sys.argv``: neither may be pytest's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_recbole_posattn.py"])
    return tmp_path


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The runs of a leaderboard are done one after the other in this process."""
    from recbole_posattn.experiments import trials
    from recbole_posattn.experiments.run_folders import run_in_folder

    def one_by_one(ray: None, waiting: Sequence[tuple], where: Resources, budget: object) -> Iterator[trials.Outcome]:
        for trial, folder in waiting:
            yield trials.Outcome(trial, folder, run_in_folder(dict(trial.settings), folder, n_threads=1))

    handler = signal.getsignal(signal.SIGINT)  # which a run ignores
    monkeypatch.setattr(trials, "ray_cluster", lambda where: contextlib.nullcontext())
    monkeypatch.setattr(trials, "_run_in_parallel", one_by_one)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def registrations(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tables of registered names and plugins, Python's path and its modules, all restored afterwards."""
    tables = [STRUCTURES, ENCODINGS, LOSSES, model_properties, *origins._origins.values()]
    sets = [
        PER_LAYER,
        SAMPLED_LOSSES,
        LOSSES_WITHOUT_HISTORIES,
        ENCODINGS_OF_TIME,
        STRUCTURES_OF_TIME,
        plugins._imported,
        plugins._installed,
        origins._left_behind,
    ]
    before = [(each, each.copy()) for each in (*tables, *sets)]
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_installed_are_imported", plugins._installed_are_imported)
    yield
    for each, kept in before:
        each.clear()
        each.update(kept)
    MODEL_RULES.update(part_rules())
    written_here = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(written_here):
            del sys.modules[name]


@pytest.fixture(scope="session")
def tiny_data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data_path`` with the data set ``tiny``: 60 users of 4 to 24 interactions with 20 items."""
    folder = tmp_path_factory.mktemp("data")
    write_atomic_file(folder, TINY, lagged_sequences(60, range(4, 25), n_items=20, lag=3, noise=0.1, seed=1))
    return folder


@pytest.fixture(scope="session")
def tiny_settings(tiny_data_path: Path) -> Callable[..., dict]:
    """Settings for a run of seconds on ``tiny``; keyword arguments are added or replace."""

    def settings(**changes: object) -> dict:
        base = {
            "data_path": str(tiny_data_path),
            "epochs": 2,
            "hidden_size": 16,
            "train_batch_size": 16,
            "MAX_ITEM_LIST_LENGTH": 10,
            "show_progress": False,
        }
        return {**base, **changes}

    return settings


@pytest.fixture(scope="session")
def finished_runs() -> dict[str, Path]:
    """Folders of finished runs by their settings, so that each is trained once."""
    return {}


@pytest.fixture
def finished_run(
    tiny_settings: Callable, finished_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The folder of a finished run on ``tiny``, a copy below ``saved``, for settings given as keywords."""

    def finished_run(model: str = "PosKernelSASRec", **changes: object) -> Path:
        settings = tiny_settings(**changes)
        key = json.dumps([model, settings], sort_keys=True)
        if key not in finished_runs:
            folder = tmp_path_factory.mktemp("finished")
            with contextlib.chdir(folder):
                checkpoint = run(model, TINY, config_dict=settings, command_line=[])["checkpoint"]
            finished_runs[key] = folder / Path(checkpoint).parent
        number = list(finished_runs).index(key)
        return shutil.copytree(finished_runs[key], Path("saved") / f"{finished_runs[key].name}-{number}")

    return finished_run


@pytest.fixture(scope="session")
def prepared() -> dict:
    """Loaders by the settings that shape the data, so that each is prepared once."""
    return {}


@pytest.fixture(scope="session")
def features_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the data set of :mod:`tests.features`, whose items have features."""
    folder = tmp_path_factory.mktemp("features")
    write_features(folder)
    return folder


@pytest.fixture
def build(tiny_settings: Callable, prepared: dict) -> Callable[..., tuple]:
    """A model in float64 with random kernels and encodings, and the loaders, for settings given as keywords."""

    def build(model: str = "PosKernelSASRec", **changes: object) -> tuple:
        named = f"{changes.get('kernel_structure')} {changes.get('kernel_branch')}"
        banded = any(structure in named for structure in BANDED_STRUCTURES)
        regular = {"time_is_order": False}  # the times of "tiny" are 0, 1, 2, …, and read all the same
        settings = tiny_settings(**({"kernel_bandwidth": 3} if banded else {}), **regular, **changes)
        config = Config(model, "tiny", config_dict=settings)
        keys = ("train_objective", "MAX_ITEM_LIST_LENGTH", "reads_time", "mask_history", "train_mask_history")
        shaping = tuple(config[key] for key in keys)
        if shaping not in prepared:
            prepared[shaping] = data_preparation(config, create_dataset(config))
        loaders = prepared[shaping]
        torch.manual_seed(0)
        recommender = config.model_class(config, loaders[0]._dataset).double().eval()
        with torch.no_grad():
            for name, parameter in recommender.named_parameters():
                if "width_logit" in name:
                    parameter.uniform_(-1, 1)  # far from the ends, where all or no lags are in the window
                elif "kernel" in name or "encoding" in name:
                    parameter.normal_()
                elif parameter.dim() > 1 and name != "item_embedding.weight":
                    parameter.normal_(std=0.3)
        return recommender, loaders

    return build


@pytest.fixture
def untrained(tiny_settings: Callable) -> Callable[..., Loaded]:
    """What ``load`` gives, of a model with random weights on ``tiny``, for settings given as keywords."""

    def untrained(model: str, **changes: object) -> Loaded:
        config = Config(model, "tiny", config_dict=tiny_settings(**changes), command_line=[])
        init_seed(config["seed"], config["reproducibility"])
        interactions, loaders = prepare_data(config)
        recommender = config.model_class(config, loaders[0]._dataset).eval()
        with torch.no_grad():
            for parameter in recommender.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
        return Loaded(config, recommender, interactions, *loaders)

    return untrained


@pytest.fixture
def same_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negatives are drawn on the CPU, the same ones for each device."""

    def draw(items: NegativeItems, shape: tuple[int, ...], total: int | torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        device = items.bounds.device
        return (torch.rand(shape, dtype=torch.float64, generator=generator).to(device) * total).long()

    monkeypatch.setattr(NegativeItems, "_draw", draw)
    monkeypatch.setitem(shorter.GROUP_COST, "cuda", 0)  # groups by length as on the CPU, and so the same order


@pytest.fixture
def histories() -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded item lists out of 20 items, as RecBole's, and their lengths."""
    length = torch.tensor([10, 1, 4, 7])
    items = torch.randint(1, 20, (4, 10), generator=torch.Generator().manual_seed(0))
    return items.masked_fill(torch.arange(10) >= length[:, None], 0), length


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a window; the test is skipped, and says so, where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "window-size=1000,900", f"user-data-dir={tmp_path / 'profile'}"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def kept_ray() -> Iterator[contextlib.ExitStack]:
    """Holds the Ray of ``connected_ray`` from one test to the next."""
    with contextlib.ExitStack() as kept:
        yield kept


@pytest.fixture(scope="module", autouse=True)
def ray_only_where_it_is_used(request: pytest.FixtureRequest, kept_ray: contextlib.ExitStack) -> None:
    """Tests in other files than those in ``_ON_RAY`` find no processes of Ray."""
    if request.path.name not in _ON_RAY:
        kept_ray.close()


@pytest.fixture
def connected_ray(kept_ray: contextlib.ExitStack) -> None:
    """A Ray with two CPUs, shared by the tests that only use it: each start takes seconds of CPU time."""
    ray = pytest.importorskip("ray")
    if not ray.is_initialized():
        kept_ray.close()
        kept_ray.enter_context(ray_cluster(Resources(jobs=2, cpus=1)))


@pytest.fixture
def without_connected_ray(kept_ray: contextlib.ExitStack) -> None:
    """For a test that starts or joins its own Ray. The next test with ``connected_ray`` starts that one again."""
    kept_ray.close()

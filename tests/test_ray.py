"""Ray started or joined: what does not start, answer or fit, and runs and trials on all machines of a cluster."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.cluster import Resources, ray_cluster
from recbole_posattn.experiments.trials import Trial, checked_folders, run_trials
from recbole_posattn.experiments.tuning.records import FINISHED
from recbole_posattn.experiments.tuning.search import run_search
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.spec import Search


@pytest.fixture
def settings(tiny_settings: Callable) -> dict[str, Any]:
    return tiny_settings(model="NoPESASRec", dataset="tiny", use_gpu=False)


def processes_of_ray() -> set[int]:
    """The processes of Ray that this process has started and that are still alive."""
    living = [each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    return {child.pid for child in living if "ray" in " ".join(child.cmdline())}


@pytest.mark.slow
@pytest.mark.usefixtures("without_connected_ray")
def test_more_than_the_machine_has_is_refused(settings: dict, tmp_path: Path) -> None:
    """Ray would wait forever. It is started to find out what the machine has, and stopped again."""
    import ray

    before = processes_of_ray()
    with pytest.raises(SettingError, match=r"a run needs 64 GPUs, and this machine has [0-9]+: lower gpus\."):
        list(run_trials({tmp_path / "run": Trial("Pop", {**settings, "model": "Pop"})}, Resources(cpus=1, gpus=64)))
    assert not ray.is_initialized() and processes_of_ray() <= before


@pytest.mark.usefixtures("without_connected_ray")
def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*args: object, **options: object) -> None:
        raise RuntimeError("The node died.\nMore lines.")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(SettingError, match=r"^Ray does not start: The node died\.$"), ray_cluster(Resources()):
        pass


@pytest.fixture(scope="module")
def two_nodes(kept_ray: contextlib.ExitStack) -> Iterator[str]:
    """The address of a Ray cluster of two nodes with a CPU each."""
    pytest.importorskip("ray")
    kept_ray.close()
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_runs_are_done_on_all_machines(settings: dict, tmp_path: Path, two_nodes: str) -> None:
    """One run ends while an endless one has the other CPU; the cluster is left as it was."""
    where = Resources(address=two_nodes, cpus=1)
    given = {**settings, "protocol": "leave_one_out", "epochs": 1}
    trials = [
        Trial("endless", {**given, "epochs": 100_000, "stopping_step": 100_000}),
        Trial("good", {**given, "seed": 2}),
    ]
    outcomes = run_trials(checked_folders(trials, tmp_path), where)
    first = next(outcomes)
    assert (first.trial.name, first.error) == ("good", None)
    assert first.result["config"]["seed"] == 2 and len(first.users) > 0
    outcomes.close()
    with ray_cluster(where) as ray:
        assert [node["Alive"] for node in ray.nodes()] == [True, True]


@pytest.mark.slow
def test_a_search_runs_on_both_machines_of_a_cluster(
    settings: dict, tmp_path: Path, two_nodes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two trials waits on its node until the other has started on another node."""
    from recbole_posattn.experiments.tuning import ray_tune

    # a nested function, so that Ray pickles it by value
    def run_trial(config: dict, settings: dict, folder: str, **options: Any) -> None:
        import ray

        from recbole_posattn.experiments.tuning import ray_tune

        nodes = Path(folder) / "nodes"
        nodes.mkdir(exist_ok=True)
        (nodes / ray.get_runtime_context().get_node_id()).touch()
        while len(list(nodes.iterdir())) < 2:
            time.sleep(0.05)
        ray_tune._run_trial(config, settings, folder, **options)

    monkeypatch.setattr(ray_tune, "_run_trial", run_trial)
    folder, rates = tmp_path / "search", Dimension("learning_rate", "loguniform", (1e-4, 1e-2), {})
    search = Search(settings, Space([rates]), 2, scheduler="none")
    records = run_search(search, folder, Resources(address=two_nodes, cpus=1))
    assert [record.state for record in records] == [FINISHED, FINISHED]
    assert len(list((folder / "nodes").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("without_connected_ray")
def test_a_cluster_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` looks for clusters among all processes and in a file; here it finds none, whatever this machine runs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", functools.cache(set))
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)
    with (
        pytest.raises(SettingError, match="no Ray cluster answers at address 'auto'"),
        ray_cluster(Resources(address="auto")),
    ):
        pass

"""Folders of runs, boards and searches: one process at a time works there, and nobody removes what another holds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from recbole_posattn.errors import InUseError
from recbole_posattn.experiments.leaderboard.leaderboard import make_leaderboard
from recbole_posattn.experiments.leaderboard.spec import Spec, read_spec
from recbole_posattn.experiments.run_folders import lock_of_run, remove_left_over, run_in_folder
from recbole_posattn.experiments.trials import Resources
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.spec import Search
from recbole_posattn.experiments.tuning.tune import tune
from recbole_posattn.locks import exclusive_access, lock_file, locked
from recbole_posattn.training.result import RESULT_NAME

SCRIPT = (
    "from recbole_posattn.locks import *; from pathlib import Path\nwith {block}: print('has it', flush=True); {then}"
)


@contextmanager
def other_process(block: str, then: str = "input()") -> Iterator[subprocess.Popen]:
    """A process inside a ``with`` statement, for as long as our own block runs."""
    command = [sys.executable, "-c", SCRIPT.format(block=block, then=then)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "has it\n"
            yield other
        finally:
            other.kill()


@pytest.fixture
def settings(tiny_settings: Callable) -> dict:
    return tiny_settings(model="NoPESASRec", dataset="tiny", use_gpu=False)


@pytest.fixture
def spec(settings: dict) -> Spec:
    given = {key: value for key, value in settings.items() if key not in ("model", "dataset")}
    return read_spec(None, {"models": ["NoPESASRec"], "datasets": ["tiny"], "protocols": ["leave_one_out"]}, given)


def test_a_second_board_or_search_says_who_works_there(settings: dict, spec: Spec, tmp_path: Path) -> None:
    """And touches nothing; when the first process has ended, however it did, the folder is free."""
    search = Search(settings, Space([Dimension("learning_rate", "loguniform", (1e-4, 1e-2), {})]), 2)
    kept = tmp_path / "runs" / "0000.incomplete"
    kept.mkdir(parents=True)
    with other_process(f"exclusive_access(Path({str(tmp_path)!r}), 'leaderboard')") as other:
        says = rf"in {re.escape(str(tmp_path))} is in use by process {other.pid} on .+ since .+: wait until it ends"
        with pytest.raises(InUseError, match=f"^the leaderboard {says}"):
            make_leaderboard(spec, tmp_path, Resources())
        for resume in (False, True):
            with pytest.raises(InUseError, match=f"^the search {says}"):
                tune(search, tmp_path, Resources(), resume=resume)
        assert kept.is_dir() and not (tmp_path / "search.json").exists()
    with exclusive_access(tmp_path, "leaderboard"):
        pass
    assert not list(tmp_path.glob(".lock*"))


def test_a_run_that_another_process_holds_is_waited_for(settings: dict, tmp_path: Path) -> None:
    """What that one has finished is not run again, and what it is doing is not removed."""
    run, incomplete = tmp_path / "run", tmp_path / "run.incomplete"
    incomplete.mkdir()
    ends = f"input(); Path({str(incomplete)!r}).rename({str(run)!r})"
    found = []
    with other_process(f"locked(Path({str(lock_of_run(run))!r}))", ends) as other:
        (incomplete / RESULT_NAME).write_text(
            '{"config": {}, "epochs": 1, "curve": [], "seconds": {}, "test_result": null}'
        )
        remove_left_over(tmp_path)
        assert (incomplete / RESULT_NAME).is_file()
        bad = {**settings, "n_layers": 0}  # would fail, and remove what is there
        waiting = Thread(target=lambda: found.append(run_in_folder(bad, run, 1)))
        waiting.start()
        other.communicate("end\n")
        waiting.join()
    assert found == [None] and sorted(file.name for file in tmp_path.rglob("*")) == [RESULT_NAME, "run"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "run.incomplete").mkdir()
    with other_process(f"locked(Path({str(tmp_path / 'run.lock')!r}))"):
        pass
    assert (tmp_path / "run.lock").exists()
    remove_left_over(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(*args: object, **options: object) -> None:
        raise NotImplementedError("no flock")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    assert lock_file(tmp_path / "lock") is None and "cannot be locked (no flock)" in caplog.text
    with locked(tmp_path / "lock"):
        pass

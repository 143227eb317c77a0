"""The target ``make soak`` in short, and that it draws all there is."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.soak import CARELESS, GENERAL, NOT_DRAWN, OUR_MODELS, SEQUENTIAL, draw_case
from recbole_posattn.nn.encodings.build import ENCODINGS
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.settings.properties import PROPERTIES, RECBOLE_PROPERTIES

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_short_soak_finds_no_fault(tmp_path: Path) -> None:
    """Four settings, of which two are stopped and resumed; a new process, as forks want."""
    page = tmp_path / "soak"
    command = ["-m", "benchmarks.soak", "--runs=4", "--seed=14", "--rounds=2", f"--output={page}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    with page.with_suffix(".csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["resumed"] for row in rows] == ["equal", "", "", "equal"]
    assert all(row["code"] == "0" and row["faults"] == "0" for row in rows)
    assert all("SIG" in rows[number]["signals at the share of its time"] for number in (0, 3))


def test_every_key_and_every_choice_is_drawn() -> None:
    cases = [draw_case(random.Random(number), disturbed=False) for number in range(4000)]
    drawn = {key for case in cases for key in case.settings}
    files = [
        *(root / "overall.yaml" for root in (PROPERTIES, RECBOLE_PROPERTIES)),
        *(PROPERTIES / "model").glob("*.yaml"),
    ]
    keys = {key for file in files for key in yaml.safe_load(file.read_text(encoding="utf-8"))}
    assert keys - NOT_DRAWN.keys() <= drawn
    assert not NOT_DRAWN.keys() & (drawn - CARELESS.keys())
    models = {case.settings["model"] for case in cases}
    assert models == {*OUR_MODELS, *SEQUENTIAL, *GENERAL}
    pairs = {case.settings["kernel_structure"] for case in cases if "kernel_structure" in case.settings}
    assert len(pairs) == len(STRUCTURES) ** 2
    assert {name for case in cases for name in case.settings.get("position_encoding", [])} >= ENCODINGS.keys()
    assert {case.nproc for case in cases} == {1, 2}

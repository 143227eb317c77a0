"""Digests of a data set's files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from recbole_posattn.data.digest import data_contents, data_digest

FILES = {"a[1].inter": "u\ti\n1\t2\n3\t4\n", "a[1].item": "i\n2", "a[1].notes": "", "a1.inter": "other data"}
SETTINGS = {
    "data_path": "data",
    "dataset": "a[1]",
    "load_col": {"inter": "*"},
    "benchmark_filename": None,
    "additional_feat_suffix": None,
}


@pytest.fixture
def sha256(empty_folder: Path) -> dict[str, str]:
    """Write the files; their digests by name."""
    (empty_folder / "data" / "a[1].folder").mkdir(parents=True)
    for name, text in FILES.items():
        Path("data", name).write_text(text)
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}


def test_the_digest_of_a_data_set_covers_its_atomic_files(sha256: dict[str, str]) -> None:
    """Finished runs of a leaderboard are recognized by it, those of older versions as well."""
    contents = [[name, sha256[name]] for name in ("a[1].inter", "a[1].item")]
    before = data_digest(SETTINGS)
    assert before == hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    for other in ("a[1].notes", "a[1].inter.bak", "a[1].rejected.tsv"):
        Path("data", other).write_text("no file of the data set")
        assert data_digest(SETTINGS) == before
    assert data_digest({**SETTINGS, "additional_feat_suffix": ["notes"]}) != before
    Path("data/a[1].item").write_text("more")
    os.utime("data/a[1].item", ns=(1, 1))
    assert data_digest(SETTINGS) != before


def test_the_contents_of_a_run_are_those_of_the_files_that_it_reads(sha256: dict[str, str]) -> None:
    interactions = {"a[1].inter": {"sha256": sha256["a[1].inter"], "rows": 2}}
    items = {"a[1].item": {"sha256": sha256["a[1].item"], "rows": 1}}
    assert data_contents(SETTINGS) == interactions
    assert data_contents({**SETTINGS, "load_col": None}) == {**interactions, **items}
    assert data_contents({**SETTINGS, "load_col": {"inter": "*", "item": "*"}}) == {**interactions, **items}
    assert data_contents({**SETTINGS, "additional_feat_suffix": ["notes"], "load_col": None}).keys() == {
        *interactions,
        *items,
        "a[1].notes",
    }
    assert data_contents({**SETTINGS, "benchmark_filename": ["train"]}) == {}
    Path("data/a[1].train.inter").write_text("u\ti\n")
    assert data_contents({**SETTINGS, "benchmark_filename": ["train"]})["a[1].train.inter"]["rows"] == 0

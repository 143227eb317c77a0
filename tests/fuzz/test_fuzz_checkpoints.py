"""Any file given as a checkpoint is read as it was written, or refused in one line, and nothing in it is executed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn import load
from recbole_posattn.training.checkpoint import read_checkpoint, read_plain, write_checkpoint
from recbole_posattn.training.resume import LOCK_NAME
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from tests.fuzz.harness import call, cases, empty_folder, refused
from tests.fuzz.test_fuzz_command_lines import checkpoint  # noqa: F401 (a fixture)

# Replacements for a value.
STRANGE = [
    None,
    True,
    -1,
    0,
    10**9,
    float("nan"),
    "",
    "x",
    "../..",
    [],
    {},
    [1],
    {"a": 1},
    torch.zeros(2),
    torch.ones(3, 4),
]
MODELS = ["PosKernelSASRec", "NoPESASRec", "RoPESASRec", "CAPESASRec", "SASRec", "BPR", "Pop", "GRU4Rec", "NoSuchModel"]


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> bytes:  # noqa: F811
    return checkpoint.read_bytes()


@pytest.fixture(scope="module")
def content_of(checkpoint: Path) -> Callable[[], dict]:  # noqa: F811
    """What is in the checkpoint; a function, for a report of a failure would write all of it out."""
    content = read_checkpoint(checkpoint)
    return lambda: content


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut off, bits flipped, zeroed in parts as a crashed disk does, or longer than it was."""
    position = draw(st.integers(0, len(content) - 1))
    how = draw(st.sampled_from(["cut", "flip", "zero", "longer"]))
    if how == "cut":
        return content[:position]
    if how == "flip":
        bit = 1 << draw(st.integers(0, 7))
        return content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :]
    if how == "zero":
        size = len(content[position : position + draw(st.integers(1, 4096))])
        return content[:position] + bytes(size) + content[position + size :]
    return content + draw(st.binary(min_size=1, max_size=200))


@cases(100)
@given(data=st.data())
def test_a_damaged_checkpoint_is_never_read(whole: bytes, data: st.DataObject) -> None:
    content = data.draw(damaged(whole))
    with empty_folder():
        Path("best.pth").write_bytes(content)
        _, error = refused("checkpoints: damaged", lambda: read_plain("best.pth"))
    assert (error is None) == (content == whole)
    assert error is None or "best.pth is damaged" in str(error) or "was not written by recbole-posattn" in str(error)


def places(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths to all values of nested dicts."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


# What is done to a checkpoint: at which place, whether the value is removed, and which one takes its place.
CHANGES = st.lists(st.tuples(st.integers(0, 999), st.booleans(), st.integers(0, 999)), min_size=1, max_size=3)


def crafted(content: dict, changes: list[tuple[int, bool, int]]) -> dict:
    """A checkpoint in which some values are missing or are others."""
    content = copy.deepcopy(content)
    for place, is_removed, choice in changes:
        # The names of columns are whatever the data call them.
        found = [place for place in sorted(places(content), key=str) if "FIELD" not in str(place[-1])]
        *path, key = found[place % len(found)]
        inside = content
        for step in path:
            inside = inside[step]
        values = MODELS if key == "model" else STRANGE
        if is_removed:
            del inside[key]
        else:
            inside[key] = copy.deepcopy(values[choice % len(values)])
    return content


def test_settings_of_an_older_version_get_their_defaults(content_of: Callable[[], dict]) -> None:
    """As if the key had not been there yet when the model was trained."""
    content = copy.deepcopy(content_of())
    del content["config"]["layer_norm_eps"], content["config"]["mask_history"]
    with empty_folder():
        write_checkpoint(content, "best.pth")
        assert load("best.pth").config["layer_norm_eps"] == 1e-8


@cases(50)
@given(changes=CHANGES)
def test_a_crafted_checkpoint_is_used_or_refused(
    content_of: Callable[[], dict], changes: list[tuple[int, bool, int]]
) -> None:
    """With a right checksum; what has no say in the result may be another."""
    with empty_folder():
        write_checkpoint(crafted(content_of(), changes), "best.pth")
        call("checkpoints: crafted", ["recommend", "best.pth", "--k=2", "--output=lists.csv"])


@cases(15)
@given(changes=CHANGES)
def test_a_crafted_run_goes_on_or_is_refused(
    checkpoint: Path,  # noqa: F811
    changes: list[tuple[int, bool, int]],
) -> None:
    """Its settings, weights, optimizer, counters, curve, random states and digests of data."""
    with empty_folder():
        Path("run").mkdir()
        Path("run", LOCK_NAME).touch()
        Path("run", BEST_NAME).write_bytes(checkpoint.read_bytes())
        content = read_checkpoint(checkpoint.with_name(LAST_NAME))
        write_checkpoint(crafted(content, changes), Path("run", LAST_NAME))
        call("checkpoints: crafted, resumed", ["run", "--resume=run", "--epochs=2", "--checkpoint_dir=saved"])

"""Any YAML file is the settings it says, or refused with what is wrong in it."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from recbole.config.configurator import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_posattn import Config
from recbole_posattn.errors import SettingError
from recbole_posattn.settings.keys import DERIVED_KEYS, LAUNCHER_ARGUMENTS, UNLISTED_RECBOLE_KEYS
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.properties import RECBOLE_PROPERTIES
from recbole_posattn.settings.run_keys import RUN_RULES
from recbole_posattn.settings.yaml import read_yaml
from tests.fuzz.harness import TINY_RUN, call, cases, empty_folder, refused, tiny_flags, words, write_data

KEYS = sorted(
    {
        *RUN_RULES,
        *MODEL_RULES,
        *("dataset", "model", "protocol", "my_own_note", "hiden_size"),
        *(LAUNCHER_ARGUMENTS | UNLISTED_RECBOLE_KEYS | DERIVED_KEYS),
        *(general_arguments + training_arguments + evaluation_arguments + dataset_arguments),
        *(yaml.safe_load((RECBOLE_PROPERTIES / "overall.yaml").read_text())),
        *(yaml.safe_load((RECBOLE_PROPERTIES / "dataset" / "sample.yaml").read_text())),
    }
)

plain_words = st.sampled_from(
    words(
        "user_id item_id timestamp inter user rope full toeplitz-full CE SSM BPR [0,inf) [1,2];(3,4] adam NDCG@3 Hit "
        "none all uniform popularity uni3 temporal latin-1 utf-16 idna first * , | :: auto shared .. / a/b 0,1 info "
        "mask_itemseq"
    )
)
small = st.sampled_from([None, True, False, 0, 1, 2, 3, 5, -1, 0.5, 1.0, 1e-3, "", " ", "\t"]) | plain_words
scalars = small | st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**30, -(10**400), 2**31, 2**63, 1e300, float("nan"), float("inf")]),
    st.sampled_from(["x" * 5000, "\0", "é\u2028", "\x1b[0m"]),
    st.text(max_size=4),
    st.dates(),
    st.binary(max_size=3),
)
mapping_keys = plain_words | st.sampled_from(
    words(
        "distribution sample_num alpha dynamic split order mode group_by LS RS TQ valid test u l max_norm method bucket"
    )
)


def nested(leaves: st.SearchStrategy) -> st.SearchStrategy:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(mapping_keys, inner, max_size=3),
        max_leaves=6,
    )


splits = nested(small) | st.sampled_from([[0.8, 0.1, 0.1], "valid_and_test", [0.5, 0.7]])
modes = st.sampled_from([*words("full uni2 pop2 labeled uni0 uni"), {"valid": "full"}, {"test": "uni2"}])
columns = st.lists(plain_words, max_size=4) | st.just("*") | small

# Values of the form that a key has.
shaped = {
    "eval_args": st.fixed_dictionaries(
        {},
        optional={
            "split": st.dictionaries(st.sampled_from(["LS", "RS", "TS", "TQ", "XX"]), splits, max_size=2),
            "order": small | st.sampled_from(["RO", "TO"]),
            "group_by": small | st.just("user"),
            "mode": modes | nested(small),
        },
    ),
    "load_col": st.dictionaries(st.sampled_from(["inter", "item", "kg"]), columns, max_size=2),
    "train_neg_sample_args": st.dictionaries(mapping_keys, small, max_size=4),
    "position_encoding": st.lists(st.sampled_from(words("rope absolute cape alibi t5_bias nope")), max_size=2),
}


@st.composite
def settings_of(draw: st.DrawFn, values: st.SearchStrategy, keys: list[str] = KEYS) -> dict[str, Any]:
    """Some keys with some values, often of the kind of their key."""
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True))
    return {key: draw(shaped[key] if key in shaped and draw(st.booleans()) else values) for key in chosen}


def check_settings(kind: str, given_settings: dict[str, Any], model: str | None = None) -> None:
    """A ``Config`` that can be written down, or one line."""
    with empty_folder():
        Path("given.yaml").write_text(yaml.safe_dump(given_settings, allow_unicode=True), encoding="utf-8")

        def build() -> dict:
            dataset = None if "dataset" in given_settings else "tiny"
            model_name = None if "model" in given_settings else model
            return Config(model_name, dataset, config_file_list=["given.yaml"], command_line=[]).plain()

        plain, error = refused(kind, build)
    assert plain is None or len(str(plain)) < 10**6
    if error is not None and len(given_settings) == 1:
        ((key, value),) = given_settings.items()
        assert key in str(error) or str(value) in str(error)


@cases(100)
@given(settings_of(nested(scalars)), st.sampled_from(["PosKernelSASRec", "RoPESASRec", "SASRec", "BPR", "GRU4Rec"]))
@example({"model": ["SASRec"]}, "SASRec")
@example({"model": 3}, "SASRec")
@example({"dataset": "../x"}, "SASRec")
@example({"dataset": "x" * 5000}, "SASRec")
@example({"dataset": None}, "SASRec")
@example({"protocol": "x" * 5000 + ".yaml"}, "SASRec")
@example({"valid_metric": ["NDCG@10"]}, "SASRec")
@example({"metrics": [["NDCG"]]}, "SASRec")
@example({"metrics": []}, "SASRec")
@example({"topk": 10**30}, "SASRec")
@example({"seed": 2**32}, "SASRec")
@example({"local_rank": 0}, "SASRec")
@example({"MODEL_TYPE": "general"}, "SASRec")
@example({"log_wandb": "yes"}, "SASRec")
@example({"position_encoding": [["rope"]]}, "PosKernelSASRec")
@example({"n_layers": 10**9}, "PosKernelSASRec")
@example({"learning_rate": float("inf")}, "PosKernelSASRec")
@example({"hidden_size": "64"}, "SASRec")
@example({"load_col": {}}, "SASRec")
@example({"load_col": {"inter": ["user_id"]}}, "SASRec")
@example({"USER_ID_FIELD": "item_id"}, "SASRec")
@example({"eval_args": {"mode": "uni0"}}, "BPR")
@example({"ITEM_ID_FIELD": "x" * 5000}, "PosKernelSASRec")
@example({"gpu_id": "a\0b"}, "BPR")
def test_any_value_of_any_key(given_settings: dict[str, Any], model: str) -> None:
    check_settings("YAML: values", given_settings, model)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_every_key_with_a_value_of_every_kind(key: str) -> None:
    for value in (None, True, -1, 0.5, float("nan"), 10**30, "", "abc", [], [[None]], {}, {"a": {"b": 1}}):
        check_settings("YAML: every key", {key: value})


# Of these, any accepted value makes a run of tenths of a second.
RUN_KEYS = sorted(set(KEYS) - {*words("worker torch_compile nproc world_size ip port group_offset config_files model")})


@cases(25)
@given(settings_of(nested(small), RUN_KEYS), st.sampled_from(["PosKernelSASRec", "SASRec", "BPR"]))
@example({"load_col": {"inter": "*"}}, "BPR")
@example({"learning_rate": 1e30}, "PosKernelSASRec")
@example({"initializer_range": 1e30}, "PosKernelSASRec")
@example({"topk": 8, "valid_metric": "NDCG@8"}, "SASRec")
@example({"checkpoint_dir": "given.yaml"}, "SASRec")
@example({"checkpoint_dir": "given.yaml/x"}, "SASRec")
def test_runs_with_any_settings(given_settings: dict[str, Any], model: str) -> None:
    changes = {key: None for key in given_settings if key in (*TINY_RUN, "dataset", "data_path")}
    with empty_folder():
        write_data()
        Path("given.yaml").write_text(yaml.safe_dump(given_settings, allow_unicode=True), encoding="utf-8")
        changes["model"] = model
        call("YAML: whole runs", ["run", "--config_files=given.yaml", *tiny_flags(**changes)])


# -- texts -----------------------------------------------------------------------------------------------------------

LINES = """
hidden_size: 8
epochs: 1
seed: 5
n_layers: 1
topk: [3]
eval_args: {order: TO, mode: full}
load_col:
  inter: '*'
- a
a
? [a]
x: !!python/object/apply:os.getcwd []
x: !!python/name:os.system
x: !!binary aGk=
x: !!set {a, b}
x: !own y
x: &a [*a]
x: &a {b: *a}
y: *nowhere
x: &a 1
y: *a
<<: {seed: 3}
<<: *a
<<: 3
%YAML 1.1
---
...
seed: 1e400
seed: 0x10
seed: 0o7
seed: 1:30
x: 2020-13-45
x: |
  text
x: >-
1: 2
null: 3
~: x
true: x
[a, b]: c
{a: b}: c
x: [1,
x: {1
x: "
x: '
# c
x: @
x: `
é: 1
"""
lines = st.sampled_from([*LINES.splitlines(), "\tx: 1", "x:\t1", "x: \u2028y", "x: \x07", "\ufeff"])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    text = "\n".join(draw(st.lists(lines, max_size=8))) + draw(st.sampled_from(["", "\n"]))
    content = text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=6)) + content[at + draw(st.integers(0, 3)) :]
    return content


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + above] * 9)}]\n" for above, name in zip(string.ascii_lowercase, "bcdefghijk")
)


@cases(100)
@given(texts())
@example(b"")
@example(b"\xff\xfe")
@example(b"seed: 3\nseed: 4\n")
@example(b"- seed\n")
@example(b"seed\n")
@example(b"x: " + b"[" * 5000)
@example(b"x: " + b"[" * 60 + b"]" * 60)
@example(b"x: " + b"{a: " * 5000)
@example(b"- " * 5000)
@example(b"x: " + b"9" * 5000)
@example(b"x: 0x" + b"f" * 5000)
@example(BOMB.encode())
@example(b"a: &a {b: *a}")
@example(b"a: &a {<<: *a}")
@example(b"\0")
def test_any_text(content: bytes) -> None:
    with empty_folder():
        Path("given.yaml").write_bytes(content)
        found, error = refused("YAML: texts", lambda: read_yaml("given.yaml"))
        if error is not None:
            assert "config file given.yaml" in str(error)
            outcome = call("YAML: texts by the launcher", ["run", "--config_files=given.yaml", *tiny_flags()])
            assert outcome.code == 2
        else:
            assert all(isinstance(key, str) for key in found)


names = st.text(string.ascii_letters, min_size=2, max_size=5)


@cases(20)
@given(st.dictionaries(names, st.lists(st.integers()) | st.integers(), min_size=1, max_size=5), st.data())
def test_a_key_that_stands_twice_is_told_with_its_lines(mapping: dict[str, Any], data: st.DataObject) -> None:
    assume(not {key.lower() for key in mapping} & {"no", "yes", "on", "off", "null", "true", "false"})
    written = [yaml.safe_dump({key: value}, default_flow_style=True).strip("{}\n") for key, value in mapping.items()]
    assume(not any("\n" in line for line in written))
    again = data.draw(st.integers(0, len(written) - 1))
    with empty_folder():
        Path("given.yaml").write_text("\n".join(written))
        found, _ = refused("YAML: keys twice", lambda: read_yaml("given.yaml"))
        assert found.keys() == mapping.keys()
        Path("given.yaml").write_text("\n".join([*written, written[again]]))
        _, error = refused("YAML: keys twice", lambda: read_yaml("given.yaml"))
        key = list(mapping)[again]
        assert f"key {key!r} is given twice, in line {again + 1} and in line {len(written) + 1}" in str(error)
        nest = "x:\n" + "\n".join(f"  {line}" for line in [*written, written[again]])
        Path("given.yaml").write_text(nest)
        with pytest.raises(SettingError, match=re.escape(f"key {key!r} is given twice, in line {again + 2}")):
            read_yaml("given.yaml")


def test_anchors_and_merges_that_are_sound_are_read() -> None:
    with empty_folder():
        Path("given.yaml").write_text("x: &a {seed: 1, epochs: 2}\ny: {<<: *a, seed: 3}\nz: [*a, *a]\n")
        assert read_yaml("given.yaml") == {
            "x": {"seed": 1, "epochs": 2},
            "y": {"seed": 3, "epochs": 2},
            "z": [{"seed": 1, "epochs": 2}] * 2,
        }

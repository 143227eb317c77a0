"""Of any settings that change on resume, those that may change are used, and the others are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from recbole_posattn import Config
from recbole_posattn.errors import SettingError
from recbole_posattn.settings.key import Source
from recbole_posattn.settings.keys import CHANGEABLE, KEYS, RESUMABLE, value_before
from recbole_posattn.settings.recipe_checks import resolved_histories
from recbole_posattn.training.checkpoint import write_checkpoint
from recbole_posattn.training.resume import Resumed, config_to_resume, resumed_run
from recbole_posattn.training.run_folder import LAST_NAME
from recbole_posattn.training.same_run import setting_differences
from tests.fuzz.harness import cases, empty_folder, refused, words

# Values of many kinds; each key draws from those that its rule allows.
POOL: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 4, 8, 16, 64, 512, 0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 2.5, 1e-3, 3600),
    *words("user_id item_id timestamp rating adam sgd AdamW none all except_target NDCG@5 Recall@10 NDCG MRR CE SSM"),
    *words("BPR relu gelu toeplitz-full full-toeplitz rope absolute auto shared per_layer sequence augmented info"),
    *words("ERROR debug first last utf-8 latin-1 UTF8 [2,inf) [1,2];[4,9) a/b 0,1 , | mask_itemseq swish tanh"),
    *([5], [1, 10], ["NDCG"], ["NDCG", "MRR"], ["rope"], ["rating"], ["a", "b", "c"], {"max_norm": 1}, {"rating": 3}),
    *({"max_norm": 5.0, "norm_type": 2}, {"inter": ["user_id", "item_id", "timestamp"]}, {"rating": "[1,3]"}),
    *({"item_id": 4}, {"order": "RO"}, {"split": {"LS": "test_only"}}, {"mode": "uni100"}, {"sample_num": 8}),
    *({"distribution": "uniform", "sample_num": 2}, {"distribution": "popularity", "alpha": 0.5}),
]
N_TRAINED = 3  # epochs before the run is resumed
FORBIDDEN_ALONE = {"local_rank", "device", "world_size"}  # found out anew in each process
ALLOWED = {
    key.name: [value for value in POOL if key.rule.holds(value)]
    for key in KEYS.values()
    if key.rule is not None and key.source not in (Source.LAUNCHER, Source.RESOLVED)
}
DRAWN = sorted(name for name, values in ALLOWED.items() if len(values) > 1)

models = st.sampled_from(["PosKernelSASRec", "RoPESASRec", "SASRec", "GRU4Rec", "BPR"])


@st.composite
def changed_settings(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a run, and those given when it is resumed: often the same key with another value."""

    def some(keys: list[str], most: int) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(keys), max_size=most, unique=True))
        return {key: draw(st.sampled_from(ALLOWED[key])) for key in chosen}

    before = some(DRAWN, 2)
    changeable = sorted((CHANGEABLE | RESUMABLE) & set(DRAWN))
    now = some([*changeable, *before] if draw(st.booleans()) else DRAWN, 2)
    return before, now


def resolved(model: str, settings: dict[str, Any]) -> Config | SettingError:
    try:
        return Config(model, "tiny", config_dict=settings, command_line=[])
    except SettingError as error:  # a value that does not go with the model or with the other ones
        return error


def compared(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.plain().items() if key not in FORBIDDEN_ALONE}


@cases(40)
@given(models, changed_settings())
@example("PosKernelSASRec", ({}, {"train_neg_sample_args": {"sample_num": 8}}))
@example("PosKernelSASRec", ({"loss_type": "SSM"}, {"train_neg_sample_args": {"sample_num": 8}}))
@example("GRU4Rec", ({}, {"loss_chunk_size": 3600}))
@example("PosKernelSASRec", ({"history_partition": True}, {"history_partition": "auto"}))
@example("PosKernelSASRec", ({}, {"epochs": 0}))
@example("SASRec", ({}, {"train_mask_history": False}))
@example("PosKernelSASRec", ({}, {"stopping_step": 0}))
@example("PosKernelSASRec", ({"stopping_step": 3}, {"stopping_step": 20}))
@example("PosKernelSASRec", ({"encoding": "utf-8"}, {"encoding": "UTF8"}))
@example("SASRec", ({}, {"position_encoding": "auto"}))
@example("BPR", ({}, {"train_neg_sample_args": {"distribution": "popularity", "alpha": 0.5}}))
@example("SASRec", ({"loss_type": "BPR"}, {"loss_type": "CE"}))
def test_changed_settings(model: str, case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    before, now = case
    first = resolved(model, before)
    assume(isinstance(first, Config) and first["epochs"] >= N_TRAINED)
    training = {"given": sorted(first.given_keys()), "changes": [], "random": [0], "best_epoch": -1, "left": None}
    content = {"epoch": N_TRAINED - 1, "config": first.plain(), "training": training}

    def settings_now() -> Config:
        return config_to_resume("run", lambda of_run: Config(model, "tiny", None, now, [], of_run))

    def resume() -> Resumed:
        found = resumed_run("run", given_now)
        found.release()
        return found

    with empty_folder():
        Path("run").mkdir()
        write_checkpoint(content, Path("run", LAST_NAME))
        new = resolved(model, {**before, **now})
        given_now, error = refused("settings to resume", settings_now)
        assert (error is None) == isinstance(new, Config), error  # checked together, as in a new run
        if error is not None:
            assert str(error) == str(new)
            return
        differing = setting_differences(content, given_now)
        found, error = refused("resumed settings", resume)
    was, is_now = compared(first), compared(given_now)
    may_change = CHANGEABLE | RESUMABLE
    fixed = {
        key for key in now.keys() - may_change if was.get(key, value_before(key, first.defaults())) != is_now.get(key)
    } - same_encoding(before, now)
    comes_to = [resolved_histories(was), resolved_histories(is_now)]  # "auto" may be the value that was given
    old = {key: was.get(key, value_before(key, first.defaults())) for key in comes_to[1]}  # or not the model's
    fixed -= {key for key, value in comes_to[1].items() if comes_to[0].get(key, old[key]) == value}
    if now.get("position_encoding") == "auto" and "position_encoding" not in first.internal_config_dict:
        fixed.discard("position_encoding")  # without effect on a model of RecBole
    assert not differing.keys() & RESUMABLE
    assert fixed <= differing.keys()
    if error is not None:
        named = [key for key in now.keys() - may_change if f"has {key} " in str(error)]
        named += ["epochs"] if now.get("epochs", N_TRAINED) < N_TRAINED and "more than epochs" in str(error) else []
        assert isinstance(error, SettingError) and named and "leave" in str(error), error
        return
    assert not fixed, (fixed, found)
    used = {key: is_now[key] for key in now.keys() & may_change if key in is_now}
    assert compared(found.config) == {**was, **used}
    recorded = {change["key"]: (change["before"], change["now"]) for change in found.changes}
    before_of = {key: was.get(key, first.defaults().get(key)) for key in used.keys() & CHANGEABLE}  # or not the model's
    if used.get("stopping_step", was["stopping_step"]) < was["stopping_step"]:  # it could have ended the run earlier
        before_of["stopping_step"] = was["stopping_step"]
    assert recorded == {key: (value, used[key]) for key, value in before_of.items() if value != used[key]}


def same_encoding(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """The key of the encoding where two names mean one."""
    names = {settings.get("encoding") or "utf-8" for settings in (before, now)}
    return {"encoding"} if names <= {"utf-8", "UTF8"} else set()

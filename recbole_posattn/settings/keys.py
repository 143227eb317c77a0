"""The table of all keys, and the sets of keys that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.key import AS_DEFAULT, Key, Phase, Scope, Source
from recbole_posattn.settings.model_keys import MODEL_KEYS
from recbole_posattn.settings.rules import OPTIONAL_PATH, PATH
from recbole_posattn.settings.run_keys import NAME_RULES, RUN_KEYS
from recbole_posattn.settings.single_model_keys import SINGLE_MODEL_KEYS

_OTHER_KEYS = (
    # RecBole's Config meets the launcher's options among the settings of the command line.
    Key("dataset", NAME_RULES["dataset"], source=Source.NAME, scope=Scope.RUN),
    Key("model", source=Source.NAME, scope=Scope.RUN),
    *(
        Key(name, source=Source.LAUNCHER, scope=Scope.EXECUTION)
        for name in ("config_files", "resume", "nproc", "ip", "port", "group_offset")
    ),
    # An argument of the launcher; Config replaces it by the number of processes.
    Key("world_size", changes_result=False, source=Source.LAUNCHER, scope=Scope.EXECUTION),
    *(
        Key(name, source=Source.UNLISTED)
        for name in ("neg_sampling", "training_neg_sample_num", "xgb_early_stopping_rounds")
    ),
    Key("device", resumable="yes", changes_result=False, source=Source.RESOLVED, scope=Scope.EXECUTION),
    Key("local_rank", resumable="yes", changes_result=False, source=Source.RESOLVED, scope=Scope.EXECUTION),
    Key("single_spec", resumable="yes", source=Source.RESOLVED, scope=Scope.EXECUTION),
    *(
        Key(name, source=Source.RESOLVED)
        for name in (
            *("MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "offset"),
            *("valid_neg_sample_args", "test_neg_sample_args", "loss_negatives"),
        )
    ),
    Key("reads_time", source=Source.RESOLVED, before=False),
)

# Every key that the package knows, by name. RecBole's models have keys of their own, which their property files list.
KEYS = {key.name: key for key in (*MODEL_KEYS, *SINGLE_MODEL_KEYS, *RUN_KEYS, *_OTHER_KEYS)}


def _names(*sources: Source) -> set[str]:
    return {key.name for key in KEYS.values() if key.source in sources}


def _of_scope(*scopes: Scope) -> set[str]:
    return {key.name for key in KEYS.values() if key.scope in scopes}


# Arguments of the launcher that are not settings; a program that reads the command line itself finds them there.
LAUNCHER_ARGUMENTS = _names(Source.LAUNCHER) - {"world_size"}

# Keys that RecBole reads although no property file names them, and the defaults of those whose default is not None.
UNLISTED_RECBOLE_KEYS = _names(Source.UNLISTED)
UNLISTED_DEFAULTS = {name: KEYS[name].default for name in UNLISTED_RECBOLE_KEYS if KEYS[name].default is not None}

# Keys that Config derives from the other settings.
DERIVED_KEYS = _names(Source.RESOLVED)

# Keys that may be given with any model; a mistyped key is compared with them and with those of the model.
KEYS_OF_EVERY_MODEL = KEYS.keys() - _names(Source.MODEL, Source.RESOLVED)

# Keys that RecBole's transforms and KD_DAGFM add to the settings while a run trains.
ADDED_IN_TRAINING = {
    *("MASK_INDEX", "MASK_ITEM_SEQ", "POS_ITEMS", "NEG_ITEMS", "INVERSE_ITEM_SEQ", "REORDER_ITEM_SEQ"),
    *("CROP_ITEM_SEQ", "CROP_ITEM_SEQ_LEN", "feature_num"),
}

# Settings that may be changed on resume: how long a run trains, where it does so, and what it prints.
RESUMABLE = {key.name for key in KEYS.values() if key.resumable == "yes"}

# Settings that may be changed on resume if the user names them; the change is kept on record.
CHANGEABLE = {key.name for key in KEYS.values() if key.resumable == "recorded"}

# Settings that change where a run takes place or what it prints, but not its result. The data is identified by its
# contents, not its path.
WITHOUT_EFFECT_ON_RESULT = {key.name for key in KEYS.values() if not key.changes_result}

# For keys that were added later: the value that reproduces the results of runs without the key.
VALUES_BEFORE = {key.name: key.before for key in KEYS.values() if key.before is not AS_DEFAULT}


def value_before(key: str, defaults: Mapping[str, Any], absent: Any = None) -> Any:
    """The value of a key that continues the results of a run that was made before there was the key."""
    return VALUES_BEFORE.get(key, defaults.get(key, absent))


# Keys that a search may draw, with the models' own, which RecBole's property files list. Runs that differ in any other
# cannot be compared, or do not differ in their result.
TUNABLE = _of_scope(Scope.TRAINING, Scope.DATA) - DERIVED_KEYS - WITHOUT_EFFECT_ON_RESULT

# Keys that a file of a protocol may set.
PROTOCOL_KEYS = _of_scope(Scope.EVALUATION, Scope.DATA) - DERIVED_KEYS

# Keys in which the rows of a leaderboard may not differ, and those of which a leaderboard runs all combinations.
SAME_IN_ALL_ROWS = _of_scope(Scope.RUN, Scope.EVALUATION) - {"model"}
RUN_NAMES = _of_scope(Scope.RUN)

# Settings of the place of a run and its output, which are not worth repeating elsewhere.
PLACES = _of_scope(Scope.EXECUTION) & WITHOUT_EFFECT_ON_RESULT

# Paths, which are relative to the folder in which a command was started.
PATH_KEYS = {key.name for key in KEYS.values() if key.rule in (PATH, OPTIONAL_PATH)}

# Keys that name a set of settings, perhaps a file.
NAMES_OF_SETTINGS = {key.name for key in KEYS.values() if key.names_settings}

# Keys that name columns of ids, and keys that leave out interactions of a file.
ID_FIELD_KEYS = {name for name in KEYS if name.endswith("_ID_FIELD")}
FILTER_KEYS = [key.name for key in KEYS.values() if key.filters_rows]


def sizes_of(phase: Phase) -> list[str]:
    """The settings with which the memory of a phase grows, in the order in which to lower them.

    Batch sizes come first, then what else may be changed on resume, so that the run can go on.
    """
    sizes = [key for key in (*RUN_KEYS, *MODEL_KEYS) if phase in key.sizes]
    return [key.name for key in sorted(sizes, key=lambda key: key.resumable == "no")]

"""The table of all keys, and the sets of keys that follow from it."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.filter_keys import FILTER_KEYS
from recbole_posattn.settings.key import Key, Source
from recbole_posattn.settings.model_keys import MODEL_KEYS
from recbole_posattn.settings.run_keys import NAME_RULES, RUN_KEYS

_OTHER_KEYS = (
    # RecBole's Config meets the launcher's options among the settings of the command line.
    Key("dataset", NAME_RULES["dataset"], source=Source.LAUNCHER),
    *(Key(name, source=Source.LAUNCHER) for name in ("model", "config_files", "nproc", "ip", "port", "group_offset")),
    Key("world_size", changes_result=False, source=Source.LAUNCHER),
    *(
        Key(name, source=Source.UNLISTED)
        for name in ("neg_sampling", "training_neg_sample_num", "xgb_early_stopping_rounds")
    ),
    Key("device", resumable="yes", changes_result=False, source=Source.RESOLVED),
    Key("local_rank", resumable="yes", changes_result=False, source=Source.RESOLVED),
    Key("single_spec", resumable="yes", source=Source.RESOLVED),
    *(
        Key(name, source=Source.RESOLVED)
        for name in (
            *("MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "offset"),
            *("valid_neg_sample_args", "test_neg_sample_args", "loss_negatives"),
        )
    ),
)

# Every key that the package knows, by name. RecBole's models have keys of their own, which their property files list.
KEYS = {key.name: key for key in (*MODEL_KEYS, *FILTER_KEYS, *RUN_KEYS, *_OTHER_KEYS)}


def _names(source: Source) -> set[str]:
    return {key.name for key in KEYS.values() if key.source is source}


LAUNCHER_KEYS = _names(Source.LAUNCHER)

# Keys that RecBole reads although no property file names them, and the defaults of those whose default is not None.
UNLISTED_RECBOLE_KEYS = _names(Source.UNLISTED)
UNLISTED_DEFAULTS = {name: KEYS[name].default for name in UNLISTED_RECBOLE_KEYS if KEYS[name].default is not None}

# Keys that Config derives from the other settings.
FOUND_OUT_KEYS = _names(Source.RESOLVED)

# Settings that may be changed on resume: how long a run trains, where it does so, and what it prints.
RESUMABLE = {key.name for key in KEYS.values() if key.resumable == "yes"}

# Settings that may be changed on resume if the user names them; the change is kept on record.
CHANGEABLE = {key.name for key in KEYS.values() if key.resumable == "recorded"}

# Settings that change where a run takes place or what it prints, but not its result. The data is identified by its
# contents, not its path.
WITHOUT_EFFECT_ON_RESULT = {key.name for key in KEYS.values() if not key.changes_result}

"""The columns of the interactions that are read if ``load_col`` is not given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.utils import ModelType


def columns_to_load(settings: Mapping[str, Any], model_type: ModelType, with_times: bool = False) -> Any:
    """RecBole's default of ``load_col``, with the columns that the model and its evaluation read.

    RecBole's default loads neither times, which sequences need, nor the histories that split files may have. Columns
    that a file lacks are ignored.

    Args:
        settings: Of the run, with all defaults.
        model_type: Of the model.
        with_times: Whether the model reads the times of histories.
    """
    columns = (settings.get("load_col") or {}).get("inter")
    if columns in (None, "*"):
        return settings.get("load_col")
    is_sequential = model_type == ModelType.SEQUENTIAL
    in_order = isinstance(settings["eval_args"], dict) and settings["eval_args"].get("order") == "TO"
    wanted = []
    if is_sequential or settings["mask_history"] is not None or in_order:
        wanted.append(settings["TIME_FIELD"])
    if is_sequential and settings["benchmark_filename"] is not None:
        wanted.append(f"{settings['ITEM_ID_FIELD']}{settings['LIST_SUFFIX']}")
        wanted += [f"{settings['TIME_FIELD']}{settings['LIST_SUFFIX']}"] if with_times else []
    return {**settings["load_col"], "inter": [*columns, *(column for column in wanted if column not in columns)]}

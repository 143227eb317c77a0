"""Checks that the columns that settings and models need are loaded and have the right type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import recbole_posattn.compat  # noqa: F401

from recbole.utils import EvaluatorType, FeatureType, ModelType

from recbole_posattn.data.blocks import NUMBERS
from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.columns import FEATURE_KEYS
from recbole_posattn.settings.config import Config

# The columns that are read, by file (inter, user, item, kg, link, or an additional suffix).
Loaded = Mapping[str, Mapping[str, FeatureType]]

_TOKENS = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)

# The types of features that the models of FEATURE_KEYS read. Numbers must be in numerical_features. SASRecF cannot read
# vectors: it does not count them in the width of its layers.
_FEATURE_TYPES: dict[str, tuple[FeatureType, ...]] = {
    "SASRecF": (*_TOKENS, FeatureType.FLOAT),
    "GRU4RecF": tuple(FeatureType),
    "FDSA": tuple(FeatureType),
    "S3Rec": _TOKENS,
}


def check_fields(config: Config, loaded: Loaded) -> None:
    """Refuse settings and models that need missing columns, on most of which RecBole fails with a ``KeyError``.

    Args:
        config: Resolved settings.
        loaded: The columns that are read, by file.

    Raises:
        SettingError: Naming the key, the columns that are loaded, and what to set.
    """
    _check_names(config, loaded)
    _check_aliases(config, loaded)
    if config["benchmark_filename"] is None:  # RecBole does not filter files that are split already
        _check_val_interval(config, loaded)
    _check_numbers(config, loaded)
    _check_item_features(config, loaded)
    _check_labels(config, loaded)


def _all_columns(loaded: Loaded) -> dict[str, FeatureType]:
    """The columns that RecBole keeps; it uses those of ``link`` only to rename items."""
    return {column: kind for source, kinds in loaded.items() if source != "link" for column, kind in kinds.items()}


def _named(columns: Mapping[str, FeatureType]) -> str:
    return ", ".join(f"{column}:{kind.value}" for column, kind in columns.items()) or "none"


def _require(
    key: str, column: str, columns: Mapping[str, FeatureType], allowed: tuple[FeatureType, ...], more: str = ""
) -> None:
    """Check that a column is loaded and has one of some types; ``more`` is added to a message that it is not loaded."""
    if column not in columns:
        raise SettingError(
            f"{key} names the column {shown(column)}, which is not loaded. Loaded columns: {_named(columns)}. Name one "
            f"of them, or load it with load_col.{did_you_mean(column, columns)}{more}"
        )
    if columns[column] not in allowed:
        fitting = {name: kind for name, kind in columns.items() if kind in allowed}
        raise SettingError(
            f"{key} needs columns of type {' or '.join(kind.value for kind in allowed)}; {column} is of type "
            f"{columns[column].value}. Suitable loaded columns: {_named(fitting)}."
        )


def _check_names(config: Config, loaded: Loaded) -> None:
    """Refuse a column that two files have: RecBole knows one of each name, and would misread the other one.

    Users and items are the exception: the interactions have them, and so has the file of their features.
    """
    of_files = {"user": config["USER_ID_FIELD"], "item": config["ITEM_ID_FIELD"]}
    first: dict[str, str] = {}
    for source, columns in loaded.items():
        if source == "link":
            continue
        for column in columns:
            if column in first and of_files.get(source) != column:
                raise SettingError(
                    f"the column {shown(column)} is in two files, .{first[column]} and .{source}, of which RecBole "
                    "would misread one: rename it in one of them, or leave it out of one with load_col or unload_col."
                )
            first.setdefault(column, source)


def _check_aliases(config: Config, loaded: Loaded) -> None:
    columns = _all_columns(loaded)
    kinds = ("user", "item", "entity", "relation") if config["MODEL_TYPE"] == ModelType.KNOWLEDGE else ("user", "item")
    for key in (f"alias_of_{kind}_id" for kind in kinds):
        for column in config[key] or ():
            _require(key, column, columns, _TOKENS)


def _check_val_interval(config: Config, loaded: Loaded) -> None:
    columns = _all_columns(loaded)
    for column, allowed in (config["val_interval"] or {}).items():
        _require("val_interval", column, columns, (FeatureType.FLOAT, FeatureType.TOKEN))
        is_interval, is_number = isinstance(allowed, str), columns[column] == FeatureType.FLOAT
        if is_number and not is_interval:
            raise SettingError(
                f"val_interval must be an interval such as [3,5] for {column}, which holds numbers (type float); got "
                f"{shown(allowed)}."
            )
        if is_interval and not is_number:
            raise SettingError(
                f"val_interval must be a list of tokens such as ['a', 'b'] for {column}, which is of type token; got "
                f"{shown(allowed)}. Tokens are text: write ['3', '5'] if they look like numbers."
            )


def _check_numbers(config: Config, loaded: Loaded) -> None:
    columns = _all_columns(loaded)
    for column in config["threshold"] or {}:
        _require("threshold", column, loaded["inter"], (FeatureType.FLOAT,))
    for key in ("discretization", "numerical_features"):
        for column in config[key] or ():
            _require(key, column, columns, NUMBERS)
    if config["normalize_field"] and config["normalize_all"]:
        raise SettingError(
            f"normalize_field must be ~ if normalize_all is True; got {shown(config['normalize_field'])}: set "
            "normalize_all to False to normalize only these columns."
        )
    for column in config["normalize_field"] or ():
        _require("normalize_field", column, columns, tuple(FeatureType))  # tokens are left alone, with a warning


def _check_item_features(config: Config, loaded: Loaded) -> None:
    bases = {base.__name__ for base in config.model_class.__mro__}
    for name in FEATURE_KEYS.keys() & bases:
        key, allowed = FEATURE_KEYS[name], _FEATURE_TYPES[name]
        columns = loaded.get("item", {})
        features = [config[key]] if key == "item_attribute" else config[key]
        what = f"{key} {shown(config[key])} of {config['model']}"
        if not columns:
            raise SettingError(
                f"{what}: no columns of items are loaded; there must be a file {config['dataset']}.item beside the "
                "interactions, such as data convert writes, and load_col must name its columns, as {inter: '*', "
                "item: '*'} does."
            )
        if not features:
            fitting = {name: kind for name, kind in columns.items() if kind in _TOKENS}
            raise SettingError(
                f"{what} must name at least one column of items. Suitable loaded columns: {_named(fitting)}."
            )
        for column in features:
            _require(what, column, columns, allowed, _not_read(config, columns))
            if columns[column] not in _TOKENS and column not in config["numerical_features"]:
                raise SettingError(
                    f"{what}: {column} holds numbers (type {columns[column].value}), which the model reads only if "
                    f"numerical_features names it, too; got numerical_features {shown(config['numerical_features'])}."
                )


def _not_read(config: Config, columns: Mapping[str, FeatureType]) -> str:
    """A sentence on the columns of the file of items that are not read; empty if there are none."""
    try:
        with open(Path(config["data_path"]) / f"{config['dataset']}.item", encoding=config["encoding"]) as lines:
            header = lines.readline().strip().split(config["field_separator"])
    except (OSError, UnicodeDecodeError):
        return ""
    others = [name for name in header if name.partition(":")[0] not in columns]
    return f" The file of items also has {', '.join(others)}." if others else ""


def _check_labels(config: Config, loaded: Loaded) -> None:
    """Check the labels for models that are trained or evaluated on labelled rows."""
    if _evaluates_labels(config) and config["eval_type"] == EvaluatorType.RANKING:
        raise SettingError(
            f"eval_args: the mode labeled is for metrics of single rows, such as AUC, LogLoss, MAE and RMSE; got "
            f"metrics {shown(config['metrics'])}, which rank items: use the mode full or uni100."
        )
    label, columns = config["LABEL_FIELD"], loaded["inter"]
    for why in _reasons_for_labels(config):
        if config["threshold"] is None and label not in columns:
            numbers = [name for name, kind in columns.items() if kind == FeatureType.FLOAT]
            rating = config["RATING_FIELD"] if config["RATING_FIELD"] in numbers else "rating"
            raise SettingError(
                f"{why} needs labels, and no column {label!r} is loaded from the interactions; loaded are "
                f"{_named(columns)}. Name the column with LABEL_FIELD and in load_col, or create labels with "
                f"threshold, such as {{{rating}: 4}}."
            )
        if config["threshold"] is None:
            _require(f"LABEL_FIELD {label!r}", label, columns, (FeatureType.FLOAT,))


def label_columns(config: Config) -> set[str]:
    """The columns of interactions that labels are made from, if the model or the evaluation needs labels."""
    return set(config["threshold"] or [config["LABEL_FIELD"]]) if any(_reasons_for_labels(config)) else set()


def _evaluates_labels(config: Config) -> bool:
    return "labeled" in config["eval_args"]["mode"].values()


def _reasons_for_labels(config: Config) -> Iterator[str]:
    samples = config["train_neg_sample_args"]["distribution"] not in (None, "none")
    if config["MODEL_TYPE"] == ModelType.DECISIONTREE or (config["MODEL_TYPE"] == ModelType.CONTEXT and not samples):
        yield config["model"]
    if _evaluates_labels(config):
        yield "the mode labeled of eval_args"

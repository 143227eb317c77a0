"""Looks at a data set's atomic files before RecBole reads them, so that what is wrong is said in the user's terms."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from recbole.utils import FeatureType, ModelType

from recbole_posattn.compat import download_atomic_files
from recbole_posattn.errors import DataError, did_you_mean
from recbole_posattn.registry import RECBOLE_PROPERTIES

_SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space", "|": "bar"}


def ensure_atomic_files(config: Mapping[str, Any]) -> None:
    """Make sure that the interactions RecBole is about to read are there and readable.

    A missing data set that RecBole knows is downloaded.

    Raises:
        DataError: If the data set is missing and cannot be downloaded, or its ``.inter`` file is empty, has no header
            of ``name:type`` columns, or lacks a column that the model needs.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if not folder.exists():
        _download(folder, name)
    suffixes = config["benchmark_filename"] or [None]
    for suffix in suffixes:
        file = folder / (f"{name}.inter" if suffix is None else f"{name}.{suffix}.inter")
        _check_interactions(file, config)


def _download(folder: Path, name: str) -> None:
    file = folder / f"{name}.inter"
    urls = yaml.safe_load((RECBOLE_PROPERTIES / "dataset" / "url.yaml").read_text(encoding="utf-8"))
    where = f"put it at {file.absolute()} or name its folder's parent with --data_path"
    if name not in urls:
        raise DataError(
            f"data set {name!r} not found: there is no {file.absolute()}, and RecBole offers no download of that name."
            f"{did_you_mean(name, urls)} To use a data set of your own, {where}"
        )
    try:
        download_atomic_files(urls[name], folder, name)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"data set {name!r} not found: there is no {file.absolute()}, and the download from {urls[name]} failed "
            f"({getattr(error, 'reason', error)}); get the file by other means and {where}"
        ) from error


def _check_interactions(file: Path, config: Mapping[str, Any]) -> None:
    try:
        with open(file, encoding=config["encoding"]) as lines:
            header, first_row = (lines.readline().rstrip("\r\n") for _ in range(2))
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not header or not first_row:
        raise DataError(f"{file} has no interactions; it needs a header line of name:type columns and a line for each")

    separator = config["field_separator"]
    types = _parse_header(file, header, separator)
    # as pandas reads it: a single character may stand in a quoted field
    fields = next(csv.reader([first_row], delimiter=separator)) if len(separator) == 1 else first_row.split(separator)
    if len(fields) != len(types):
        raise DataError(
            f"{file}: the header has {len(types)} columns separated by {_name(separator)}, but the first row has "
            f"{len(fields)}: {first_row[:120]!r}"
        )
    needed = {config["USER_ID_FIELD"]: "token", config["ITEM_ID_FIELD"]: "token"}
    in_time_order = config["MODEL_TYPE"] == ModelType.SEQUENTIAL or config["mask_history"] is not None
    if in_time_order and config["benchmark_filename"] is None:
        needed[config["TIME_FIELD"]] = "float"
    for column, needed_type in needed.items():
        if column not in types:
            raise DataError(
                f"{file} has no column {column!r}, which {config['model']} needs; it has {', '.join(types)}. Add it as "
                f"{column}:{needed_type}, or name the right column with USER_ID_FIELD, ITEM_ID_FIELD or TIME_FIELD"
            )
        if types[column] != needed_type:
            raise DataError(
                f"{file}: column {column!r} must be of type {needed_type}; the header says {column}:{types[column]}"
            )


def _name(separator: str) -> str:
    return _SEPARATORS.get(separator, repr(separator))


def _parse_header(file: Path, header: str, separator: str) -> dict[str, str]:
    """Column names and types of a header such as ``user_id:token<tab>timestamp:float``."""
    columns = header.split(separator)
    kinds = [kind.value for kind in FeatureType]
    types = dict(column.split(":", 1) for column in columns if column.count(":") == 1)
    if len(types) == len(columns) and set(types.values()) <= set(kinds):
        return types
    found = [word for character, word in _SEPARATORS.items() if character in header and character != separator]
    hint = f"; its columns look separated by {found[0]} (key field_separator)" if found else ""
    raise DataError(
        f"{file}: the header must be name:type columns separated by {_name(separator)}, "
        f"each type one of {', '.join(kinds)}; got {header[:120]!r}{hint}"
    )

"""Checks a data set's atomic files before RecBole reads them, so that errors are reported in the user's terms."""

from __future__ import annotations

import codecs
import glob
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

import yaml
from recbole.utils import FeatureType, ModelType

from recbole_posattn.atomic_files.columns import check_fields, label_columns
from recbole_posattn.atomic_files.download import download_atomic_files
from recbole_posattn.atomic_files.rows import SEPARATOR_NAMES, check_rows
from recbole_posattn.data.blocks import Column, Table
from recbole_posattn.data.parquet import check_parquet, known_types, parquet_columns
from recbole_posattn.data.sources import PARQUET, file_of, is_parquet
from recbole_posattn.data.tables import forget
from recbole_posattn.data.text import LONGEST_LINE, plain_encoding
from recbole_posattn.errors import DataError, did_you_mean, shown
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.keys import FILTER_KEYS, ID_FIELD_KEYS
from recbole_posattn.settings.properties import RECBOLE_PROPERTIES

_INTERACTIONS = "inter"

# Intervals that filter no interactions.
_NO_FILTER = ("[0,inf)", "[0, inf)", "(-inf,inf)")


def ensure_atomic_files(config: Config, *, allow_missing: bool = False, keeps: bool = False) -> None:
    """Make sure that the files exist and that RecBole will not misread them.

    A missing data set that RecBole knows is downloaded. A byte order mark in the first file becomes the ``encoding``
    utf-8-sig; otherwise the mark would become part of the first column's name. Interactions may be in a Parquet file,
    ``<dataset>.inter.parquet``, if there is no ``<dataset>.inter``.

    Args:
        config: Resolved settings.
        allow_missing: Whether rows may lack a user, an item or a time, and columns of numbers all values.
        keeps: Whether the rows are kept in memory until a data set takes them, so that files are read once.

    Raises:
        DataError: If the data set is missing and cannot be downloaded; if a file is empty, has no header of
            ``name:type`` columns, lacks a column that the model needs, has a row that would be misread
            (see :func:`recbole_posattn.atomic_files.rows.check_rows`), or has no value in a column of numbers.
        SettingError: If settings or the model ask for columns that are not loaded
            (see :func:`recbole_posattn.atomic_files.columns.check_fields`).
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if not os.path.exists(folder):  # Path.exists raises for a name that is too long
        _download(folder, name)
    forget()
    suffixes = config["benchmark_filename"]
    names = [name] if suffixes is None else [f"{name}.{suffix}" for suffix in suffixes]
    files = [file_of(folder / f"{each}.{_INTERACTIONS}") for each in names]
    _warn_of_parquet(folder, name, files)
    checked = {_INTERACTIONS: {file: _check_file(file, _INTERACTIONS, config, allow_missing, keeps) for file in files}}
    if suffixes is not None:
        _check_alike({file: found.types for file, found in checked[_INTERACTIONS].items()})
        _warn_of_filters(config)
    features = [*("user", "item"), *(config["additional_feat_suffix"] or [])]
    # RecBole reads a knowledge graph only for models whose properties name its columns in load_col
    features += [source for source in ("kg", "link") if source in (config["load_col"] or {})]
    for source in features:
        file = folder / f"{name}.{source}"
        if file.is_file() and _columns_to_read(source, config) != (set(), set()):
            checked[source] = {file: _check_file(file, source, config, allow_missing, keeps)}
    if not allow_missing:
        for of_source in checked.values():
            _check_values(of_source)
    check_fields(config, {source: next(iter(of_source.values())).types for source, of_source in checked.items()})


def _download(folder: Path, name: str) -> None:
    file = folder / f"{name}.inter"
    urls = yaml.safe_load((RECBOLE_PROPERTIES / "dataset" / "url.yaml").read_text(encoding="utf-8"))
    where = "there, or set --data_path to the folder that contains its folder"
    if name not in urls:
        raise DataError(
            f"data set {name!r} not found: there is no {file.absolute()}, and RecBole offers no download of that name."
            f"{did_you_mean(name, urls)} Put your own file (recbole-posattn data convert makes one) {where}"
        )
    try:
        download_atomic_files(urls[name], folder, name)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"data set {name!r} not found: there is no {file.absolute()}, and the download from {urls[name]} failed "
            f"({getattr(error, 'reason', error)}); download the file by other means and put it {where}"
        ) from error


class _Checked(NamedTuple):
    """What the check of a file found.

    Attributes:
        types: The columns that RecBole will read, with their types.
        empty: Those of them that hold numbers and have no value in any row.
    """

    types: dict[str, FeatureType]
    empty: set[str]


def _check_file(file: Path, source: str, config: Config, allow_missing: bool, keeps: bool) -> _Checked:
    try:
        stored = parquet_columns(file, config) if is_parquet(file) else {}
        types = known_types(stored) if stored else _types_in_header(file, config)
        to_read, left_out = _columns_to_read(source, config)
        read = {
            column: stored[column].checked_type(file, column) if stored else types[column]
            for column in stored or types
            if (to_read is None or column in to_read) and column not in left_out
        }
        required = {config[key] for key in ID_FIELD_KEYS}  # every row needs a value there
        if source == _INTERACTIONS:
            _check_needed(file, types, config)
            required |= {config["TIME_FIELD"], *label_columns(config)}
            if config["benchmark_filename"] is not None:
                required |= _check_history(file, types, read, config)
        columns = [
            Column(
                name=column,
                type=kind,
                read=column in read,
                required=column in required and not allow_missing,
            )
            for column, kind in types.items()
        ]
        if stored:
            return _Checked(read, check_parquet(file, columns, stored, keeps))
        encoding = config["encoding"] or "utf-8"
        table = Table(file, columns, config["field_separator"], config["seq_separator"], encoding)
        return _Checked(read, check_rows(table, keeps))
    except (OSError, UnicodeError, LookupError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _types_in_header(file: Path, config: Config) -> dict[str, FeatureType]:
    """The columns of an atomic file, with their types; a byte order mark becomes the ``encoding``."""
    if plain_encoding(config["encoding"] or "utf-8") == "utf-8" and _begins_with_utf8_mark(file):
        config["encoding"] = "utf-8-sig"  # which also reads files without a mark
    encoding = config["encoding"] or "utf-8"
    with open(file, encoding=encoding, errors="replace") as lines:
        header = lines.readline(LONGEST_LINE).rstrip("\n")
    if "\ufffd" in header or "\0" in header:
        raise DataError(
            f"{file}, line 1: not {encoding}: {shown(header)}; give the file's encoding with --encoding, for "
            "example utf-16"
        )
    if not header:
        raise DataError(f"{file} has no rows; it needs a header line of name:type columns, then one line per row")
    return _parse_header(file, header, config["field_separator"])


def _begins_with_utf8_mark(file: Path) -> bool:
    """Whether a file begins with the byte order mark of UTF-8, which editors and spreadsheets write."""
    with open(file, "rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _check_values(files: Mapping[Path, _Checked]) -> None:
    """Refuse a column of numbers without a value in all files of one source.

    RecBole fills missing numbers with the mean of the column, which is NaN here, and a model that reads it cannot be
    trained.
    """
    for column in sorted(set.intersection(*(found.empty for found in files.values()))):
        kind = next(iter(files.values())).types[column].value
        raise DataError(
            f"{', '.join(map(str, files))}: column {column!r} ({kind}) is read, but has no value in any row; fill it "
            "in, or leave it out with load_col or unload_col"
        )


def _warn_of_parquet(folder: Path, name: str, files: Sequence[Path]) -> None:
    """Warn of Parquet files with the names of atomic files that are not read."""
    for file in sorted({*folder.glob(f"{glob.escape(name)}.*{PARQUET}")} - {*files}):
        source = file.name.removesuffix(PARQUET).rpartition(".")[2]
        if source == _INTERACTIONS and file.with_suffix("").is_file():
            logging.getLogger().warning(f"{file} is not read: {file.with_suffix('').name} is")
        elif source in ("user", "item", "kg", "link"):
            logging.getLogger().warning(f"{file} is not read: only interactions may be in a Parquet file")


def _warn_of_filters(config: Mapping[str, Any]) -> None:
    """Warn of filters that RecBole silently ignores for files that are split already."""
    given = [key for key in FILTER_KEYS if config[key] not in (None, False, *_NO_FILTER)]
    if given:
        logging.getLogger().warning(
            f"files that are split already (benchmark_filename) are not filtered; without effect: {', '.join(given)}"
        )


def _check_alike(files: Mapping[Path, Mapping[str, FeatureType]]) -> None:
    """Refuse files with different columns in one data set: RecBole would fill in the missing ones or mix types."""
    (first, columns), *others = files.items()
    for file, own in others:
        if own != columns:
            column = next(name for name in {**columns, **own} if columns.get(name) != own.get(name))
            has = [f"{each} has {_described(column, kinds)}" for each, kinds in ((first, columns), (file, own))]
            raise DataError(
                f"the files of benchmark_filename must have the same columns: {' and '.join(has)}; correct the files, "
                "or leave the column out of load_col"
            )


def _described(column: str, types: Mapping[str, FeatureType]) -> str:
    return f"{column}:{types[column].value}" if column in types else f"no {column}"


def _check_history(
    file: Path, types: Mapping[str, FeatureType], read: Mapping[str, FeatureType], config: Mapping[str, Any]
) -> set[str]:
    """Check the histories in a file that is split already; returns the columns that every row must have a value in.

    Args:
        file: The file.
        types: Its columns.
        read: Those that RecBole reads.
        config: Resolved settings.
    """
    listed, time = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"], config["TIME_FIELD"]
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if not sequential and config["mask_history"] is None:
        return set()
    if not sequential and listed in types:
        raise DataError(
            f"{file} has histories in the column {listed!r}, which {config['model']} does not read; mask_history "
            "needs a sequential model here, or files whose rows are single interactions"
        )
    needed = {listed: FeatureType.TOKEN_SEQ} if listed in read else {time: FeatureType.FLOAT}
    for column, kind in needed.items():
        if read.get(column, kind) != kind:
            raise DataError(
                f"{file}: column {column!r} must be of type {kind.value}; the header says {column}:{read[column].value}"
            )
    if listed in types and listed not in read:
        logging.getLogger().warning(
            f"{file} has histories in the column {listed!r}, but load_col leaves it out: histories are built from the "
            "rows"
        )
    return {listed}


def _columns_to_read(source: str, config: Mapping[str, Any]) -> tuple[set[str] | None, set[str]]:
    """The columns that load_col names for a file (``None`` for all), and those that unload_col excludes."""
    load = config["load_col"]
    of_source = load.get(source, ()) if load is not None else "*"
    return None if of_source == "*" else set(of_source), set((config["unload_col"] or {}).get(source, ()))


def _check_needed(file: Path, types: Mapping[str, FeatureType], config: Mapping[str, Any]) -> None:
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
        if types[column].value != needed_type:
            raise DataError(
                f"{file}: column {column!r} must be of type {needed_type}; the header says "
                f"{column}:{types[column].value}"
            )


def _parse_header(file: Path, header: str, separator: str) -> dict[str, FeatureType]:
    """Column names and types of a header such as ``user_id:token<tab>timestamp:float``."""
    columns = header.split(separator)
    kinds = [kind.value for kind in FeatureType]
    types = [tuple(column.split(":")) for column in columns]
    if all(len(column) == 2 and column[1] in kinds for column in types):
        names = [column for column, _ in types]
        for column in names:
            if names.count(column) > 1:
                raise DataError(f"{file}: the header has the column {column!r} more than once; rename one of them")
        return {column: FeatureType(kind) for column, kind in types}
    found = [word for character, word in SEPARATOR_NAMES.items() if character in header and character != separator]
    hint = f"; its columns look separated by {found[0]} (key field_separator)" if found else ""
    raise DataError(
        f"{file}: the header must be name:type columns separated by {SEPARATOR_NAMES.get(separator, repr(separator))}, "
        f"each type one of {', '.join(kinds)}; got {shown(header)}{hint}"
    )

"""Interactions in the order of their sequences, in files that are mapped into memory (``data_cache``).

A folder of the cache holds NumPy arrays, a column each, and ``manifest.json`` with their digests and with all that
decides what is in them: the digests of the data set's files and the settings by which rows are read and numbered.

Shape keys: N interactions, … further axes of a field.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils.argument_list import dataset_arguments
from torch import Tensor

from recbole_posattn.data.digest import data_contents, file_digest
from recbole_posattn.errors import DataError
from recbole_posattn.files import json_text, write_json

_FORMAT = 1
_MANIFEST = "manifest.json"

# Settings that decide which interactions there are and how they are numbered, beside RecBole's arguments of data sets.
_FURTHER_SETTINGS = (
    *("encoding", "eval_args", "drop_unseen_items", "numerical_features", "discretization"),
    *("time_split_second_of", "time_split_method", "time_split_tie", "max_valid_rows"),
    *("entity_kg_num_interval", "relation_kg_num_interval", "kg_reverse_r"),
)
# Those of RecBole's arguments that decide only how sequences are cut.
_OF_HISTORIES = {"MAX_ITEM_LIST_LENGTH", "ITEM_LIST_LENGTH_FIELD", "POSITION_FIELD", "LIST_SUFFIX"}

# Interactions that are put in order at a time.
_ROWS = 2**22


# Whether caches are written, or only used where they are.
_writes = ContextVar("_writes", default=True)


@contextmanager
def only_read() -> Iterator[None]:
    """Use caches that are there, and neither write nor delete any, while a block runs."""
    token = _writes.set(False)
    try:
        yield
    finally:
        _writes.reset(token)


def cached_sequences(dataset: Any, interactions: Interaction, order: Callable[[], np.ndarray]) -> Interaction | None:
    """Interactions in another order, from files in the cache; they are written unless they are there.

    Args:
        dataset: The data set, with its ``config``, whose key ``data_cache`` names the folder of the cache.
        interactions: Its interactions; the columns are freed as they are written. Each of shape (N, …).
        order: Computes the order, as indices of shape (N,).

    Returns:
        Columns that are mapped into memory; integers in 32 bits where they fit. ``None`` if there is no cache, and
        :func:`only_read` keeps it from being written.

    Raises:
        DataError: If the cache cannot be written.
    """
    identity = _identity(dataset, interactions)
    text = json_text(identity, sort_keys=True)
    cache = Path(dataset.config["data_cache"])
    folder = cache / f"{dataset.dataset_name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        columns = _opened(folder, identity)
        if columns is None and not _writes.get():
            return None
        if columns is None:
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            columns = _written(folder, identity, interactions, order())
        else:
            logging.getLogger().info(f"The sequences of {dataset.dataset_name} are read from {folder}")
    except OSError as error:
        raise DataError(f"data_cache {cache} cannot be used: {error.strerror or error}; name another folder") from error
    return Interaction(columns)


def _identity(dataset: Any, interactions: Interaction) -> dict[str, Any]:
    """All that decides what is in the columns, as JSON gives it back."""
    config = dataset.config
    names = {*dataset_arguments, *_FURTHER_SETTINGS} - _OF_HISTORIES
    identity = {
        "format": _FORMAT,
        "data": data_contents(config),
        "data_set": [base.__qualname__ for base in type(dataset).__mro__],
        "settings": {name: config[name] for name in sorted(names)},
        "columns": {field: [str(interactions[field].dtype), [*interactions[field].shape]] for field in interactions},
    }
    plain: dict[str, Any] = json.loads(json_text(identity, default=str))
    return plain


def _opened(folder: Path, identity: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The columns of a folder; ``None`` if there is none, or it is damaged."""
    if not folder.is_dir():
        return None
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = {folder / column["file"]: column["sha256"] for column in manifest["columns"].values()}
        if manifest["identity"] == identity and all(file_digest(file) == digest for file, digest in files.items()):
            return {field: _mapped(folder / column["file"]) for field, column in manifest["columns"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error)
    else:
        problem = "its contents have changed"
    consequence = "written again" if _writes.get() else "not used"
    logging.getLogger().warning(f"{folder} is damaged and is {consequence}: {problem}")
    return None


def _written(
    folder: Path, identity: Mapping[str, Any], interactions: Interaction, order: np.ndarray
) -> dict[str, Tensor]:
    """Write the columns, whole or not at all, and return them."""
    unfinished = folder.with_name(f"{folder.name}.incomplete-{secrets.token_hex(4)}")
    unfinished.mkdir(parents=True)
    try:
        columns = {}
        for number, field in enumerate(list(interactions)):
            file = unfinished / f"column-{number}.npy"
            _write(file, interactions.interaction.pop(field).numpy(), order)
            columns[field] = {"file": file.name, "sha256": file_digest(file)}
        write_json(unfinished / _MANIFEST, {"identity": identity, "columns": columns})
        try:
            os.rename(unfinished, folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {field: _mapped(folder / column["file"]) for field, column in columns.items()}


def _write(file: Path, values: np.ndarray, order: np.ndarray) -> None:
    """Write values in an order, some rows at a time; integers in 32 bits if they fit."""
    small = values.dtype == np.int64 and not (len(values) and max(abs(values.min()), abs(values.max())) >= 2**31)
    ordered = np.lib.format.open_memmap(file, mode="w+", dtype=np.int32 if small else values.dtype, shape=values.shape)
    for begin in range(0, len(values), _ROWS):
        ordered[begin : begin + _ROWS] = values[order[begin : begin + _ROWS]]
    ordered.flush()


def _mapped(file: Path) -> Tensor:
    """An array in a file; its pages are read when they are needed. A change stays in memory."""
    return torch.from_numpy(np.asarray(np.load(file, mmap_mode="c", allow_pickle=False)))

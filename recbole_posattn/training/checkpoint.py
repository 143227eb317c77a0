"""Checkpoint files: tensors and plain data, whole or not there at all, under a checksum; nothing in one is executed.

A file is written by ``torch.save`` and read by ``torch.load(weights_only=True)``; the comment at the end of the zip
archive holds a checksum of all its bytes, which is verified before anything is parsed.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_posattn.errors import CheckpointError, UserError, one_line
from recbole_posattn.files import write_atomically
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training.plain import restore_other_parameter, settings_of_recbole

FORMAT_VERSION = 1

_CHECKSUM = b"recbole-posattn sha256 "
_COMMENT_SIZE = len(_CHECKSUM) + 64
# A zip archive ends with a record of 22 bytes, the last two of which are the length of the comment after it.
_LENGTH = struct.Struct("<H")


def write_checkpoint(content: Mapping[str, Any], file: str | Path) -> None:
    """Write a file that is whole or not there at all, even after a crash; a file of that name is replaced.

    Args:
        content: Tensors and plain data.
        file: The name.

    Raises:
        CheckpointError: If the file cannot be written; an old file of that name is untouched.
    """
    try:
        with write_atomically(file) as incomplete, open(incomplete, "w+b") as stream:
            torch.save({"format_version": FORMAT_VERSION, **content}, stream)
            _append_checksum(stream)
            stream.flush()
            os.fsync(stream.fileno())
        _flush_folder(Path(file).parent)
    except (OSError, RuntimeError) as error:  # torch sometimes turns the system's error into a RuntimeError
        reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
        raise CheckpointError(
            f"checkpoint {file} cannot be written: {reason}; the one before, if any, is untouched. Make room or "
            "name another folder with --checkpoint_dir"
        ) from error


def _append_checksum(stream: BinaryIO) -> None:
    size = stream.seek(0, os.SEEK_END)
    comment = _CHECKSUM + _checksum(stream, size - _LENGTH.size)
    stream.seek(size - _LENGTH.size)
    stream.write(_LENGTH.pack(len(comment)) + comment)


def _checksum(stream: BinaryIO, n_bytes: int) -> bytes:
    """SHA-256 of the first bytes of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    stream.seek(0)
    while n_bytes > 0 and (part := stream.read(min(n_bytes, 2**20))):
        digest.update(part)
        n_bytes -= len(part)
    return digest.hexdigest().encode()


def _flush_folder(folder: Path) -> None:
    """Flush the new name to the disk; not every system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_checkpoint(
    file: str | Path, device: torch.device | str = "cpu", allow_unsafe_checkpoint: bool = False
) -> dict[str, Any]:
    """A checkpoint's content; nothing in the file is executed.

    Args:
        file: Written by :func:`write_checkpoint`.
        device: The device for its tensors.
        allow_unsafe_checkpoint: Whether to read a checkpoint written by RecBole itself as well, which **runs any code
            in it**.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or it is not a checkpoint written by this package.
    """
    content = read_plain(file, device, allow_unsafe_checkpoint)
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        return content
    raise CheckpointError(f"checkpoint {file} holds no settings, so no model can be loaded; name another file")


def read_plain(file: str | Path, device: torch.device | str = "cpu", allow_unsafe_checkpoint: bool = False) -> Any:
    """The content given to :func:`write_checkpoint`, also for files that do not hold a whole model.

    Raises:
        CheckpointError: See :func:`read_checkpoint`.
    """
    try:
        with open(file, "rb") as stream:
            has_checksum, holds = _check(stream)
            if has_checksum and holds:
                stream.seek(0)
                content = _load(stream, device)
                version = content.get("format_version") if isinstance(content, dict) else None
                if version != FORMAT_VERSION:
                    raise CheckpointError(
                        f"checkpoint {file} has format version {version}, and this version of recbole-posattn reads "
                        f"{FORMAT_VERSION}: update the older one of the two"
                    )
                return content
    except OSError as error:
        raise CheckpointError(f"checkpoint {file} cannot be read: {error.strerror or error}") from error
    if has_checksum:
        raise CheckpointError(f"checkpoint {file} is damaged: its checksum does not match; use an undamaged copy")
    if allow_unsafe_checkpoint:
        return _read_of_recbole(file, device)
    raise CheckpointError(
        f"checkpoint {file} was not written by recbole-posattn, or its end is missing. RecBole's own can run code when "
        "they are loaded; if you trust its source, add --allow_unsafe_checkpoint"
    )


@contextmanager
def explain_checkpoint_errors(file: str | Path) -> Iterator[None]:
    """Report any failure to read or restore a checkpoint's content as an error of the file, whose origin is unknown.

    Put nothing else into the block: failures to build, train or evaluate a model have other causes.

    Raises:
        CheckpointError: If anything fails in the block, except for errors that are explained already.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {file} cannot be used ({type(error).__name__}: {one_line(error)}); use one written by this "
            "version of recbole-posattn"
        ) from error


def _check(stream: BinaryIO) -> tuple[bool, bool]:
    """Whether a file ends with a checksum, and whether it matches the content."""
    size = stream.seek(0, os.SEEK_END)
    if size < _COMMENT_SIZE + _LENGTH.size:
        return False, False
    stream.seek(size - _COMMENT_SIZE)
    comment = stream.read(_COMMENT_SIZE)
    if not comment.startswith(_CHECKSUM):
        return False, False
    return True, comment == _CHECKSUM + _checksum(stream, size - _COMMENT_SIZE - _LENGTH.size)


def _load(stream: BinaryIO, device: torch.device | str) -> Any:
    """Plain data only: anyone can add a correct checksum to something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles, which it refuses
            return torch.load(stream, map_location=device, weights_only=True)
    except Exception as error:  # other files can fail anywhere in the reader, with any error
        raise CheckpointError(
            f"checkpoint {stream.name} is not a checkpoint of recbole-posattn: it holds more than tensors and plain "
            "data"
        ) from error


def _read_of_recbole(file: str | Path, device: torch.device | str) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location=device, weights_only=False)  # nosec B614  # asked for
        settings = settings_of_recbole(content["config"])
    except Exception as error:  # the reader runs code in the file, which can raise anything
        raise CheckpointError(f"checkpoint {file} was not written by RecBole either: {one_line(error)}") from error
    ours = Config(settings["model"], settings["dataset"], command_line=[])  # for keys that RecBole does not have
    return {**content, "config": {**ours.plain(), **plain_data(settings)}}


def vocabulary(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """A fingerprint that two data sets share if they number the same users and items in the same way.

    Returns:
        For the fields of users and items: their number (``n``, including the padding), and the SHA-256 of their tokens
        in the order of their numbers.
    """
    fingerprints = {}
    for field in (dataset.uid_field, dataset.iid_field):
        tokens = "\n".join(map(str, dataset.field2id_token[field]))
        digest = hashlib.sha256(tokens.encode("utf-8", "surrogatepass")).hexdigest()
        fingerprints[field] = {"n": len(dataset.field2id_token[field]), "sha256": digest}
    return fingerprints


def check_vocabulary(content: Mapping[str, Any], dataset: Dataset) -> None:
    """Check that users and items have the same numbers as in training.

    Raises:
        CheckpointError: If the data set has changed since.
    """
    for field, now in vocabulary(dataset).items():
        before = (content.get("vocabulary") or {}).get(field, now)
        if before != now:
            change = f"{field} has {now['n'] - 1:,} values, not {before['n'] - 1:,}"
            if before["n"] == now["n"]:
                change = f"the values of {field}, or their order, are others"
            raise CheckpointError(
                f"the data set {dataset.dataset_name} in {dataset.dataset_path} has changed since training: {change}; "
                "name the old data with --data_path, or train again"
            )


def load_state(model: AbstractRecommender, content: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        CheckpointError: If the weights do not fit the model, for instance because the data set has changed.
    """
    try:
        model.load_state_dict(content["state_dict"])
        others = restore_other_parameter(content.get("other_parameter")) or {}
        strange = others.keys() - set(getattr(model, "other_parameter_name", ()))
        if strange:
            raise KeyError(f"it has no {', '.join(map(str, strange))}")
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model: {one_line(error)}; use the data and settings of its training"
        ) from error
    model.load_other_parameter(others)

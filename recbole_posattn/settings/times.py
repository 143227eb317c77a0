"""Whether a run reads the times between interactions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError
from recbole_posattn.nn.encodings.build import READS_TIME as ENCODINGS_OF_TIME
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.nn.kernels.structures import parse_kernel_structure


def time_parts(model_class: type, settings: Mapping[str, Any]) -> list[str]:
    """The parts of a model that read time, for a message; empty for models without.

    Args:
        model_class: Class of the model; those of ours name what reads time in all of them (``time_parts``).
        settings: With the defaults of the model.
    """
    if "read_times" not in settings:
        return []
    parts = [*getattr(model_class, "time_parts", ())]
    named = settings.get("position_encoding") or []  # "auto" stands for none of them
    parts += [f"position_encoding {name}" for name in named if name in ENCODINGS_OF_TIME]
    structure, branch = settings.get("kernel_structure"), settings.get("kernel_branch")
    mixing = () if structure is None or settings.get("attention") == "none" else parse_kernel_structure(structure)
    if set(mixing) & STRUCTURES_OF_TIME:
        parts.append(f"kernel_structure {structure}")
    if branch in STRUCTURES_OF_TIME:
        parts.append(f"kernel_branch {branch}")
    return parts


def may_read_time(model_class: type, settings: Mapping[str, Any]) -> bool:
    """Whether :func:`time_parts` may find a part in settings that have not been checked yet."""
    named = " ".join(str(settings.get(key)) for key in ("position_encoding", "kernel_structure", "kernel_branch"))
    return bool(getattr(model_class, "time_parts", ())) or any(
        name in named for name in ENCODINGS_OF_TIME | STRUCTURES_OF_TIME
    )


def resolved_reads_time(model_class: type, dataset: str, settings: Mapping[str, Any]) -> bool:
    """The resolved key ``reads_time``: whether batches have times.

    Args:
        model_class: See :func:`time_parts`.
        dataset: Name of the data set.
        settings: See :func:`time_parts`.

    Raises:
        SettingError: If the times of the data set are not to be read, and ``read_times`` is ``True``.
    """
    parts, wanted = time_parts(model_class, settings), settings.get("read_times")
    if not parts or wanted is False:
        return False
    reason = why_unreadable(dataset, settings)
    if reason is not None and wanted is True:
        raise SettingError(
            f"{', '.join(parts)} reads the times between interactions, but {reason}. Leave it out, or set read_times "
            "to auto, which switches it off."
        )
    if reason is not None:
        logging.getLogger().warning(f"{', '.join(parts)} is off: {reason}")
    return reason is None


def check_branch_reads_time(settings: Mapping[str, Any], are_gaps: bool) -> None:
    """Refuse a branch that is off without times where nothing else mixes the positions.

    Args:
        settings: Resolved ones, with ``reads_time``.
        are_gaps: Whether the times of the data set have valid differences, as far as the data tell.

    Raises:
        SettingError: Naming the keys.
    """
    branch = settings["kernel_branch"]
    if settings["attention"] == "none" and branch in STRUCTURES_OF_TIME and not (settings["reads_time"] and are_gaps):
        raise SettingError(
            f"attention 'none' with kernel_branch {branch!r} mixes no positions here, as the times of data set "
            f"{settings['dataset']!r} are not read; see read_times, time_is_order and time_gaps."
        )


def why_unreadable(dataset: str, settings: Mapping[str, Any]) -> str | None:
    """Why the settings of a data set do not let its times be read; ``None`` if they do."""
    data = f"the times of data set {dataset!r}"
    if settings["time_is_order"] is True:
        return f"{data} only order the interactions (time_is_order True)"
    if settings["time_gaps"] is False:
        return f"{data} have no valid differences (time_gaps False)"
    return None

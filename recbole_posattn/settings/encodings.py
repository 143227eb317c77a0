"""The encodings that ``position_encoding: auto`` stands for."""

from __future__ import annotations

from typing import Any

from recbole_posattn.nn.encodings.build import default_encodings

# The keys by which ``auto`` is resolved.
DECIDE_ENCODINGS = ("attention", "kernel_structure", "kernel_branch")


def resolve_encodings(settings: dict[str, Any]) -> None:
    """Replace the value ``auto`` of ``position_encoding`` by a list of encodings, see :func:`default_encodings`.

    Args:
        settings: Of any model, with defaults filled in; unchanged if they lack the key.
    """
    if settings.get("position_encoding") == "auto":
        settings["position_encoding"] = default_encodings(*map(settings.get, DECIDE_ENCODINGS))

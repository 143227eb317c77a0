"""The encodings that ``position_encoding: auto`` stands for."""

from __future__ import annotations

from typing import Any

IDENTITY = "identity-identity"  # no kernel in the attention


def resolve_encodings(settings: dict[str, Any]) -> None:
    """Replace the value ``auto`` of ``position_encoding`` by a list of encodings.

    Beside a branch, attention gets its positions from its kernels, or from RoPE if it has none. A model without any
    kernel has no positions.

    Args:
        settings: With defaults filled in, of a model with or without the key.
    """
    if settings.get("position_encoding") == "auto":
        has_kernels = settings["attention"] == "none" or settings["kernel_structure"] != IDENTITY
        settings["position_encoding"] = [] if has_kernels or settings["kernel_branch"] is None else ["rope"]

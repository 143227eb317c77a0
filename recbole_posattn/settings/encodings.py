"""The encodings that ``position_encoding: auto`` stands for."""

from __future__ import annotations

from typing import Any

IDENTITY = "identity-identity"  # no kernel in the attention


def resolve_encodings(settings: dict[str, Any]) -> None:
    """Replace the value ``auto`` of ``position_encoding`` by a list of encodings.

    That is RoPE if the model has a branch and no kernels in the attention, otherwise none. So a model without any
    kernel has no positions.

    Args:
        settings: Of any model, with defaults filled in; unchanged if they lack the key.
    """
    if settings.get("position_encoding") == "auto":
        without_kernels = settings["attention"] != "none" and settings["kernel_structure"] == IDENTITY
        settings["position_encoding"] = ["rope"] if without_kernels and settings["kernel_branch"] is not None else []

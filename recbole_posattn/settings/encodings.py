"""The encodings that ``position_encoding: auto`` stands for."""

from __future__ import annotations

from typing import Any

IDENTITY = "identity-identity"  # no kernel in the attention

# The keys by which ``auto`` is resolved.
DECIDE_ENCODINGS = ("attention", "kernel_structure", "kernel_branch")


def resolve_encodings(settings: dict[str, Any]) -> None:
    """Replace the value ``auto`` of ``position_encoding`` by a list of encodings.

    That is RoPE if the model has a branch and no kernels in the attention, otherwise none. So a model without any
    kernel has no positions.

    Args:
        settings: Of any model, with defaults filled in; unchanged if they lack the key.
    """
    if settings.get("position_encoding") == "auto":
        attention, structure, branch = map(settings.get, DECIDE_ENCODINGS)  # a plugin's model may lack some
        without_kernels = attention != "none" and structure in (None, IDENTITY)
        settings["position_encoding"] = ["rope"] if without_kernels and branch is not None else []

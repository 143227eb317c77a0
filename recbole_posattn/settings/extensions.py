"""Register kernel structures, encodings and losses from outside the package by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Container
from typing import Any, TypeVar

import recbole_posattn.compat  # noqa: F401

from torch import nn

from recbole_posattn.errors import SettingError, shown
from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.encodings.build import AT_INPUT, ENCODINGS, PER_LAYER
from recbole_posattn.nn.encodings.build import READS_TIME as ENCODINGS_OF_TIME
from recbole_posattn.nn.kernels.base import PositionKernel
from recbole_posattn.nn.kernels.by_lag import LagKernel
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.nn.losses.base import ItemLoss
from recbole_posattn.nn.losses.build import LOSSES, LOSSES_WITHOUT_HISTORIES, SAMPLED_LOSSES
from recbole_posattn.nn.losses.sampled import SampledLoss, TargetNegativesLoss
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.origins import holder, may_replace, record
from recbole_posattn.settings.part_rules import part_rules

Kernel = TypeVar("Kernel", bound=PositionKernel)
Encoding = TypeVar("Encoding", bound=PositionEncoding)
Loss = TypeVar("Loss", bound=ItemLoss)

# The method that a class overrides to enter at each place.
_METHODS = {
    "input": "at_input",
    "attention_input": "at_attention_input",
    "query_key": "rotate",
    "logits": "logit_bias",
}


def register_kernel(name: str, kernel_class: type[Kernel]) -> type[Kernel]:
    """Make a kernel structure known, as either part of ``kernel_structure`` and as ``kernel_branch``.

    Args:
        name: Letters, digits and underscores.
        kernel_class: A subclass of ``nn.kernels.base.PositionKernel`` with ``dense`` and ``_mix``, or of ``LagKernel``
            with ``taps``; its ``from_options`` builds it.

    Returns:
        The class.

    Raises:
        SettingError: If the name is taken or invalid, or the class is not a kernel.
    """
    _check("kernel", "kernel_structure", name, kernel_class, PositionKernel, STRUCTURES)
    methods = ("taps",) if issubclass(kernel_class, LagKernel) else ("dense", "_mix")
    base = LagKernel if issubclass(kernel_class, LagKernel) else PositionKernel
    _check_overrides("kernel", name, kernel_class, base, methods)
    STRUCTURES[name] = kernel_class.from_options
    if kernel_class.reads_time:
        STRUCTURES_OF_TIME.add(name)
    _allow("kernel_structure", name, kernel_class)
    return kernel_class


def register_encoding(name: str, encoding_class: type[Encoding]) -> type[Encoding]:
    """Make a positional encoding known, as a value of ``position_encoding``.

    Args:
        name: Letters, digits and underscores; becomes the class's ``name``.
        encoding_class: A subclass of ``nn.encodings.base.PositionEncoding`` that says where it ``enters`` and overrides
            the method of that place; its ``from_options`` builds it.

    Returns:
        The class.

    Raises:
        SettingError: If the name is taken or invalid, or the class is not an encoding.
    """
    _check("encoding", "position_encoding", name, encoding_class, PositionEncoding, ENCODINGS)
    enters = getattr(encoding_class, "enters", None)
    if enters not in _METHODS:
        raise SettingError(
            f"encoding {name!r} cannot be registered: {encoding_class.__name__}.enters must be one of "
            f"{', '.join(_METHODS)}; got {enters!r}."
        )
    if encoding_class.of_batch is PositionEncoding.of_batch:  # otherwise, what it returns has the method
        _check_overrides("encoding", name, encoding_class, PositionEncoding, (_METHODS[enters],))
    own = vars(encoding_class).get("name", name)
    if own != name:
        raise SettingError(
            f"encoding {name!r} cannot be registered: {encoding_class.__name__}.name is {own!r}; use that name."
        )
    encoding_class.name = name
    ENCODINGS[name] = encoding_class.from_options
    if encoding_class.reads_time:
        ENCODINGS_OF_TIME.add(name)
    if encoding_class.per_layer:
        PER_LAYER.add(name)
    if encoding_class.enters == "input":
        AT_INPUT.add(name)
    _allow("position_encoding", name, encoding_class)
    return encoding_class


def register_loss(name: str, loss_class: type[Loss]) -> type[Loss]:
    """Make a loss known, as a value of ``loss_type``.

    Args:
        name: Letters, digits and underscores.
        loss_class: A subclass of ``nn.losses.base.ItemLoss`` with ``forward``, or of ``TargetNegativesLoss`` with
            ``of_scores``. A ``SampledLoss`` draws the negatives of ``train_neg_sample_args``. Its ``from_options``
            builds it.

    Returns:
        The class.

    Raises:
        SettingError: If the name is taken or invalid, or the class is not a loss.
    """
    _check("loss", "loss_type", name, loss_class, ItemLoss, LOSSES)
    by_score = issubclass(loss_class, TargetNegativesLoss)
    base = TargetNegativesLoss if by_score else ItemLoss
    _check_overrides("loss", name, loss_class, base, ("of_scores",) if by_score else ("forward",))
    LOSSES[name] = loss_class.from_options
    if issubclass(loss_class, SampledLoss):
        SAMPLED_LOSSES.add(name)
    if "histories" not in inspect.signature(loss_class.forward).parameters:
        LOSSES_WITHOUT_HISTORIES.add(name)
    _allow("loss_type", name, loss_class)
    return loss_class


def _check(kind: str, key: str, name: Any, part: Any, base: type[nn.Module], taken: Container[str]) -> None:
    if not isinstance(name, str) or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise SettingError(
            f"a {kind}'s name must be letters, digits and underscores, with no digit first; got {shown(name)}."
        )
    if name in taken and not may_replace(key, name, part):
        raise SettingError(
            f"{kind} {name!r} cannot be registered: there is one of that name, {holder(key, name)}; choose another "
            "name."
        )
    if not isinstance(part, type) or not issubclass(part, base):
        raise SettingError(
            f"{kind} {name!r} cannot be registered: it must be a class derived from {base.__module__}.{base.__name__}; "
            f"got {shown(part)}."
        )


def _check_overrides(
    kind: str, name: str, part: type[nn.Module], base: type[nn.Module], methods: tuple[str, ...]
) -> None:
    missing = [method for method in methods if getattr(part, method) is getattr(base, method)]
    if missing:
        raise SettingError(
            f"{kind} {name!r} cannot be registered: {part.__name__} must define {' and '.join(missing)}, see "
            f"{base.__module__}.{base.__name__}."
        )


def _allow(key: str, name: str, part: type[nn.Module]) -> None:
    record(key, name, part)
    MODEL_RULES.update(part_rules())

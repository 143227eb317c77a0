"""A device that is not the CPU, on any machine: tensors that compute on the CPU and say that they are on a GPU.

An operation on tensors of both devices fails as it does on a GPU, and so does a conversion to NumPy. An index that is
out of bounds ends the test, since it leaves a GPU unusable. What a device
computes is not tested with it, only where each tensor is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")

# Operations that take a tensor of the CPU beside those of a GPU: copies, and indices.
_MIXED = ("aten._to_copy", "aten.copy_", "aten.copy", "aten.index", "aten.index_put", "aten.index_put_")


class OnSecondDevice(Tensor):
    """A tensor of the second device, which holds its values in a tensor of the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnSecondDevice:
        """Wrap a tensor of the CPU."""
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=values.requires_grad,
            dispatch_sizes_strides_policy="sizes",  # an operation may transpose a tensor in place
        )
        wrapper.values = values
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Compute on the CPU."""
        return _computed(function, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """While it is on, new tensors of ``cuda`` are of the second device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Compute on the CPU."""
        return _computed(function, args, kwargs or {})


class DataThere(TorchFunctionMode):
    """Data in Python objects gets to the second device by way of the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Create on the CPU, then move."""
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            device = torch.device(kwargs["device"])
            return function(*args, **{**kwargs, "device": "cpu"}).to(device)
        return function(*args, **kwargs)


def _name(function: Any) -> str:
    return str(function).rsplit(".", 1)[0]


def _computed(function: Any, args: tuple, kwargs: dict) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, OnSecondDevice)]
    others = [tensor for tensor in tensors if not isinstance(tensor, OnSecondDevice) and tensor.dim() > 0]
    if any(tensor.is_meta for tensor in tensors if not isinstance(tensor, OnSecondDevice)):
        raise RuntimeError(f"{function}: a tensor that was made in a way that this device does not see")
    if here and others and _name(function) not in _MIXED:
        raise RuntimeError(
            f"{function}: tensors of the second device and of the CPU, of shapes {[x.shape for x in others]}"
        )
    device = kwargs.get("device")
    device = torch.device(device) if device is not None else None
    result_is_here = device.type == "meta" if device is not None else bool(here)
    if _name(function) in ("aten.copy_", "aten.index_put_"):
        result_is_here = isinstance(args[0], OnSecondDevice)
    if _name(function) in ("aten.index", "aten.index_put") and not isinstance(args[0], OnSecondDevice) and here:
        raise RuntimeError(f"{function}: indices of the second device into a tensor of the CPU")
    if _name(function) == "aten._fused_sdp_choice":
        return 0  # the formula, which has the same operations on all devices
    if device is not None and device.type == "meta":
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map_only(OnSecondDevice, lambda x: x.values, (args, kwargs))
    if plain_kwargs.get("pin_memory"):
        plain_kwargs["pin_memory"] = False
    try:
        result = function(*plain_args, **plain_kwargs)
    except (IndexError, RuntimeError) as error:
        if here and re.search("out of bounds|out of range", str(error)):
            pytest.fail(f"{function}: {error}; a GPU cannot be used after that")  # no `except Exception` catches it
        raise
    if not result_is_here:
        return result
    in_place = {id(tensor.values): tensor for tensor in here}

    def wrapped(tensor: Tensor) -> Tensor:
        return in_place[id(tensor)] if id(tensor) in in_place else OnSecondDevice(tensor)

    return tree_map_only(Tensor, wrapped, result)


@contextlib.contextmanager
def second_device() -> Iterator[torch.device]:
    """Within it, tensors can be moved to the second device, and made there."""
    with contextlib.ExitStack() as patches:
        for name in ("get_autocast_dtype", "set_autocast_dtype", "is_autocast_enabled", "set_autocast_enabled"):
            patches.enter_context(mock.patch.object(torch, name, _for_cpu(getattr(torch, name))))
        autocast = torch.amp.autocast_mode.autocast
        patches.enter_context(mock.patch.object(autocast, "__init__", _for_cpu(autocast.__init__)))
        patches.enter_context(DataThere())
        patches.enter_context(SecondDevice())
        yield DEVICE


def _for_cpu(function: Any) -> Any:
    """The function with the CPU instead of the second device, which has no autocast."""

    def called(*args: Any, **kwargs: Any) -> Any:
        args = tuple("cpu" if argument == DEVICE.type else argument for argument in args)
        return function(*args, **{key: "cpu" if value == DEVICE.type else value for key, value in kwargs.items()})

    return called

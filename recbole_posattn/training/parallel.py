"""One run in several processes, and mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from recbole_posattn.compat.tensorboard import without_tensorboard


@contextmanager
def trainer_of_one_process(config: Any) -> Iterator[None]:
    """Build a trainer as if its process were the only one; only rank 0 writes a TensorBoard log.

    RecBole's trainer wraps the model for GPUs in its constructor, whatever the device: ``DistributedDataParallel`` with
    device numbers and synchronized batch normalization both refuse a CPU. :func:`distribute_model` supports both.
    """
    from recbole_posattn.distributed import is_main

    single = config["single_spec"]
    config["single_spec"] = True
    try:
        with nullcontext() if is_main() else without_tensorboard():
            yield
    finally:
        config["single_spec"] = single


def distribute_model(model: Any, device: Any) -> Any:
    """Wrap a model so that gradients are averaged over all processes, and give all the weights of rank 0.

    RecBole's trainer prepares the wrapper before each step, and :func:`reaching_all_parameters` is added to the loss.
    So gradients are averaged even if the loss does not call ``forward`` or does not use all parameters. Buffers that
    are part of the model's state, such as the statistics of batch normalization, are those of rank 0; others are
    constants, and not sent at every step.
    """
    from torch.nn import SyncBatchNorm
    from torch.nn.parallel import DistributedDataParallel

    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    options: dict[str, Any] = {
        "broadcast_buffers": any(name not in parameters for name in model.state_dict()),
        "gradient_as_bucket_view": True,
    }
    if device.type == "cuda":
        SyncBatchNorm.convert_sync_batchnorm(model)  # replaces the modules in place
        return DistributedDataParallel(model, device_ids=[device.index], **options)
    return DistributedDataParallel(model, **options)


def reaching_all_parameters(model: Any) -> Any:
    """A scalar 0 whose backward pass reaches every parameter but computes no gradients.

    RecBole adds 0 times the sum of each parameter instead, which allocates a gradient for each of them.
    """
    import torch

    class Reaching(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *parameters: Any) -> Any:
            ctx.n = len(parameters)
            return parameters[0].new_zeros(())

        @staticmethod
        def backward(ctx: Any, grad: Any) -> tuple[None, ...]:
            return (None,) * ctx.n

    return Reaching.apply(*(parameter for parameter in model.parameters() if parameter.requires_grad))


@contextmanager
def autocast_dtype(device: Any, dtype: Any) -> Iterator[None]:
    """Set the data type of mixed precision (``enable_amp``); RecBole uses torch's default, float16 on GPUs."""
    import torch

    default = torch.get_autocast_dtype(device.type)
    torch.set_autocast_dtype(device.type, dtype)
    try:
        yield
    finally:
        torch.set_autocast_dtype(device.type, default)

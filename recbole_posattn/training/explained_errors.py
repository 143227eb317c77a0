"""Helpful messages for training failures that are not bugs: out of memory, a missing package, a loss that is NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recbole_posattn.errors import CheckpointError, SettingError, TrainingError, one_line
from recbole_posattn.settings.checks import pretrained_file
from recbole_posattn.settings.keys import sizes_of
from recbole_posattn.training.checkpoint import read_checkpoint

# The beginning of the message of a run that ran out of memory.
OUT_OF_MEMORY = "out of memory"

# Settings that decide how many weights a model has, the most effective first.
_MODEL_SIZES = ("hidden_size", "embedding_size", "inner_size", "n_layers")

_HALF_PRECISION = ("BFloat16", "Half")  # as PyTorch's messages name them


@contextmanager
def explain_out_of_memory(
    settings: Mapping[str, Any], training: bool, n_items: int, kept: Callable[[], str]
) -> Iterator[None]:
    """If memory runs out, say which settings to change.

    Args:
        settings: Settings of the run.
        training: Whether the block trains; otherwise it evaluates.
        n_items: Number of items of the data set.
        kept: Returns which checkpoint is kept. Called on failure only, because it looks at the disk.

    Raises:
        TrainingError: If memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        names = sizes_of("training" if training else "evaluation")
        sizes = {name: settings[name] for name in names if name in settings and settings[name] is not None}
        if training and "loss_negatives" in settings and settings["loss_negatives"] is not None:
            sizes.pop("loss_chunk_size", None)  # sampled losses have no chunks
            sizes["sample_num of train_neg_sample_args"] = settings["loss_negatives"]["sample_num"]
        listed = ", ".join(f"{name} {value}" for name, value in sizes.items())
        first = next(
            (f"{name} {value // 2}" for name, value in sizes.items() if type(value) is int and value > 1), None
        )
        what = (
            f"{OUT_OF_MEMORY} in {'training' if training else 'evaluation'} with {n_items:,} items, {listed}: "
            f"{'lower them' if first is None else f'try {first} first, then lower the others'}"
        )
        what_is_kept = kept()
        raise TrainingError(f"{what}; {what_is_kept}" if what_is_kept else what) from error


@contextmanager
def model_size_explained(settings: Mapping[str, Any]) -> Iterator[None]:
    """If the model does not fit into memory, name the settings that make it smaller.

    Args:
        settings: Settings of the run.

    Raises:
        TrainingError: If memory runs out while the model is built or moved to its device.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sizes = [f"{name} {settings[name]}" for name in _MODEL_SIZES if name in settings and settings[name] is not None]
        raise TrainingError(
            f"{OUT_OF_MEMORY}: the weights of {settings['model']} do not fit on {settings['device']}: lower "
            f"{' or '.join(sizes) or 'its sizes'}, or free memory there"
        ) from error


@contextmanager
def precision_explained(settings: Mapping[str, Any]) -> Iterator[None]:
    """Explain failures of operations without mixed precision, such as products with sparse matrices.

    Args:
        settings: Settings of the run.

    Raises:
        TrainingError: If such an operation fails.
    """
    try:
        yield
    except RuntimeError as error:
        if not settings["enable_amp"] or not any(name in str(error) for name in _HALF_PRECISION):
            raise
        raise TrainingError(
            f"{settings['model']} cannot be trained with enable_amp ({one_line(error)}): leave it out"
        ) from error


@contextmanager
def explain_missing_requirements(settings: Mapping[str, Any]) -> Iterator[None]:
    """Say what a model needs if a package, labels, sampled negatives or items are missing.

    Args:
        settings: Settings of the run.

    Raises:
        SettingError: If one of them is missing.
    """
    model, samples = settings["model"], "train_neg_sample_args must sample some, as {distribution: uniform} does"
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("recbole"):
            raise
        raise SettingError(
            f"model {model} needs the package {package} ({one_line(error)}); install it, or use another model"
        ) from error
    except KeyError as error:
        field = str(error.args[0]) if error.args else ""
        if field == settings["LABEL_FIELD"]:
            raise SettingError(
                f"model {model} needs labels, and there is no column {field!r}: {samples}, or the data have such a "
                "column (keys LABEL_FIELD, load_col and threshold)"
            ) from error
        if field.startswith(settings["NEG_PREFIX"]):
            raise SettingError(f"model {model} needs items that the users did not have: {samples}") from error
        raise
    except RuntimeError as error:
        if "reranker_CAN_NUM" not in settings or "out of range" not in str(error):
            raise
        raise SettingError(
            f"reranker_CAN_NUM {settings['reranker_CAN_NUM']}: {model} reranks that many of the best items, but the "
            "data set has fewer; use smaller numbers"
        ) from error


@contextmanager
def pretrained_explained(settings: Mapping[str, Any]) -> Iterator[None]:
    """Name ``pre_model_path`` if the model cannot be built from that checkpoint.

    Args:
        settings: Settings of the run.

    Raises:
        SettingError: If it is not a checkpoint, or one of another model.
    """
    file = pretrained_file(settings["model"], settings)
    if file is None:
        yield
        return
    try:
        read_checkpoint(file)
        yield
    except CheckpointError as error:
        raise SettingError(
            f"pre_model_path {file} is not a complete checkpoint written by this version of recbole-posattn; train "
            "the model of the previous stage again"
        ) from error
    except RuntimeError as error:  # weights of other names or shapes
        raise SettingError(f"pre_model_path {file} does not fit {settings['model']}: {one_line(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. CUDA's error has its own class; the CPU's is a RuntimeError, known by its message."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def require_finite(
    loss: Tensor, model: nn.Module, epoch: int, batch: int, settings: Mapping[str, Any], kept: Callable[[], str]
) -> None:
    """Stop training if the loss is not finite, before it reaches the weights.

    Args:
        loss: The loss of a batch.
        model: The model, with the gradients of the previous step.
        epoch: Counted from 0.
        batch: Counted from 0.
        settings: Settings of the run.
        kept: Returns which checkpoint is kept. Called on failure only, because it looks at the disk.

    Raises:
        TrainingError: If the loss is infinite or not a number.
    """
    if torch.isfinite(loss).all():
        return
    weights = [parameter.detach() for parameter in model.parameters()]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    advice = [f"lower learning_rate ({settings['learning_rate']})"]
    if not settings["clip_grad_norm"]:
        advice.append("set clip_grad_norm, to {max_norm: 5} say")
    if settings["enable_amp"]:
        advice.append("leave enable_amp out")
    raise TrainingError(
        f"the training loss is {loss.sum().item()} in epoch {epoch}, batch {batch} (counted from 0); the norm of the "
        f"weights is {_norm(weights):.3g}, that of the gradients one step before {_norm(gradients):.3g}: "
        f"{', or '.join(advice)}; {kept()}"
    )


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(tensor.float().square().sum().item() for tensor in tensors))

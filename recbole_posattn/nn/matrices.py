"""The weights that weight decay applies to."""

from __future__ import annotations

from torch import nn

from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.intervals import IntervalTables
from recbole_posattn.nn.kernels.base import PositionKernel


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear layers and embeddings, in the order of ``parameters()``.

    As usual for transformers (nanoGPT, BERT), biases and LayerNorms are left out. So are kernels and encodings: decay
    would pull a kernel, which starts at the identity, towards no mixing at all, and a positional bias towards none.

    Args:
        model: A model of this package, or part of one.
    """
    positional = {
        id(weight)
        for module in model.modules()
        if isinstance(module, (PositionKernel, PositionEncoding, IntervalTables))
        for weight in module.parameters()
    }
    of_layers = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding))}
    return [weight for weight in model.parameters() if id(weight) in of_layers - positional]

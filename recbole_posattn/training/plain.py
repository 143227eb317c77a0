"""What RecBole's models store besides their weights, as plain data for checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np

SPARSE_MATRIX_TAG = "scipy sparse format"
NUMPY_ARRAY_TAG = "numpy array"


def settings_of_recbole(config: Any) -> dict[str, Any]:
    """The resolved settings of a ``Config`` that RecBole pickled into a checkpoint."""
    return dict(config.final_config_dict)


def plain_other_parameter(value: Any) -> Any:
    """What a RecBole model stores besides its weights (``other_parameter``), as tensors and plain containers.

    Several models keep NumPy or SciPy matrices there, which ``torch.load(weights_only=True)``, the default since
    torch 2.6, refuses. Modules are left out: their weights are part of the model's state already.
    """
    from scipy import sparse
    from torch import nn, tensor

    if sparse.issparse(value):
        matrix = value.tocoo()
        entries = {"data": matrix.data, "row": matrix.row, "col": matrix.col}
        return {
            SPARSE_MATRIX_TAG: value.format,
            "shape": list(value.shape),
            **{key: tensor(array) for key, array in entries.items()},
        }
    if isinstance(value, np.ndarray):
        return {NUMPY_ARRAY_TAG: True, "data": tensor(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: plain_other_parameter(item) for key, item in value.items() if not isinstance(item, nn.Module)}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_other_parameter(item) for item in value)
    return value


def restore_other_parameter(value: Any) -> Any:
    """The inverse of :func:`plain_other_parameter`."""
    from scipy import sparse

    if isinstance(value, dict):
        if SPARSE_MATRIX_TAG in value:
            entries = (value["data"].numpy(), (value["row"].numpy(), value["col"].numpy()))
            return sparse.coo_matrix(entries, shape=value["shape"]).asformat(value[SPARSE_MATRIX_TAG])
        if NUMPY_ARRAY_TAG in value:
            return value["data"].numpy()
        return {key: restore_other_parameter(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(restore_other_parameter(item) for item in value)
    return value

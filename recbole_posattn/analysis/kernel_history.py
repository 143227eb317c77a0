"""The kernels of a model over training, from the files that a run saved with ``save_kernel_every``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recbole_posattn.analysis.kernel_tables import lag_profiles
from recbole_posattn.errors import CheckpointError
from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
from recbole_posattn.training.checkpoint import read_plain
from recbole_posattn.training.trainer import KERNELS_NAME


def kernel_evolution(model: PosKernelSASRec, run_dir: Path) -> pd.DataFrame:
    """The lag profiles of the kernels after each saved epoch.

    Args:
        model: The model of the run; its kernels are restored afterwards.
        run_dir: The folder of the run.

    Returns:
        A column ``epochs`` (trained; 0 is the start), then those of
        :func:`recbole_posattn.analysis.kernel_tables.lag_profiles`; empty if nothing was saved.

    Raises:
        CheckpointError: If a file does not belong to this model.
    """
    final = model.kernel_state()
    final = {name: value.clone() for name, value in final.items()}
    tables = [lag_profiles(model).head(0).assign(epochs=0)]
    try:
        for file in sorted((run_dir / KERNELS_NAME).glob("epoch-*.pth")):
            tables.append(_profiles_of(model, file))
    finally:
        model.load_state_dict(final, strict=False)
    table = pd.concat(tables[1:] or tables, ignore_index=True)
    return table[["epochs", *table.columns.drop("epochs")]]


def _profiles_of(model: PosKernelSASRec, file: Path) -> pd.DataFrame:
    try:
        saved = read_plain(file)
        fits = {name: value.shape for name, value in saved["state_dict"].items()}
        if fits != {name: value.shape for name, value in model.kernel_state().items()}:
            raise ValueError("its kernels have a different shape")
        model.load_state_dict(saved["state_dict"], strict=False)
        return lag_profiles(model).assign(epochs=int(saved["epochs"]))
    except Exception as error:  # a foreign file can fail anywhere in the reader, with any error
        raise CheckpointError(f"{file} holds no kernels of this model ({error}); delete it") from error

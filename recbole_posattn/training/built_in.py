"""Make this package's models, loaders and metrics available to RecBole."""

from __future__ import annotations

from recbole_posattn.compat.doors import block_incompatible_functions
from recbole_posattn.compat.samplers import refuse_endless_sampling
from recbole_posattn.compat.tensorboard import replace_tensorboard_writer

from recbole_posattn.data.dataset import SequenceDataset
from recbole_posattn.evaluation.metrics import register_metrics
from recbole_posattn.models.baselines import BASELINES
from recbole_posattn.models.filters import FILTER_MODELS
from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
from recbole_posattn.models.rivals import RIVALS
from recbole_posattn.settings.datasets import hook_loaders, needs_our_settings
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.registry import add_model
from recbole_posattn.training.trainer import SequenceTrainer


def register_all() -> None:
    """Register everything; ``settings.registry.hook_recbole`` calls it once in a process."""
    refuse_endless_sampling()
    replace_tensorboard_writer()
    block_incompatible_functions(needs_our_settings)
    hook_loaders()
    register_metrics()
    for model in (PosKernelSASRec, *BASELINES, *FILTER_MODELS, *RIVALS):
        add_model(model, (PROPERTIES / "model" / f"{model.__name__}.yaml",), SequenceDataset, SequenceTrainer)

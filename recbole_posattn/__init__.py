"""Positional-kernel self-attention for sequential recommendation in RecBole."""

from recbole_posattn import compat

compat.apply()

from recbole_posattn.config import Config  # noqa: E402  (RecBole runs on today's stack only after compat.apply)
from recbole_posattn.data.dataset import SequenceDataset  # noqa: E402
from recbole_posattn.evaluation.metrics import register_metrics  # noqa: E402
from recbole_posattn.model.sequential_recommender.baselines import BASELINES  # noqa: E402
from recbole_posattn.model.sequential_recommender.poskernelsasrec import PosKernelSASRec  # noqa: E402
from recbole_posattn.quick_start import load, run  # noqa: E402
from recbole_posattn.recommend.recommender import Recommender  # noqa: E402
from recbole_posattn.registry import PROPERTIES, hook_loaders, register  # noqa: E402
from recbole_posattn.trainer import SequenceTrainer  # noqa: E402
from recbole_posattn.version import __version__  # noqa: E402

__all__ = ["Config", "PosKernelSASRec", "Recommender", "__version__", "load", "register", "run"]

hook_loaders()
register_metrics()
for _model in (PosKernelSASRec, *BASELINES):
    register(
        _model,
        properties=PROPERTIES / "model" / f"{_model.__name__}.yaml",
        dataset_class=SequenceDataset,
        trainer_class=SequenceTrainer,
    )

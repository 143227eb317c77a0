"""Every work-around for RecBole 1.2.1 on today's Python stack, each in a function of its own with its reason.

None of this changes what RecBole computes. Importing ``recbole_posattn`` only adds a finder for its own old module
names to ``sys.meta_path``. These are all other lasting changes in the process:

When a module of this package that uses RecBole is imported, before RecBole itself (:func:`apply`):
- ``numpy.float_``, ``complex_`` and ``unicode_``, where they are missing;
- ``scipy.sparse.dok_matrix._update``, where it is missing;
- ``torch.Tensor.__array__`` and ``__array_wrap__``, if they do not accept the arguments of NumPy 2;
- filters in ``warnings.filters`` (:func:`silence_known_warnings`);
- scikit-learn's functions in ``recbole.evaluator.metrics``, which import it when they are called
  (:func:`import_scikit_learn_when_called`).

When ``Config``, ``run``, ``load``, ``register`` or another public name is first used (``registry.hook_recbole``, with
the functions of ``compat/lookups.py`` and ``compat/samplers.py``):
- for each of our models, and those given to ``register``: the module ``recbole.model.sequential_recommender.<model>``
  in ``sys.modules``, ``recbole.data.dataset.<Model>Dataset`` and ``recbole.trainer.<Model>Trainer``;
- ``recbole.data.utils.get_dataloader``, which returns our loaders for our ``Config`` and RecBole's for any other;
- RecBole's ``AbstractDataLoader.__getstate__`` and ``multiprocessing_context``, so that workers run on any system;
- these methods of RecBole's samplers, which refuse data without a negative to draw instead of trying forever
  (``compat/samplers.py``): ``Sampler.set_phase``, ``RepeatableSampler.set_phase``,
  ``SeqSampler.sample_neg_sequence``, ``KGSampler.get_used_ids`` and ``AbstractSampler._build_alias_table`` of
  ``recbole.sampler.sampler``, and ``MaskItemSequence._neg_sample`` of ``recbole.data.transform``;
- ``recbole.config.Config._load_internal_config_dict`` and ``recbole.utils.init_logger``, also as the name in
  ``recbole.quick_start.quick_start``: with our models or checkpoints, which RecBole's own functions cannot use, they
  end in a line that names ours (``compat/doors.py``);
- the name ``SummaryWriter`` in ``recbole.utils.utils``: TensorBoard logs stay in their folder if the working folder
  changes, and fail without a traceback (``compat/tensorboard.py``);
- the metric ``COV`` in the tables of ``recbole.evaluator.register``.

When our ``Config`` is made for a RecBole model (``datasets.install_dataset_class`` and ``registry.find_model``):
- ``recbole.data.dataset.<Model>Dataset``, which builds our data set for our ``Config`` and RecBole's for any other;
  the existing classes ``DIENDataset``, ``GRU4RecKGDataset`` and ``KSRDataset`` stay and get a ``__new__`` that does so;
- the name ``torch`` in ``recbole.model.layers`` and in the modules of LightGCN and similar models
  (:func:`patch_sparse_tensor_constructor`);
- ``LINE.get_user_id_list`` and ``S3Rec._neg_sample``, when the model is one of these: they refuse data without a
  negative to draw as well.

When ``recbole_posattn.experiments.tuning.objective`` is imported, for RecBole's ``HyperTuning``:
- the name ``np`` in ``recbole.trainer.hyper_tuning`` (:func:`patch_hyper_tuning`).

Everything else here changes a name for the duration of a ``with`` block, or nothing.
Autograd's anomaly detection, which RecBole switches on when its sequential models are imported, is restored.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from recbole_posattn.version import require_supported_versions

# Tensors and arrays that RecBole's models change in training but do not register with PyTorch, by class name. Without
# them, a resumed run would differ.
TRAINED_ARRAYS = {
    "DiffRec": ("Lt_history", "Lt_count"),  # losses, from which the diffusion steps are drawn
    "KGAT": ("A_in",),  # attention, computed at the end of an epoch for the next one
    "LINE": ("random_list",),  # the order of users, shuffled again after each pass
    "NCL": ("user_centroids", "user_2cluster", "item_centroids", "item_2cluster"),  # clusters, updated every few epochs
}

# Numbers that the models change in training; checkpoints of older versions hold all other numbers as well.
TRAINED_NUMBERS = {"random_pr", "update", "update_count", "update_count_vae"}


def restore_numpy_names() -> None:
    """Restore the aliases removed in NumPy 2: each ``recbole.config.Config`` reads them."""
    for name, scalar_type in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
        if name not in np.__dict__:
            setattr(np, name, scalar_type)


@functools.lru_cache(maxsize=256)
def source_of(each: type) -> str:
    """The source of a class, empty if it has none, as in a notebook.

    ``inspect`` compiles the whole module, which takes tens of milliseconds for some models, while a leaderboard reads
    settings hundreds of times. Python then warns of invalid escape sequences in some modules of RecBole.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return inspect.getsource(each)
        except (OSError, TypeError):
            return ""


def silence_known_warnings() -> None:
    """Silence warnings that users cannot act on.

    pandas 2 warns of the chained ``fillna(inplace=True)``, which works there but not in pandas 3 (refused by
    :func:`require_supported_versions`). torch warns of ``torch.cuda.amp.GradScaler`` at each epoch. With several
    processes, it compares the strides of gradients with those of their buffers even along dimensions of size 1 (kernels
    of one group), where strides have no meaning.
    Python 3.12 and newer warn of a backslash in a docstring of RecBole's DIEN when they first compile it. NumPy warns
    where KGIN and MCCLK divide by the number of interactions of the padding; they replace the result with 0.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    warnings.filterwarnings("ignore", ".*invalid escape sequence", SyntaxWarning, r".*[/\\]recbole[/\\]")
    warnings.filterwarnings("ignore", "divide by zero encountered in power", RuntimeWarning, r"recbole\.model\.")
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)


def restore_dok_update() -> None:
    """Restore ``dok_matrix._update``, removed in SciPy 1.13: LightGCN and similar models fill their matrix with it."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)


def patch_tensor_array_methods() -> None:
    """Let ``np.array`` and ``np.argsort`` of tensors, with which RecBole sorts interactions, work without a warning.

    NumPy 2 calls ``__array__`` with ``copy``, and ``__array_wrap__`` with two more arguments, which torch's methods do
    not accept. NumPy then warns and tries again without them; later versions will raise an error.
    """
    import torch

    array, wrap = torch.Tensor.__array__, torch.Tensor.__array_wrap__

    def array_of_numpy_2(tensor: torch.Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        result = array(tensor) if dtype is None else array(tensor, dtype)
        shared = np.shares_memory(result, tensor.detach().numpy()) if copy is not None else None
        if copy is False and not shared:
            raise ValueError(f"a tensor of {tensor.dtype} cannot be an array of {dtype} without a copy")
        return result.copy() if copy and shared else result

    def wrap_of_numpy_2(
        tensor: torch.Tensor, computed: np.ndarray, context: Any = None, return_scalar: bool = False
    ) -> torch.Tensor:
        return wrap(tensor, computed)

    if "copy" not in inspect.signature(array).parameters:
        setattr(torch.Tensor, "__array__", array_of_numpy_2)  # noqa: B010  # mypy allows no assignment to a method
    if "return_scalar" not in inspect.signature(wrap).parameters:
        setattr(torch.Tensor, "__array_wrap__", wrap_of_numpy_2)  # noqa: B010


def patch_sparse_tensor_constructor(model_class: type) -> None:
    """Let LightGCN and similar models build their matrices without ``torch.sparse.FloatTensor``, which is deprecated.

    Only RecBole's modules that use it see a copy of ``torch``, which differs in ``torch.sparse.FloatTensor``.

    Args:
        model_class: A model; the modules of its base classes are included.
    """
    import torch

    names = {"recbole.model.layers", *(base.__module__ for base in model_class.__mro__)}
    for module in map(sys.modules.get, names):
        if module is None or getattr(module, "torch", None) is not torch:
            continue
        if module.__name__.startswith("recbole.model.") and "torch.sparse.FloatTensor(" in inspect.getsource(module):
            copy, sparse = ModuleType("torch"), ModuleType("torch.sparse")
            build = functools.partial(torch.sparse_coo_tensor, dtype=torch.float32, check_invariants=True)
            sparse.__dict__.update(torch.sparse.__dict__, FloatTensor=build)
            copy.__dict__.update(torch.__dict__, sparse=sparse)
            module.__dict__["torch"] = copy


def patch_hyper_tuning() -> None:
    """Let RecBole's ``HyperTuning`` search exhaustively and plot.

    It passes a ``RandomState`` to hyperopt, which since 0.2.7 calls ``integers`` as of a ``Generator``; its plot uses
    ``np.str``, removed in NumPy 1.24. Its module gets a replacement of ``np`` with the names that it uses.
    """
    from recbole.trainer import hyper_tuning

    class RandomState(np.random.RandomState):
        integers = np.random.RandomState.randint

    random = SimpleNamespace(RandomState=RandomState)
    hyper_tuning.np = SimpleNamespace(array=np.array, prod=np.prod, random=random, str=str)


def apply() -> None:
    """Prepare this process for the import of RecBole.

    Raises:
        UnsupportedVersionError: See :func:`require_supported_versions`.
    """
    require_supported_versions()
    restore_numpy_names()
    silence_known_warnings()
    restore_dok_update()
    patch_tensor_array_methods()
    import_scikit_learn_when_called()


def import_scikit_learn_when_called() -> None:
    """Let RecBole's metrics import scikit-learn when AUC, GAUC, MAE or RMSE is computed.

    They import three of its functions, which takes a quarter of the time that a process needs to import RecBole.
    """
    if "sklearn.metrics" in sys.modules or "recbole.evaluator.metrics" in sys.modules:
        return

    def function(name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return getattr(importlib.import_module("sklearn.metrics"), name)(*args, **options)

        return call

    deferred = ModuleType("sklearn.metrics")
    deferred.__dict__.update({name: function(name) for name in ("auc", "mean_absolute_error", "mean_squared_error")})
    sys.modules["sklearn.metrics"] = deferred
    try:
        importlib.import_module("recbole.evaluator.metrics")
    finally:
        del sys.modules["sklearn.metrics"]


def xgboost_by_keyword(xgboost: Any) -> SimpleNamespace:
    """The part of the package xgboost that RecBole's trainer uses, with ``evals`` passed by keyword as it requires."""

    def train(parameters: Any, rows: Any, n_rounds: int, evals: Any, **options: Any) -> Any:
        return xgboost.train(parameters, rows, n_rounds, evals=evals, **options)

    return SimpleNamespace(DMatrix=xgboost.DMatrix, train=train)


def fix_tree_settings(defaults: dict[str, Any]) -> None:
    """Rename the threshold of one-hot encoding as RecBole's data set for trees expects it.

    Args:
        defaults: Settings of a model, changed in place; RecBole's properties of its tree models have a typo.
    """
    if "token_num_threhold" in defaults:
        defaults["token_num_threshold"] = defaults["token_num_threhold"]


@contextmanager
def anomaly_detection_unchanged() -> Iterator[None]:
    """Import RecBole's models without switching on autograd's anomaly detection.

    ``recbole.model.sequential_recommender.sine`` switches it on when imported, as by any look-up of a sequential model.
    Every backward pass then takes several times as long.
    """
    import torch

    before = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(before)


@contextmanager
def with_setting(config: Any, key: str, value: Any) -> Iterator[None]:
    """Give a key another value while the block runs."""
    before = config[key]
    config[key] = value
    try:
        yield
    finally:
        config[key] = before


def without_wandb(config: Any) -> AbstractContextManager[None]:
    """Build a trainer that does not start a run of Weights & Biases; RecBole's does so even if it only evaluates.

    RecBole also passes its ``Config`` as the settings of the run, of which nothing is kept, and never ends the run, so
    that the next one of the process is logged into it.
    """
    return with_setting(config, "log_wandb", False)


def without_checkpoint_folder(config: Any) -> AbstractContextManager[None]:
    """Build a trainer that only evaluates, or continues a run in the run's own folder.

    RecBole's trainers create ``checkpoint_dir``, which may be a path of another machine.
    """
    return with_setting(config, "checkpoint_dir", os.curdir)  # exists


def no_pickled_caches(config: Any) -> AbstractContextManager[None]:
    """Prepare data without looking for caches, which RecBole unpickles: that can run any code.

    ``create_dataset`` and ``data_preparation`` always look for caches below ``checkpoint_dir``. Here they look where no
    file can exist. Keys that name caches are refused (:func:`recbole_posattn.settings.checks.check_caches`).
    """
    return with_setting(config, "checkpoint_dir", os.devnull)


apply()  # every module that imports RecBole imports this one first

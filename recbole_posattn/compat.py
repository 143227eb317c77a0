"""Every work-around for RecBole 1.2.1 on today's Python stack, each in a function of its own with its reason.

None of this changes what RecBole computes. Importing ``recbole_posattn`` changes nothing. This is what stays changed in
the process:

When a module of this package is imported that uses RecBole, before RecBole is (:func:`apply`):
- ``numpy.float_``, ``complex_`` and ``unicode_``, where they are missing;
- ``scipy.sparse.dok_matrix._update``, where it is missing;
- ``torch.Tensor.__array__`` and ``__array_wrap__``, which take the arguments of NumPy 2 as well, where they do not;
- filters in ``warnings.filters`` (:func:`silence_known_warnings`).

When ``Config``, ``run``, ``load``, ``register`` or another public name is first used (``registry.hook_recbole``):
- for each of our models, and those given to ``register``: the module ``recbole.model.sequential_recommender.<model>``
  in ``sys.modules``, ``recbole.data.dataset.<Model>Dataset`` and ``recbole.trainer.<Model>Trainer``;
- ``recbole.data.utils.get_dataloader``, which gives our loaders for our ``Config`` and RecBole's for any other;
- RecBole's ``AbstractDataLoader.__getstate__`` and ``multiprocessing_context``: it can have workers on any system;
- methods of RecBole's samplers, of ``MaskItemSequence``, ``LINE`` and ``S3Rec``, which refuse to draw a negative where
  there is none, and would otherwise never end (``data/sampling.py``);
- the metric ``COV`` in the tables of ``recbole.evaluator.register``.

When a ``Config`` of ours is made for a RecBole model (``registry.install_dataset_class``):
- ``recbole.data.dataset.<Model>Dataset``, which builds our data set for our ``Config`` and RecBole's for any other;
  the classes ``DIENDataset``, ``GRU4RecKGDataset`` and ``KSRDataset`` are there already, stay, and get a ``__new__``
  that does so;
- autograd's anomaly detection, which RecBole switches on when its sequential models are imported, stays as it was;
- the name ``torch`` in ``recbole.model.layers`` and in the modules of LightGCN and its kin
  (:func:`build_sparse_tensors_as_today`).

When ``recbole_posattn.experiments.tuning.objective`` is imported, for RecBole's ``HyperTuning``:
- the name ``np`` in ``recbole.trainer.hyper_tuning`` (:func:`let_hyper_tuning_run`).

Everything else here changes a name for the length of a ``with`` block, or nothing.
"""

from __future__ import annotations

import functools
import inspect
import multiprocessing.context
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from recbole_posattn.version import require_supported_versions

# Tensors and arrays that RecBole's models change in training and keep in no state that PyTorch knows of, by the class
# that has them: without them, a resumed run would go another way.
TRAINED_ARRAYS = {
    "DiffRec": ("Lt_history", "Lt_count"),  # losses, by which the steps of the diffusion are drawn
    "KGAT": ("A_in",),  # attention, computed at the end of an epoch for the next one
    "LINE": ("random_list",),  # the order of users, shuffled when it has been used up
    "NCL": ("user_centroids", "user_2cluster", "item_centroids", "item_2cluster"),  # of clusters found every few epochs
}

# The numbers that they change: checkpoints of older versions hold all others as well.
TRAINED_NUMBERS = {"random_pr", "update", "update_count", "update_count_vae"}


def restore_numpy_names() -> None:
    """Bring back the aliases that NumPy 2 dropped: ``recbole.config.Config`` reads them whenever one is built."""
    for name, scalar_type in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
        if name not in np.__dict__:
            setattr(np, name, scalar_type)


def silence_known_warnings() -> None:
    """Keep warnings that nobody can act on from covering RecBole's log lines.

    pandas 2 warns of the chained ``fillna(inplace=True)``, which still works there and which pandas 3 (refused above)
    would break; torch warns of ``torch.cuda.amp.GradScaler`` at each epoch. Several processes compare the strides of
    gradients with those of their buffers, also along dimensions of size 1, which kernels of one group have: there they
    mean nothing. Python 3.12 and newer warn of a backslash in a docstring of RecBole's DIEN when they compile it first.
    NumPy warns where KGIN and MCCLK divide by the number of interactions of the padding, and they put 0 in its stead.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    warnings.filterwarnings("ignore", ".*invalid escape sequence", SyntaxWarning, r".*[/\\]recbole[/\\]")
    warnings.filterwarnings("ignore", "divide by zero encountered in power", RuntimeWarning, r"recbole\.model\.")
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)


def restore_dok_update() -> None:
    """Let LightGCN and its kin fill their adjacency matrix: they call ``dok_matrix._update``, gone since SciPy 1.13."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)


def let_tensors_take_numpys_arguments() -> None:
    """Let ``np.array`` and ``np.argsort`` of tensors, with which RecBole sorts interactions, work without a warning.

    NumPy 2 calls ``__array__`` with ``copy``, and ``__array_wrap__`` with two arguments more, which torch's do not
    take. It warns and tries again without them, until it makes that an error.
    """
    import torch

    array, wrap = torch.Tensor.__array__, torch.Tensor.__array_wrap__

    def array_of_numpy_2(tensor: torch.Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = array(tensor) if dtype is None else array(tensor, dtype)
        shared = np.shares_memory(found, tensor.detach().numpy()) if copy is not None else None
        if copy is False and not shared:
            raise ValueError(f"a tensor of {tensor.dtype} cannot be an array of {dtype} without a copy")
        return found.copy() if copy and shared else found

    def wrap_of_numpy_2(
        tensor: torch.Tensor, computed: np.ndarray, context: Any = None, return_scalar: bool = False
    ) -> torch.Tensor:
        return wrap(tensor, computed)

    if "copy" not in inspect.signature(array).parameters:
        torch.Tensor.__array__ = array_of_numpy_2
    if "return_scalar" not in inspect.signature(wrap).parameters:
        torch.Tensor.__array_wrap__ = wrap_of_numpy_2


def let_loaders_have_workers() -> None:
    """Let a loader have worker processes on every system.

    Where they are no forks (macOS, Windows), a worker is sent the whole loader, of which it needs all but what draws
    the order of the rows: the state of a ``torch.Generator`` is sent in memory that is gone before the worker opens it.
    On Linux they stay forks, which Python 3.14 no longer makes by default: its fork server takes 255 tensors at most.
    """
    from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
    from torch.utils.data import DataLoader

    def state_for_worker(loader: AbstractDataLoader) -> dict[str, Any]:
        if multiprocessing.context.get_spawning_popen() is None:
            return vars(loader)
        order = ("generator", "sampler", "batch_sampler")
        return {name: value for name, value in vars(loader).items() if name not in order}

    def context_of_workers(loader: AbstractDataLoader) -> Any:
        given = DataLoader.multiprocessing_context.fget(loader)
        by_server = sys.version_info >= (3, 14) and multiprocessing.get_start_method() == "forkserver"
        if given is None and loader.num_workers > 0 and sys.platform == "linux" and by_server:
            return multiprocessing.get_context("fork")
        return given

    AbstractDataLoader.__getstate__ = state_for_worker
    AbstractDataLoader.multiprocessing_context = property(context_of_workers, DataLoader.multiprocessing_context.fset)


def build_sparse_tensors_as_today(model_class: type) -> None:
    """Let LightGCN and its kin build their matrices without the class that torch warns is going to be removed.

    Only the modules of RecBole that use it see another ``torch``, which differs in ``torch.sparse.FloatTensor``.

    Args:
        model_class: A model; the modules of its base classes are looked at, too.
    """
    import torch

    names = {"recbole.model.layers", *(base.__module__ for base in model_class.__mro__)}
    for module in map(sys.modules.get, names):
        if getattr(module, "torch", None) is not torch or not module.__name__.startswith("recbole.model."):
            continue
        if "torch.sparse.FloatTensor(" in inspect.getsource(module):
            module.torch, sparse = ModuleType("torch"), ModuleType("torch.sparse")
            module.torch.__dict__.update(torch.__dict__)
            sparse.__dict__.update(torch.sparse.__dict__)
            module.torch.sparse = sparse
            sparse.FloatTensor = functools.partial(torch.sparse_coo_tensor, dtype=torch.float32, check_invariants=True)


def let_hyper_tuning_run() -> None:
    """Let RecBole's ``HyperTuning`` search exhaustively and plot.

    It hands hyperopt a ``RandomState``, of which hyperopt asks for ``integers`` since 0.2.7, as of a ``Generator``;
    and its plot names its trials by ``np.str``, gone since NumPy 1.24. What it takes from NumPy is given to it by name.
    """
    from recbole.trainer import hyper_tuning

    class RandomState(np.random.RandomState):
        integers = np.random.RandomState.randint

    random = SimpleNamespace(RandomState=RandomState)
    hyper_tuning.np = SimpleNamespace(array=np.array, prod=np.prod, random=random, str=str)


def apply() -> None:
    """What RecBole needs in this process before it is imported.

    Raises:
        UnsupportedVersionError: See :func:`require_supported_versions`.
    """
    require_supported_versions()
    restore_numpy_names()
    silence_known_warnings()
    restore_dok_update()
    let_tensors_take_numpys_arguments()


def xgboost_by_keyword(xgboost: Any) -> SimpleNamespace:
    """What RecBole's trainer uses of the package xgboost, which wants ``evals`` by keyword."""

    def train(parameters: Any, rows: Any, n_rounds: int, evals: Any, **options: Any) -> Any:
        return xgboost.train(parameters, rows, n_rounds, evals=evals, **options)

    return SimpleNamespace(DMatrix=xgboost.DMatrix, train=train)


def mend_tree_settings(defaults: dict[str, Any]) -> None:
    """Give the threshold of one-hot encoding the name that RecBole's data set for trees reads it by.

    Args:
        defaults: Settings of a model, changed in place; RecBole's properties of its tree models have a typing error.
    """
    if "token_num_threhold" in defaults:
        defaults["token_num_threshold"] = defaults["token_num_threhold"]


@contextmanager
def anomaly_detection_unchanged() -> Iterator[None]:
    """Import models of RecBole's without what one of them does to all others.

    ``recbole.model.sequential_recommender.sine`` switches autograd's anomaly detection on when it is imported, which
    any look-up of a sequential model of RecBole's does. Every backward pass then takes several times as long.
    """
    import torch

    before = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(before)


class _SilentWriter:
    """The methods of TensorBoard's writer that RecBole's trainers call."""

    def add_scalar(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def add_hparams(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@contextmanager
def without_tensorboard() -> Iterator[None]:
    """Build a trainer that writes no TensorBoard log; RecBole's start one in the working folder, whatever they do."""
    from recbole.trainer import trainer as recbole_trainer

    original = recbole_trainer.get_tensorboard
    recbole_trainer.get_tensorboard = lambda logger: _SilentWriter()
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = original


def load_feat_by_c_parser(dataset: Any, filepath: str, source: Any) -> Any:
    """RecBole's ``Dataset._load_feat`` with pandas' parser in C, to the same frame.

    RecBole asks for the one in Python, which takes several times as long and makes objects of all rows: 20 million need
    7 GB to be read. Separators of several characters, which that one alone knows, and files that the other one does not
    understand are left to it. It is RecBole's own function that runs; only its name ``pd`` means something else.
    """
    from recbole.data.dataset import Dataset

    load_feat = Dataset._load_feat
    names = {**load_feat.__globals__, "pd": SimpleNamespace(read_csv=_read_csv)}
    return FunctionType(load_feat.__code__, names)(dataset, filepath, source)


def _read_csv(*args: Any, **options: Any) -> Any:
    import pandas

    if options.get("engine") == "python" and len(options.get("delimiter") or "") == 1:
        with suppress(ValueError):
            return pandas.read_csv(*args, **{**options, "engine": "c"})
    return pandas.read_csv(*args, **options)


@contextmanager
def no_pickled_caches(config: Any) -> Iterator[None]:
    """Prepare data without looking for caches: RecBole unpickles, and so runs, what has their names.

    ``create_dataset`` and ``data_preparation`` look below ``checkpoint_dir`` whether asked to or not. Here they look
    where no file can be. The keys that name caches are refused (:func:`recbole_posattn.settings.checks.check_caches`).
    """
    folder = config["checkpoint_dir"]
    config["checkpoint_dir"] = os.devnull
    try:
        yield
    finally:
        config["checkpoint_dir"] = folder


apply()  # every module that imports RecBole imports this one first

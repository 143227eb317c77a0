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
- RecBole's ``Dataset._remap`` and ``_concat_remaped_tokens``, with the same numbers and tokens in less memory;
- methods of RecBole's samplers, of ``MaskItemSequence``, ``LINE`` and ``S3Rec``, which refuse to draw a negative where
  there is none, and would otherwise never end (``data/sampling.py``);
- the metric ``COV`` in the tables of ``recbole.evaluator.register``.

When a ``Config`` of ours is made for a RecBole model (``registry.serve``):
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
import importlib.metadata
import inspect
import itertools
import logging
import lzma
import multiprocessing.context
import os
import stat
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.client import HTTPException
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from recbole_posattn.errors import DataError

SPARSE_MATRIX_TAG = "scipy sparse format"
NUMPY_ARRAY_TAG = "numpy array"

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

# What an archive of a data set may have. Text of interactions shrinks to a third or a tenth, and the format allows a
# thousandth; what is small in any case is not worth a refusal.
MOST_MEMBERS, LARGEST_EXPANSION, LARGEST_UNPACKED = 1000, 100, 2**30


class UnsupportedVersionError(ImportError):
    """A package that RecBole rests on is missing or has a version it does not run on."""


def require_supported_versions() -> None:
    """Stop where RecBole would fail, or be silently wrong.

    The work-arounds here were written against RecBole 1.2. It fills missing values with chained
    ``fillna(inplace=True)``, which the copy-on-write of pandas 3 turns into nothing without a word.

    Raises:
        UnsupportedVersionError: If RecBole is missing or not 1.2.x, or pandas is 3 or newer.
    """
    try:
        recbole = importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError:
        raise UnsupportedVersionError("RecBole is not installed; install it with: recbole-posattn setup") from None
    if recbole.split(".")[:2] != ["1", "2"]:
        raise UnsupportedVersionError(
            f"RecBole {recbole} is installed, but recbole-posattn works with 1.2.x; "
            "install that with: recbole-posattn setup"
        )
    pandas = importlib.metadata.version("pandas")
    if int(pandas.split(".")[0]) >= 3:
        raise UnsupportedVersionError(
            f"pandas {pandas} is installed, on which RecBole silently leaves missing values unfilled; "
            'install an older one with: pip install "pandas<3"'
        )


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


def let_tokens_be_long() -> None:
    """Let RecBole number tokens in arrays of objects; call it once RecBole can be imported.

    It makes arrays of NumPy's texts, each of which takes the room of the longest one: a single token of 20 kB among
    20,000 takes 1.5 GB. The numbers and the tokens are the same.
    """
    import pandas
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureType

    def _concat_remaped_tokens(self: Any, columns: list) -> tuple[np.ndarray, np.ndarray]:
        tokens = [
            feat[field]
            if kind == FeatureType.TOKEN
            else itertools.chain.from_iterable(map(np.ndarray.tolist, feat[field]))
            for feat, field, kind in columns
        ]
        tokens = [np.array(list(of_column), dtype=object) for of_column in tokens]
        return np.concatenate(tokens), np.cumsum([len(of_column) for of_column in tokens])[:-1]

    def _remap(self: Any, columns: list) -> None:
        if not columns:
            return
        tokens, begins = self._concat_remaped_tokens(columns)
        number, known = pandas.factorize(tokens)
        of_number = np.array(["[PAD]", *map(str, known)], dtype=object)
        of_token = {token: place for place, token in enumerate(of_number)}
        for (feat, field, kind), numbers in zip(columns, np.split(number + 1, begins)):
            self.field2id_token.setdefault(field, of_number)
            self.field2token_id.setdefault(field, of_token)
            feat[field] = (
                numbers if kind == FeatureType.TOKEN else np.split(numbers, np.cumsum(feat[field].map(len))[:-1])
            )

    Dataset._concat_remaped_tokens, Dataset._remap = _concat_remaped_tokens, _remap


@functools.cache
def apply() -> None:
    """What RecBole needs in this process, once, before it is imported (see ``before_recbole.py``).

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
def run_logger(config: Any) -> Iterator[None]:
    """RecBole's log, on screen and in ``log/<model>/``, for one run.

    RecBole calls ``logging.basicConfig``, which does nothing while the root logger has a handler: the second run of a
    process would write into the first one's file, and one started from a host with its own logging into none. Of many
    processes, only rank 0 has a log.
    """
    from recbole.utils import init_logger

    from recbole_posattn.distributed import is_main

    root = logging.getLogger()
    host_handlers, host_level = root.handlers[:], root.level
    own_handlers = []
    if is_main():
        root.handlers.clear()
        init_logger(config)
        own_handlers = root.handlers[:]
        root.handlers = own_handlers + host_handlers  # RecBole names its TensorBoard log by the first one's file
    else:
        root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(host_level)
        for handler in own_handlers:
            root.removeHandler(handler)
            handler.close()


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
def trainer_of_one_process(config: Any) -> Iterator[None]:
    """Build a trainer as if its process were the only one; only rank 0 writes a TensorBoard log.

    RecBole's wraps the model for GPUs there and then, whatever the device: ``DistributedDataParallel`` with device
    numbers and synchronized batch normalization both refuse a CPU. :func:`distribute_model` does it for either.
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
    """Average the gradients of all processes; the weights of rank 0 are everybody's from here on.

    RecBole's trainer primes the returned wrapper before each step and adds 0 times each parameter to the loss, so that
    models whose loss is no ``forward`` and leaves parameters out are averaged, too.
    """
    from torch.nn import SyncBatchNorm
    from torch.nn.parallel import DistributedDataParallel

    if device.type == "cuda":
        SyncBatchNorm.convert_sync_batchnorm(model)  # replaces the modules in place
        return DistributedDataParallel(model, device_ids=[device.index])
    return DistributedDataParallel(model)


@contextmanager
def autocast_dtype(device: Any, dtype: Any) -> Iterator[None]:
    """The type that mixed precision (``enable_amp``) computes in; RecBole leaves it to torch: float16 on GPUs."""
    import torch

    default = torch.get_autocast_dtype(device.type)
    torch.set_autocast_dtype(device.type, dtype)
    try:
        yield
    finally:
        torch.set_autocast_dtype(device.type, default)


def download_atomic_files(url: str, folder: Path, name: str) -> None:
    """Download and unpack a data set that RecBole knows, under its own size prompt.

    ``Dataset._download`` waits at a process-group barrier even in a single process, where it fails, and leaves a
    half-filled folder that it takes for the data set the next time. Here the folder appears when it is complete.

    Args:
        url: Address of the zip archive, from RecBole's list.
        folder: Where the atomic files belong; must not exist.
        name: The data set's name, which the files are given.

    Raises:
        OSError: If the archive cannot be fetched (no network, say) or the folder not be written.
        RuntimeError: If the user declines a large download, or what answers is no web server with a file.
        DataError: If the archive is damaged, or :func:`extract_archive` refuses it.
    """
    from recbole.utils import url as recbole_url

    with _download_failures():
        if not recbole_url.decide_download(url):
            raise RuntimeError("the download was declined")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        incomplete = Path(scratch) / name
        with _download_failures():
            archive = Path(recbole_url.download_url(url, str(incomplete)))
        try:
            extract_archive(archive, incomplete)
        except DataError as error:
            raise DataError(
                f"the archive of data set {name!r} at {url} is not used: {error}; get the atomic files by other means "
                f"and put them into {folder.absolute()}"
            ) from error
        archive.unlink()
        recbole_url.rename_atomic_files(incomplete, archive.stem, name)
        incomplete.rename(folder)


@contextmanager
def _download_failures() -> Iterator[None]:
    """Failures that RecBole's functions do not foresee, as errors with a reason."""
    try:
        yield
    except EOFError as error:
        raise RuntimeError("it is larger than 1 GB, and there is nobody to ask whether to go on") from error
    except TypeError as error:  # it takes the length from the answer's headers
        raise RuntimeError("the server does not say how large the file is") from error
    except HTTPException as error:
        raise RuntimeError(f"the answer is not HTTP: {type(error).__name__}") from error


def extract_archive(archive: Path, folder: Path) -> None:
    """Unpack a zip archive of a data set, after a look at what is in it.

    The standard library, which RecBole's ``extract_zip`` calls, bends names that lead out of the folder until they do
    not, writes the target of a link as a file, and fills the disk if told so. Here such an archive is refused whole.

    Args:
        archive: The zip archive.
        folder: Where its files belong.

    Raises:
        DataError: If it is no zip archive or is damaged, if a member is no plain file or folder or its name is absolute
            or has ``..``, a backslash, a colon or a NUL in it, if there are more than :data:`MOST_MEMBERS` members, or
            if all of them are together larger than :data:`LARGEST_UNPACKED` and than :data:`LARGEST_EXPANSION` times
            the archive.
        OSError: If the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_members(opened.infolist(), archive.stat().st_size)
            opened.extractall(folder)  # never more of a member than the size that has been checked
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise DataError(f"it cannot be unpacked ({error or type(error).__name__})") from error


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise DataError(f"it has {len(members):,} members; a data set has {MOST_MEMBERS:,} at most")
    for member in members:
        name = member.orig_filename  # as it stands in the archive
        kind = stat.S_IFMT(member.external_attr >> 16)
        if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
            raise DataError(f"its member {name!r} is not a name below the folder it is unpacked into")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"its member {name!r} is a link or a device, not a file")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(LARGEST_UNPACKED, LARGEST_EXPANSION * size):
        raise DataError(
            f"it would grow from {size:,} to {unpacked:,} bytes; up to {LARGEST_EXPANSION} times its size is believed"
        )


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


def settings_of_recbole(config: Any) -> dict[str, Any]:
    """The resolved settings of a ``Config`` that RecBole has pickled into a checkpoint."""
    return dict(config.final_config_dict)


def plain_other_parameter(value: Any) -> Any:
    """What a RecBole model keeps beside its weights (``other_parameter``), as tensors and plain containers.

    Several models keep NumPy or SciPy matrices there, which ``torch.load(weights_only=True)``, the default since
    torch 2.6, refuses. A module among them is left out: its weights are in the model's state already.
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

"""Work-arounds for RecBole's data sets and loaders."""

from __future__ import annotations

import multiprocessing.context
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType, SimpleNamespace
from typing import Any


def patch_loader_workers() -> None:
    """Let a loader have worker processes on every system.

    Where workers are not forked (macOS, Windows), the whole loader is pickled for them. What draws the order of the
    rows is left out, which workers do not need: the state of a ``torch.Generator`` is sent in shared memory that is
    freed before the worker opens it. On Linux, workers are forked, which is no longer the default in Python 3.14: its
    fork server accepts at most 255 tensors.
    """
    from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
    from torch.utils.data import DataLoader

    def state_for_worker(loader: AbstractDataLoader) -> dict[str, Any]:
        if multiprocessing.context.get_spawning_popen() is None:
            return vars(loader)
        order = ("generator", "sampler", "batch_sampler")
        return {name: value for name, value in vars(loader).items() if name not in order}

    context: Any = DataLoader.multiprocessing_context  # a property

    def context_of_workers(loader: AbstractDataLoader) -> Any:
        given = context.fget(loader)
        by_server = sys.version_info >= (3, 14) and multiprocessing.get_start_method() == "forkserver"
        if given is None and loader.num_workers > 0 and sys.platform == "linux" and by_server:
            return multiprocessing.get_context("fork")
        return given

    AbstractDataLoader.__getstate__ = state_for_worker
    AbstractDataLoader.multiprocessing_context = property(context_of_workers, context.fset)


def load_feat(dataset: Any, filepath: str, source: Any, read_csv: Callable[..., Any]) -> Any:
    """RecBole's ``Dataset._load_feat`` with another function instead of ``pandas.read_csv``.

    RecBole's own function runs; only its name ``pd`` refers to a replacement.
    """
    from recbole.data.dataset import Dataset

    own = Dataset._load_feat
    names = {**own.__globals__, "pd": SimpleNamespace(read_csv=read_csv)}
    return FunctionType(own.__code__, names)(dataset, filepath, source)


def read_csv_by_c_parser(*args: Any, **options: Any) -> Any:
    """``pandas.read_csv`` as RecBole calls it, with pandas' C parser; the result is the same frame.

    RecBole uses the Python parser, which takes several times as long and much more memory: 7 GB for 20 million rows. It
    is still used for separators of several characters, which only it supports, and for files on which the C parser
    fails.
    """
    import pandas

    if options.get("engine") == "python" and len(options.get("delimiter") or "") == 1:
        with suppress(ValueError):
            return pandas.read_csv(*args, **{**options, "engine": "c"})
    return pandas.read_csv(*args, **options)

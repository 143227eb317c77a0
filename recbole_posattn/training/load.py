"""Load a trained model with its settings and data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import no_pickled_caches, with_setting, without_checkpoint_folder
from recbole_posattn.compat.tensorboard import without_tensorboard

import numpy as np
import pandas as pd
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import ModelType, init_seed

from recbole_posattn import distributed
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data.cache import only_read
from recbole_posattn.data.tables import forget
from recbole_posattn.errors import CheckpointError, DataError, UserError
from recbole_posattn.models.options import item_counts
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.settings.times import check_branch_reads_time
from recbole_posattn.training.checkpoint import check_vocabulary, explain_checkpoint_errors, load_state, read_checkpoint
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.explained_errors import (
    explain_missing_requirements,
    model_size_explained,
    pretrained_explained,
)
from recbole_posattn.training.run_folder import checkpoint_file
from recbole_posattn.training.run_log import run_logger
from recbole_posattn.training.same_run import changed_data
from recbole_posattn.training.trainer import trainer_class
from recbole_posattn.training.trees import TREES, load_trees


class Loaded(NamedTuple):
    """What :func:`load` returns, in the order of RecBole's ``load_data_and_model``."""

    config: Config
    model: AbstractRecommender
    dataset: Dataset
    train_data: AbstractDataLoader
    valid_data: AbstractDataLoader
    test_data: AbstractDataLoader


def evaluate_trainer(
    trainer: Trainer, data: AbstractDataLoader, load_best_model: bool
) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
    """Metrics, and results by user where the trainer is one of ours and all items are ranked."""
    options = {"load_best_model": load_best_model, "show_progress": trainer.config["show_progress"]}
    if isinstance(trainer, EngineMixin):
        return trainer.evaluate_users(data, **options)
    return trainer.evaluate(data, **options), None


def evaluate_checkpoint(
    checkpoint: str | Path, data_path: str | Path | None = None
) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
    """Evaluate a trained model on its test set.

    Args:
        checkpoint: A file written by :func:`run`, or the folder of a run.
        data_path: See :func:`load`.

    Returns:
        The metrics by name, ``None`` for a split without rows, and the table of
        :func:`recbole_posattn.evaluation.target_ranks.user_results`, ``None`` unless all items are ranked.

    Raises:
        CheckpointError, DataError, SettingError: As :func:`load` does.
    """
    loaded = load(checkpoint, data_path)
    with run_logger(loaded.config):
        result, users = evaluate_trainer(evaluating_trainer(loaded), loaded.test_data, load_best_model=False)
    return plain_data(result), users


def evaluating_trainer(loaded: Loaded) -> Trainer:
    """A trainer that evaluates a loaded model, and writes nothing."""
    config = loaded.config
    not_compiled = with_setting(config, "torch_compile", False)  # there may be no compiler here
    with without_tensorboard(), without_checkpoint_folder(config), not_compiled:
        trainer = trainer_class(config)(config, loaded.model)
    if isinstance(trainer, EngineMixin):
        trainer.eval_collector.data_collect(loaded.train_data)  # some metrics count the training items
    return trainer


def load(checkpoint: str | Path, data_path: str | Path | None = None, allow_unsafe_checkpoint: bool = False) -> Loaded:
    """Load a trained model with its settings and its data, prepared as for training.

    If the data have changed since training, they are split differently; a warning names the changed files.

    Args:
        checkpoint: A file written by :func:`run`, or the folder of a run, for its best epoch. It is read as plain data;
            nothing in it is executed.
        data_path: The folder with the data set's folder in it, if it has moved since training.
        allow_unsafe_checkpoint: Whether to read a checkpoint written by RecBole itself, which **runs any code in it**;
            for files from people you trust.

    Returns:
        Settings, model (in evaluation mode), data set, and the loaders of the three splits.

    Raises:
        CheckpointError: If the file is missing, not one of ours, or no longer fits the data set.
        DataError: If the data set cannot be read.
        SettingError: If the model is not registered here.
    """
    checkpoint = checkpoint_file(checkpoint)
    content = read_checkpoint(checkpoint, allow_unsafe_checkpoint=allow_unsafe_checkpoint)
    with explain_checkpoint_errors(checkpoint):
        config = Config.from_plain(content["config"], data_path)
    ensure_atomic_files(config, keeps=True)
    init_seed(config["seed"], config["reproducibility"])
    with only_read():  # the folder of data_cache may be of another machine
        interactions, loaders = prepare_data(config)
    model = build_model(config, loaders[0])
    with explain_checkpoint_errors(checkpoint):
        try:
            check_vocabulary(content, interactions)
            _warn_of_changed_data(content, config)
            (load_trees if TREES in content else load_state)(model, content)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint}: {error}") from error
    if isinstance(model, torch.nn.Module):
        model.eval()
    return Loaded(config, model, interactions, *loaders)


def _warn_of_changed_data(content: Mapping[str, Any], config: Config) -> None:
    changes = changed_data(content["data"], config) if content.get("data") else []
    if changes:
        logging.getLogger().warning(
            f"the data in {config['data_path']} have changed since training: {'; '.join(changes)}. The validation and "
            "test sets are no longer those of the run; to get the same ones, name the old data with --data_path"
        )


def prepare_data(config: Config) -> tuple[Dataset, tuple[AbstractDataLoader, AbstractDataLoader, AbstractDataLoader]]:
    """Read, filter and split the configured data set.

    Returns:
        The data set, and the loaders of its training, validation and test split.

    Raises:
        DataError: If the rows cannot be read, or no rows remain to train on.
    """
    try:
        with no_pickled_caches(config):
            dataset = create_dataset(config)
            forget()  # a data set of another package reads files itself
            _require_sequences(config, dataset)
            loaders = data_preparation(config, dataset)
    except UserError:
        raise
    except (KeyError, UnicodeDecodeError, ValueError) as error:  # raised by RecBole and pandas for bad files
        raise DataError(f"data set {config['dataset']!r} in {config['data_path']}: {error}") from error
    if not loaders[0]:
        raise DataError(
            f"data set {config['dataset']!r}: no interactions are left in the training split; loosen the filters "
            "(val_interval, user_inter_num_interval, item_inter_num_interval), or change the split of eval_args"
        )
    for name, loader in zip(("validation", "test"), loaders[1:]):
        if not loader:
            logging.getLogger().warning(f"The {name} split has no rows: there is nothing to evaluate on it.")
    return dataset, loaders


def _require_sequences(config: Config, dataset: Dataset) -> None:
    """Refuse data without sequences: RecBole never uses a user's first interaction as a target, and fails on none."""
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL or config["benchmark_filename"] is not None:
        return
    if np.bincount(dataset.inter_feat[dataset.uid_field]).max() < 2:
        raise DataError(
            f"data set {config['dataset']!r} in {config['data_path']}: no user has two interactions, so there is no "
            "next item to predict; loosen the filters"
            f"{', set drop_unseen_items False' if config['drop_unseen_items'] else ''}, or use a model that does not "
            "read sequences"
        )


def _check_negatives(config: Config, train: Dataset) -> None:
    negatives = config["loss_negatives"]
    if negatives is None:
        return
    is_popularity = negatives.get("distribution") == "popularity"
    which = " that are targets in training" if is_popularity else ""
    n_items = int(item_counts(train)[1:].count_nonzero()) if is_popularity else train.item_num - 1
    if n_items < 2:
        raise DataError(
            f"loss_type {config['loss_type']} draws negative items, which takes two items{which}; data set "
            f"{config['dataset']!r} has {n_items}. loss_type CE draws none"
        )


def build_model(config: Config, train_data: AbstractDataLoader) -> AbstractRecommender:
    """The configured model on its device, with weights that depend on the seed and the process.

    Raises:
        DataError: If its loss draws negative items, and there are too few.
    """
    check_branch_reads_time(config, getattr(train_data._dataset, "times_are_gaps", True))
    _check_negatives(config, train_data._dataset)
    init_seed((config["seed"] + distributed.rank()) % 2**32, config["reproducibility"])  # NumPy's limit
    with explain_missing_requirements(config), pretrained_explained(config), model_size_explained(config):
        return config.model_class(config, train_data._dataset).to(config["device"])

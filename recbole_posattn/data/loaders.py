"""RecBole's data loaders without a Python list of all rows, with exact shards and bounded batches in evaluation.

In one process they yield the batches of RecBole's own loaders, in the same order for the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.config import Config
from recbole.data.dataloader import (
    AbstractDataLoader,
    FullSortEvalDataLoader,
    NegSampleEvalDataLoader,
    TrainDataLoader,
    UserDataLoader,
)
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.data.transform import construct_transform
from recbole.sampler.sampler import AbstractSampler
from recbole.utils import ModelType
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from recbole_posattn.distributed import rank, world_size
from recbole_posattn.errors import DataError, SettingError

# Most scores in a batch of a full ranking, users times items: 64 MiB on a CPU, 1 GiB on a GPU.
SCORES_PER_BATCH = {"cpu": 2**24, "cuda": 2**28}


class ShardedBatches:
    """This process's share of the batches that a single process would see.

    Each global batch is divided among all processes, so that every epoch has each row once, in exactly one process, and
    all processes take the same number of steps. A last batch with fewer rows than processes is added to the one before.

    Args:
        batches: The global batches, the same in all processes.
        n_rows: The number of rows in all global batches.
    """

    def __init__(self, batches: BatchSampler, n_rows: int) -> None:
        self.batches = batches
        self.n_rows = n_rows

    def __iter__(self) -> Iterator[list[int]]:
        held_back: list[int] = []
        for batch in self.batches:
            if held_back and len(batch) >= world_size():
                yield held_back[rank() :: world_size()]
                held_back = []
            held_back = held_back + batch
        yield held_back[rank() :: world_size()]

    def __len__(self) -> int:
        n_batches = len(self.batches)
        return n_batches - (n_batches > 1 and 0 < self.n_rows % self.batches.batch_size < world_size())


class LoaderBase(AbstractDataLoader):
    """Replaces ``AbstractDataLoader`` and its constructor; the head of this module names the differences.

    Attributes:
        trains: Whether the rows are trained on, and so divided among the processes batch by batch.
    """

    trains = True
    step: int  # rows per batch, set by _init_batch_size_and_step

    def __init__(self, config: Config, dataset: Dataset, sampler: AbstractSampler, shuffle: bool = False) -> None:
        self.shuffle = shuffle
        self.config = config
        self._dataset = dataset
        self._sampler = sampler
        self._batch_size = self.model = None
        self._init_batch_size_and_step()
        self.generator = torch.Generator()
        self.generator.manual_seed(config["seed"])
        self.transform = construct_transform(config)
        self.is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        rows = self._rows()
        if self.trains and not len(rows):
            raise DataError(f"data set {config['dataset']!r}: no interactions are left in the training split")
        order = RandomSampler(rows, generator=self.generator) if shuffle else SequentialSampler(rows)
        global_batches = BatchSampler(order, self.step, drop_last=False)
        batches: BatchSampler | ShardedBatches = global_batches
        if self.trains and world_size() > 1:
            self._require_rows_for_all(config)
            batches = ShardedBatches(global_batches, len(rows))
            self.shuffle = False  # so that RecBole's trainer does not look for a DistributedSampler
        on_gpu = config["device"].type == "cuda"
        DataLoader.__init__(
            self,
            dataset=rows,  # type: ignore[arg-type]  # a range has all that DataLoader needs
            batch_sampler=batches,
            collate_fn=self._collate_pinned if on_gpu else self.collate_fn,
            num_workers=config["worker"],
            generator=self.generator,
            pin_memory=on_gpu,
        )

    def __bool__(self) -> bool:
        """Whether any process has rows: one may have none while others do, and all must agree."""
        return self.sample_size > 0

    def _rows(self) -> range:
        """Rows of the data set that this process reads: all of them for training, its own part for evaluation."""
        if self.trains:
            return range(self.sample_size)
        begin, end = (self.sample_size * (rank() + part) // world_size() for part in (0, 1))
        return range(begin, end)

    def _require_rows_for_all(self, config: Config) -> None:
        if self.step < world_size():
            raise SettingError(
                f"train_batch_size must be at least {world_size()}, the number of processes that share each batch "
                f"(times the samples per row); got {config['train_batch_size']}."
            )
        if self.sample_size < world_size():
            raise SettingError(
                f"nproc must be at most {self.sample_size}, the number of training rows; got {world_size()} processes."
            )

    def _collate_pinned(self, index: Sequence[int]) -> Any:
        batch = type(self).collate_fn(self, index)  # DataLoader keeps this function as the attribute collate_fn
        if isinstance(batch, tuple):  # in evaluation, rows come first
            return PinnedRows(batch[0].interaction), *batch[1:]
        return PinnedRows(batch.interaction)


class PinnedRows(Interaction):
    """A batch that a GPU fetches while it computes on the previous one."""

    def pin_memory(self) -> PinnedRows:
        """The same rows in page-locked memory."""
        return PinnedRows({field: column.pin_memory() for field, column in self.interaction.items()})

    def to(self, device: torch.device, selected_field: str | Sequence[str] | None = None) -> Interaction:
        """See ``Interaction.to``; does not wait for the copies."""
        if selected_field is not None:
            return super().to(device, selected_field)
        return Interaction({field: column.to(device, non_blocking=True) for field, column in self.interaction.items()})


class TrainLoader(TrainDataLoader, LoaderBase):
    """RecBole's ``TrainDataLoader``."""


class UserLoader(UserDataLoader, LoaderBase):
    """RecBole's ``UserDataLoader``."""


class NegSampleEvalLoader(NegSampleEvalDataLoader, LoaderBase):
    """RecBole's ``NegSampleEvalDataLoader``."""

    trains = False


class FullSortEvalLoader(FullSortEvalDataLoader, LoaderBase):
    """RecBole's ``FullSortEvalDataLoader`` with a limit to the scores in a batch, for sequential models as well.

    RecBole takes ``eval_batch_size`` sequences at a time, 4,096 by default, however many items there are: with half a
    million items, their scores alone fill 8 GB. Here that key is an upper bound.
    """

    trains = False

    def _init_batch_size_and_step(self) -> None:
        super()._init_batch_size_and_step()
        if self.is_sequential:
            self._limit_batch_size()

    def _limit_batch_size(self) -> None:
        most = max(1, SCORES_PER_BATCH[self.config["device"].type] // self._dataset.item_num)
        self.step = min(self.config["eval_batch_size"], most)
        self.set_batch_size(self.step)


class HistoryEvalLoader(FullSortEvalLoader):
    """Full ranking, target by target for all models, without the items of the target's history.

    RecBole masks nothing for sequential models, and training and validation items for all others. Here the key
    ``mask_history`` holds for all models: ``none``; ``all``, every item of the user's history, so that a target which
    the user had before cannot be found; or ``except_target``, every item of it except the target.
    """

    def __init__(self, config: Config, dataset: Dataset, sampler: AbstractSampler, shuffle: bool = False) -> None:
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        self.sample_size = len(dataset)
        LoaderBase.__init__(self, config, dataset, sampler)

    def _init_batch_size_and_step(self) -> None:
        self._limit_batch_size()

    def collate_fn(self, index: Sequence[int]) -> tuple[Interaction, tuple[Tensor, Tensor] | None, Tensor, Tensor]:
        """A batch: the model's input, (row, item) of what is masked, and row and item of the targets."""
        rows = torch.as_tensor(index)
        histories = self._dataset.histories[rows]
        if self.is_sequential:
            batch = self.transform(self._dataset, self._dataset[rows])
        else:
            batch = self._dataset.join(Interaction({self.uid_field: self._dataset.inter_feat[self.uid_field][rows]}))
        masked = histories.masked(self.config["mask_history"])
        return batch, masked, torch.arange(len(rows)), histories.target


# Our loaders by RecBole's class; the loader of knowledge-aware models, which combines two, is not replaced.
LOADERS: dict[type, type[LoaderBase]] = {
    TrainDataLoader: TrainLoader,
    UserDataLoader: UserLoader,
    NegSampleEvalDataLoader: NegSampleEvalLoader,
    FullSortEvalDataLoader: FullSortEvalLoader,
}


def loader_instead_of(loader_class: type, config: Config) -> type:
    """The loader that replaces RecBole's."""
    if loader_class is FullSortEvalDataLoader and config["mask_history"] is not None:
        return HistoryEvalLoader
    return LOADERS.get(loader_class, loader_class)

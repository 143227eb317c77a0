"""RecBole's samplers, where there is no negative to draw.

RecBole draws again until no negative is one of a user's items. It looks for users who have all items, but not where a
popularity distribution draws the items of interactions only (and of these the most popular ones alone, if ``alpha`` is
so large that the weights of the others are 0), nor where a model or a transform draws by itself: there it never ends.
Here such data are refused before the first draw.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
from recbole.data.dataset import Dataset
from recbole.data.transform import MaskItemSequence
from recbole.sampler import KGSampler, RepeatableSampler, Sampler, SeqSampler
from recbole.sampler.sampler import AbstractSampler

from recbole_posattn.errors import DataError, SettingError


def drawn_by(sampler: AbstractSampler) -> set[int]:
    """The numbers that a sampler can draw."""
    if sampler.distribution == "popularity":
        return {number for number, share in sampler.prob.items() if share > 0}
    return set(range(1, getattr(sampler, "entity_num", 0) or sampler.item_num))


def refuse_all_used(sampler: AbstractSampler, keys: Iterable[int], name: Callable[[int], str]) -> None:
    """Refuse keys (users, say) whose positives are all that a sampler can draw.

    Args:
        sampler: With ``used_ids`` by key.
        keys: The keys that it will be asked for.
        name: Says in words which one it is.

    Raises:
        DataError: Naming the first one.
    """
    drawn = drawn_by(sampler)
    for key in keys:
        used = sampler.used_ids[key]
        if len(used) >= len(drawn) and drawn <= used:
            raise DataError(
                f"{name(key)} has all {len(drawn):,} items of which {sampler.distribution} negatives are drawn, and "
                "none is left; leave it out (user_inter_num_interval), rank all items (eval_args, mode full), or draw "
                "from another distribution"
            )


def refuse_single(sampler: AbstractSampler) -> None:
    """Refuse to draw a negative where there is only one item.

    Raises:
        DataError: If there is.
    """
    if len(drawn_by(sampler)) < 2:
        raise DataError(
            f"there is but one item to draw {sampler.distribution} negatives from, so that none is left beside the "
            "positive; rank all items (eval_args, mode full) and take a loss without negatives"
        )


def refuse_whole_catalogue(items: Collection[int], n_items: int) -> None:
    """Refuse a history that has all items, the padding item not counted, where it is to get negatives.

    Raises:
        DataError: If it has.
    """
    if len(items) >= n_items - 1 and set(range(1, n_items)) <= set(items):
        raise DataError(
            f"a history has all {n_items - 1:,} items, so that none is left to draw as its negative; take a smaller "
            "MAX_ITEM_LIST_LENGTH or another model"
        )


def _checked(method: Callable, check: Callable) -> Callable:
    """A method that calls another function first, with the same arguments."""

    @functools.wraps(method)
    def checked(self: Any, *arguments: Any) -> Any:
        check(self, *arguments)
        return method(self, *arguments)

    return checked


@functools.cache
def let_sampling_end() -> None:
    """Let RecBole's samplers, and its transform that draws negatives, refuse draws that would never end."""
    Sampler.set_phase = _of_users(Sampler.set_phase)
    RepeatableSampler.set_phase = _checked(RepeatableSampler.set_phase, _check_rows)
    SeqSampler.sample_neg_sequence = _checked(
        SeqSampler.sample_neg_sequence, lambda self, sequence: refuse_single(self)
    )
    KGSampler.get_used_ids = _of_entities(KGSampler.get_used_ids)
    AbstractSampler._build_alias_table = _of_weights(AbstractSampler._build_alias_table)
    MaskItemSequence._neg_sample = _checked(
        MaskItemSequence._neg_sample, lambda self, items, n_items: refuse_whole_catalogue(items, n_items)
    )


def _draws(dataset: Dataset, phase: str) -> bool:
    """Whether negatives are drawn for a part; there is a sampler for a full ranking, too."""
    return dataset.config[f"{phase}_neg_sample_args"]["sample_num"] != "none"


def _check_rows(sampler: RepeatableSampler, phase: str) -> None:
    if _draws(sampler.dataset, phase):
        refuse_single(sampler)


def _of_users(set_phase: Callable) -> Callable:
    @functools.wraps(set_phase)
    def checked(self: Sampler, phase: str) -> Sampler:
        sampler = set_phase(self, phase)
        part = self.datasets[self.phases.index(phase)]
        if _draws(part, phase):
            users = np.unique(part.inter_feat[self.uid_field].numpy())
            refuse_all_used(sampler, users, lambda user: f"user {str(part.id2token(self.uid_field, user))!r}")
        return sampler

    return checked


def _of_entities(get_used_ids: Callable) -> Callable:
    @functools.wraps(get_used_ids)
    def checked(self: KGSampler) -> np.ndarray:
        self.used_ids, dataset = get_used_ids(self), self.dataset
        name = dataset.head_entity_field
        refuse_all_used(self, self.head_entities, lambda entity: f"entity {str(dataset.id2token(name, entity))!r}")
        return self.used_ids

    return checked


def _of_weights(build_table: Callable) -> Callable:
    @functools.wraps(build_table)
    def checked(self: AbstractSampler) -> None:
        try:
            build_table(self)
        except ZeroDivisionError as error:
            raise SettingError(
                f"alpha of the popularity distribution is too large: by {self.alpha} every item's weight is 0, its "
                "share of the interactions to the power of alpha."
            ) from error

    return checked


# Models that draw negatives themselves, with the method before which their data are checked.
_OF_MODELS: dict[str, tuple[str, Callable]] = {
    "LINE": ("get_user_id_list", lambda self: _refuse_item_of_all(self)),
    "S3Rec": ("_neg_sample", lambda self, items: refuse_whole_catalogue(items, self.n_items)),
}


def let_sampling_of_model_end(model: type) -> None:
    """The same for a model of RecBole that draws negatives itself."""
    if model.__name__ in _OF_MODELS and model.__module__.startswith("recbole."):
        name, check = _OF_MODELS[model.__name__]
        method = getattr(model, name)
        if not hasattr(method, "__wrapped__"):
            setattr(model, name, _checked(method, check))


def _refuse_item_of_all(model: Any) -> None:
    """LINE draws users who have not had an item, for its second order."""
    for item, users in enumerate(model.used_ids):
        if model.order == 2 and len(users) >= model.n_users - 1:
            raise DataError(
                f"all {model.n_users - 1:,} users have the item of number {item} in training, so that LINE finds none "
                "who has not; leave it out (item_inter_num_interval), or take another model"
            )

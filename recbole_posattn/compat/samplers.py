"""RecBole's samplers, which never end where there is no negative to draw: here such data are refused beforehand.

RecBole draws again while a negative is one of the user's items. It checks for users who have all items, but not where

- a popularity distribution draws only items with interactions (only the most popular ones if ``alpha`` is so large that
  the weights of all others are 0);
- a model or a transform draws negatives without a sampler.
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


def drawable_ids(sampler: AbstractSampler) -> set[int]:
    """The numbers of the items, or of the entities of a graph, that a sampler can draw."""
    if sampler.distribution == "popularity":
        return {number for number, share in sampler.prob.items() if share > 0}
    return set(range(1, getattr(sampler, "entity_num", 0) or sampler.item_num))


def refuse_all_used(sampler: AbstractSampler, keys: Iterable[int], name: Callable[[int], str]) -> None:
    """Refuse users, or entities, whose positives are everything that a sampler can draw.

    Args:
        sampler: A sampler with ``used_ids`` by key.
        keys: The users or entities that negatives will be drawn for.
        name: The name of a key in the message.

    Raises:
        DataError: Naming the first such key.
    """
    drawable = drawable_ids(sampler)
    for key in keys:
        used = sampler.used_ids[key]
        if len(used) >= len(drawable) and drawable <= used:
            raise DataError(
                f"{name(key)} has all {len(drawable):,} items that {sampler.distribution} negatives are drawn from, "
                "so none is left; leave it out (user_inter_num_interval), rank all items (eval_args, mode full), or "
                "draw from another distribution"
            )


def refuse_single_item(sampler: AbstractSampler) -> None:
    """Refuse to draw negatives if there is only one item.

    Raises:
        DataError: If there is only one.
    """
    if len(drawable_ids(sampler)) < 2:
        raise DataError(
            f"there is only one item to draw {sampler.distribution} negatives from, and it is the positive; rank all "
            "items (eval_args, mode full) and use a loss without negatives"
        )


def refuse_whole_catalogue(items: Collection[int], n_items: int) -> None:
    """Refuse a history with every item of the catalogue (``n_items`` counts the padding item) if it needs negatives.

    Raises:
        DataError: If it has every item.
    """
    if len(items) >= n_items - 1 and set(range(1, n_items)) <= set(items):
        raise DataError(
            f"a history has all {n_items - 1:,} items, so none is left to draw as a negative; use a smaller "
            "MAX_ITEM_LIST_LENGTH or another model"
        )


@functools.cache
def refuse_endless_sampling() -> None:
    """Let RecBole's samplers, and its transform that draws negatives, refuse data for which they would never end."""
    Sampler.set_phase = _with_user_check(Sampler.set_phase)
    RepeatableSampler.set_phase = _checked_before(RepeatableSampler.set_phase, _check_rows)
    SeqSampler.sample_neg_sequence = _checked_before(
        SeqSampler.sample_neg_sequence, lambda self, sequence: refuse_single_item(self)
    )
    KGSampler.get_used_ids = _with_entity_check(KGSampler.get_used_ids)
    AbstractSampler._build_alias_table = _with_weight_check(AbstractSampler._build_alias_table)
    MaskItemSequence._neg_sample = _checked_before(
        MaskItemSequence._neg_sample, lambda self, items, n_items: refuse_whole_catalogue(items, n_items)
    )


def refuse_endless_sampling_of(model: type) -> None:
    """The same for a RecBole model that draws negatives itself."""
    if model.__name__ in _CHECKS_OF_MODELS and model.__module__.startswith("recbole."):
        name, check = _CHECKS_OF_MODELS[model.__name__]
        method = getattr(model, name)
        if not hasattr(method, "__wrapped__"):
            setattr(model, name, _checked_before(method, check))


def _checked_before(method: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """A method that first calls a check with the same arguments."""

    @functools.wraps(method)
    def checked(self: Any, *arguments: Any) -> Any:
        check(self, *arguments)
        return method(self, *arguments)

    return checked


def _draws_negatives(dataset: Dataset, phase: str) -> bool:
    """Whether negatives are drawn for a part of the data; RecBole builds a sampler for a full ranking as well."""
    return bool(dataset.config[f"{phase}_neg_sample_args"]["sample_num"] != "none")


def _check_rows(sampler: RepeatableSampler, phase: str) -> None:
    if _draws_negatives(sampler.dataset, phase):
        refuse_single_item(sampler)


def _with_user_check(set_phase: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(set_phase)
    def checked(self: Sampler, phase: str) -> Sampler:
        sampler = set_phase(self, phase)
        part = self.datasets[self.phases.index(phase)]
        if _draws_negatives(part, phase):
            users = np.unique(part.inter_feat[self.uid_field].numpy())
            refuse_all_used(sampler, users, lambda user: f"user {str(part.id2token(self.uid_field, user))!r}")
        return sampler

    return checked


def _with_entity_check(get_used_ids: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_used_ids)
    def checked(self: KGSampler) -> Any:
        self.used_ids, dataset = get_used_ids(self), self.dataset
        name = dataset.head_entity_field
        refuse_all_used(self, self.head_entities, lambda entity: f"entity {str(dataset.id2token(name, entity))!r}")
        return self.used_ids

    return checked


def _with_weight_check(build_table: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build_table)
    def checked(self: AbstractSampler) -> None:
        try:
            build_table(self)
        except ZeroDivisionError as error:
            raise SettingError(
                f"alpha of the popularity distribution is too large: {self.alpha} rounds the weight of every item, its "
                "share of the interactions to the power of alpha, to 0. Use a smaller value, such as 1."
            ) from error

    return checked


def _refuse_item_of_all_users(model: Any) -> None:
    """LINE draws users without an item, for its second order."""
    for item, users in enumerate(model.used_ids):
        if model.order == 2 and len(users) >= model.n_users - 1:
            raise DataError(
                f"all {model.n_users - 1:,} users have item number {item} in training, so LINE finds no user without "
                "it; leave it out (item_inter_num_interval), or use another model"
            )


# Models that draw negatives themselves: the method that draws, and what is checked before it.
_CHECKS_OF_MODELS: dict[str, tuple[str, Callable[..., None]]] = {
    "LINE": ("get_user_id_list", _refuse_item_of_all_users),
    "S3Rec": ("_neg_sample", lambda self, items: refuse_whole_catalogue(items, self.n_items)),
}

"""Scores of all items by a model that reads only users or histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_posattn.data.fields import TIME_LIST_FIELD
from recbole_posattn.data.prefixes import PrefixColumn
from recbole_posattn.data.relative_times import relative_times
from recbole_posattn.errors import CheckpointError
from recbole_posattn.serving.requests import Requests
from recbole_posattn.training.load import Loaded


def reads_sequences(loaded: Loaded) -> bool:
    """Whether the model reads histories, and so can serve users who are not in its data set."""
    return loaded.config["MODEL_TYPE"] == ModelType.SEQUENTIAL


def reads_times(loaded: Loaded) -> bool:
    """Whether the model reads the times between the items of a history."""
    return bool(getattr(loaded.model, "reads_time", False))


@torch.no_grad()
def serves_new_users(loaded: Loaded, requests: Requests) -> bool:
    """Whether the model scores users who are not in its data set; tries it with the first of the requests."""
    if not reads_sequences(loaded):
        return False
    try:
        all_scores(loaded, model_input(loaded, replace(requests.rows(torch.arange(1)), user_id=None)))
    except CheckpointError:  # it reads the user, as HGN does
        return False
    return True


def model_input(loaded: Loaded, requests: Requests) -> dict[str, Tensor]:
    """The fields of requests that a model may read: known users, the newest MAX_ITEM_LIST_LENGTH items, and times."""
    config, dataset, histories = loaded.config, loaded.dataset, requests.histories
    fields = {} if requests.user_id is None else {dataset.uid_field: requests.user_id}
    if not reads_sequences(loaded):
        return fields
    longest = config["MAX_ITEM_LIST_LENGTH"]
    length = histories.length.clamp(max=longest)
    items = PrefixColumn(histories.item, histories.position, length, longest).tensor()
    fields |= {dataset.iid_field + config["LIST_SUFFIX"]: items, config["ITEM_LIST_LENGTH_FIELD"]: length}
    if histories.time is not None and reads_times(loaded):
        times = PrefixColumn(histories.time, histories.position, length, longest).tensor()
        fields[TIME_LIST_FIELD] = relative_times(times, length)
    return fields


def all_scores(loaded: Loaded, fields: Mapping[str, Tensor]) -> Tensor:
    """Scores of all items, including the padding item, as in an evaluation.

    Args:
        loaded: A trained model and its data.
        fields: The fields that the model may read, each of shape (b, …).

    Returns:
        Shape (b, items).

    Raises:
        CheckpointError: If the model reads another field, or does not score all items at once.
    """
    name = loaded.config["model"]
    if not hasattr(loaded.model, "full_sort_predict"):  # trees
        raise CheckpointError(f"{name} does not score all items at once")
    interaction = loaded.test_data.transform(loaded.dataset, Interaction(dict(fields)))
    try:
        scores = loaded.model.full_sort_predict(interaction.to(loaded.config["device"]))
    except KeyError as error:
        if error.args[0] in interaction:
            raise
        raise CheckpointError(f"{name} reads {error.args[0]}; only {' and '.join(fields)} can be read here") from error
    except NotImplementedError as error:
        raise CheckpointError(f"{name} does not score all items at once") from error
    return scores.view(-1, loaded.dataset.item_num)

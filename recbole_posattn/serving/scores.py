"""Scores of all items by any of RecBole's models that gives them from users or histories alone."""

from __future__ import annotations

from collections.abc import Mapping

import recbole_posattn.compat  # noqa: F401

from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_posattn.data.prefixes import PrefixColumn
from recbole_posattn.errors import CheckpointError
from recbole_posattn.serving.requests import Requests
from recbole_posattn.training.load import Loaded


def reads_sequences(loaded: Loaded) -> bool:
    """Whether the model reads histories, and so serves users whom its data set does not know."""
    return loaded.config["MODEL_TYPE"] == ModelType.SEQUENTIAL


def model_input(loaded: Loaded, requests: Requests) -> dict[str, Tensor]:
    """What a model may read of requests, by field: users and the newest MAX_ITEM_LIST_LENGTH items, as far as known."""
    config, dataset, histories = loaded.config, loaded.dataset, requests.histories
    fields = {} if requests.user_id is None else {dataset.uid_field: requests.user_id}
    if not reads_sequences(loaded):
        return fields
    longest = config["MAX_ITEM_LIST_LENGTH"]
    length = histories.length.clamp(max=longest)
    items = PrefixColumn(histories.item, histories.position, length, longest).tensor()
    return fields | {dataset.iid_field + config["LIST_SUFFIX"]: items, config["ITEM_LIST_LENGTH_FIELD"]: length}


def all_scores(loaded: Loaded, fields: Mapping[str, Tensor]) -> Tensor:
    """Scores of all items, the padding item among them, as an evaluation gets them.

    Args:
        loaded: A trained model and its data.
        fields: What the model may read, each of shape (b, …).

    Returns:
        Shape (b, items).

    Raises:
        CheckpointError: If the model reads another field, or does not score all items at once.
    """
    name = loaded.config["model"]
    if not hasattr(loaded.model, "full_sort_predict"):  # trees
        raise CheckpointError(f"{name} does not score all items at once")
    given = loaded.test_data.transform(loaded.dataset, Interaction(dict(fields)))
    try:
        scores = loaded.model.full_sort_predict(given.to(loaded.config["device"]))
    except KeyError as error:
        if error.args[0] in given:
            raise
        raise CheckpointError(
            f"{name} reads {error.args[0]}, and what there is to read are {' and '.join(fields)}"
        ) from error
    except NotImplementedError as error:
        raise CheckpointError(f"{name} does not score all items at once") from error
    return scores.view(-1, loaded.dataset.item_num)

"""RecBole's models with softmax-CPR run through our launcher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recbole_posattn import run
from recbole_posattn.errors import SettingError


@pytest.mark.parametrize(("model", "changes"), [("SASRecCPR", {"n_heads": 1}), ("GRU4RecCPR", {})])
def test_cpr_models_train_and_are_evaluated(tiny_settings: Callable, model: str, changes: dict) -> None:
    settings = tiny_settings(epochs=1, train_batch_size=128, reranker_CAN_NUM="10", **changes)
    result = run(model, "tiny", config_dict=settings, command_line=[])
    assert 0 < result["best_valid_score"] <= 1


def test_a_catalogue_smaller_than_what_is_reranked_is_explained(tiny_settings: Callable) -> None:
    """RecBole's default is 100 items, and the data set has 20."""
    with pytest.raises(SettingError, match="reranker_CAN_NUM 100: SASRecCPR reranks that many of the best items"):
        run("SASRecCPR", "tiny", config_dict=tiny_settings(epochs=1, n_heads=1), command_line=[])

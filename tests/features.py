"""A small data set with features of items, ratings and a knowledge graph, for models that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

DATASET = "features"

# Models that predict labels, and those that start from embeddings of entities.
_OF_LABELS, _OF_ENTITIES = ("DIN", "DIEN"), ("GRU4RecKG", "KSR")


def settings_of(model: str) -> dict[str, Any]:
    """The settings with which a sequential model of RecBole's reads such data, beside its defaults."""
    columns: dict[str, Any] = {"inter": "*", "item": ["item_id", "class"]}
    if model in _OF_LABELS:
        evaluation = {"eval_args": {"mode": "labeled", "order": "TO"}, "metrics": ["AUC"], "valid_metric": "AUC"}
        return {"load_col": columns, "threshold": {"rating": 3}, "train_neg_sample_args": None, **evaluation}
    evaluation = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}
    if model not in _OF_ENTITIES:
        return {"load_col": columns, **evaluation}
    return {
        "load_col": {**columns, "kg": "*", "link": "*", "ent": "*", "rel": "*"},
        "additional_feat_suffix": ["ent", "rel"],
        "alias_of_entity_id": ["ent_id"],
        "alias_of_relation_id": ["rel_id"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
        **evaluation,
    }


def write_features(folder: Path, n_items: int = 25, n_users: int = 40) -> None:
    """``<folder>/features/``: users with 4 to 20 interactions, and two classes and an entity for each item."""
    rng = np.random.default_rng(0)
    (folder / DATASET).mkdir()

    def write(suffix: str, header: str, rows: list[str]) -> None:
        (folder / DATASET / f"{DATASET}.{suffix}").write_text("\n".join([header, *rows, ""]), encoding="utf-8")

    def vectors(n_rows: int) -> list[str]:
        return [" ".join(f"{value:.3f}" for value in row) for row in rng.normal(size=(n_rows, 64))]

    write(
        "inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        [
            f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{time}"
            for user in range(n_users)
            for time, item in enumerate(rng.integers(n_items, size=rng.integers(4, 21)))
        ],
    )
    items = range(n_items)
    write("user", "user_id:token\tage:token", [f"u{user}\t{user % 5}" for user in range(n_users)])
    write("item", "item_id:token\tclass:token_seq", [f"i{item}\tc{item % 4} c{4 + item % 3}" for item in items])
    write("link", "item_id:token\tentity_id:token", [f"i{item}\te{item}" for item in items])
    write(
        "kg",
        "head_id:token\trelation_id:token\ttail_id:token",
        [f"e{item}\tr{item % 2}\te{(item + 1) % n_items}" for item in items],
    )
    entities = [f"e{item}\t{vector}" for item, vector in zip(items, vectors(n_items))]
    write("ent", "ent_id:token\tent_emb:float_seq", entities)
    write("rel", "rel_id:token\trel_emb:float_seq", [f"r{i}\t{vector}" for i, vector in enumerate(vectors(2))])

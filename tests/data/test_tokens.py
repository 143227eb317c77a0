"""One long token among many short ones costs its own length, and not as much for each of the others."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data import create_dataset
from recbole.data.dataset import Dataset, SequentialDataset

from recbole_posattn import Config
from recbole_posattn.data.tokens import as_tokens
from recbole_posattn.evaluation.target_ranks import user_results
from recbole_posattn.serving.new_histories import new_histories
from recbole_posattn.serving.requests import report_skipped

LONG, N = "x" * 20_000, 3000

# An array of NumPy's texts would take 4 bytes of each of N times 20,000 characters: 240 MB.
MEGABYTES = 30


def peak_megabytes(action: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_histories_from_outside() -> None:
    items = [f"i{k % 50}" for k in range(N)] + [LONG]
    table = pd.DataFrame({"user": [f"u{k % 100}" for k in range(N)] + [LONG], "item": items})
    known = {token: number for number, token in enumerate(["[PAD]", *(f"i{k}" for k in range(50))])}
    assert peak_megabytes(lambda: new_histories(table, known)) < MEGABYTES
    requests = new_histories(table, known)
    assert len(requests) == 100 and len(requests.skipped) == 2
    assert all(len(line) < 300 and "xxx…" in line for line in requests.skipped)
    assert "a\\nb" in report_skipped("tokens", as_tokens(["a\nb"]), 1)[0]


@pytest.mark.parametrize("kind", ["token", "token_seq"])
def test_atomic_files(empty_folder: Path, kind: str) -> None:
    rows = [(f"u{k % 100}", f"i{k}", k, f"p{k} q") for k in range(N)]
    rows.append((LONG, LONG, N, LONG))
    file = Path("dataset/mine/mine.inter")
    file.parent.mkdir(parents=True)
    header = f"user_id:token\titem_id:token\ttimestamp:float\tplace:{kind}"
    file.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows), ""]))
    config = Config("SASRec", "mine", config_dict={"load_col": None}, command_line=[])
    found = []
    assert peak_megabytes(lambda: found.append(create_dataset(config))) < MEGABYTES
    (dataset,) = found
    assert dataset.field2id_token["item_id"].tolist() == ["[PAD]", *(f"i{k}" for k in range(N)), LONG]
    assert dataset.field2token_id["item_id"][LONG] == N + 1
    ranks = torch.tensor([[1, 2, 1]] * N)
    assert peak_megabytes(lambda: user_results(dataset, ranks)) < MEGABYTES
    assert user_results(dataset, ranks)["item"].tolist() == ["i1"] * N


def test_numbers_are_recboles(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of tokens that are missing and of lists, which share numbers with another column."""
    file = Path("data/mine/mine.inter")
    file.parent.mkdir(parents=True)
    header = "user_id:token\titem_id:token\ttimestamp:float\tplace:token\tplaces:token_seq"
    rows = ["u\ta\t1\tp\tq r", "u\tb\t2\t\t", "v\ta\t3\tr\tp", "v\tc\t4\tNA\tr r q", "u\tc\t5\tq\t "]
    file.write_text("\n".join([header, *rows, ""]))
    settings = {"data_path": "data", "load_col": None, "alias_of_user_id": ["place", "places"]}
    config = Config("SASRec", "mine", config_dict=settings, command_line=[])
    ours = create_dataset(config)

    def in_the_place_of_its_loop(self: Dataset, columns: list) -> None:
        """RecBole's documented rule, field by field: 1, 2, … in the order of the columns, 0 for what is missing."""
        flat = [token for feat, field, _ in columns for cell in feat[field] for token in np.atleast_1d(cell)]
        known = list(dict.fromkeys(token for token in flat if isinstance(token, str)))
        number = {token: place for place, token in enumerate(["[PAD]", *known])}
        for feat, field, kind in columns:
            self.field2id_token[field], self.field2token_id[field] = np.array(list(number)), number
            numbers = [[number.get(token, 0) for token in np.atleast_1d(cell)] for cell in feat[field]]
            feat[field] = [np.array(each) if kind.value == "token_seq" else each[0] for each in numbers]

    monkeypatch.setattr(Dataset, "_remap", in_the_place_of_its_loop)
    theirs = SequentialDataset(config)
    for field in ("user_id", "item_id", "place", "places"):
        assert [np.atleast_1d(cell).tolist() for cell in ours.inter_feat[field]] == [
            np.atleast_1d(cell).tolist() for cell in theirs.inter_feat[field]
        ], field
        assert ours.field2id_token[field].tolist() == theirs.field2id_token[field].tolist()
        assert ours.field2token_id[field] == theirs.field2token_id[field]

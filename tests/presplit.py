"""Data that is split into three files already, written and read in plain Python and pandas, for tests of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from recbole.data.dataset import SequentialDataset

PARTS = ["train", "valid", "test"]


class Row(NamedTuple):
    """A target with its history, oldest first, as tokens."""

    user: str
    history: tuple[str, ...]
    item: str


def write_parts(folder: Path, name: str, parts: Mapping[str, Sequence[tuple]], header: str) -> None:
    """``<folder>/<name>/<name>.<part>.inter`` of each part."""
    for part, rows in parts.items():
        file = folder / name / f"{name}.{part}.inter"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [header, *("\t".join(map(str, row)) for row in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def last_ones_held_out(rows: Sequence[tuple]) -> dict[str, list[tuple]]:
    """Rows (user, item, time) in time order by file: the last of each user for testing, the one before to validate."""
    table = pd.DataFrame(rows, columns=["user", "item", "time"])
    from_end = table.groupby("user").cumcount(ascending=False)
    part = {0: "test", 1: "valid"}
    names = from_end.map(lambda place: part.get(place, "train"))
    return {name: [*table[names == name].itertuples(index=False, name=None)] for name in PARTS}


def with_histories(parts: Mapping[str, Sequence[tuple]]) -> dict[str, list[Row]]:
    """Rows with all that their user did before, of rows (user, item[, time]); a user's first is none, as in RecBole.

    Earlier is what has an earlier time or, at the same time or without times, stands before in the files.
    """
    table = pd.concat([pd.DataFrame(rows).assign(part=part) for part, rows in parts.items()], ignore_index=True)
    found: dict[str, list[Row]] = {part: [] for part in parts}
    for row in table.itertuples():
        own = table[table[0] == row._1]
        before = own.index < row.Index
        if 2 in table:
            before = (own[2].astype(float) < float(row._3)) | ((own[2].astype(float) == float(row._3)) & before)
            own = own.assign(time=own[2].astype(float))[before].sort_values("time", kind="stable")
        else:
            own = own[before]
        if len(own):
            found[row.part].append(Row(row._1, tuple(own[1]), row._2))
    return found


def newest(rows: Sequence[Row], max_length: int) -> list[Row]:
    """The rows with the newest items of their histories only."""
    return [row._replace(history=row.history[-max_length:]) for row in rows]


def read_rows(part: SequentialDataset) -> list[Row]:
    """The rows of a part as a model gets them, each history in front of its padding."""
    batch = part.inter_feat[torch.arange(len(part.inter_feat))]
    histories, length = batch["item_id_list"], batch["item_length"]
    assert ((histories[:] > 0).sum(dim=1) == length).all()
    columns = [part.id2token(field, batch[field].numpy()) for field in ("user_id", "item_id")]
    lists = [tuple(part.id2token("item_id", row[:n].numpy())) for row, n in zip(histories[:], length)]
    return [
        Row(str(user), tuple(map(str, history)), str(item))
        for user, history, item in zip(columns[0], lists, columns[1])
    ]

"""Data sets with a planted pattern, as rows (user, item, time) of an atomic file."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_atomic_file(folder: Path, name: str, rows: list[tuple], header: str | None = None) -> Path:
    """``<folder>/<name>/<name>.inter`` with the given rows; returns the file."""
    file = folder / name / f"{name}.inter"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [header or "user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def lagged_sequences(n_users: int, lengths: range, n_items: int, lag: int, noise: float, seed: int) -> list[tuple]:
    """Rows (user, item, time) in which item t is a fixed function of item t − lag, but for a share of noise."""
    rng = np.random.default_rng(seed)
    successor = rng.permutation(n_items)
    rows = []
    for user in range(n_users):
        items: list[int] = []
        for t in range(rng.choice(lengths)):
            planted = t >= lag and rng.random() >= noise
            items.append(int(successor[items[t - lag]]) if planted else int(rng.integers(n_items)))
        rows += [(f"u{user}", f"i{item}", t) for t, item in enumerate(items)]
    return rows


def looped_sequences(n_users: int, length: int, periods: range, n_items: int, noise: float, seed: int) -> list[tuple]:
    """Rows (user, item, time) of users who repeat a loop of items of their own, but for a share of noise.

    A user's period is drawn from ``periods`` and the items of the loop, all different, from the catalogue. What comes
    next depends only on what came next the last time round, up to the longest period ago.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        loop = rng.choice(n_items, size=rng.choice(periods), replace=False)
        items = np.resize(loop, length)
        noisy = rng.random(length) < noise
        items[noisy] = rng.integers(n_items, size=noisy.sum())
        rows += [(f"u{user}", f"i{item}", t) for t, item in enumerate(items)]
    return rows

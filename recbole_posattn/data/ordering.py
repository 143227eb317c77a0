"""Stable sorting in time and memory that grow with the number of rows only.

RecBole sorts interactions by time, then by user, with NumPy's stable sort. Here rows are counted into their places, in
one pass for each 16 bits of their keys; the order is the same.

Shape keys: n rows.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse


def sequence_order(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The order of rows by user, and by time for each user; equal rows stay in their order.

    Args:
        user: Numbers of users, from 0; integers, shape (n,).
        time: Shape (n,).

    Returns:
        Indices of rows; integers, shape (n,).
    """
    order = grouped(user)
    times, users = time[order], user[order]
    is_earlier = ~(times[1:] >= times[:-1])  # than the row before it; NaN is put last below
    is_earlier &= users[1:] == users[:-1]
    if is_earlier.any():
        unordered = np.zeros(int(users[-1]) + 1, dtype=bool)
        unordered[users[1:][is_earlier]] = True
        rows = np.flatnonzero(unordered[users])
        order[rows] = order[rows][np.lexsort((times[rows], users[rows]))]
    return order


def stable_argsort(key: np.ndarray) -> np.ndarray:
    """``np.argsort(key, kind="stable")`` of integers or floats; shape (n,)."""
    bits = _ascending_bits(key)
    if bits is None:
        return np.argsort(key, kind="stable")
    order: np.ndarray | None = None
    for digit in bits.view(np.uint16).reshape(-1, 4).T:  # the lowest first
        if len(digit) and digit.min() < digit.max():
            order = grouped(digit) if order is None else order[grouped(digit[order])]
    return np.arange(len(key)) if order is None else order


def _ascending_bits(key: np.ndarray) -> np.ndarray | None:
    """Integers in the order of a key, equal where it is; ``None`` for NaN and other types; shape (n,)."""
    sign = np.uint64(1 << 63)
    if key.dtype.kind == "i":
        bits = key.astype(np.int64).view(np.uint64)
        bits ^= sign
    elif key.dtype.kind == "f" and key.dtype.itemsize <= 8 and not np.isnan(key).any():
        values = key.astype(np.float64)
        values += 0.0  # −0 becomes 0
        bits, is_negative = values.view(np.uint64), np.signbit(values)
        if is_negative.any():
            bits ^= np.where(is_negative, np.uint64(2**64 - 1), sign)
    else:
        return None
    return bits.astype("<u8", copy=False)


def grouped(number: np.ndarray) -> np.ndarray:
    """The order of rows by a number, those with the same one in their order.

    Args:
        number: From 0; integers, shape (n,).

    Returns:
        Indices of rows; int32 if they fit, else int64; shape (n,).
    """
    return counted(number)[0]


def counted(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`grouped`, and how many rows have each number; int64, shape (largest number + 1,)."""
    n_rows = len(number)
    if not n_rows:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    column = np.arange(n_rows, dtype=np.int32 if n_rows < 2**31 else np.int64)
    # SciPy counts the entries of a matrix into its rows; each has a column of its own, so that there are no duplicates
    entries = (np.empty(n_rows, dtype=np.int8), (number, column))
    matrix = scipy.sparse.coo_matrix(entries, shape=(int(number.max()) + 1, n_rows), copy=False)
    matrix.has_canonical_format = True
    rows = matrix.tocsr()
    return rows.indices, np.diff(rows.indptr).astype(np.int64)


def grouped_by_first_row(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows by group: groups in the order in which they first occur, each with its rows in their order.

    Args:
        key: The group of each row, from 0; integers, shape (n,).

    Returns:
        Indices of rows as in :func:`grouped`, and the size of each group; int64.
    """
    n_rows = len(key)
    if not n_rows:
        return counted(key)
    first = np.full(int(key.max()) + 1, n_rows)
    first[key[::-1]] = np.arange(
        n_rows - 1, -1, -1, dtype=np.int32 if n_rows < 2**31 else np.int64
    )  # the last one stays
    keys = np.argsort(first, kind="stable")[: np.count_nonzero(first < n_rows)]
    group = np.empty(len(first), dtype=np.int32 if len(first) < 2**31 else np.int64)
    group[keys] = np.arange(len(keys))
    return counted(group[key])

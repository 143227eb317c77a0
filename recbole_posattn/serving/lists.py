"""Lists of recommended items, as tables of their tokens, titles and scores.

Shape keys: n requests, k items of a list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

SCHEMA = pa.schema({"user": pa.string(), "rank": pa.int32(), "item": pa.string(), "score": pa.float32()})
# With titles, their column comes before the scores.
SCHEMA_WITH_TITLES = SCHEMA.insert(3, pa.field("title", pa.string()))


class Lists(NamedTuple):
    """The best items of some requests.

    Attributes:
        user: Token of each request, shape (n,).
        item: Numbers of its items, the best one first; int64, shape (n, k).
        score: Their scores, −∞ where fewer than k items remain; float32, shape (n, k).
    """

    user: np.ndarray
    item: np.ndarray
    score: np.ndarray

    def table(self, tokens: pa.Array, titles: pa.Array | None) -> pa.Table:
        """The lists in rows of :data:`SCHEMA`, or of :data:`SCHEMA_WITH_TITLES` with titles.

        Args:
            tokens: Token of each item by its number.
            titles: Title of each item by its number.
        """
        row, rank, item, score = self._rows()
        number = pa.array(item)
        columns = {
            "user": pa.array(self.user).take(pa.array(row)),
            "rank": pa.array(rank),
            "item": tokens.take(number),
            "score": pa.array(score),
        }
        if titles is None:
            return pa.table(columns, SCHEMA)
        return pa.table({**columns, "title": titles.take(number)}, SCHEMA_WITH_TITLES)

    def frame(self, tokens: np.ndarray, titles: pa.Array | None) -> pd.DataFrame:
        """:meth:`table` for pandas, which is faster for few rows; tokens and titles as there."""
        row, rank, item, score = self._rows()
        columns = {"user": self.user[row], "rank": rank, "item": tokens[item]}
        if titles is not None:
            columns["title"] = titles.take(pa.array(item)).to_numpy(zero_copy_only=False)
        return pd.DataFrame({**columns, "score": score})

    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The request, rank, item and score of each row, without what may not be recommended."""
        valid = self.score > -np.inf
        row, nth = np.nonzero(valid)
        return row, (nth + 1).astype(np.int32), self.item[valid], self.score[valid]

"""Times of dumps as seconds."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa

from recbole_posattn.atomic_files.convert.times import TimeFormat

# Texts and their seconds since 1970 in UTC
DATES = {
    "2020-01-01T00:00:00+02:00": 1577829600,
    "2020-01-01T00:00:00": 1577836800,
    "2020-01-01 00:00Z": 1577836800,
    "2020-01-01T02:00-0230": 1577853000,
    "2020-01-01 12:00:00+00": 1577880000,
    "2020-01-01 12:00:00.5-05": 1577898000.5,
    "2020-01-01": 1577836800,
    "1577836800.5": 1577836800.5,
}


def test_a_date_does_not_depend_on_those_before_it() -> None:
    for texts in itertools.permutations(DATES, 4):
        seconds = TimeFormat("auto").seconds(pa.array(texts))
        np.testing.assert_array_equal(seconds, [DATES[text] for text in texts])

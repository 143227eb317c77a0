"""Converts the times and ratings of a dump to numbers: NaN if they are missing or cannot be read.

Shape keys: n records.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_posattn.atomic_files.convert.shapes import ORDER
from recbole_posattn.data.text import LARGEST, NUMBER
from recbole_posattn.errors import SettingError

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}

_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_ZONE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"  # at the end of a date


def numbers(values: pa.Array) -> np.ndarray:
    """Numbers, or numbers written as text, as float64 of shape (n,); NaN for anything else, and beyond 32 bits."""
    if pa.types.is_string(values.type):
        values = pc.ascii_trim_whitespace(values)
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            is_number = pc.match_substring_regex(values, f"^{NUMBER}$")
            values = pc.if_else(is_number, values, None).cast(pa.float64())
    found = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.abs(found) <= LARGEST, found, np.nan)


class TimeFormat:
    """The format of the times of a dump.

    Args:
        name: ``s``, ``ms`` or ``us`` for numbers in this unit; ``auto`` for numbers in seconds or ISO 8601 dates such
            as 2010-10-19, 2010-10-19 23:55:27 and 2010-10-19T23:55:27.5+01:00; ``order`` for no times, only the order
            of the file; or a pattern of ``strptime`` (https://docs.python.org/3/library/datetime.html#format-codes).
            Dates are in UTC unless they have a time zone.

    Raises:
        SettingError: If it is none of these.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if name in (*UNITS, "auto", ORDER):
            return
        problem = "" if "%" in name else ", which has no %"
        try:
            pd.to_datetime(["-"], format=name, errors="coerce")
        except ValueError as error:
            problem = f": {error}"
        if problem:
            raise SettingError(
                f"time_format must be {', '.join(UNITS)}, auto, {ORDER} or a strptime pattern such as %d.%m.%Y; "
                f"got {name!r}{problem}."
            )

    @property
    def problem(self) -> str:
        """What is wrong with a time that cannot be read."""
        if self.name == "auto":
            return "is neither a number of seconds nor an ISO 8601 date"
        return "is not a number" if self.name in UNITS else f"does not have the form {self.name}"

    def seconds(self, values: pa.Array) -> np.ndarray:
        """Seconds since 1970 in UTC, or since the origin of the dump's own numbers.

        Args:
            values: Texts, numbers or Arrow's times; shape (n,). Arrow's times are converted whatever the format.

        Returns:
            Seconds; float64, shape (n,); NaN for a time that is missing or cannot be read.
        """
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            microseconds = _representable(values).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            return _seconds(
                pc.fill_null(microseconds, 0).to_numpy(), microseconds.is_null().to_numpy(zero_copy_only=False)
            )
        if self.name in UNITS:
            return numbers(values) / UNITS[self.name]
        if not pa.types.is_string(values.type):
            return numbers(values) if self.name == "auto" else np.full(len(values), np.nan)
        if self.name != "auto":
            return _dates(values, self.name)
        values = pc.ascii_trim_whitespace(values)
        is_date = pc.fill_null(pc.match_substring_regex(values, _DATE), False)
        # apart, since pandas reads a date without a zone with that of the date before
        has_zone = pc.and_(is_date, pc.fill_null(pc.match_substring_regex(values, _ZONE), False))
        found = np.full(len(values), np.nan)
        for mask, parsed in ((has_zone, _iso), (pc.and_not(is_date, has_zone), _iso), (pc.invert(is_date), numbers)):
            index = mask.to_numpy(zero_copy_only=False)
            if index.any():
                found[index] = parsed(values.filter(mask))
        return found


def _representable(times: pa.Array) -> pa.Array:
    """Arrow's times, without those that do not fit into 64 bits as microseconds, from which Arrow would make others."""
    if pa.types.is_date(times.type):
        times = times.cast(pa.timestamp("s" if pa.types.is_date32(times.type) else "ms"))
    per_unit = UNITS["us"] // UNITS.get(times.type.unit, UNITS["us"])  # 1 for us and ns
    largest = (2**63 - 1) // per_unit
    raw = times.cast(pa.int64())
    fits = pc.and_(pc.greater_equal(raw, -largest), pc.less_equal(raw, largest))
    return pc.if_else(fits, times, None)


def _iso(texts: pa.Array) -> np.ndarray:
    return _dates(texts, "ISO8601")


def _dates(texts: pa.Array, form: str) -> np.ndarray:
    dates = pd.to_datetime(texts.to_numpy(zero_copy_only=False), format=form, utc=True, errors="coerce").as_unit("us")
    return _seconds(dates.asi8, dates.isna())


def _seconds(microseconds: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Microseconds as seconds, exact for whole seconds; NaN where missing."""
    whole, rest = np.divmod(microseconds, UNITS["us"])
    return np.where(missing, np.nan, whole + rest / UNITS["us"])

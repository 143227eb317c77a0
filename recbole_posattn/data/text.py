"""How the text of atomic files is read: numbers, words that mean a missing value, encodings, long lines."""

from __future__ import annotations

import codecs
from contextlib import suppress

# The largest number of bytes in a line.
LONGEST_LINE = 2**24

# A number as atomic files write it, for re and for Arrow; and the largest one, since RecBole keeps them as float32.
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
LARGEST = 3.4028234663852886e38

# Words that pandas reads as missing values. RecBole reads atomic files with pandas, and drops rows with missing ids.
# https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html (na_values)
READ_AS_MISSING = {
    *("#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "n/a", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}


def plain_encoding(name: str) -> str:
    """Python's name of an encoding, which may have several; without the mark of ``utf-8-sig``, as files may have one.

    Args:
        name: Any of its names; an unknown one is returned as it is.
    """
    with suppress(LookupError):
        name = codecs.lookup(name).name
    return name.removesuffix("-sig")


def line_encoding(name: str) -> str | None:
    """Python's name of an encoding that ends lines with byte 10, as all do except UTF-16, UTF-32 and EBCDIC.

    Returns:
        :func:`plain_encoding`; ``None`` if the encoding ends lines otherwise, or is unknown.
    """
    try:
        encoding = plain_encoding(name)
        return encoding if "\n".encode(encoding) == b"\n" else None
    except (LookupError, UnicodeError, ValueError):
        return None

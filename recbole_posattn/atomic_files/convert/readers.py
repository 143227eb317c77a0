"""Reads text files as batches of records, one per line: delimited fields, JSON objects or Python dict literals.

Shape keys: n records of a batch.
"""

from __future__ import annotations

import ast
import csv
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_posattn.atomic_files.convert.interactions import Batch
from recbole_posattn.atomic_files.convert.lines import Lines
from recbole_posattn.atomic_files.convert.rejects import STRICT_LIMIT, Rejects
from recbole_posattn.atomic_files.convert.shapes import Columns, TableFormat, check_columns
from recbole_posattn.data.text import LONGEST_LINE
from recbole_posattn.errors import DataError

# The errors of ast.literal_eval (https://docs.python.org/3/library/ast.html#ast.literal_eval) and json.loads.
PARSE_ERRORS = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)


def line_batches(lines: Iterator[Lines], shape: TableFormat, rejects: Rejects) -> Iterator[Batch]:
    """The records in the lines of a file.

    Args:
        lines: See :func:`~recbole_posattn.atomic_files.convert.lines.read_lines`.
        shape: How they are read.
        rejects: Collects lines that are not records.

    Raises:
        DataError: If a column is missing.
    """
    if shape.kind == "delimited":
        return _delimited(lines, shape, rejects)
    parse, name = (json.loads, "JSON object") if shape.kind == "jsonl" else (literal, "Python dict literal")
    return _objects(lines, shape.columns, parse, name, rejects)


def _batch(lines: Lines, columns: dict[str, pa.Array]) -> Batch:
    time, rating = columns.get("time"), columns.get("rating")
    return Batch(lines.number, columns["user"], columns["item"], time, rating, lines.texts.__getitem__, lines.done)


# -- fields between separators ---------------------------------------------------------------------------------------


def _delimited(lines: Iterator[Lines], shape: TableFormat, rejects: Rejects) -> Iterator[Batch]:
    fields, header = shape.fields, None
    limit = csv.field_size_limit(LONGEST_LINE)  # a line may be one field
    try:
        for block in lines:
            if fields is None and block.texts:
                header = block.texts[0]
                fields = _header(header, shape, rejects.label)
            if header in block.texts:  # the first line; concatenated files repeat it
                block = block.take(np.array([text != header for text in block.texts]))
            if block.texts and fields is not None:
                yield _split(block, shape, fields, rejects)
    finally:
        csv.field_size_limit(limit)


def _header(line: str, shape: TableFormat, label: str) -> tuple[str, ...]:
    fields = fields_of(line, shape.separator)
    if fields is None:
        raise DataError(f"{label}: the header has unbalanced quotes: {line[:120]!r}")
    names = tuple(name.strip() for name in fields)
    check_columns(label, names, shape.columns)
    return names


def fields_of(line: str, separator: str) -> list[str] | None:
    """The fields of a line; ``None`` if its quotes are unbalanced."""
    if '"' not in line or len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None


def _split(lines: Lines, shape: TableFormat, fields: tuple[str, ...], rejects: Rejects) -> Batch:
    listed = None
    if len(shape.separator) == 1 and any('"' in text for text in lines.texts):
        listed = [fields_of(text, shape.separator) for text in lines.texts]
        length = np.array([-1 if row is None else len(row) for row in listed])
    else:
        rows = pc.split_pattern(pa.array(lines.texts, pa.string()), shape.separator)
        length = pc.list_value_length(rows).to_numpy()
    good = length == len(fields)
    for index in np.flatnonzero(~good).tolist():
        found = length[index]
        reason = (
            "the line has unbalanced quotes" if found < 0 else f"the number of fields is {found}, not {len(fields)}"
        )
        rejects.add(int(lines.number[index]), reason, lines.texts[index])
    place = {role: fields.index(name) for role, name in shape.columns.given().items()}
    if listed is not None:
        kept = [row for row, is_good in zip(listed, good.tolist()) if row is not None and is_good]
        columns = {role: pa.array([row[at] for row in kept], pa.string()) for role, at in place.items()}
    else:
        flat = rows.filter(pa.array(good)).flatten()
        columns = {role: flat.take(pa.array(np.arange(at, len(flat), len(fields)))) for role, at in place.items()}
    return _batch(lines.take(good), columns)


# -- objects ---------------------------------------------------------------------------------------------------------


def literal(text: str) -> Any:
    """The value of a Python literal; see ``ast.literal_eval`` for its errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of unknown escapes
        return ast.literal_eval(text)


def _objects(
    lines: Iterator[Lines], columns: Columns, parse: Callable[[str], Any], name: str, rejects: Rejects
) -> Iterator[Batch]:
    given = columns.given()
    unseen, there, n_objects = set(given.values()), {}, 0
    for block in lines:
        good = np.zeros(len(block.texts), dtype=bool)
        values: dict[str, list[str | None]] = {role: [] for role in given}
        for index, text in enumerate(block.texts):
            try:
                record = parse(text)
            except PARSE_ERRORS:
                record = None
            if type(record) is not dict:
                rejects.add(int(block.number[index]), f"the line is not a {name}", text)
                continue
            n_objects += 1
            if unseen:
                unseen -= record.keys()
                there.update(dict.fromkeys(map(str, record)))
            try:
                row = [_text(role, record.get(column)) for role, column in given.items()]
            except ValueError as error:
                rejects.add(int(block.number[index]), str(error), text)
                continue
            good[index] = True
            for column, value in zip(values.values(), row):
                column.append(value)
        if unseen and rejects.strict and n_objects >= STRICT_LIMIT:
            break
        yield _batch(block.take(good), {role: pa.array(column, pa.string()) for role, column in values.items()})
    if unseen and n_objects:  # no record has the column: its name is wrong, not the lines
        check_columns(rejects.label, there, columns)


def _text(role: str, value: Any) -> str | None:
    """The value of a column as text; ``None`` if it is missing.

    Raises:
        ValueError: If it cannot be used; says why.
    """
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeError:
                raise ValueError(f"{role} has a lone surrogate, which is not a character") from None
        return value
    if value is None:
        return None
    if kind is float and role in ("time", "rating"):
        return repr(value)
    if kind is int and value.bit_length() <= 512:  # Python may refuse to format larger ones
        return str(value)
    raise ValueError(f"{role} is neither text nor a {'number' if role in ('time', 'rating') else 'whole number'}")

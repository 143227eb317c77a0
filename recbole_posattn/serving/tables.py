"""The files that ``recommend`` reads and writes; output files are written whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from pandas.api.types import is_integer_dtype, is_string_dtype

from recbole_posattn.errors import DataError, SettingError, UserError, shown
from recbole_posattn.files import discard_output, write_atomically

SUFFIXES = (".csv", ".parquet", ".jsonl")
STANDARD_OUTPUT = "-"


def read_table(file: Path, names: Mapping[str, str]) -> pd.DataFrame:
    """Read a table from CSV, Parquet or JSON lines, by the suffix of the file.

    Args:
        file: The file.
        names: Names of columns here, with their names in the data set; both are accepted.

    Raises:
        DataError: If the file cannot be read.
    """
    if file.suffix not in SUFFIXES:
        raise DataError(f"{file}: the file must be one of {', '.join(SUFFIXES)}")
    # only an empty field is a missing value: an item may be called NA
    text = {name: pa.string() for column in ("user", "item") for name in (column, names.get(column, column))}
    readers: dict[str, Callable[[Path], pa.Table]] = {
        ".csv": lambda path: pa.csv.read_csv(
            path, convert_options=pa.csv.ConvertOptions(column_types=text, null_values=[""], strings_can_be_null=True)
        ),
        ".parquet": pa.parquet.read_table,
        ".jsonl": pa.json.read_json,
    }
    try:
        table = readers[file.suffix](file)
        dates = [field.name for field in table.schema if field.name in text and pa.types.is_temporal(field.type)]
        if file.suffix == ".jsonl" and dates:  # texts such as 2020-01-01, which Arrow takes for times
            schema = pa.schema({name: pa.string() for name in dates})
            table = pa.json.read_json(file, parse_options=pa.json.ParseOptions(explicit_schema=schema))
        frame = table.to_pandas(date_as_object=False, integer_object_nulls=True)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    columns = table.column_names
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"{file} has the column {name!r} more than once")
    renamed = {name: column for column, name in names.items() if column not in columns}
    return frame.rename(columns=renamed)


def plain_columns(table: pd.DataFrame) -> pd.DataFrame:
    """A table with categories as their values, Python's numbers as columns of numbers, and Arrow's times as pandas'."""
    kinds = {
        name: kind.categories.dtype for name, kind in table.dtypes.items() if isinstance(kind, pd.CategoricalDtype)
    }
    times = {
        str(name): pa.array(table[name]).to_pandas().set_axis(table.index)
        for name, kind in table.dtypes.items()
        if isinstance(kind, pd.ArrowDtype) and pa.types.is_temporal(kind.pyarrow_dtype)
    }
    return table.astype(kinds).assign(**times).infer_objects()


def read_tokens(file: Path, column: str, field: str) -> list[str]:
    """Read tokens from a column of a table, or from the lines of any other file.

    Args:
        file: The file; a table if :func:`read_table` knows its suffix.
        column: ``user`` or ``item``.
        field: Its name in the data set.

    Raises:
        DataError: If the file cannot be read, lacks the column, or has no tokens.
    """
    if file.suffix in SUFFIXES:
        table = read_table(file, {column: field})
        if column not in table:
            raise DataError(
                f"{file} has no column {column!r} or {field!r}; it has {', '.join(table.columns)}. For a list without "
                "header, with a token on each line, use another suffix, such as .txt"
            )
        given = plain_columns(table[[column]].dropna())[column]
        if len(given) and not (is_string_dtype(given) or is_integer_dtype(given)):
            first = given.tolist()[0]
            raise DataError(f"{file}: column {column!r} must hold strings or whole numbers; got {shown(first)}")
        if len(given) and is_string_dtype(given) and given.str.contains("\0", regex=False).any():
            raise DataError(f"{file}: column {column!r} has a NUL byte, which tokens cannot contain")
        tokens = [token for token in map(str, given) if token]
    else:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if "\0" in text:
            raise DataError(f"{file} has a NUL byte, which text files cannot contain; the file is damaged")
        tokens = [line.strip() for line in text.split("\n") if line.strip()]
    if not tokens:
        raise DataError(f"{file} holds no {column}")
    return tokens


Write = Callable[[pa.Table], None]


@contextmanager
def _by_arrow(writer: pa.csv.CSVWriter | pa.parquet.ParquetWriter) -> Iterator[Write]:
    with closing(writer):
        yield writer.write_table


@contextmanager
def _as_json_lines(file: Path) -> Iterator[Write]:
    with open(file, "w", encoding="utf-8") as lines:

        def write(table: pa.Table) -> None:
            if len(table):  # pandas writes an empty line if there are no rows
                options = {"orient": "records", "lines": True, "double_precision": 15, "force_ascii": False}
                table.to_pandas().to_json(lines, **options)

        yield write


_WRITERS: dict[str, Callable[[Path, pa.Schema], AbstractContextManager[Write]]] = {
    ".csv": lambda file, schema: _by_arrow(pa.csv.CSVWriter(file, schema)),
    ".parquet": lambda file, schema: _by_arrow(pa.parquet.ParquetWriter(file, schema)),
    ".jsonl": lambda file, schema: _as_json_lines(file),
}


def check_output(output: str, overwrite: bool) -> None:
    """Check that :func:`writing` can write the output.

    Raises:
        SettingError: If the suffix is unknown, or the file exists and ``overwrite`` is not set.
    """
    if output == STANDARD_OUTPUT:
        return
    if Path(output).suffix not in SUFFIXES:
        raise SettingError(f"output must be a file of {', '.join(SUFFIXES)}, or - for standard output; got {output!r}.")
    if os.path.exists(output) and not overwrite:
        raise SettingError(f"{output} already exists; give another --output, or --overwrite.")


def check_formulas(output: str) -> None:
    """Check that the output is CSV, the only format in which formulas are escaped.

    Raises:
        SettingError: If it is not CSV.
    """
    if output != STANDARD_OUTPUT and Path(output).suffix != ".csv":
        raise SettingError(f"escape_formulas is for CSV, which spreadsheets read; leave it out for {output!r}.")


def without_formulas(table: pa.Table) -> pa.Table:
    """Escape texts that a spreadsheet would read as formulas, with an apostrophe, which it hides.

    These begin with one of ``=``, ``+``, ``-``, ``@``, a tab or a carriage return (OWASP, CSV Injection).
    """
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            escaped = pa.compute.replace_substring_regex(table[place], r"\A([=+\-@\t\r])", r"'\1")
            table = table.set_column(place, field, escaped)
    return table


@contextmanager
def writing(output: str, schema: pa.Schema) -> Iterator[Write]:
    """Write tables one after another; the file appears when all are written.

    Args:
        output: A file in the format of its suffix, or ``-`` for CSV on standard output.
        schema: The schema of the tables.

    Returns:
        A function that writes a table.

    Raises:
        UserError: If the file cannot be written.
    """
    try:
        with _on_standard_output(schema) if output == STANDARD_OUTPUT else _into_file(Path(output), schema) as write:
            yield write
    except OSError as error:
        name = "standard output" if output == STANDARD_OUTPUT else output
        raise UserError(f"{name} cannot be written: {error.strerror or error}") from error


@contextmanager
def _into_file(file: Path, schema: pa.Schema) -> Iterator[Write]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as incomplete, _WRITERS[file.suffix](incomplete, schema) as write:
        yield write


@contextmanager
def _on_standard_output(schema: pa.Schema) -> Iterator[Write]:
    try:
        with _by_arrow(pa.csv.CSVWriter(sys.stdout.buffer, schema)) as write:
            yield write
    except BrokenPipeError:  # the reader, such as head, has had enough: no error, nor at the interpreter's last flush
        discard_output()

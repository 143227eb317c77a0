"""The titles of items, from the atomic file of their features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from recbole_posattn.errors import DataError, did_you_mean, shown
from recbole_posattn.settings.config import Config

# Names of columns with titles, the likeliest first: those of `data convert` and of RecBole's own data sets.
TITLE_FIELDS = ("title", "movie_title", "item_name", "name", "app_name", "product_name")


def read_titles(config: Config, field: str | None = None) -> pd.Series:
    """The titles of the items of a data set.

    Args:
        config: Resolved settings, which name the data set.
        field: The column with the titles; by default the first of :data:`TITLE_FIELDS` that the file has.

    Returns:
        Titles by the item's token; items without a title are missing.

    Raises:
        DataError: If there is no file of items, it has no such column, or a quote in it does not end.
    """
    file = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not file.is_file():
        raise DataError(
            f"there are no titles: {file} does not exist; it is a file of the columns "
            f"{config['ITEM_ID_FIELD']}:token and title:token, which data convert writes if the dump has titles"
        )
    separator = config["field_separator"]
    options: dict[str, Any] = {"sep": separator, "encoding": config["encoding"]}
    options["engine"] = "c" if len(separator) == 1 else "python"
    try:
        header = pd.read_csv(file, nrows=0, **options).columns
        columns = {name.partition(":")[0]: name for name in header}
        if len(columns) < len(header):
            raise DataError(f"{file} has two columns of one name: {', '.join(header)}; remove one, or rename it")
        item, title = columns.get(config["ITEM_ID_FIELD"]), _title_column(file, columns, field)
        if item is None:
            raise DataError(f"{file} has no column {config['ITEM_ID_FIELD']!r}; it has {', '.join(columns)}")
        with file.open(encoding=config["encoding"]) as lines:
            for number, line in enumerate(lines, start=1):
                if "\0" in line:  # pandas would cut the field there
                    raise DataError(
                        f"{file} line {number} has a NUL byte, which a table of text cannot have; remove it"
                    )
        table = pd.read_csv(file, usecols=[item, title], dtype=str, keep_default_na=False, **options)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    titles = table.drop_duplicates(item).set_index(item, drop=False)[title]
    broken = titles[titles.str.contains("\n") | titles.index.str.contains("\n")]
    if len(broken):  # a single quote may have swallowed whole rows
        raise DataError(
            f"{file}: a quoted field goes on over several lines: {shown(broken.iloc[0])}; close the quote, or write "
            "a quote inside a field twice"
        )
    return titles[titles != ""]


def _title_column(file: Path, columns: dict[str, str], field: str | None) -> str:
    wanted = next((name for name in TITLE_FIELDS if name in columns), None) if field is None else field
    if wanted in columns:
        return columns[wanted]
    has = ", ".join(columns)
    if field is None:
        raise DataError(
            f"{file} has no column of titles, such as {TITLE_FIELDS[0]}; it has {has}: name one with --title_field"
        )
    raise DataError(f"{file} has no column {shown(field)}; it has {has}.{did_you_mean(field, columns)}")

"""The files of known dumps that describe their items and users, as their sources document them.

The addresses of the sources are in :data:`recbole_posattn.atomic_files.convert.formats.FORMATS`.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from recbole_posattn.data.text import LARGEST, NUMBER

_THOUSANDS = r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?"  # a number whose thousands are separated by commas

Record = Mapping[str, Any]


class Column(NamedTuple):
    """A column of an atomic file of features.

    Attributes:
        header: Its ``name:type``.
        value: Returns the text of a record, empty if the record has no value.
    """

    header: str
    value: Callable[[Record], str]


class Features(NamedTuple):
    """A file that describes the items or users of a dump.

    Attributes:
        files: Patterns of its name; ``{category}`` is the category in the name of the file of interactions.
        key: The field with the item or user.
        columns: What is written; ``None`` for all other fields, of a user's own table.
        kind: One of :data:`recbole_posattn.atomic_files.convert.shapes.KINDS`.
        separator: Between ``delimited`` fields.
        fields: Names of all fields of a ``delimited`` file without a header line.
        encoding: Of the file.
        named: Names of further such files, of all categories, which are read only if the user names them.
    """

    files: tuple[str, ...]
    key: str
    columns: tuple[Column, ...] | None
    kind: str = "delimited"
    separator: str = ","
    fields: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    named: tuple[str, ...] = ()


# -- values ----------------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """A value on one line, without control characters and HTML entities; empty for lists, mappings and ``None``."""
    if value is None or isinstance(value, (list, tuple, dict)):
        return ""
    text = " ".join(html.unescape(str(value)).split())
    return text if text.isprintable() else "".join(letter for letter in text if letter.isprintable())


def sequence_of(values: Iterable[Any]) -> str:
    """Values as a sequence of tokens, separated by spaces; spaces within a token become underscores."""
    return " ".join(token for token in (text_of(value).replace(" ", "_") for value in values) if token)


def classes_of(values: Iterable[Any]) -> str:
    """The categories of an item as a sequence of tokens, each once."""
    return " ".join(dict.fromkeys(sequence_of(values).split()))


def number_of(value: Any) -> str:
    """A number that an atomic file may hold, with or without a currency sign; empty for anything else.

    Commas may separate thousands; other commas, as in a list or a decimal fraction, make it no number.
    """
    text = text_of(value).removeprefix("$")
    text = text.replace(",", "") if re.fullmatch(_THOUSANDS, text) else text
    return text if re.fullmatch(NUMBER, text) and abs(float(text)) <= LARGEST else ""


def _flat(value: Any) -> list[Any]:
    """The values of a list, perhaps of lists; a single value as a list of one."""
    if isinstance(value, (list, tuple)):
        return [each for part in value for each in _flat(part)]
    return [] if value is None else [value]


def _text(name: str, field: str) -> Column:
    return Column(f"{name}:token", lambda record: text_of(record.get(field)))


def _number(name: str, field: str) -> Column:
    return Column(f"{name}:float", lambda record: number_of(record.get(field)))


def _classes(*fields: str, separator: str | None = None) -> Column:
    """The categories of an item, under the name that RecBole's models with features read by default."""

    def value(record: Record) -> str:
        for field in fields:
            given = record.get(field)
            values = str(given).split(separator) if separator is not None and given else _flat(given)
            if found := classes_of(values):
                return found
        return ""

    return Column("class:token_seq", value)


# -- MovieLens -------------------------------------------------------------------------------------------------------

# Of u.genre, in its order.
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_NO_GENRES = "(no genres listed)"


def _year(record: Record) -> str:
    """The year in parentheses at the end of a title."""
    found = re.search(r"\((\d{4})\)\s*$", text_of(record.get("title")))
    return found[1] if found else ""


def _genres(record: Record) -> str:
    return classes_of(genre for genre in str(record.get("genres") or "").split("|") if genre != _NO_GENRES)


_MOVIE = (_text("title", "title"), Column("release_year:token", _year))
_MOVIES = (*_MOVIE, Column("class:token_seq", _genres))
_PERSON = tuple(_text(name, name) for name in ("age", "gender", "occupation", "zip_code"))

_MOVIES_CSV = Features(("movies.csv",), "movieId", _MOVIES)
_MOVIES_DAT = Features(("movies.dat",), "item", _MOVIES, separator="::", fields=("item", "title", "genres"))

# -- Amazon, Yelp, Steam ---------------------------------------------------------------------------------------------


def _amazon_title(record: Record) -> str:
    title = text_of(record.get("title"))
    return "" if "getTime" in title else title  # a script of the page, in some records of 2018


_amazon = functools.partial(
    Features, kind="jsonl", files=("meta_{category}.json.gz", "meta_{category}.json"), key="asin"
)
_TITLE = Column("title:token", _amazon_title)
_PRICE, _BRAND = _number("price", "price"), _text("brand", "brand")
_AMAZON_2014 = _amazon(
    kind="python",
    columns=(_TITLE, _classes("categories"), _BRAND, _PRICE),
    named=("metadata.json.gz", "metadata.json"),
)
_AMAZON_2018 = _amazon(
    columns=(_TITLE, _classes("category", "main_cat"), _BRAND, _PRICE),
    named=("All_Amazon_Meta.json.gz", "All_Amazon_Meta.json"),
)
_AMAZON_2023 = Features(
    ("meta_{category}.jsonl.gz", "meta_{category}.jsonl"),
    "parent_asin",
    (_TITLE, _classes("categories", "main_category"), _text("brand", "store"), _PRICE),
    "jsonl",
)
_YELP_BUSINESS = (
    *(_text("title", "name"), _classes("categories", separator=","), _text("city", "city"), _text("state", "state")),
    *(_number("item_stars", "stars"), _number("item_review_count", "review_count")),
)
_YELP_USER = tuple(_number(name, name) for name in ("review_count", "fans", "average_stars"))
_STEAM_GAME = (
    *(Column("title:token", lambda record: text_of(record.get("app_name") or record.get("title"))),),
    *(_classes("genres", "tags"), _text("developer", "developer"), _text("release_date", "release_date"), _PRICE),
)

ITEMS: dict[str, Features] = {
    "ml-100k": Features(
        ("u.item",),
        "item",
        (*_MOVIE, Column("class:token_seq", lambda record: classes_of(g for g in _GENRES if record.get(g) == "1"))),
        separator="|",
        fields=("item", "title", "released", "video_released", "url", *_GENRES),
        encoding="latin-1",
    ),
    "ml-1m": _MOVIES_DAT._replace(encoding="latin-1"),
    "ml-10m": _MOVIES_DAT,
    **dict.fromkeys(("ml-20m", "ml-25m", "ml-32m"), _MOVIES_CSV),
    **dict.fromkeys(("amazon-2014", "amazon-2014-ratings"), _AMAZON_2014),
    **dict.fromkeys(("amazon-2018", "amazon-2018-ratings"), _AMAZON_2018),
    **dict.fromkeys(("amazon-2023", "amazon-2023-ratings"), _AMAZON_2023),
    "yelp": Features(("yelp_academic_dataset_business.json", "business.json"), "business_id", _YELP_BUSINESS, "jsonl"),
    "steam": Features(("steam_games.json.gz", "steam_games.json"), "id", _STEAM_GAME, "python"),
}

USERS: dict[str, Features] = {
    "ml-100k": Features(
        ("u.user",), "user", _PERSON, separator="|", fields=("user", "age", "gender", "occupation", "zip_code")
    ),
    "ml-1m": Features(
        ("users.dat",), "user", _PERSON, separator="::", fields=("user", "gender", "age", "occupation", "zip_code")
    ),
    "yelp": Features(("yelp_academic_dataset_user.json", "user.json"), "user_id", _YELP_USER, "jsonl"),
}

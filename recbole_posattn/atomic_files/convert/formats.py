"""The dumps that can be read by name, as their sources document them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from recbole_posattn.atomic_files.convert.feature_formats import ITEMS, USERS
from recbole_posattn.atomic_files.convert.shapes import Columns, TableFormat
from recbole_posattn.errors import SettingError, did_you_mean


class Format(NamedTuple):
    """A known dump.

    Attributes:
        title: Its name for people.
        files: Patterns that the name of its file matches.
        shape: How it is read.
        documented: Address of its documentation.
    """

    title: str
    files: tuple[str, ...]
    shape: TableFormat
    documented: str


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_RATED = ("user", "item", "rating", "time")
_BY_NAME = Columns(*("user", "item", "time", "rating"))

# user::item::rating::seconds, no header
_MOVIELENS_DAT = TableFormat("delimited", _BY_NAME, "s", "::", _RATED)
_MOVIELENS_CSV = TableFormat("delimited", Columns("userId", "movieId", "timestamp", "rating"), "s")
_AMAZON_REVIEWS = TableFormat("jsonl", Columns("reviewerID", "asin", "unixReviewTime", "overall"), "s")
_AMAZON_2023 = Columns("user_id", "parent_asin", "timestamp", "rating")

FORMATS: dict[str, Format] = {
    "ml-100k": Format(
        "MovieLens 100K",
        ("u.data",),
        TableFormat("delimited", _BY_NAME, "s", "\t", _RATED),
        f"{_GROUPLENS}/ml-100k-README.txt",
    ),
    "ml-1m": Format("MovieLens 1M", ("ratings.dat",), _MOVIELENS_DAT, f"{_GROUPLENS}/ml-1m-README.txt"),
    "ml-10m": Format("MovieLens 10M", ("ratings.dat",), _MOVIELENS_DAT, f"{_GROUPLENS}/ml-10m-README.html"),
    "ml-20m": Format("MovieLens 20M", ("ratings.csv",), _MOVIELENS_CSV, f"{_GROUPLENS}/ml-20m-README.html"),
    "ml-25m": Format("MovieLens 25M", ("ratings.csv",), _MOVIELENS_CSV, f"{_GROUPLENS}/ml-25m-README.html"),
    "ml-32m": Format("MovieLens 32M", ("ratings.csv",), _MOVIELENS_CSV, f"{_GROUPLENS}/ml-32m-README.html"),
    "amazon-2014": Format(
        "Amazon reviews 2014",
        ("reviews_*.json.gz", "reviews_*.json"),
        _AMAZON_REVIEWS,
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    ),
    "amazon-2014-ratings": Format(
        "Amazon reviews 2014, ratings only: user, item, rating, time",
        ("ratings_*.csv", "ratings_*.csv.gz"),
        TableFormat("delimited", _BY_NAME, "s", ",", _RATED),
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    ),
    "amazon-2018": Format(
        "Amazon reviews 2018",
        ("*.json.gz", "*.json"),
        _AMAZON_REVIEWS,
        "https://nijianmo.github.io/amazon/index.html",
    ),
    "amazon-2018-ratings": Format(  # here the item comes first
        "Amazon reviews 2018, ratings only: item, user, rating, time",
        ("*.csv", "*.csv.gz"),
        TableFormat("delimited", _BY_NAME, "s", ",", ("item", "user", "rating", "time")),
        "https://nijianmo.github.io/amazon/index.html",
    ),
    "amazon-2023": Format(
        "Amazon reviews 2023",
        ("*.jsonl.gz", "*.jsonl"),
        TableFormat("jsonl", _AMAZON_2023, "ms"),
        "https://amazon-reviews-2023.github.io/",
    ),
    "amazon-2023-ratings": Format(
        "Amazon reviews 2023, ratings only (0core or 5core)",
        ("*.csv.gz", "*.csv"),
        TableFormat("delimited", _AMAZON_2023, "ms"),
        "https://amazon-reviews-2023.github.io/data_processing/5core.html",
    ),
    "yelp": Format(
        "Yelp Open Dataset, reviews",
        ("yelp_academic_dataset_review.json", "review.json"),
        TableFormat("jsonl", Columns("user_id", "business_id", "date", "stars")),
        "https://business.yelp.com/data/resources/open-dataset/",
    ),
    "gowalla": Format(
        "Gowalla check-ins: user, time, latitude, longitude, location",
        ("*owalla_totalCheckins.txt.gz", "*owalla_totalCheckins.txt"),
        TableFormat(
            "delimited",
            Columns("user", "location", "time"),
            separator="\t",
            fields=("user", "time", "latitude", "longitude", "location"),
        ),
        "https://snap.stanford.edu/data/loc-Gowalla.html",
    ),
    "steam": Format(
        "Steam reviews",
        ("steam_reviews.json.gz", "steam_reviews.json"),
        TableFormat("python", Columns("username", "product_id", "date")),
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    "zvuk": Format(
        "Zvuk listening sessions",
        ("zvuk-interactions.parquet",),
        TableFormat("parquet", Columns("user_id", "track_id", "datetime")),
        "https://www.kaggle.com/datasets/alexxl/zvuk-dataset",
    ),
    # Seconds since the first event of the whole collection, in steps of 5; flat rows, or lists by user (sequential).
    "yambda": Format(
        "Yambda listens (or likes), flat or sequential",
        ("listens.parquet", "likes.parquet"),
        TableFormat("parquet", Columns("uid", "item_id", "timestamp"), "s"),
        "https://huggingface.co/datasets/yandex/yambda",
    ),
}


def find_format(name: str) -> Format:
    """The format with a given name.

    Raises:
        SettingError: If there is none; suggests the nearest name and lists all.
    """
    if name not in FORMATS:
        raise SettingError(
            f"format {name!r} is unknown.{did_you_mean(name, FORMATS)} There are {', '.join(FORMATS)}; "
            "any other table is read with --user, --item and --time."
        )
    return FORMATS[name]


def guess_format(source: Path) -> str:
    """Guess the known format from the name of a file, a folder or a zip archive.

    Of several formats that are read alike, with their items and users, this is the one that the path names, or else the
    first.

    Raises:
        SettingError: If the name fits no format, or several that are read differently.
    """
    if source.suffix.lower() == ".zip" and (found := _in_path([source.name], FORMATS)):
        return found[0]
    names = [path.name for path in source.iterdir()] if source.is_dir() else [source.name]
    fitting = [name for name, known in FORMATS.items() if any(fits(file, known.files) for file in names)]
    # a pattern such as *.csv fits too many files to be evidence
    telling = {name: [file for file in FORMATS[name].files if not file.startswith("*.")] for name in fitting}
    named = [name for name in fitting if any(fits(file, telling[name]) for file in names)]
    named = _in_path(reversed(source.resolve().parts[-2:]), named) or named
    if len({(FORMATS[name].shape, ITEMS.get(name), USERS.get(name)) for name in named}) == 1:
        return named[0]
    possible = named or fitting
    what = f"could be {' or '.join(possible)}" if possible else "has no known format"
    raise SettingError(
        f"{source} {what}, judging by its name; give --format ({', '.join(named or FORMATS)}), or name its columns "
        "with --user, --item and --time."
    )


def _in_path(parts: Iterable[str], names: Iterable[str]) -> list[str]:
    """The one of some formats whose name begins a part of a path, such as ``ml-10M100K``; the first part counts."""
    for part in parts:
        if found := [name for name in names if part.lower().startswith(name)]:
            return [max(found, key=len)]  # amazon-2014-ratings begins with the name of another format
    return []


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name of a file matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)

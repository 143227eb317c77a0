"""``recbole-posattn data convert`` and ``recbole-posattn data stats``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from recbole_posattn.atomic_files.convert.formats import FORMATS
from recbole_posattn.atomic_files.convert.rejects import OnError
from recbole_posattn.atomic_files.convert.shapes import KINDS, ReadOptions
from recbole_posattn.errors import counted
from recbole_posattn.files import json_text
from recbole_posattn.settings.choices import Deduplicate

if TYPE_CHECKING:
    from recbole_posattn.atomic_files.convert.convert import Conversion
    from recbole_posattn.atomic_files.statistics import DataStatistics


# The settings by which a data set is read.
_SETTINGS = {
    "encoding": "encoding of the files, such as latin-1",
    "field_separator": "separator of the columns (default: tab)",
    "seq_separator": "separator within a sequence (default: space)",
    "USER_ID_FIELD": "column of the users",
    "ITEM_ID_FIELD": "column of the items",
    "TIME_FIELD": "column of the times",
    "RATING_FIELD": "column of the ratings",
    "LABEL_FIELD": "column of the labels",
    "load_col": "columns to read by file, such as {inter: [user_id, item_id]}",
    "unload_col": "columns not to read by file",
    "numerical_features": "columns of whole numbers in a Parquet file that are numbers, not tokens",
    "alias_of_user_id": "further columns of users",
    "alias_of_item_id": "further columns of items",
    "additional_feat_suffix": "suffixes of further files",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands and their arguments."""
    parser.description = "Create data sets from raw dumps, and describe them. See docs/data.md."
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    _add_convert_arguments(
        commands.add_parser("convert", help="a raw dump, or any table, to an atomic file", allow_abbrev=False)
    )
    _add_stats_arguments(
        commands.add_parser("stats", help="statistics of a data set, with a figure", allow_abbrev=False)
    )


def execute(options: argparse.Namespace) -> int:
    """Run the sub-command."""
    return _convert(options) if options.data_command == "convert" else _stats(options)


# -- convert ---------------------------------------------------------------------------------------------------------


def _add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Convert the dump of a public data set, or your own table, to a RecBole atomic file."
    parser.epilog = f"Formats: {', '.join(FORMATS)}. Any other table is read with --user, --item and --time."
    parser.add_argument("source", type=Path, help="the file of the dump, plain or packed, or its unpacked folder")
    parser.add_argument("--dataset", "-d", "--name", dest="name", required=True, help="name of the data set to create")
    parser.add_argument(
        "--data_path", type=Path, default=Path("dataset"), help="folder of data sets (default: dataset)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an atomic file of this name")

    reading = parser.add_argument_group("format of the dump")
    reading.add_argument("--format", help="a known format (default: guessed from the name of the source)")
    for role in ("user", "item", "time", "rating"):
        reading.add_argument(f"--{role}", metavar="COLUMN", help=f"column of the {role}")
    reading.add_argument("--kind", help=f"{', '.join(KINDS)} (default: guessed from the name of the file)")
    reading.add_argument("--separator", type=_separator, help="separator of the fields, such as , or \\t or ::")
    reading.add_argument(
        "--fields", type=_names, help="names of all fields, separated by commas, for a file without a header"
    )
    reading.add_argument("--time_format", help="s, ms, us, auto, order, or a strptime pattern (default: auto)")
    reading.add_argument("--encoding", default="utf-8", help="encoding of a text file (default: utf-8)")
    reading.add_argument(
        "--on_error", choices=get_args(OnError), default="strict", help="stop at bad lines, or skip (default: strict)"
    )

    for role in ("item", "user"):
        reading.add_argument(
            f"--{role}_features",
            metavar="FILE",
            help=f"file that describes the {role}s, or none (default: the dump's own file in the folder of the "
            "source, if any)",
        )

    filters = parser.add_argument_group("filters")
    filters.add_argument("--min_rating", type=float, help="leave out interactions with a lower rating")
    filters.add_argument(
        "--deduplicate",
        choices=get_args(Deduplicate),
        default="none",
        help="leave out repeated interactions (default: none)",
    )
    filters.add_argument(
        "--min_user_interactions", type=int, default=1, help="k-core: keep users with at least this many (default: 1)"
    )
    filters.add_argument(
        "--min_item_interactions", type=int, default=1, help="k-core: keep items with at least this many (default: 1)"
    )


def _separator(text: str) -> str:
    return text.replace("\\t", "\t")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _convert(options: argparse.Namespace) -> int:
    from recbole_posattn.atomic_files.convert.convert import convert
    from recbole_posattn.atomic_files.convert.filters import Filters

    given = vars(options)
    done = convert(
        options.source,
        options.name,
        ReadOptions(**{key: given[key] for key in ReadOptions._fields}),
        Filters(**{key: given[key] for key in Filters._fields}),
        data_path=options.data_path,
        on_error=options.on_error,
        overwrite=options.overwrite,
        show_progress=sys.stderr.isatty(),
    )
    print(_summary(done))
    for file in filter(None, (done.file, *(each.file for each in done.features), done.rejected_file)):
        print(f"written: {file}")
    for file in done.left:
        print(f"left as it was: {file}; delete it if it describes other data")
    return 0


def _summary(done: Conversion) -> str:
    """The steps of a conversion, one per line."""
    from recbole_posattn.atomic_files.statistics import time_span

    read, *filtered = done.steps
    lines = [f"{done.source}: {counted(read.interactions, 'interaction')} ({done.format or 'a table of your own'})"]
    for reason in done.rejected:
        first = ", ".join(map(str, reason.first)) + (", …" if reason.count > len(reason.first) else "")
        lines.append(f"skipped: {reason.count:,} where {reason.reason} ({first})")
    lines += [f"{step.name}: {counted(step.interactions, 'interaction')}" for step in filtered]
    kept = done.steps[-1].interactions
    lines.append(
        f"data set: {counted(done.users, 'user')}, {counted(done.items, 'item')}, {counted(kept, 'interaction')}"
    )
    if done.padded:
        lines.append(f"blanks: {done.padded:,} users and items begin or end with a blank, which is part of their names")
    lines.append(f"times: {time_span(done.first, done.last)}")
    for each in done.features:
        described = f"{each.role}s: {each.described:,} of {each.wanted:,} described by {each.source}"
        lines.append(f"{described} ({', '.join(each.columns)})")
        lines += [f"skipped: {counted(reason.count, 'line')} where {reason.reason}" for reason in each.rejected]
    return "\n".join(lines)


# -- stats -----------------------------------------------------------------------------------------------------------


def _add_stats_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print statistics of a data set before any filtering, and draw them. Settings by which the data are read are "
        "given as --key=value, e.g. --encoding=latin-1."
    )
    parser.add_argument("name", help="name of the data set")
    parser.add_argument("--data_path", default="dataset", help="folder of data sets (default: dataset)")
    parser.add_argument(
        "--output", "--out", type=Path, default=Path("."), help="folder of the figure (default: the current folder)"
    )
    parser.add_argument("--json", action="store_true", help="print the statistics as JSON")
    settings = parser.add_argument_group("settings of the data", "recbole-posattn keys describes them")
    for key, about in _SETTINGS.items():
        settings.add_argument(f"--{key}", metavar="VALUE", help=about)


def _stats(options: argparse.Namespace) -> int:
    from recbole_posattn.atomic_files.statistics import data_statistics
    from recbole_posattn.atomic_files.statistics_figure import write_statistics
    from recbole_posattn.settings.config import Config

    # a model that needs only users and items; error messages name what needs them
    given = [f"--{key}={value}" for key in _SETTINGS if (value := getattr(options, key)) is not None]
    config = Config("Pop", options.name, config_dict={"data_path": options.data_path}, command_line=given)
    config["model"] = "a data set"
    statistics = data_statistics(config)
    picture = write_statistics(statistics, options.output)
    if options.json:
        print(json_text({**statistics.plain(), "picture": str(picture)}, indent=2))
    else:
        print(figures(statistics))
        print(f"written: {picture}")
    return 0


def figures(statistics: DataStatistics) -> str:
    """The statistics as readable tables."""
    from recbole_posattn.atomic_files.statistics import QUANTILES, time_span
    from recbole_posattn.reporting.drawing import short
    from recbole_posattn.reporting.terminal import text_table

    first, last = statistics.first, statistics.last
    rows = [
        ("users", f"{statistics.users:,}"),
        ("items", f"{statistics.items:,}"),
        ("interactions", f"{statistics.interactions:,}"),
        ("density", f"{100 * statistics.density:#.3g} %"),
        ("repeat rate", f"{100 * statistics.repeat_rate:#.3g} %"),
        *(() if statistics.repeat_median is None else [("repeated after", f"{statistics.repeat_median:,g} (median)")]),
        ("time span", "no times" if first is None or last is None else time_span(first, last)),
    ]
    if statistics.without_id:
        rows.insert(3, ("without user or item", f"{statistics.without_id:,}"))
    lengths = [("interactions of", "min", *(f"{100 * q:g} %" for q in QUANTILES), "max", "mean")]
    for name, found in (("a user", statistics.of_user), ("an item", statistics.of_item)):
        numbers = (found.min, *(round(quantile, 1) for quantile in found.quantiles), found.max, round(found.mean, 1))
        lengths.append((name, *(f"{number:,g}" if number < 1e6 else f"{number:,.0f}" for number in numbers)))
    shares = [("most popular items", *(f"{100 * share:g} %" for share in statistics.top_shares))]
    shares.append(("of the interactions", *(f"{100 * share:.1f} %" for share in statistics.top_shares.values())))
    popular = [("item", "interactions"), *((short(item), f"{count:,}") for item, count in statistics.top_items)]
    tables = ([(statistics.name, ""), *rows], lengths, shares, popular)
    flags = " ".join(f"--{key}={value}" for key, value in statistics.suggested().items())
    texts = [*(text_table(header, rest) for header, *rest in tables), f"suggested by the repeat rate: {flags}"]
    return "\n\n".join(texts)

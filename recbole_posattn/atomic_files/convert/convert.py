"""Converts a dump to an atomic file: finds, reads, filters and writes it, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from tqdm import tqdm

from recbole_posattn.atomic_files.convert.feature_formats import ITEMS, USERS
from recbole_posattn.atomic_files.convert.features import ROLES, Role, Source, Table, find_sources, read_table
from recbole_posattn.atomic_files.convert.filters import Filters, Step, apply_filters, check_filters
from recbole_posattn.atomic_files.convert.formats import find_format, guess_format
from recbole_posattn.atomic_files.convert.interactions import Batch, Gatherer, Interactions
from recbole_posattn.atomic_files.convert.lines import checked_encoding, read_lines
from recbole_posattn.atomic_files.convert.output import Output
from recbole_posattn.atomic_files.convert.parquet import open_parquet, parquet_batches
from recbole_posattn.atomic_files.convert.readers import line_batches
from recbole_posattn.atomic_files.convert.rejects import OnError, Reason, Rejects
from recbole_posattn.atomic_files.convert.shapes import ORDER, ReadOptions, TableFormat, shape_of
from recbole_posattn.atomic_files.convert.sources import Located, locate, open_stream, refuse_stream
from recbole_posattn.atomic_files.convert.times import TimeFormat
from recbole_posattn.errors import DataError, SettingError


class FeatureFile(NamedTuple):
    """An atomic file of the features of items or users.

    Attributes:
        file: The file.
        role: ``item`` or ``user``.
        source: The file that was read.
        columns: The names of its columns, without that of the items or users.
        described: Items or users in it.
        wanted: Items or users of the data set.
        rejected: Why lines were skipped.
    """

    file: Path
    role: Role
    source: str
    columns: list[str]
    described: int
    wanted: int
    rejected: list[Reason]


class Conversion(NamedTuple):
    """The result of :func:`convert`.

    Attributes:
        file: The atomic file.
        source: The file that was read.
        format: The name of its format; ``None`` for a user's own table.
        steps: Number of interactions that were read, then that each filter kept.
        users: Users in the atomic file.
        items: Items in the atomic file.
        first: The earliest time in it.
        last: The latest time in it.
        rejected: Why lines (or rows) were skipped.
        rejected_file: The file that lists them; ``None`` if there are none.
        features: The files of features.
        left: Files of features that were there and stay as they are.
        padded: Users and items whose tokens begin or end with blanks, which are part of them.
    """

    file: Path
    source: str
    format: str | None
    steps: list[Step]
    users: int
    items: int
    first: float
    last: float
    rejected: list[Reason]
    rejected_file: Path | None
    features: tuple[FeatureFile, ...] = ()
    left: tuple[Path, ...] = ()
    padded: int = 0


def convert(
    source: str | Path,
    name: str,
    reading: ReadOptions | None = None,
    filters: Filters | None = None,
    *,
    data_path: str | Path = "dataset",
    on_error: OnError = "strict",
    overwrite: bool = False,
    show_progress: bool = False,
) -> Conversion:
    """Convert a dump to ``<data_path>/<name>/<name>.inter``, and its features to ``<name>.item`` and ``<name>.user``.

    The file has the columns ``user_id:token``, ``item_id:token``, ``rating:float`` if there are ratings, and
    ``timestamp:float``. Its rows are grouped by user and sorted by time, then by the order of the dump: RecBole keeps
    times as 32-bit floats, which resolve Unix seconds in steps of 64 s (until 2004) or 128 s, and leaves equal times
    in the order of the file.

    Args:
        source: A file, plain or compressed with gzip; a zip archive; or the unpacked folder of a dump.
        name: Name of the data set.
        reading: How to read the dump; by default its format is guessed.
        filters: The filters; none by default.
        data_path: Folder of data sets.
        on_error: ``strict``: bad lines end the conversion; ``skip``: they are left out, and listed in
            ``<name>.rejected.tsv`` beside the atomic file.
        overwrite: Whether an atomic file of this name may be replaced.
        show_progress: Whether to show a progress bar.

    Raises:
        SettingError: If an argument is not allowed, or an atomic file of this name exists.
        DataError: If the dump cannot be read, lacks columns or has bad lines, or if no interaction is left.
        UserError: If the folder cannot be written.
    """
    source, reading, filters = Path(source), reading or ReadOptions(), filters or Filters()
    output = Output(Path(data_path), name, overwrite)
    if on_error not in get_args(OnError):
        raise SettingError(f"on_error must be one of {', '.join(get_args(OnError))}; got {on_error!r}.")
    if not os.path.exists(source):  # Path.exists raises for a name that is too long
        raise DataError(f"{source} not found: give the path of the dump's file or folder")
    refuse_stream(source)
    form = reading.format
    if form is None and reading.user is None and reading.item is None:
        form = guess_format(source)
    known = None if form is None else find_format(form)
    described = [each[form] for each in (ITEMS, USERS) if form is not None and form in each]
    others = [pattern.format(category="*") for features in described for pattern in features.files]
    located = locate(source, None if known is None else known.files, others)
    shape = shape_of(reading, None if known is None else known.shape, located.name)
    sources = find_sources(reading, form, located, shape.columns)
    output.check_features(source.role for source in sources)
    check_filters(filters, has_rating=shape.columns.rating is not None, has_time=shape.time_format != ORDER)

    unit = "row" if shape.kind == "parquet" else "line"
    with ExitStack() as stack:
        rejects = stack.enter_context(closing(Rejects(located.label, on_error, unit)))
        interactions = _gathered(located, shape, checked_encoding(reading.encoding), rejects, show_progress)
        steps = [Step("read", len(interactions))]
        kept, filtered = apply_filters(interactions, filters)
        steps += filtered
        if not len(kept):
            counts = "; ".join(f"{step.name}: {step.interactions}" for step in steps)
            raise DataError(
                f"no interaction of {located.label} is left ({counts}); lower --min_rating, --min_user_interactions or "
                "--min_item_interactions"
            )
        tables = _features(kept, sources, on_error, stack)
        users, items = output.write(kept, rejects if rejects.count else None, tables)
        times = float(kept.time.min()), float(kept.time.max())
        of_rejects = rejects.reasons(), output.rejected_file if rejects.count else None
        features = _summaries(output, tables)
        unwritten = [role for role in ROLES if role not in {table.role for table in tables}]
        left = tuple(file for role in unwritten if (file := output.features_file(role)).exists())
        found = (users, items, *times, *of_rejects, features, left, _padded(kept))
        return Conversion(output.file, located.label, form, steps, *found)


def _padded(kept: Interactions) -> int:
    """The number of users and items whose tokens begin or end with blanks."""
    count = 0
    for tokens, number in ((kept.users, kept.user), (kept.items, kept.item)):
        padded = [each for each, token in enumerate(tokens) if token != token.strip()]
        count += int(np.isin(padded, number).sum()) if padded else 0  # filters may have left some out
    return count


def _features(kept: Interactions, sources: Sequence[Source], on_error: OnError, stack: ExitStack) -> list[Table]:
    """The features of the items and users that are left; the stack closes their bad lines."""
    tables = []
    for source in sources:
        number, tokens = (kept.item, kept.items) if source.role == "item" else (kept.user, kept.users)
        wanted = {tokens[each]: each for each in np.unique(number).tolist()}
        rejects = stack.enter_context(closing(Rejects(source.located.label, on_error)))
        tables.append(read_table(source, wanted, rejects))
    return tables


def _summaries(output: Output, tables: Sequence[Table]) -> tuple[FeatureFile, ...]:
    return tuple(
        FeatureFile(
            output.features_file(table.role),
            table.role,
            table.source,
            [name.partition(":")[0] for name in table.header[1:]],
            len(table.rows),
            table.n_wanted,
            table.rejects.reasons(),
        )
        for table in tables
    )


def _gathered(
    located: Located, shape: TableFormat, encoding: str, rejects: Rejects, show_progress: bool
) -> Interactions:
    gatherer = Gatherer(TimeFormat(shape.time_format), shape.columns.rating is not None, rejects)
    with (
        _opened(located, shape, encoding, rejects) as (batches, total, unit),
        tqdm(total=total, unit=unit, unit_scale=True, desc=located.name, disable=not show_progress) as progress,
    ):
        for batch in batches:
            gatherer.add(batch)
            rejects.flush()
            progress.update(batch.done - progress.n)
    rejects.end()
    if not len(gatherer):
        reasons = "; ".join(f"{reason.reason}: {reason.count}" for reason in rejects.reasons())
        raise DataError(f"{located.label} has no interactions{f' ({reasons})' if reasons else ''}")
    return gatherer.finish()


@contextmanager
def _opened(
    located: Located, shape: TableFormat, encoding: str, rejects: Rejects
) -> Iterator[tuple[Iterator[Batch], int, str]]:
    """The batches of a file, its size, and the unit of the size."""
    if shape.kind == "parquet":
        if located.member is not None:
            raise DataError(f"{located.label}: a Parquet file cannot be read inside an archive; unpack it")
        with open_parquet(located.file, shape.columns) as opened:
            yield parquet_batches(opened, shape.columns, rejects), opened.metadata.num_rows, " rows"
    else:
        with open_stream(located) as stream:
            yield line_batches(read_lines(stream, encoding, rejects), shape, rejects), stream.size, "B"

"""Reads the files of RecBole's data sets by Arrow, where its rows are those of pandas, and interactions in Parquet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_posattn.compat.data import load_feat, read_csv_by_c_parser

import pandas as pd
from recbole.utils import FeatureSource, FeatureType

from recbole_posattn.data.blocks import SEQUENCES, Column, Table
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.parquet import parquet_columns, parquet_table, read_parquet
from recbole_posattn.data.sources import file_of, is_parquet
from recbole_posattn.data.tables import read_table, take


class ReadingMixin(DatasetMixin):
    """Read files once, for a subclass of RecBole's ``Dataset``; what is read equals what RecBole reads.

    Files are read by Arrow, and by pandas' C parser where Arrow may read something else: quotes, vectors, rows with too
    few or too many fields, other separators and encodings. Tokens of interactions are categories until they are
    numbered. With ``lazy_prefixes: False``, atomic files are read by RecBole's own function.
    """

    inter_feat: Any
    field2seqlen: dict[str, Any]
    file_size_list: list[int]

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """See ``Dataset._load_feat``."""
        file = file_of(Path(filepath))
        if is_parquet(file):
            return self._load_parquet(file, source)
        if not self.config["lazy_prefixes"]:
            return super()._load_feat(filepath, source)

        def read_csv(path: str, **options: Any) -> pd.DataFrame:
            table = _table(Path(path), options, self.config["seq_separator"])
            rows = take(table) or read_table(table)
            if rows is None:
                return read_csv_by_c_parser(path, **options)
            names = [column.name for column in table.columns if column.read]
            return rows.frame(names, categorical=source == FeatureSource.INTERACTION)

        return load_feat(self, filepath, source, read_csv)

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        """See ``Dataset._load_inter_feat``, which does not find Parquet files."""
        folder, parts = Path(dataset_path), self.benchmark_filename_list
        names = [token] if parts is None else [f"{token}.{part}" for part in parts]
        files = [folder / f"{name}.inter" for name in names]
        if not any(is_parquet(file_of(file)) for file in files):
            super()._load_inter_feat(token, dataset_path)
            return
        longest: dict[str, int] = defaultdict(int)
        feats: list[Any] = []
        for file in files:
            feats.append(self._load_feat(str(file), FeatureSource.INTERACTION))
            for field, length in self.field2seqlen.items():
                longest[field] = max(longest[field], length)
        self.field2seqlen = longest
        self.inter_feat = feats[0] if parts is None else pd.concat(feats, ignore_index=True)
        if parts is not None:
            self.file_size_list = [len(feat) for feat in feats]

    def _load_parquet(self, file: Path, source: FeatureSource | str) -> pd.DataFrame | None:
        """The columns of a Parquet file, with the properties that RecBole's ``_load_feat`` gives them."""
        load, unload = self._get_load_and_unload_col(source)
        stored = {
            name: column
            for name, column in parquet_columns(file, self.config).items()
            if (load is None or name in load) and (unload is None or name not in unload)
        }
        columns = [Column(name, column.checked_type(file, name), True, False) for name, column in stored.items()]
        if not columns:
            self.logger.warning(f"No columns has been loaded from [{source}]")
            return None
        rows = take(parquet_table(file, columns)) or read_parquet(file, columns, stored)
        frame = rows.frame([column.name for column in columns], categorical=True)
        for column in columns:
            self._describe(column, source, frame)
        return frame

    def _describe(self, column: Column, source: FeatureSource | str, frame: pd.DataFrame) -> None:
        """Set the properties of a field, and cut its sequences to their longest length."""
        name = column.name
        self.field2source[name], self.field2type[name] = source, column.type
        self.field2seqlen[name] = 1
        if column.type in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
            self.field2bucketnum[name] = 2
        if column.type in SEQUENCES:
            longest = max(map(len, frame[name]))
            limit = (self.config["seq_len"] or {}).get(name, longest)
            if limit < longest:
                frame[name] = [values[:limit] for values in frame[name]]
            self.field2seqlen[name] = min(limit, longest)


def _table(file: Path, options: Mapping[str, Any], seq_separator: str) -> Table:
    """The format of a file, from the options with which RecBole calls ``pandas.read_csv``."""
    separator, encoding = options["delimiter"], options["encoding"] or "utf-8"
    with open(file, encoding=encoding) as lines:
        header = lines.readline().rstrip("\n").split(separator)
    columns = []
    for column in header:
        name, _, kind = column.partition(":")
        columns.append(Column(name, FeatureType(kind), column in options["usecols"], False))
    return Table(file, columns, separator, seq_separator, encoding)

"""RecBole's data sets with times in 64 bits until the data is ordered and split."""

from __future__ import annotations

from typing import Any

import recbole_posattn.compat  # noqa: F401

import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_posattn.data.counting import CountingMixin
from recbole_posattn.data.fields import EXACT_TIME_FIELD
from recbole_posattn.data.numbers import NumbersMixin
from recbole_posattn.data.prefixes import LazyPrefixes
from recbole_posattn.data.reading import ReadingMixin
from recbole_posattn.data.tokens import LongTokensMixin
from recbole_posattn.errors import DataError


class ExactTimesMixin(ReadingMixin, CountingMixin, LongTokensMixin, NumbersMixin):
    """Order and split by the times of the file, for a subclass of RecBole's ``Dataset``.

    RecBole converts times to 32-bit floats before it sorts by them. Today's Unix seconds then have steps of 128 s, and
    interactions within a step keep the order of the file. Here times are converted after the split, so that a model
    gets the same values as with RecBole. A subclass overrides :meth:`_build_parts` instead of ``build``.

    With the resolved key ``reads_time``, the times of the file are also kept as they are, in a field of their own, and
    so are the times of the histories that a file may have; see :mod:`recbole_posattn.data.relative_times`.
    """

    inter_feat: Any  # a DataFrame, later an Interaction

    def _normalize(self) -> None:
        """See ``Dataset._normalize``."""
        kept = self._times_of_file() if self.config["reads_time"] else []
        super()._normalize()
        for field, column, kind, length in kept:  # only now, since normalize_all scales every field there is
            self.inter_feat[field] = column
            self.set_field_property(field, kind, FeatureSource.INTERACTION, length)

    def _times_of_file(self) -> list[tuple[str, pd.Series, FeatureType, int]]:
        """Name, values, type and length of the fields to keep."""
        listed = f"{self.time_field}{self.config['LIST_SUFFIX']}"
        names = {
            (self.time_field, FeatureType.FLOAT): EXACT_TIME_FIELD,
            (listed, FeatureType.FLOAT_SEQ): EXACT_TIME_FIELD + self.config["LIST_SUFFIX"],
        }
        if self.time_field not in self.inter_feat or self.field2type[self.time_field] != FeatureType.FLOAT:
            raise DataError(
                f"data set {self.dataset_name!r}: {self.config['model']} reads the times between interactions, but "
                f"there is no column {self.time_field}:float (keys TIME_FIELD and load_col)"
            )
        return [
            (name, self.inter_feat[field], kind, self.field2seqlen[field])
            for (field, kind), name in names.items()
            if field in self.inter_feat and self.field2type[field] == kind
        ]

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        interaction = super()._dataframe_to_interaction(data)
        for field in (self.time_field, EXACT_TIME_FIELD):
            if _is_single_float(interaction, field):
                exact = data[field].to_numpy(dtype="float64", copy=True)
                interaction[field] = torch.from_numpy(exact)
        return interaction

    def build(self) -> list[Dataset]:
        """See ``Dataset.build``."""
        parts = self._build_parts()
        rounded: dict[int, Tensor] = {}
        for part in parts:
            _round_times(part.inter_feat, {self.time_field, f"{self.time_field}{self.config['LIST_SUFFIX']}"}, rounded)
        return parts

    def _build_parts(self) -> list[Dataset]:
        return super().build()


def _is_single_float(interaction: Interaction, field: str | None) -> bool:
    """Whether each row has one float in a field; times may also be tokens, or pairs if they are numerical features."""
    return field in interaction and interaction[field].is_floating_point() and interaction[field].dim() == 1


def _round_times(rows: Interaction, fields: set[str], rounded: dict[int, Tensor]) -> None:
    """Convert fields of a part to 32-bit floats; ``rounded`` holds the tensors that parts share, by their id."""
    columns: list[Any] = rows.stored() if isinstance(rows, LazyPrefixes) else [rows]
    for column in columns:
        for field in fields & set(column):
            values = column[field]
            if isinstance(values, Tensor) and values.dtype == torch.float64:
                if id(values) not in rounded:
                    rounded[id(values)] = values.float()
                column[field] = rounded[id(values)]

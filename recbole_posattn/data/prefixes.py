"""The rows of sequential recommendation, (history → target), with histories that are built only when they are read.

RecBole writes the history of every row into a matrix of n rows times L items, for every field. Here each interaction is
stored once, in the order of its user's sequence, and a row is the position of its target and the length of its history.

Shape keys: N interactions, n rows, L = MAX_ITEM_LIST_LENGTH, … further axes of a field (a sequence of tokens, say).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.ordering import stable_argsort

_POSITION = "position of the target"


def history_lengths(user: Tensor, max_length: int) -> Tensor:
    """The lengths of the histories that RecBole's ``data_augmentation`` makes of sequences.

    Each interaction but a user's first is the target of a row, whose history is what the user did before.

    Args:
        user: User of each interaction; users are grouped, and each user's interactions in time order; shape (N,).
        max_length: The most items in a history, L.

    Returns:
        The length of the history before each interaction, 0 to L; int32, shape (N,).
    """
    n_rows = len(user)
    start, count = (numbers.numpy() for numbers in sequences_of(user))
    kind = np.int32 if n_rows < 2**31 else np.int64
    length: np.ndarray = np.arange(n_rows, dtype=kind)
    length -= np.repeat(start.astype(kind), count)
    np.minimum(length, max_length, out=length)
    return torch.from_numpy(length.astype(np.int32, copy=False))


def sequences_of(user: Tensor) -> tuple[Tensor, Tensor]:
    """The position of the first interaction of each user, and how many each has; int64, shape (users,).

    Args:
        user: User of each interaction; users are grouped; shape (N,).
    """
    users = user.numpy()
    later = np.flatnonzero(users[1:] != users[:-1]) + 1
    start = np.concatenate([np.zeros(min(1, len(users)), dtype=np.int64), later])
    return torch.from_numpy(start), torch.from_numpy(np.diff(start, append=len(users)))


def single_values(column: Tensor) -> np.ndarray:
    """The values of a column; RecBole pairs each with a class if it is among ``numerical_features``. Shape (n,)."""
    return (column if column.dim() == 1 else column[..., 0]).numpy()


def in_64_bits(values: Tensor) -> Tensor:
    """Integers that are stored in 32 bits as RecBole has them; other values unchanged."""
    return values.long() if values.dtype == torch.int32 else values


class TargetColumn:
    """A field of the targets of rows, which is looked up among all interactions for the rows that are asked for.

    Args:
        values: The field of all interactions; shape (N, …).
        position: The position of each row's target among them; int64, shape (n,).
    """

    def __init__(self, values: Tensor, position: Tensor) -> None:
        self._values, self._position = values, position

    def __getitem__(self, rows: Any) -> Tensor:
        """The field of some rows; integers in 64 bits, however they are stored."""
        return in_64_bits(self._values[self._position[rows]])

    def as_stored(self) -> Tensor:
        """The field of all rows; integers perhaps in 32 bits."""
        return self._values[self._position]


class PrefixColumn:
    """A list field of all rows, of shape (n, L, …), of which only selected rows become a tensor.

    ``column[rows]`` and :meth:`tensor` return tensors. Anything else that needs the whole tensor is refused, since the
    purpose of this class is to avoid it.
    """

    def __init__(self, values: Tensor, position: Tensor, length: Tensor | TargetColumn, max_length: int) -> None:
        self._values, self._position, self._length, self._max_length = values, position, length, max_length
        self.shape = torch.Size([*position.shape, max_length, *values.shape[1:]])
        self.dtype, self.device = in_64_bits(values[:0]).dtype, values.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        rows, *rest = index if isinstance(index, tuple) else (index,)
        position = self._position[rows]
        lists = PrefixColumn(self._values, position, self._length[rows], self._max_length).tensor()
        return lists[(slice(None),) * position.dim() + tuple(rest)] if rest else lists

    def tensor(self) -> Tensor:
        """All rows; shape (n, L, …)."""
        nth, length = torch.arange(self._max_length), self._length[...]
        source = (self._position - length)[..., None] + nth
        padding = nth >= length[..., None]
        lists = in_64_bits(self._values[source.masked_fill_(padding, 0)])
        return lists.masked_fill_(padding.reshape(padding.shape + (1,) * (lists.dim() - padding.dim())), 0)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(Tensor, name):
            raise AttributeError(self._refusal(f"attribute {name!r}"))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __iter__(self) -> Iterator[Tensor]:
        raise TypeError(self._refusal("iteration"))

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(self._refusal("a NumPy array"))

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse torch's functions."""
        raise TypeError(cls._refusal(f"torch function {getattr(function, '__name__', function)!r}"))

    @classmethod
    def _refusal(cls, what: str) -> str:
        return (
            f"{what} of a {cls.__name__} needs the lists of all rows in memory; take the rows you need, column[rows], "
            "or all of them, column.tensor(), and for all columns rows.dense()"
        )


class LazyPrefixes(Interaction):
    """RecBole's rows (history → target) in memory that grows with the number of interactions, not times L.

    Selecting, sorting and shuffling rows does not build histories. :meth:`dense` builds the ordinary ``Interaction`` of
    a batch, equal to RecBole's. Methods of ``Interaction`` that need the histories of all rows, such as ``to`` and
    ``repeat``, raise the error of :class:`PrefixColumn`.

    Args:
        columns: Values of the targets by field; each of shape (n, …).
        position: The position of each row's target among the interactions; int64, shape (n,).
        length_field: The column with the length of each history.
        sequences: Values of all interactions by list field; each of shape (N, …). They are not copied. Integers may be
            stored in 32 bits, here and in ``targets``; rows have them in 64.
        max_length: The most items in a history, L.
        targets: Further fields of the targets: their values of all interactions; each of shape (N, …). They are not
            copied.
    """

    def __init__(
        self,
        columns: Mapping[str, Tensor],
        position: Tensor,
        length_field: str,
        sequences: Mapping[str, Tensor],
        max_length: int,
        targets: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._rows: Interaction = Interaction({**columns, _POSITION: position})
        self.targets = dict(targets or {})
        self._fields = [*columns, *self.targets]
        self.length_field = length_field
        self.sequences = dict(sequences)
        self.max_length = max_length

    def dense(self) -> Interaction:
        """The same rows as an ordinary ``Interaction``, with all histories built."""
        columns = self.interaction.items()
        return Interaction(
            {field: column.tensor() if isinstance(column, PrefixColumn) else column for field, column in columns}
        )

    @property
    def interaction(self) -> dict[str, Tensor | PrefixColumn]:
        """All columns; the list fields are not built."""
        columns = {field: self.column(field)[...] for field in self._fields}
        return {**columns, **{field: self._lists(field) for field in self.sequences}}

    @property
    def position(self) -> Tensor:
        """The position of each row's target among the interactions; int64, shape (n,)."""
        position: Tensor = self._rows[_POSITION]
        return position

    @property
    def length(self) -> int:
        """The number of rows."""
        return len(self._rows)

    @property
    def columns(self) -> list[str]:
        """The names of all fields."""
        return [*self._fields, *self.sequences]

    def column(self, field: str) -> Tensor | TargetColumn:
        """A field that is not a list, for selecting rows without building histories."""
        return self._rows[field] if field in self._rows else TargetColumn(self.targets[field], self.position)

    def stored_column(self, field: str) -> Tensor:
        """A field that is not a list; integers perhaps in 32 bits."""
        column = self.column(field)
        return column.as_stored() if isinstance(column, TargetColumn) else column

    def stored(self) -> list[Any]:
        """What holds the values of fields, by name: those of the rows, and of all interactions."""
        return [self._rows, self.targets, self.sequences]

    def _lists(self, field: str) -> PrefixColumn:
        return PrefixColumn(self.sequences[field], self.position, self.column(self.length_field), self.max_length)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, field: object) -> bool:
        return field in self.columns

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self._lists(index) if index in self.sequences else self.column(index)[...]
        rows = _as_index(index)
        selected = copy.copy(self)
        selected._rows = Interaction({field: self._rows[field][rows] for field in self._rows})
        selected._fields, selected.targets, selected.sequences = [*self._fields], {**self.targets}, {**self.sequences}
        return selected

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self:  # a copy in the making has no attributes yet
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self[name]

    def __setitem__(self, field: str, value: Tensor) -> None:
        self._rows[field] = value
        if field not in self._fields:
            self._fields.append(field)

    def __delitem__(self, field: str) -> None:
        if field in self.sequences:
            del self.sequences[field]
            return
        self._fields.remove(field)
        self.targets.pop(field, None)
        if field in self._rows:
            del self._rows[field]

    def drop(self, column: str) -> None:
        """See ``Interaction.drop``."""
        if column not in self:
            raise ValueError(f"column {column!r} is not among {', '.join(self.columns)}")
        del self[column]

    def update(self, new_inter: Interaction) -> None:
        """See ``Interaction.update``."""
        for field in new_inter:
            self[field] = new_inter[field]

    def shuffle(self) -> None:
        """See ``Interaction.shuffle``."""
        self._rows.shuffle()

    def sort(self, by: str | Sequence[str], ascending: bool | Sequence[bool] = True) -> None:
        """See ``Interaction.sort``; list fields cannot be sorted by."""
        fields = [by] if isinstance(by, str) else by
        if ascending is True and set(fields) <= set(self._fields):
            for field in reversed(fields):
                key = self.stored_column(field)
                order = stable_argsort(single_values(key))
                self.reorder(torch.from_numpy(order).long())
            return
        keys = Interaction({field: self.column(field)[...] for field in self._fields})
        keys[_POSITION] = torch.arange(len(self))
        keys.sort(by, ascending)
        self.reorder(keys[_POSITION])

    def reorder(self, index: Tensor) -> None:
        """Put the rows in another order; int64, shape (n,)."""
        self._rows._reindex(index)


def _as_index(index: Any) -> Tensor | slice | int:
    """An index of a tensor's rows, from whatever RecBole selects rows with: lists, arrays, tensors, ranges, slices."""
    if isinstance(index, (slice, int)):
        return index
    array = np.asarray(index)
    return torch.as_tensor(array if array.size else array.astype(np.int64))

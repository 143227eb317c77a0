"""Writes a converted data set, completely or not at all; its place is checked before the dump is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_posattn.atomic_files.convert.features import ROLES, Role, Table
from recbole_posattn.atomic_files.convert.interactions import Interactions, quoted
from recbole_posattn.atomic_files.convert.rejects import Rejects
from recbole_posattn.data.sources import PARQUET
from recbole_posattn.errors import SettingError, UserError
from recbole_posattn.files import write_atomically

# How many rows are turned into text at a time.
_ROWS = 2**18

# RecBole always reads its own copy of this data set. The settings know the name, but importing them imports RecBole.
_BUNDLED = "ml-100k"


class Output:
    """The folder ``<data_path>/<name>`` and the files in it.

    Args:
        data_path: The folder of all data sets.
        name: Name of this one.
        overwrite: Whether its atomic file may be replaced.

    Attributes:
        file: The atomic file.
        rejected_file: The list of lines that were skipped.

    Raises:
        SettingError: If the name cannot be used, or its atomic file exists and is not to be replaced.
        UserError: If nothing can be written there.
    """

    def __init__(self, data_path: Path, name: str, overwrite: bool) -> None:
        if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
            raise SettingError(f"name must be a plain word such as my-data, which becomes a folder; got {name!r}.")
        if name == _BUNDLED:
            raise SettingError(
                f"name {name!r} is taken: RecBole would read its own data set of that name; give another."
            )
        self.folder = data_path / name
        self.overwrite = overwrite
        self.file = self.folder / f"{name}.inter"
        self.rejected_file = self.folder / f"{name}.rejected.tsv"
        for there in (self.file, self.file.with_name(self.file.name + PARQUET)):  # the former is read if both exist
            if os.path.exists(there) and not overwrite:
                raise SettingError(f"{there} exists; give another --dataset, or --overwrite.")
        there = next(path for path in (self.folder, *self.folder.absolute().parents) if os.path.exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UserError(f"{self.folder} cannot be written: {there} is not a folder that you may write to")

    def check_features(self, roles: Iterable[Role]) -> None:
        """Refuse files of features that exist and are not to be replaced.

        Raises:
            SettingError: Naming the file, and the flag that leaves it as it is.
        """
        for role in roles:
            if os.path.exists(self.features_file(role)) and not self.overwrite:
                raise SettingError(
                    f"{self.features_file(role)} exists; give another --dataset, --overwrite, or "
                    f"--{role}_features=none to leave it as it is."
                )

    def features_file(self, role: Role) -> Path:
        """The atomic file of the features of items or users."""
        return self.folder / f"{self.folder.name}.{role}"

    def _rejected_features(self, role: Role) -> Path:
        return self.folder / f"{self.folder.name}.{role}.rejected.tsv"

    def write(
        self, interactions: Interactions, rejects: Rejects | None, features: Sequence[Table] = ()
    ) -> tuple[int, int]:
        """Write the interactions, the features, and the lists of lines that were skipped.

        Returns:
            The numbers of users and items in the atomic file.

        Raises:
            UserError: If the folder cannot be written.
        """
        contents: dict[Path, Callable[[BinaryIO], None]] = {self.file: lambda file: _write_rows(interactions, file)}
        contents |= {self.features_file(table.role): table.write for table in features}
        if rejects is not None:
            contents[self.rejected_file] = rejects.write
        contents |= {
            self._rejected_features(table.role): table.rejects.write for table in features if table.rejects.count
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as whole:  # replaces the files once all are written; the atomic file comes last
                for file, write in contents.items():
                    with open(whole.enter_context(write_atomically(file)), "wb") as opened:
                        write(opened)
                for old in (self.rejected_file, *map(self._rejected_features, ROLES)):
                    old.unlink(missing_ok=True)  # belongs to the atomic file that is replaced
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                self.folder.rmdir()  # does nothing unless it is empty
        return len(np.unique(interactions.user)), len(np.unique(interactions.item))


def _write_rows(interactions: Interactions, file: BinaryIO) -> None:
    columns = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    if interactions.rating is None:
        columns.remove("rating:float")
    file.write("\t".join(columns).encode() + b"\n")
    users, items = (
        pa.array(map(quoted, tokens), pa.large_string()) for tokens in (interactions.users, interactions.items)
    )
    tab, line_end, nothing = (pa.scalar(text, pa.large_string()) for text in ("\t", "\n", ""))
    place, _ = pd.factorize(interactions.user)  # in order of occurrence
    order = np.lexsort((interactions.time, place))  # stable
    for begin in range(0, len(order), _ROWS):
        rows = interactions.take(order[begin : begin + _ROWS])
        texts = [users.take(pa.array(rows.user)), items.take(pa.array(rows.item))]
        texts += [_texts(numbers) for numbers in (rows.rating, rows.time) if numbers is not None]
        lines = pc.binary_join_element_wise(*texts, tab)
        _, ends, text = pc.binary_join_element_wise(lines, nothing, line_end).buffers()
        file.write(memoryview(text)[: np.frombuffer(ends, np.int64)[len(rows)]])


def _texts(numbers: np.ndarray) -> pa.Array:
    """Numbers as texts that are read back exactly; whole numbers have no decimal point."""
    whole = (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)
    integers = pa.array(np.where(whole, numbers, 0).astype(np.int64)).cast(pa.large_string())
    return pc.if_else(pa.array(whole), integers, pa.array(numbers).cast(pa.large_string()))

"""The base of mixins for RecBole's ``Dataset``."""

from typing import TYPE_CHECKING

import recbole_posattn.compat  # noqa: F401

if TYPE_CHECKING:  # a type checker looks their attributes up there
    from recbole.data.dataset import Dataset as DatasetMixin
else:

    class DatasetMixin:
        """For a subclass of RecBole's ``Dataset``."""


__all__ = ["DatasetMixin"]

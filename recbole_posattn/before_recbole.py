"""Every module that imports RecBole imports this one first, so that RecBole runs on today's Python stack."""

from __future__ import annotations

import importlib.metadata

from recbole_posattn import compat

compat.apply()


class UnsupportedVersionError(ImportError):
    """A package that RecBole rests on is missing or has a version it does not run on."""


def require_supported_versions() -> None:
    """Stop where RecBole would fail, or be silently wrong.

    The work-arounds here were written against RecBole 1.2. It fills missing values with chained
    ``fillna(inplace=True)``, which the copy-on-write of pandas 3 turns into nothing without a word.

    Raises:
        UnsupportedVersionError: If RecBole is missing or not 1.2.x, or pandas is 3 or newer.
    """
    try:
        recbole = importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError:
        raise UnsupportedVersionError("RecBole is not installed; install it with: recbole-posattn setup") from None
    if recbole.split(".")[:2] != ["1", "2"]:
        raise UnsupportedVersionError(
            f"RecBole {recbole} is installed, but recbole-posattn works with 1.2.x; "
            "install that with: recbole-posattn setup"
        )
    pandas = importlib.metadata.version("pandas")
    if int(pandas.split(".")[0]) >= 3:
        raise UnsupportedVersionError(
            f"pandas {pandas} is installed, on which RecBole silently leaves missing values unfilled; "
            'install an older one with: pip install "pandas<3"'
        )

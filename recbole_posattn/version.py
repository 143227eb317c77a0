"""The versions of the package and of its results, and the supported versions of other packages."""

import importlib.metadata

__version__ = "0.1.0"

# Raised when the same settings, data and seed give different results, because a bug was fixed for instance. Finished
# runs of an older version are then not reused. For a change to some runs only, see training.result.results_version.
#   2: time order in 64 bits; Pop counts interactions; the user is the unit of intervals and tests
RESULTS_VERSION = 2


class UnsupportedVersionError(ImportError):
    """A package that RecBole needs is missing or has an unsupported version."""


def require_supported_versions() -> None:
    """Stop if RecBole would fail or be silently wrong.

    The work-arounds here were written for RecBole 1.2. It fills missing values with chained ``fillna(inplace=True)``,
    which has no effect with the copy-on-write of pandas 3.

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

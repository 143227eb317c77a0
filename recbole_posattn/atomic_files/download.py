"""Download a data set that RecBole knows, and unpack its archive safely."""

from __future__ import annotations

import lzma
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from recbole_posattn.errors import DataError, counted

# Limits for the archive of a data set. Compression shrinks interactions to between a third and a tenth, but the zip
# format allows a thousandth. An archive that is small when unpacked may expand by more than LARGEST_EXPANSION.
MOST_MEMBERS, LARGEST_EXPANSION, LARGEST_UNPACKED = 1000, 100, 2**30


def download_atomic_files(url: str, folder: Path, name: str) -> None:
    """Download and unpack a data set that RecBole knows; RecBole asks before a large download.

    RecBole's ``Dataset._download`` waits for other processes even if there is only one, and fails there. It leaves a
    half-filled folder, which the next run takes for the data set. Here the folder appears only when it is complete.

    Args:
        url: Address of the zip archive, from RecBole's list.
        folder: Where the atomic files belong; must not exist.
        name: The data set's name, for the names of the files.

    Raises:
        OSError: If the archive cannot be fetched (for example without a network), or the folder cannot be written.
        RuntimeError: If the user declines a large download, or the server does not send a file.
        DataError: If the archive is damaged, or :func:`extract_archive` refuses it.
    """
    from recbole.utils import url as recbole_url

    with _download_failures():
        if not recbole_url.decide_download(url):
            raise RuntimeError("the download was declined")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        incomplete = Path(scratch) / name
        with _download_failures():
            archive = Path(recbole_url.download_url(url, str(incomplete)))
        try:
            extract_archive(archive, incomplete)
        except DataError as error:
            raise DataError(
                f"the archive of data set {name!r} at {url} is not used: {error}; get the atomic files by other means "
                f"and put them into {folder.absolute()}"
            ) from error
        archive.unlink()
        recbole_url.rename_atomic_files(incomplete, archive.stem, name)
        incomplete.rename(folder)


@contextmanager
def _download_failures() -> Iterator[None]:
    """Turn failures that RecBole's functions do not handle into errors with a reason."""
    try:
        yield
    except EOFError as error:
        raise RuntimeError("it is larger than 1 GB, and there is no terminal to confirm the download") from error
    except TypeError as error:  # RecBole reads the length from the headers of the response
        raise RuntimeError("the server does not say how large the file is") from error
    except HTTPException as error:
        raise RuntimeError(f"the response is not HTTP: {type(error).__name__}") from error


def extract_archive(archive: Path, folder: Path) -> None:
    """Check a zip archive of a data set, and unpack it.

    RecBole's ``extract_zip`` calls the standard library, which rewrites names that lead out of the folder, writes the
    target of a link as a file, and may fill the disk. Here such an archive is refused as a whole.

    Args:
        archive: The zip archive.
        folder: Where its files belong.

    Raises:
        DataError: If it is not a zip archive or is damaged, if a member is not a plain file or folder, or its name is
            absolute or has ``..``, a backslash, a colon or a NUL in it, if there are more than :data:`MOST_MEMBERS`
            members, or if they are together larger than :data:`LARGEST_UNPACKED` and than
            :data:`LARGEST_EXPANSION` times the archive.
        OSError: If the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_members(opened.infolist(), archive.stat().st_size)
            opened.extractall(folder)  # writes no more of a member than the size that was checked
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise DataError(f"it cannot be unpacked ({error or type(error).__name__})") from error


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise DataError(f"it has {counted(len(members), 'member')}; at most {MOST_MEMBERS:,} are accepted")
    for member in members:
        name = member.orig_filename  # as written in the archive
        kind = stat.S_IFMT(member.external_attr >> 16)
        if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
            raise DataError(f"the name of its member {name!r} leads out of the folder that it is unpacked into")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"its member {name!r} is a link or a device, not a file")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(LARGEST_UNPACKED, LARGEST_EXPANSION * size):
        raise DataError(
            f"it would grow from {size:,} to {unpacked:,} bytes; at most {LARGEST_EXPANSION} times its size is accepted"
        )

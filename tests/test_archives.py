"""Archives that would leave their folder, fill the disk or are broken: refused in one line, and nothing is left."""

from __future__ import annotations

import http.client
import io
import stat
import tempfile
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_posattn.atomic_files import download
from recbole_posattn.atomic_files.convert.convert import convert
from recbole_posattn.atomic_files.convert.shapes import ReadOptions
from recbole_posattn.atomic_files.download import download_atomic_files, extract_archive
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import DataError
from tests.archives import serve, zip_of, zip_of_special

HEADER = "user_id:token\n"
NOT_BELOW = "leads out of the folder that it is unpacked into"


def lying_about_its_size() -> bytes:
    """A member that says it is small, here and in the directory of the archive, and unpacks to more."""
    data = zip_of({"Amazon.inter": b"0" * 2**20}, zipfile.ZIP_DEFLATED)
    return data.replace((2**20).to_bytes(4, "little"), (2**10).to_bytes(4, "little"))


HOSTILE = {
    "up": (zip_of({"../evil": "x"}), NOT_BELOW),
    "up from below": (zip_of({"Amazon.inter": HEADER, "below/../../evil": "x"}), NOT_BELOW),
    "absolute": (zip_of({"/tmp/evil": "x"}), NOT_BELOW),
    "backslashes": (zip_of({"..\\evil": "x"}), NOT_BELOW),
    "a drive": (zip_of({"C:/evil": "x"}), NOT_BELOW),
    "a name that ends early": (zip_of({"Amazon.inter\0.txt": "x"}), NOT_BELOW),
    "symbolic link": (zip_of_special("Amazon.item", stat.S_IFLNK, "/etc/passwd"), "is a link or a device, not a file"),
    "symbolic link to a folder": (zip_of_special("below", stat.S_IFLNK, ".."), "is a link or a device"),
    "named pipe": (zip_of_special("Amazon.item", stat.S_IFIFO, ""), "is a link or a device"),
    "bomb": (
        zip_of({"Amazon.inter": bytes(2**21 + 1)}, zipfile.ZIP_DEFLATED),
        "it would grow from 2,[0-9]{3} to 2,097,153 bytes; at most 100 times its size is accepted",
    ),
    "many small files": (zip_of({f"{n}": "" for n in range(1001)}), "it has 1,001 members; at most 1,000 are accepted"),
    "a lie about its size": (lying_about_its_size(), "it cannot be unpacked"),
    "cut off": (zip_of({"Amazon.inter": HEADER * 100})[:-30], "it cannot be unpacked"),
    "no archive": (b"<html>not found</html>", "it cannot be unpacked"),
    "damaged": (zip_of({"Amazon.inter": HEADER}).replace(b"user_id", b"user_ix"), "it cannot be unpacked"),
    "nothing": (b"", "it cannot be unpacked"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_download_is_refused_and_leaves_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    data, reason = HOSTILE[case]
    serve(monkeypatch, data)
    monkeypatch.setattr(download, "LARGEST_UNPACKED", 2**21)
    data_path = empty_folder / "work" / "dataset"
    with pytest.raises(DataError, match=reason) as caught:
        download_atomic_files("https://nowhere.invalid/Amazon.zip", data_path / "beauty", "beauty")
    message = str(caught.value)
    assert message.startswith("the archive of data set 'beauty' at https://nowhere.invalid/Amazon.zip is not used: ")
    assert message.endswith(f"; get the atomic files by other means and put them into {data_path / 'beauty'}")
    assert sorted(empty_folder.rglob("*")) == [empty_folder / "work", data_path]


def test_the_command_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    serve(monkeypatch, HOSTILE["up"][0])
    assert cli.main(["run", "--dataset=amazon-beauty"]) == 2
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if "recbole-posattn: " in line]
    assert "'../evil' leads out of the folder" in line and "Traceback" not in err
    assert [path.name for path in empty_folder.rglob("*")] == ["dataset"]


def test_folders_within_an_archive_are_unpacked(empty_folder: Path) -> None:
    Path("good.zip").write_bytes(zip_of({"below/": "", "below/deeper/a.txt": "x", "b..c": "y"}, zipfile.ZIP_DEFLATED))
    extract_archive(Path("good.zip"), Path("out"))
    assert Path("out/below/deeper/a.txt").read_text() == "x" and Path("out/b..c").read_text() == "y"


def test_text_shrinks_less_than_is_believed(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    """The most regular interactions there can be are still unpacked, whatever their size."""
    monkeypatch.setattr(download, "LARGEST_UNPACKED", 0)
    rows = "".join(f"{n // 100}\t{n % 100}\t{n}\n" for n in range(100_000))
    Path("good.zip").write_bytes(zip_of({"a.inter": rows}, zipfile.ZIP_DEFLATED))
    extract_archive(Path("good.zip"), Path("out"))
    assert Path("out/a.inter").read_text() == rows


VALID = zip_of({"Amazon.inter": HEADER * 20, "below/Amazon.item": "item_id:token\n"}, zipfile.ZIP_DEFLATED)


@pytest.mark.slow
@settings(max_examples=500)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, len(VALID)),
)
def test_damaged_anywhere_it_is_read_or_refused(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(VALID)
    for place, value in changes:
        data[place] = value
    with tempfile.TemporaryDirectory() as folder:
        home, archive = Path(folder) / "home", Path(folder) / "archive.zip"
        archive.write_bytes(data if end % 2 else data[:end])
        with suppress(DataError, OSError):
            extract_archive(archive, home)
        assert {path.name for path in Path(folder).iterdir()} <= {"home", "archive.zip"}


class Silent(io.BytesIO):
    """An answer without a length."""

    def info(self) -> dict:
        return {"Content-Length": None}


class Large(io.BytesIO):
    """An answer about which RecBole asks first."""

    def info(self) -> dict:
        return {"Content-Length": str(2 << 30)}


def no_http(url: str) -> None:
    raise http.client.BadStatusLine("SSH-2.0")


@pytest.mark.parametrize(
    ("urlopen", "reason"),
    [
        (lambda url: Silent(), "the server does not say how large the file is"),
        (lambda url: Large(), "it is larger than 1 GB, and there is no terminal to confirm the download"),
        (no_http, "the response is not HTTP: BadStatusLine"),
    ],
)
def test_failed_downloads_have_a_reason(
    urlopen: object, reason: str, monkeypatch: pytest.MonkeyPatch, empty_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli.main(["run", "--dataset=amazon-beauty"]) == 2
    assert reason in capsys.readouterr().err
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("member", ["../../u.data", "/tmp/evil/u.data", "..\\u.data", "below/u.data"])
def test_conversion_reads_any_member_and_writes_by_no_name_of_it(member: str, empty_folder: Path) -> None:
    work = empty_folder / "a" / "b"
    work.mkdir(parents=True)
    source = work / "dump.zip"
    source.write_bytes(zip_of({member: "".join(f"{n}\t{n % 3}\t5\t{n}\n" for n in range(9))}))
    if "\\" in member:  # one name, which no format knows
        with pytest.raises(DataError, match="has no file"):
            convert(source, "mine", data_path=work / "dataset", reading=ReadOptions(format="ml-100k"))
    else:
        convert(source, "mine", data_path=work / "dataset", reading=ReadOptions(format="ml-100k"))
    written = {path.relative_to(empty_folder).as_posix() for path in empty_folder.rglob("*") if path.is_file()}
    assert written - {"a/b/dataset/mine/mine.inter"} == {"a/b/dump.zip"}
    assert not Path("/tmp/evil").exists()

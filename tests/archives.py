"""Zip archives as a server or a stranger may hand them over."""

from __future__ import annotations

import io
import stat
import urllib.request
import zipfile

import pytest


def zip_of(members: dict[str, str | bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of members by their names, which are written as they stand."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo("placeholder")
            member.filename = name  # past what ZipInfo makes of a name
            member.compress_type = compression
            archive.writestr(member, data)
    return content.getvalue()


def zip_of_special(name: str, kind: int, data: str) -> bytes:
    """A zip archive with a member that is no plain file, such as ``stat.S_IFLNK``, whose data is its target."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("Amazon.inter", "user_id:token\n")
        member = zipfile.ZipInfo(name)
        member.create_system = 3  # Unix, whose modes follow
        member.external_attr = (kind | stat.S_IRWXU) << 16
        archive.writestr(member, data)
    return content.getvalue()


def serve(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let ``urlopen`` answer with a file."""

    class Response(io.BytesIO):
        def info(self) -> dict:
            return {"Content-Length": str(len(data))}

    monkeypatch.setattr(urllib.request, "urlopen", lambda url: Response(data))

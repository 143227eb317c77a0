"""Files that are written whole, and names that stand for the same file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recbole_posattn.errors import one_line
from recbole_posattn.files import has_incomplete, link_or_copy, write_atomically


def test_a_file_is_replaced_only_when_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ValueError, match="stopped"), write_atomically(file) as incomplete:
        incomplete.write_text("ne")
        assert has_incomplete(tmp_path) and file.read_text() == "old"
        raise ValueError("stopped")
    assert file.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    with write_atomically(file) as incomplete:
        incomplete.write_text("new")
    assert file.read_text() == "new" and not has_incomplete(tmp_path)


def test_two_writers_of_a_file_do_not_mix(tmp_path: Path) -> None:
    """The one that ends last wins; neither sees the other's bytes."""
    file = tmp_path / "a.txt"
    with write_atomically(file) as first, first.open("w") as out:
        out.write("first, which is longer")
        with write_atomically(file) as second:
            second.write_text("second")
        assert file.read_text() == "second"
    assert file.read_text() == "first, which is longer" and not has_incomplete(tmp_path)


@pytest.mark.parametrize("has_links", [True, False])
def test_a_second_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("content")
    second.write_text("before")
    if not has_links:

        def refuse(*names: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    link_or_copy(first, second)
    assert second.read_text() == "content" and second.samefile(first) is has_links
    assert sorted(each.name for each in tmp_path.iterdir()) == ["first", "second"]


def test_a_message_fits_on_one_line() -> None:
    assert one_line(ValueError("a\n  b\tc\x1b[2J")) == r"a b c\x1b[2J"

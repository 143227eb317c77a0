"""MkDocs hooks of the documentation site (mkdocs.yml): the pages outside docs/, and GitHub's links and anchors.

The pages are written for a reader of the repository. On the site, every page that they link to is a page, every source
file a page with its code, and every folder a list of its files; the links are changed to these.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only MkDocs itself imports this module for its hooks
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
HOME = "README.md"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)")  # [text](link#anchor), except web addresses and bare anchors
_CODE = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```$\n*", flags=re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Headings get the anchors that GitHub gives them."""
    config.mdx_configs["toc"]["slugify"] = github_anchor
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and all that the pages link to, directly or through other pages."""
    waiting = [HOME, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(site_uri(path)) is None and (ROOT / path).exists():
            _add(files, path, config)
        if path.endswith(".md"):
            found = set(linked(path)) - seen
            seen |= found
            waiting += sorted(found)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of a page, to other pages of the site; without diagrams, for which the browser needs the network."""
    if page.file.abs_src_path is None:  # written by this module
        return markdown
    path = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    here = posixpath.dirname(page.file.src_uri)
    return _with_links(
        _DIAGRAM.sub("", markdown), lambda link: posixpath.relpath(site_uri(_target(path, link)), here or ".")
    )


def github_anchor(heading: str, separator: str = "-") -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def site_uri(path: str) -> str:
    """Where the site has a file or folder of the repository, as a path below its root."""
    file = ROOT / path
    if file.is_dir():
        return site_uri(f"{path}/README.md") if (file / "README.md").exists() else f"{path}/index.md"
    if file.suffix == ".md" and file.with_suffix(".html").exists():  # a report, which is better to read as that
        return f"{path.removesuffix('.md')}.html"
    return path.removeprefix("docs/") + (".md" if file.suffix in LANGUAGES else "")


def linked(path: str) -> Iterator[str]:
    """The files and folders of the repository that a page links to."""
    targets: list[str] = []
    _with_links((ROOT / path).read_text(encoding="utf-8"), lambda link: targets.append(_target(path, link)) or link)
    yield from targets


def _target(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _with_links(markdown: str, change: Callable[[str], str]) -> str:
    """A page with other targets of its relative links, outside blocks of code."""
    parts = _CODE.split(markdown)  # the odd ones are code
    parts[::2] = [_LINK.sub(lambda match: change(match[1]), text) for text in parts[::2]]
    return "".join(parts)


def _add(files: Files, path: str, config: MkDocsConfig) -> None:
    from mkdocs.structure.files import File

    uri, file = site_uri(path), ROOT / path
    if file.is_dir() and uri.endswith("index.md"):
        files.append(File.generated(config, uri, content=_listing(file)))
        for below in _files_below(file):
            _add(files, below.relative_to(ROOT).as_posix(), config)
    elif file.suffix in LANGUAGES:
        files.append(File.generated(config, uri, content=_source(file)))
    else:
        real = ROOT / uri if uri.endswith(".html") else file
        files.append(File.generated(config, uri, abs_src_path=str(real)))


def _files_below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _listing(folder: Path) -> str:
    name = folder.relative_to(ROOT).as_posix()
    lines = ["---", "search: {exclude: true}", "---", f"# {name}/", ""]
    for file in _files_below(folder):
        uri = site_uri(file.relative_to(ROOT).as_posix())
        lines.append(f"- [`{file.relative_to(folder).as_posix()}`]({posixpath.relpath(uri, name)})")
    return "\n".join([*lines, ""])


def _source(file: Path) -> str:
    path = file.relative_to(ROOT).as_posix()
    code = file.read_text(encoding="utf-8")
    return f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n``````{LANGUAGES[file.suffix]}\n{code}\n``````\n"

"""The documentation site: its pages, links, API reference, badges, pictures and citation."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex

from recbole_posattn import __version__

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
REFERENCE = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
DOCUMENTED = re.findall(r"^::: ([\w.]+)$", REFERENCE, flags=re.MULTILINE)
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def docs_module(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = docs_module("site_hooks")


def pages_of(nav: object) -> list[str]:
    """The pages of a navigation, wherever in it."""
    if isinstance(nav, str):
        return [nav]
    return [page for each in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(each)]


# -- pages and links -------------------------------------------------------------------------------------------------


def test_every_page_of_docs_is_in_the_navigation() -> None:
    listed = pages_of(SETTINGS["nav"])
    assert len(set(listed)) == len(listed)
    assert {hooks.site_uri(page.relative_to(ROOT).as_posix()) for page in PAGES} <= set(listed)
    assert SETTINGS["strict"] and set(SETTINGS["validation"]["links"].values()) == {"warn"}


def test_no_two_files_have_the_same_place_on_the_site() -> None:
    paths = {path for page in PAGES for path in hooks.linked(page.relative_to(ROOT).as_posix())}
    assert {"results/README.md", "docs/images/inspect_evolution.png", "properties/protocol"} <= paths
    files = {path for path in paths if (ROOT / path).is_file()}
    assert len({hooks.site_uri(path) for path in files}) == len(files)


@pytest.mark.parametrize(
    ("path", "uri"),
    {
        "docs/training.md": "training.md",
        "README.md": "README.md",
        "benchmarks": "benchmarks/README.md",  # a folder with a page of its own
        "properties/protocol": "properties/protocol/index.md",  # one without
        "docs/reference_model.py": "reference_model.py.md",
        "docs/images/badge_python.svg": "images/badge_python.svg",
        "results/encodings_ml-100k_temporal/leaderboard.md": "results/encodings_ml-100k_temporal/leaderboard.html",
    }.items(),
)
def test_where_the_site_has_a_file(path: str, uri: str) -> None:
    assert (ROOT / path).exists() and hooks.site_uri(path) == uri


# -- API reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_reference_names_what_exists(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        assert vars(importlib.import_module(module))[member].__doc__


def test_the_reference_has_what_the_pages_import_and_all_public_names() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES if page.parent.name != "reference"]
    imports = re.findall(r"^from (recbole_posattn[\w.]*) import ([\w, ]+)", "\n".join(texts), flags=re.MULTILINE)
    assert len(imports) > 8
    modules = set(DOCUMENTED)
    for module, names in imports:
        for name in (each.strip() for each in names.split(",")):
            value = getattr(importlib.import_module(module), name)
            defined = f"{value.__module__}.{value.__name__}"
            assert defined in modules or value.__module__ in modules, defined
    public = importlib.import_module("recbole_posattn").__all__
    assert {name.rpartition(".")[2] for name in DOCUMENTED} >= set(public) - {"__version__"}


# -- badges, citation and pictures -----------------------------------------------------------------------------------


def test_badges_say_what_pyproject_says() -> None:
    badges = docs_module("badges")
    drawn = badges.drawn()
    assert [file for file, svg in drawn.items() if file.read_text(encoding="utf-8") != svg] == [], "docs/badges.py"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shown = dict(re.findall(r"!\[(\w+) ([^]]+)\]\(docs/images/badge_\w+\.svg\)", readme))
    assert {name.lower(): value for name, value in shown.items()} == badges.facts(project)
    assert not re.search(r"!\[[^]]*\]\(https?:", readme)  # a badge of a service is neither true nor shown offline


def test_citation_names_this_version_and_the_paper_of_the_readme() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["version"] == __version__
    assert {"message", "title", "authors"} <= set(citation) and citation["license"] == "MIT"
    paper = citation["preferred-citation"]
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    bibtex = dict(re.findall(r"(\w+) = \{([^}]*)\}", readme.split("```bibtex")[1].split("```")[0]))
    expected = {"title": paper["title"], "author": authors, "journal": paper["journal"], "year": str(paper["year"])}
    assert bibtex == expected
    assert bibtex["journal"].split(":")[1] in paper["url"] and paper["doi"].endswith(bibtex["journal"].split(":")[1])


def test_lag_curves_are_the_means_of_the_runs() -> None:
    gallery = docs_module("gallery")
    rows = [
        {"model": model, "run": run, "layer": layer, "lag": lag, "bias": -lag * layer * slope - run}
        for model, slope in (("PosKernelSASRec", 0.5), ("RoPESASRec", 2.0))
        for run in (0, 1)
        for layer in (1, 2)
        for lag in range(3)
    ]
    figure = gallery.draw_lag_curves(pd.DataFrame(rows))
    first, second = figure.axes
    kernel, rope = second.lines[:2]
    assert [axis.get_title() for axis in figure.axes] == ["layer 1", "layer 2"]
    assert (kernel.get_label(), rope.get_label()) == ("PosKernel", "RoPE")
    assert list(kernel.get_ydata()) == [-0.5, -1.5, -2.5] and list(rope.get_ydata()) == [-0.5, -4.5, -8.5]
    assert to_hex(first.lines[0].get_color()) == to_hex(kernel.get_color())


# -- the built site --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="MkDocs is not installed: make docs")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", f"--config-file={ROOT / 'mkdocs.yml'}"]
    done = subprocess.run([*command, f"--site-dir={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="gallery/#a-leaderboard"' in home and 'src="images/gallery_lags.png"' in home
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(https?:)?//', page.read_text("utf-8"))
        assert loaded == [], page
    entries = json.loads((tmp_path / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    places = {entry["location"] for entry in entries}
    assert {"", "extend/#plugins", "reference/#recbole_posattn.training.run.run"} <= places
    assert not any(place.startswith("tests/") for place in places)  # code would hide the pages
    reference = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    assert ":func:`" not in reference and ":class:`" not in reference

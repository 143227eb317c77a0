"""The pages: the README's length, links between pages, and the tables of keys against the properties and defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from recbole_posattn import Config

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results/README.md", ROOT / "benchmarks/README.md"])


def without_code(text: str) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows_below(page: str, heading: str) -> dict[str, object]:
    """Key and default of each row with a single key and a default in the section of that heading, a page's ``## …``."""
    section = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {key: yaml.safe_load(value) for key, value in re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, flags=re.M)}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_readme_links_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    others = [page.relative_to(ROOT).as_posix() for page in PAGES if page.name != "README.md" or page.parent != ROOT]
    assert [page for page in others if f"]({page})" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    broken = []
    for link in links:
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_tables_are_whole() -> None:
    """A blank line within a table makes text of the rows below it, and so does a row with too few cells."""
    broken = []
    for page in (*PAGES, *ROOT.glob("results/*.md"), *ROOT.glob("results/*/*.md")):
        for table in re.findall(r"(?:^\|.*\n)+", without_code(page.read_text(encoding="utf-8")) + "\n", flags=re.M):
            rows = [re.findall(r"(?<!\\)\|", row) for row in table.splitlines()]
            is_whole = re.match(r".*\n\|[ :|-]+\|\n", table) and len({*map(len, rows)}) == 1
            broken += [] if is_whole else [f"{page.relative_to(ROOT)}: {table[:60]}"]
    assert broken == []


def test_table_of_keys_matches_the_properties() -> None:
    text = (ROOT / "properties" / "model" / "PosKernelSASRec.yaml").read_text(encoding="utf-8")
    defaults = {key: yaml.safe_load(value) for key, value in re.findall(r"^(\w+): (.+?) +#", text, flags=re.M)}
    assert rows_below("docs/settings.md", "Keys of PosKernelSASRec") == defaults
    assert set(defaults) == set(yaml.safe_load(text))


def test_tables_of_training_and_evaluation_have_the_defaults() -> None:
    training = ("Speed", "Score and regularization", "Optimizer", "Resuming")
    sections = (*(("docs/training.md", heading) for heading in training), ("docs/evaluation.md", "Keys"))
    rows = {key: default for section in sections for key, default in rows_below(*section).items()}
    config = Config("PosKernelSASRec", "ml-100k", command_line=[])
    assert rows == {key: config[key] for key in rows}
    of_every_model = yaml.safe_load((ROOT / "properties" / "overall.yaml").read_text(encoding="utf-8"))
    assert set(of_every_model) - {"plugins"} <= set(rows)
    assert "`plugins: [" in (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    assert rows_below("docs/settings.md", "Keys of every model") == of_every_model


def test_pre_commit_has_the_ruff_of_the_constraints() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [f"ruff=={repo['rev'].removeprefix('v')}" for repo in hooks if "ruff" in repo["repo"]] == [
        line for line in constraints if line.startswith("ruff==")
    ]

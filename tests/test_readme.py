"""The README's tables of keys say what the properties and the resolved settings say."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from recbole_posattn import Config

ROOT = Path(__file__).parent.parent


def rows_below(heading: str) -> dict[str, object]:
    """Key and default of each row with a single key and a default in the README's section of that heading."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n##")[0]
    return {key: yaml.safe_load(value) for key, value in re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, flags=re.M)}


def test_table_of_keys_is_that_of_the_properties() -> None:
    text = (ROOT / "properties" / "model" / "PosKernelSASRec.yaml").read_text(encoding="utf-8")
    defaults = {key: yaml.safe_load(value) for key, value in re.findall(r"^(\w+): (.+?) +#", text, flags=re.M)}
    assert rows_below("Keys of PosKernelSASRec") == defaults
    assert set(defaults) == set(yaml.safe_load(text))


def test_tables_of_the_engine_and_the_evaluation_have_the_defaults() -> None:
    headings = ("Fast, on one machine or several", "Stopped, and taken up again", "Evaluate by a protocol")
    rows = {key: default for heading in headings for key, default in rows_below(heading).items()}
    config = Config("PosKernelSASRec", "ml-100k", command_line=[])
    assert rows == {key: config[key] for key in rows}
    assert set(yaml.safe_load((ROOT / "properties" / "overall.yaml").read_text(encoding="utf-8"))) <= set(rows)

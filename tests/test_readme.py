"""The README's table of keys says what the properties say."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_table_of_keys_is_that_of_the_properties() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    text = (ROOT / "properties" / "model" / "PosKernelSASRec.yaml").read_text(encoding="utf-8")
    defaults = {key: yaml.safe_load(value) for key, value in re.findall(r"^(\w+): (.+?) +#", text, flags=re.M)}
    assert {key: yaml.safe_load(value) for key, value in rows} == defaults
    assert set(defaults) == set(yaml.safe_load(text))

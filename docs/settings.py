"""Write the tables of docs/settings.md and the comments of our property files: ``python docs/settings.py``.

They come from the package's table of keys; defaults and descriptions of RecBole's keys come from its property files.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole_posattn.settings.catalogue import recbole_comments, recbole_defaults
from recbole_posattn.settings.key import Key, Source
from recbole_posattn.settings.keys import CHANGEABLE, KEYS, RESUMABLE, SAME_IN_ALL_ROWS, WITHOUT_EFFECT_ON_RESULT
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.rules import LARGEST
from recbole_posattn.settings.single_model_keys import SINGLE_MODEL_KEYS
from recbole_posattn.settings.yaml import default_text

PAGE = Path(__file__).parent / "settings.md"
BEGIN, END = "<!-- keys: python docs/settings.py -->", "<!-- end of keys -->"
_HEAD = "| key | default | what it is | allowed | on resume |\n| --- | --- | --- | --- | --- |"


def _markdown(text: str) -> str:
    """Text as Markdown: names in single quotes as code, and signs with a meaning in Markdown escaped."""
    parts = re.split(r"'([^' ]+)'", text)  # every second part was quoted
    return "".join(f"`{part}`" if index % 2 else re.sub(r"([|<*~])", r"\\\1", part) for index, part in enumerate(parts))


def _allowed(key: Key) -> str:
    if key.rule is None:
        return ""
    limited = key.rule.maximum not in (None, LARGEST)
    return _markdown(key.rule.allowed) + (f"; at most {key.rule.maximum:,}" if limited else "")


def _row(key: Key, default: Any, comment: str) -> str:
    doc = _markdown(re.sub(r"^\(.*?\) +", "", comment))
    on_resume = {"no": "", "yes": "may change", "recorded": "may change, recorded"}[key.resumable]
    return f"| `{key.name}` | `{default_text(default)}` | {doc} | {_allowed(key)} | {on_resume} |"


def _table(keys: Iterable[Key]) -> str:
    return "\n".join([_HEAD, *(_row(key, key.default, key.doc) for key in keys)])


def _recbole_table() -> str:
    defaults, comments = recbole_defaults(), recbole_comments()
    rows = [_row(key, defaults[key.name], comments[key.name]) for key in KEYS.values() if key.source is Source.RECBOLE]
    rows += [_row(key, key.default, key.doc) for key in KEYS.values() if key.source is Source.UNLISTED and key.rule]
    return "\n".join([_HEAD, *rows])


def _names(names: Iterable[str]) -> str:
    derived = {key.name for key in KEYS.values() if key.source is Source.RESOLVED}
    return ", ".join(f"`{name}`" for name in sorted(set(names) - derived))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def tables() -> str:
    """The part of the page that is generated."""
    of_single = {key.name for key in SINGLE_MODEL_KEYS}
    of_models = [key for key in KEYS.values() if key.source is Source.MODEL and key.name not in of_single]
    of_runs = [key for key in KEYS.values() if key.source is Source.OVERALL]
    parts = [
        "## Keys of PosKernelSASRec",
        "The defaults are in [`properties/model/PosKernelSASRec.yaml`](../properties/model/PosKernelSASRec.yaml). The "
        "other models of this package have the keys that apply to them: the models of single encodings with the same "
        "defaults (SinusoidalSASRec with the paper's block), the published models (FMLPRec, BSARec, TVRec, ESASRec, "
        "HSTU, TiSASRec) with their authors' "
        "defaults. A key that a model does not have is refused.",
        _table(of_models),
        "## Keys of single models",
        "Each key belongs to some of the published models, see [models.md](models.md).",
        _table(SINGLE_MODEL_KEYS),
        "## Keys of every model",
        "This package adds these keys; they also apply to RecBole's own models.",
        _table(of_runs),
        "## RecBole's keys",
        "These keys mean what they mean in RecBole; the descriptions and defaults are RecBole's. Their values are "
        "checked before anything is loaded. For sequential models, RecBole itself sets `repeatable: True` and "
        "`eval_args: {split: {LS: valid_and_test}, order: TO, mode: full}`.",
        _recbole_table(),
        "## What may change when a run is resumed",
        f"A resumed run (`--resume`) keeps its settings. These may be changed: {_names(RESUMABLE)}.",
        f"These may be changed explicitly; the checkpoint and `result.json` record the change: {_names(CHANGEABLE)}.",
        "## What is the same in all rows and trials",
        "A protocol sets keys of the evaluation and of the data. The rows of a leaderboard and the trials of a search "
        f"may not differ in these: {_names(SAME_IN_ALL_ROWS)}. A search also cannot draw keys that do not change a "
        "result.",
        "## What does not change a result",
        "Leaderboards and tuning reuse a finished run if its settings differ only in these keys: "
        f"{_names(WITHOUT_EFFECT_ON_RESULT)}. They identify the data by its contents, not its path.",
    ]
    return "\n\n".join(part if part[0] in "#|" else _paragraph(part) for part in parts)


def drawn_page(page: str) -> str:
    """docs/settings.md with its tables written anew."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def property_files() -> list[Path]:
    """Our property files whose keys the table describes."""
    return [PROPERTIES / "overall.yaml", *sorted((PROPERTIES / "model").glob("*.yaml"))]


def commented(properties: str) -> str:
    """The text of a property file with the comment of each key from the table; RecBole's keys keep theirs."""

    def comment(line: re.Match[str]) -> str:
        return line[1] + (KEYS[line[2]].doc or line[3])

    return re.sub(r"^((\w+): .*? +# )(.*)$", comment, properties, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(drawn_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for file in property_files():
        file.write_text(commented(file.read_text(encoding="utf-8")), encoding="utf-8")

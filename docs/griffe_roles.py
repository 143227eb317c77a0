"""A griffe extension for the API reference: the roles of our docstrings, such as :func:`load`, become links."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, NameResolutionError, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([\w.]+)`")


class Roles(Extension):
    """Links a role to its object where the reference has it; other names stay code."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda match: _link(obj, match[1]), obj.docstring.value)


def _link(obj: Object, name: str) -> str:
    try:
        path = obj.resolve(name)
    except NameResolutionError:
        path = name
    short = name.rpartition(".")[2] if name.startswith("recbole_posattn.") else name
    return f'<autoref optional identifier="{path}"><code>{short}</code></autoref>'

"""A key of the settings, and all that the package knows about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.rules import Rule

Phase = Literal["training", "evaluation"]


class Source(enum.Enum):
    """Where the default of a key comes from."""

    MODEL = "a file of properties/model/"
    OVERALL = "properties/overall.yaml"
    RECBOLE = "RecBole's property files"
    UNLISTED = "RecBole's code; no property file names the key"
    NAME = "the caller, by the names of a model and a data set"
    LAUNCHER = "the launcher: the key is an argument of run and of the command line"
    RESOLVED = "the other settings: the key cannot be given"


class Scope(enum.Enum):
    """What a key decides. Runs that are compared differ in the model, its training and the columns that it reads."""

    RUN = "which run it is"
    TRAINING = "the model and its training"
    DATA = "the columns that are read, and how"
    EVALUATION = "the interactions that there are, and how they are held out, ranked and measured"
    EXECUTION = "how and where a run is executed, and what it writes and prints"


# The value of a new key whose default gives the results of the versions without it.
AS_DEFAULT: Any = object()


@dataclass(frozen=True)
class Key:
    """A key of the settings.

    Attributes:
        name: As in a YAML file.
        rule: What it may be; ``None`` if that is not checked by a rule.
        default: Of :attr:`Source.MODEL`, :attr:`Source.OVERALL` and :attr:`Source.UNLISTED`.
        doc: Its type in parentheses and what it is, as in the comment of the property file; empty for the keys
            that RecBole's property files describe.
        resumable: Whether it may change when a run is resumed. ``recorded``: only if the user names it, and the change
            is kept on record, because the final settings alone no longer say how the run was trained.
        changes_result: Whether it changes the result of a run, not just where the run takes place or what it prints.
        source: Where its default comes from.
        scope: What it decides.
        sizes: The phases of a run that need more memory if it is larger.
        filters_rows: Whether it leaves out interactions of a file.
        names_settings: Whether it names a set of settings, perhaps a file. Runs are compared by these settings.
        before: The value that reproduces the results of versions without the key. It is assumed for finished runs whose
            record lacks the key.
    """

    name: str
    rule: Rule | None = None
    default: Any = None
    doc: str = ""
    resumable: Literal["no", "yes", "recorded"] = "no"
    changes_result: bool = True
    source: Source = Source.MODEL
    scope: Scope = Scope.TRAINING
    sizes: tuple[Phase, ...] = ()
    filters_rows: bool = False
    names_settings: bool = False
    before: Any = AS_DEFAULT


def rules_of(keys: Iterable[Key]) -> dict[str, Rule]:
    """The rules of keys that have one, by name."""
    return {key.name: key.rule for key in keys if key.rule is not None}


def own_key(name: str, rule: Rule | None, default: Any, doc: str, scope: Scope, **known: Any) -> Key:
    """A key that this package adds for every model; see :class:`Key`."""
    return Key(name, rule, default, doc, source=Source.OVERALL, scope=scope, **known)

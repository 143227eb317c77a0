"""Trials of earlier searches that a new search of the same definition need not run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_posattn.errors import SettingError, typed
from recbole_posattn.experiments.identity import Identity, identify
from recbole_posattn.experiments.records import OTHER_RESULTS, had_enough_time
from recbole_posattn.experiments.tuning.records import (
    FINISHED,
    PRUNED,
    SEARCH_NAME,
    TrialRecord,
    differing_fields,
    read_definition,
    read_records,
)
from recbole_posattn.experiments.tuning.spec import Search
from recbole_posattn.files import json_text
from recbole_posattn.reporting.terminal import print_line
from recbole_posattn.training.result import INPUT_KEYS

# What two searches must share beside the settings and the data.
_DEFINITION = ("space", "algorithm", "scheduler", "grace_period")


def search_identity(search: Search) -> Identity:
    """What is the same for all trials of a search, wherever it runs: the settings that are not searched, and the data.

    Raises:
        SettingError: If the settings are invalid.
        DataError: If the data set cannot be read.
    """
    identity = identify(search.settings)
    if search.decides_encodings(identity.defaults):
        identity.settings["position_encoding"] = "auto"
    fixed, defaults = (
        {key: value for key, value in side.items() if key not in search.space.keys}
        for side in (identity.settings, identity.defaults)
    )
    return identity._replace(settings=fixed, defaults=defaults)


def data_of_trials(search: Search, identity: Identity) -> str | None:
    """The digest of the data of all trials; ``None`` if they draw keys on which it depends.

    Args:
        search: The search.
        identity: Its identity.
    """
    return identity.data if INPUT_KEYS.isdisjoint(search.space.keys) else None


def check_same_search(search: Search, now: Identity, folder: Path) -> None:
    """Check that a search of the same definition in a folder, if there is one, has the same settings and data.

    The defaults may be others, if it was started with another version of this package.

    Args:
        search: The search.
        now: Its identity.
        folder: Of the search to be continued.

    Raises:
        SettingError: If they differ.
    """
    before = _definition(folder / SEARCH_NAME)
    if before is None or differing_fields(before, search.plain()):
        return
    then = before["identity"]
    why = ""
    if then.get("results_version") != now.version:
        why = "its trials come from a version of this package that computes different results"
    elif then.get("data_digest") != now.data:
        why = "the data set has changed since"
    elif differing := now.differences(then["config"]):
        key, (old, new) = next(iter(differing.items()))
        why = f"its trials had {key} {typed(old)}, and new ones would have {typed(new)}"
    elif not _had_enough_time(before, search):
        why = "its trials were stopped earlier than new ones would be, by their max_minutes"
    if why:
        raise SettingError(f"the search in {folder} cannot be continued: {why}; give another --output.")


def earlier_trials(search: Search, folders: Sequence[Path], own: Path, console: Console) -> list[TrialRecord]:
    """The finished and pruned trials of earlier searches with the same definition, data and version of the results.

    Args:
        search: The new search.
        folders: Searches are looked for in these folders and all below them.
        own: The folder of the new search, which is left out.
        console: Gets a line for each search whose trials have another version of the results.

    Returns:
        The trials, each with the folder of its search as ``source``; those of the longest search first, and of equal
        settings one.
    """
    identity, definition = search_identity(search), json.loads(json_text(search.plain()))
    found: list[tuple[Path, list[TrialRecord]]] = []
    files = {file.resolve(): file for folder in folders for file in sorted(folder.rglob(SEARCH_NAME))}
    for file in files.values():
        if file.parent.resolve() == own.resolve():
            continue
        before = _definition(file)
        if before is None or any(before.get(key) != definition[key] for key in _DEFINITION):
            continue
        if not identity.is_of(before["identity"]):
            continue
        if not _had_enough_time(before, search):
            continue
        if before["identity"].get("results_version") != identity.version:
            print_line(console, f"{file.parent}: its trials are not reused: {OTHER_RESULTS}")
            continue
        ended = [record for record in read_records(file.parent) if record.state in (FINISHED, PRUNED)]
        found.append((file.parent, sorted(ended, key=lambda record: record.number)))
    trials: list[TrialRecord] = []
    for folder, records in sorted(found, key=lambda one: -len(one[1])):
        known = [record.settings for record in trials]
        new = [record._replace(source=str(folder)) for record in records if record.settings not in known]
        trials += new[: max(0, search.n_trials - len(trials))]
    return trials


def _had_enough_time(before: Mapping[str, Any], search: Search) -> bool:
    """Whether the trials of an earlier search could train as long as those of a new one."""
    return had_enough_time(before["settings"].get("max_minutes"), search.settings.get("max_minutes"))


def _definition(file: Path) -> Mapping[str, Any] | None:
    """The content of a ``search.json``; ``None`` if it cannot be read, or is of a version that stored no identity."""
    content = read_definition(file) or {}
    identity = content.get("identity")
    has_identity = isinstance(identity, dict) and isinstance(identity.get("config"), dict)
    return content if has_identity and "settings" in content else None

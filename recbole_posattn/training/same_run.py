"""Compare the settings and the data of an existing run with the current ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_posattn.data.digest import data_contents
from recbole_posattn.data.text import plain_encoding
from recbole_posattn.errors import CheckpointError, counted, shown
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.keys import (
    DERIVED_KEYS,
    LAUNCHER_ARGUMENTS,
    RESUMABLE,
    UNLISTED_RECBOLE_KEYS,
    value_before,
)
from recbole_posattn.settings.recipe_checks import epochs_key, resolved_histories
from recbole_posattn.training.checkpoint import explain_checkpoint_errors
from recbole_posattn.training.run_folder import LAST_NAME


def setting_differences(
    content: Mapping[str, Any], given: Config, settings: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, Any]]:
    """The settings in which a run differs from the current ones.

    A key that is missing because it was not given counts with its default. A key that the version of the run did not
    have counts with the value that continues its results. ``auto`` equals the value that it resolves to.

    Args:
        content: Content of a checkpoint of the run.
        given: The current settings.
        settings: What to compare instead of all current settings, such as those of the run with some given ones.

    Returns:
        The old and the current value by key, without the keys of :data:`recbole_posattn.settings.keys.RESUMABLE`.
    """
    before, now, defaults = content["config"], settings or given.plain(), given.defaults()
    of_keys = given.defaults(of_keys=True)  # a run without a key had no preset with it
    comes_to = [resolved_histories(side) for side in (before, now)]
    # Some keys are added during a run, by RecBole's transforms for instance, and are not settings.
    given_before = set(content["training"].get("given", UNLISTED_RECBOLE_KEYS))
    keys = (now.keys() | (given_before & before.keys())) - RESUMABLE - LAUNCHER_ARGUMENTS
    keys -= {key for key in DERIVED_KEYS if key not in before or key not in now}
    differences = {}
    for key in sorted(keys):
        old, new = before.get(key, value_before(key, of_keys)), now.get(key, defaults.get(key))
        if key == "encoding":
            old, new = (plain_encoding(str(value or defaults[key])) for value in (old, new))
        if old != new and comes_to[0].get(key, old) != comes_to[1].get(key, new):
            differences[key] = (old, new)
    return differences


def lowered_limits(content: Mapping[str, Any], given: Config) -> dict[str, tuple[int, int]]:
    """The limits of training that are lower now and could have ended the run earlier.

    Args:
        content: Content of a checkpoint of the run.
        given: The current settings.

    Returns:
        ``epochs``, if the run has trained more, with that number, and ``stopping_step``, if the run had more; the old
        and the current value by key.
    """
    before = {
        epochs_key(given.plain()): int(content["epoch"]) + 1,
        "stopping_step": content["config"]["stopping_step"],
    }
    return {key: (value, given[key]) for key, value in before.items() if given[key] < value}


def shown_differences(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """The result of :func:`setting_differences` in words."""
    first = [f"{key} {shown(before)}, not {shown(now)}" for key, (before, now) in list(differing.items())[:3]]
    return ", ".join(first) + (f", and {len(differing) - 3} more" if len(differing) > 3 else "")


def check_data(folder: Path, content: Mapping[str, Any], config: Config) -> None:
    """Check that a run continues with the data that it was trained on, wherever they are stored now.

    Args:
        folder: The folder of the run.
        content: Content of its last checkpoint.
        config: The current settings.

    Raises:
        CheckpointError: If the contents of a file have changed.
    """
    before = content.get("data")
    if before is None:
        logging.getLogger().info(
            f"The run in {folder} was started by a version that stored no digest of its data: only its users and "
            "items are compared"
        )
        return
    with explain_checkpoint_errors(folder / LAST_NAME):
        changes = changed_data(before, config)
    if changes:
        raise CheckpointError(
            f"the data in {config['data_path']} have changed since the run in {folder} began: {'; '.join(changes)}. "
            "Name the folder of the old data with --data_path to continue it, or leave --resume out to start a new run"
        )


def changed_data(before: Mapping[str, Any], config: Config) -> list[str]:
    """How the files of a data set differ from those of a run, a sentence for each.

    Args:
        before: Those of the run, as :func:`data_contents` returned them.
        config: The current settings.
    """
    now = data_contents(config)
    return [
        _change_of_file(name, before.get(name), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _change_of_file(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    if before is None or now is None:
        return f"{name} is {'new' if before is None else 'missing'}"
    if before["rows"] != now["rows"]:
        return f"{name} has {counted(now['rows'], 'row')}, not {before['rows']:,}"
    return f"{name} has {counted(now['rows'], 'row')} as before, but other contents"

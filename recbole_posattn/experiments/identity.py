"""What identifies the result of a run: its resolved settings, the contents of its data and the version of the results.

Two runs of the same identity have the same result. An identity is compared in two ways: by its fingerprint, which names
the folder of a run, and key by key with the settings in the record of an earlier run, which may lack keys that were
added since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data.text import plain_encoding
from recbole_posattn.files import json_text
from recbole_posattn.settings.checks import PRETRAINED
from recbole_posattn.settings.combinations import reads_padded_histories
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.keys import ADDED_IN_TRAINING, NAMES_OF_SETTINGS, WITHOUT_EFFECT_ON_RESULT, value_before
from recbole_posattn.settings.recipe_checks import resolved_histories
from recbole_posattn.training.result import digest_of_inputs, results_version

# A protocol or preset may be a file anywhere; the keys that it sets are compared themselves. So are the contents of a
# pretrained model, see digest_of_inputs.
_IGNORED = WITHOUT_EFFECT_ON_RESULT | NAMES_OF_SETTINGS | {PRETRAINED}

_ABSENT = object()


class Identity(NamedTuple):
    """What identifies the result of a run.

    Attributes:
        settings: The resolved settings that change a result, as plain data.
        defaults: The default of each key, whatever the preset and the protocol set.
        data: Digest of the contents of the data set, and of the pretrained model if there is one.
        version: See :func:`recbole_posattn.training.result.results_version`.
    """

    settings: dict[str, Any]
    defaults: dict[str, Any]
    data: str
    version: int

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits, a hash of the settings, the data and the version."""
        text = json.dumps([self.version, self.settings, self.data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def plain(self) -> dict[str, Any]:
        """As in the record of a run, for :meth:`is_of`."""
        return {"config": self.settings, "data_digest": self.data, "results_version": self.version}

    def is_of(self, result: Mapping[str, Any]) -> bool:
        """Whether a finished run has this identity, whatever its version of the results.

        A key that the run lacks was added after it; it counts with the value whose results are those of a version
        without the key.

        Args:
            result: The content of its ``result.json``.
        """
        return result.get("data_digest") == self.data and not self.differences(result["config"])

    def differences(self, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """The settings of an earlier run that differ from these: the old and the new value by key."""
        before = relevant(settings)
        for key in {"trim_padding", *ADDED_IN_TRAINING} - self.settings.keys():
            before.pop(key, None)
        differing = {}
        for key in sorted(self.settings.keys() | before.keys()):
            values = before.get(key, value_before(key, self.defaults, _ABSENT)), self.settings.get(key, _ABSENT)
            if values[0] != values[1]:
                differing[key] = values
        return differing


def relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change a result, as JSON gives them back."""
    resolved = {**settings, **resolved_histories(settings)}  # "auto" counts as the value that it resolves to
    if resolved.get("encoding"):  # a record does not say whether the file has a byte order mark
        resolved["encoding"] = plain_encoding(resolved["encoding"])
    return json.loads(json_text({key: value for key, value in resolved.items() if key not in _IGNORED}))


def identify(settings: Mapping[str, Any]) -> Identity:
    """The identity of a run. A missing data set is downloaded.

    Args:
        settings: Of the run.

    Raises:
        SettingError: If the settings are invalid.
        DataError: If the data set cannot be read.
    """
    config = Config(config_dict=settings, command_line=[])
    ensure_atomic_files(config)
    matter, defaults = relevant(config.plain()), config.defaults(of_keys=True)
    for key, value in matter.items():
        if isinstance(defaults.get(key), float) and isinstance(value, int) and not isinstance(value, bool):
            matter[key] = float(value)  # 0 and 0.0 are one value, and have one fingerprint
    if not reads_padded_histories(config):
        matter.pop("trim_padding", None)
    return Identity(matter, defaults, digest_of_inputs(config), results_version(config.plain()))


def fingerprint(settings: Mapping[str, Any]) -> str:
    """The :attr:`Identity.fingerprint` of a run; for the errors, see :func:`identify`."""
    return identify(settings).fingerprint

"""What a search may be: its algorithm, scheduler and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.experiments.tuning.space import Space
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.extensions import check_known_in_workers
from recbole_posattn.settings.plain import plain_data


class Search(NamedTuple):
    """A search to be done.

    Attributes:
        settings: What is not searched: ``model``, ``dataset`` and whatever differs from the defaults.
        space: What is searched.
        n_trials: Settings to try; a grid tries all of its own.
        algorithm: ``tpe`` or ``random``, both by Optuna, or ``grid``.
        scheduler: ``asha`` stops trials that are behind the best third of those that came as far, ``none`` stops none.
        grace_period: Epochs that ``asha`` leaves every trial.
    """

    settings: Mapping[str, Any]
    space: Space
    n_trials: int
    algorithm: str = "tpe"
    scheduler: str = "asha"
    grace_period: int = 15

    def total(self, config: Config) -> int:
        """How many trials there will be; ``config`` are the settings that hold where they are not searched."""
        return len(self.space.grid(config.plain())) if self.algorithm == "grid" else self.n_trials

    def plain(self) -> dict[str, Any]:
        """What makes it this search and no other, as plain data; the number of trials may grow."""
        fields = {"settings", "algorithm", "scheduler", "grace_period"}
        plain = {key: value for key, value in self._asdict().items() if key in fields}
        return plain_data({**plain, "space": self.space.plain()})


def check_search(search: Search) -> Config:
    """See that a search can be done.

    Returns:
        The settings that hold where they are not searched.

    Raises:
        SettingError: If a setting, or a key of the space, cannot be used.
        DataError: If the data set cannot.
    """
    check_known_in_workers(search.settings)
    for dimension in search.space.dimensions:
        check_known_in_workers({dimension.key: dimension.values})
    config = Config(config_dict=search.settings, command_line=[])
    ensure_atomic_files(config)
    search.space.check(config, "search space")
    search.total(config)  # not everything has a grid
    return config

"""The definition of a search: settings, space, algorithm, scheduler and limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.tuning.space import Space
from recbole_posattn.reporting.names import setting_text
from recbole_posattn.settings.checks import validates
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.encodings import DECIDE_ENCODINGS
from recbole_posattn.settings.keys import SAME_IN_ALL_ROWS
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.settings.plugins import KEY as PLUGINS
from recbole_posattn.settings.plugins import check_known_in_workers
from recbole_posattn.settings.recipe_checks import resolved_histories

# Points of a search space that are tried; at least one must be compatible with the fixed settings.
_N_CHECKED = 20

# Keys that may be searched, and with 0 of which nothing is validated
_DECIDE_VALIDATION = {"epochs", "eval_step"}


class Search(NamedTuple):
    """The definition of a search.

    Attributes:
        settings: Fixed settings: ``model``, ``dataset`` and whatever differs from the defaults.
        space: The search space.
        n_trials: Number of trials; ignored for a grid, which runs all its points.
        algorithm: ``tpe`` or ``random``, both by Optuna, or ``grid``.
        scheduler: ``asha`` stops trials that are not among the best third at the same epoch, ``none`` stops none.
        grace_period: Epochs before which ``asha`` stops no trial.
    """

    settings: Mapping[str, Any]
    space: Space
    n_trials: int
    algorithm: str = "tpe"
    scheduler: str = "asha"
    grace_period: int = 15

    def total(self, config: Config) -> int:
        """The number of trials; ``config`` has the settings of all keys without a search."""
        return len(self.space.grid(self.fixed(config))) if self.algorithm == "grid" else self.n_trials

    def fixed(self, config: Config) -> dict[str, Any]:
        """All settings without a search, ``config``, as the space reads them.

        ``auto`` is replaced by the value that it resolves to, unless the space has it as a choice. ``position_encoding:
        auto`` stays if the space has a key that decides it: each trial then has its own encodings.
        """
        settings = config.plain()
        given = {**settings, "position_encoding": self._encodings(config.defaults())}
        settings.update(resolved_histories(settings))
        choices = {each.key for each in self.space.dimensions if "auto" in each.values}
        settings |= {key: "auto" for key in choices if given.get(key) == "auto"}
        if self.decides_encodings(config.defaults()):
            settings["position_encoding"] = "auto"
        return settings

    def _encodings(self, defaults: Mapping[str, Any]) -> Any:
        """``position_encoding`` as given; ``None`` if the model does not have it."""
        return self.settings.get("position_encoding", defaults.get("position_encoding"))

    def decides_encodings(self, defaults: Mapping[str, Any]) -> bool:
        """Whether ``position_encoding: auto`` may resolve differently in each trial; ``defaults`` are the model's."""
        return self._encodings(defaults) == "auto" and not set(DECIDE_ENCODINGS).isdisjoint(self.space.keys)

    def plain(self) -> dict[str, Any]:
        """What identifies the search, as plain data: all but the number of trials, which may grow."""
        fields = {"settings", "algorithm", "scheduler", "grace_period"}
        plain = {key: value for key, value in self._asdict().items() if key in fields}
        return plain_data({**plain, "space": self.space.plain()})


def check_search(search: Search) -> Config:
    """Check the definition of a search.

    Returns:
        The settings of all keys without a search.

    Raises:
        SettingError: If a setting, or a key of the space, is invalid, or if no trial can go with the fixed settings.
        DataError: If the data set cannot be read.
    """
    config = Config(config_dict=search.settings, command_line=[])  # imports the plugins
    searched = {dimension.key: dimension.values for dimension in search.space.dimensions}
    check_known_in_workers(search.settings)
    check_known_in_workers({**searched, PLUGINS: search.settings.get(PLUGINS)})
    _check_validates(search, config)
    ensure_atomic_files(config)
    if not search.space.keys:
        raise SettingError(
            f"nothing to search for {config['model']}: its search space has no key that is not given as a setting; "
            "leave a setting out, or give a space with --space=FILE."
        )
    search.space.check(config, "search space")
    _check_presets(search, config)
    search.total(config)  # raises an error if a key has no grid
    _check_points(search, config)
    return config


def _check_validates(search: Search, config: Config) -> None:
    """Refuse a search whose trials would have no score.

    Raises:
        SettingError: Naming the keys.
    """
    settings = config.plain()
    if settings.get("train_stage", "finetune") != "finetune" and "train_stage" not in search.space.keys:
        raise SettingError(
            f"a search compares validation scores, which train_stage {settings['train_stage']} does not have; give "
            "--train_stage=finetune with a --pre_model_path."
        )
    given = {"train_stage": "finetune", **dict.fromkeys(_DECIDE_VALIDATION & {*search.space.keys}, 1)}
    if not validates({**settings, **given}):
        raise SettingError(
            "a search compares validation scores: eval_step and epochs must be at least 1, and eval_args must split "
            f"off a validation set; got eval_step {settings['eval_step']}, epochs {settings['epochs']}, split "
            f"{settings['eval_args']['split']}."
        )


def _check_presets(search: Search, config: Config) -> None:
    """Refuse to draw presets with which trials would be evaluated in different ways.

    Raises:
        SettingError: Naming the preset and its key.
    """
    for preset in (value for each in search.space.dimensions if each.key == "preset" for value in each.values):
        try:
            other = Config(config_dict={**search.settings, "preset": preset}, command_line=[]).plain()
        except SettingError:  # perhaps it needs another key of the space, and its trials fail or not
            continue
        for key in sorted(SAME_IN_ALL_ROWS & other.keys()):
            if other[key] != config.plain()[key]:
                raise SettingError(
                    f"search space: preset {setting_text(preset)} changes {key} to {setting_text(other[key])}, which "
                    f"must be the same in all trials; set it with --{key}=VALUE."
                )


def _check_points(search: Search, config: Config) -> None:
    """Refuse a search in which every trial would fail; a single failure is reported when the trial runs."""
    refused: list[str] = []
    for drawn in itertools.islice(_points(search, search.fixed(config)), _N_CHECKED):
        try:
            Config(config_dict={**search.settings, **drawn}, command_line=[])
            return
        except SettingError as error:
            refused.append(f"with {', '.join(f'{key} {setting_text(value)}' for key, value in drawn.items())}: {error}")
    raise SettingError(
        f"search space: no trial can run with the given settings; {len(refused)} were tried, the first one {refused[0]}"
    )


def _points(search: Search, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Points of the space: those of the grid; else the defaults, if the space has them, and then random ones."""
    if search.algorithm == "grid":
        yield from search.space.grid(fixed)
        return
    defaults = search.space.defaults(fixed)
    if defaults is not None:
        yield defaults
    import optuna  # slow, and seldom needed here

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    while True:
        yield search.space.suggest(study.ask(), fixed)

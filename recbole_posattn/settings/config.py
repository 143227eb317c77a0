"""RecBole's ``Config`` with our defaults, without ``eval``, and with settings checked before anything is loaded."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import fix_tree_settings

import recbole.config
import torch
import yaml
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_posattn import distributed
from recbole_posattn.errors import SettingError, counted, shown
from recbole_posattn.settings import registry
from recbole_posattn.settings.checks import (
    check_caches,
    check_columns,
    check_model_types,
    check_recbole_model,
    check_resolved,
    check_resolved_rules,
    check_stage,
    check_transform,
    check_validation_metric,
)
from recbole_posattn.settings.choices import DEFAULT_DATASET, DEFAULT_MODEL
from recbole_posattn.settings.columns import columns_to_load
from recbole_posattn.settings.combinations import (
    check_attention,
    check_combinations,
    check_model_keys,
    check_whole_sequences,
    resolved_negatives,
)
from recbole_posattn.settings.datasets import ServedConfig, install_dataset_class, knows_histories
from recbole_posattn.settings.encodings import resolve_encodings
from recbole_posattn.settings.eval_args import check_eval_args
from recbole_posattn.settings.evaluation_checks import check_evaluation
from recbole_posattn.settings.intervals import write_intervals
from recbole_posattn.settings.keys import DERIVED_KEYS, KEYS_OF_EVERY_MODEL, UNLISTED_DEFAULTS, value_before
from recbole_posattn.settings.learner import check_learner_args
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.settings.plugins import check_plugins_of_checkpoint, import_plugins, plugins_of_run, with_plugins
from recbole_posattn.settings.presets import preset_settings
from recbole_posattn.settings.properties import data_folder, properties_files, property_keys, recbole_model_keys
from recbole_posattn.settings.protocols import read_protocol
from recbole_posattn.settings.recipe_checks import check_recipe, resolved_decay_epochs
from recbole_posattn.settings.rules import check_rules
from recbole_posattn.settings.run_keys import NAME_RULES, RUN_RULES
from recbole_posattn.settings.times import may_read_time, resolved_reads_time
from recbole_posattn.settings.unread import warn_of_direction, warn_of_keys_without_effect
from recbole_posattn.settings.yaml import YamlLoader, parse_setting, read_yaml


class Config(ServedConfig, recbole.config.Config):  # type: ignore[misc]  # RecBole has no types
    """The settings of a run; a drop-in for ``recbole.config.Config``.

    Precedence as in RecBole: command line, then ``config_dict``, then ``config_file_list`` (the later file first), then
    the protocol and the preset, then the tuned settings, then the properties of data set and model, ours and RecBole's.

    Args:
        model: Name or class of the model; if ``None``, that of the settings, else PosKernelSASRec.
        dataset: Name of the data set; if ``None``, that of the settings, else ml-100k.
        config_file_list: YAML files.
        config_dict: Settings; strings are parsed as on the command line.
        command_line: Arguments ``--key=value``; ``sys.argv[1:]`` if ``None``, as RecBole reads it.
        fallback: Settings that count as given if nothing else gives them, such as those of a run to continue: the names
            of the model (``model``) and the data set (``dataset``); the others only with this model.

    Raises:
        SettingError: If a key is misspelt, a value is not allowed, a file is missing or not a YAML mapping, or the
            model is unknown.
    """

    def __init__(
        self,
        model: str | type[AbstractRecommender] | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        command_line: Sequence[str] | None = None,
        fallback: Mapping[str, Any] | None = None,
    ) -> None:
        registry.hook_recbole()
        self._fallback = {"model": DEFAULT_MODEL, "dataset": DEFAULT_DATASET, **(fallback or {})}
        self._command_line = list(sys.argv[1:] if command_line is None else command_line)
        try:
            super().__init__(model, dataset, config_file_list, dict(config_dict or {}))
        except SettingError:
            raise
        except (AssertionError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            text = str(error.args[0] if error.args else error)  # str() of a KeyError would quote the message
            is_key = isinstance(error, KeyError) and text.isidentifier()
            raise SettingError(f"{text} has no value; give --{text}=…" if is_key else text) from error

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle, perhaps in a new process, where RecBole must find the model, too."""
        self.__dict__.update(state)
        registry.hook_recbole()
        install_dataset_class(self.model, self.model_class.type)

    # -- given settings ------------------------------------------------------------------------------------------

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return YamlLoader

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return {
            key: parse_setting(key, value) if isinstance(value, str) else value for key, value in config_dict.items()
        }

    def _load_config_files(self, file_list: Sequence[str | Path] | None) -> dict[str, Any]:
        return with_plugins(*map(read_yaml, file_list or []))

    def _load_cmd_line(self) -> dict[str, Any]:
        settings: dict[str, str] = {}
        plugins, ignored = [], []
        for argument in self._command_line:
            key, equals, value = argument.removeprefix("--").partition("=")
            if not (argument.startswith("--") and equals):
                ignored.append(argument)
            elif key == "plugin":
                plugins.append(value)
            elif settings.setdefault(key, value) != value:
                raise SettingError(f"{key} was given twice, as {settings[key]!r} and {value!r}; give it once")
        if ignored:
            logging.getLogger().warning(f"command line arguments without effect: {' '.join(ignored)}")
        return with_plugins(self._convert_config_dict(settings), {"plugins": plugins} if plugins else {})

    def _merge_external_config_dict(self) -> None:
        self.external_config_dict = with_plugins(self.file_config_dict, self.variable_config_dict, self.cmd_config_dict)
        import_plugins(self.external_config_dict.get("plugins", ()))
        self._given_keys = set(self.external_config_dict)
        for key in ("model", "dataset"):
            self.external_config_dict.setdefault(key, self._fallback[key])

    def given_keys(self) -> set[str]:
        """The keys that were given, as opposed to defaults."""
        return self._given_keys

    def defaults(self, of_keys: bool = False) -> dict[str, Any]:
        """The defaults as plain data; with ``of_keys``, without those of the preset and the protocol."""
        return dict(plain_data({**UNLISTED_DEFAULTS, **(self._of_keys if of_keys else self.internal_config_dict)}))

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type, str]:
        given = self.external_config_dict["model"] if model is None else model
        if not isinstance(given, (str, type)):
            raise SettingError(f"model must be the name of a model; got {shown(given)}.")
        model_class = registry.find_model(given) if isinstance(given, str) else registry.patched_model_class(given)
        check_rules({"dataset": self.external_config_dict["dataset"] if dataset is None else dataset}, NAME_RULES)
        model_name, _, dataset_name = super()._get_model_and_dataset(model_class, dataset)
        install_dataset_class(model_name, model_class.type)
        if model_name == self._fallback["model"]:
            self.external_config_dict = {**self._fallback, **self.external_config_dict}
        return model_name, model_class, dataset_name

    # -- defaults ------------------------------------------------------------------------------------------------

    def _update_internal_config_dict(self, file: str) -> dict[str, Any]:
        self.internal_config_dict.update(settings := read_yaml(file))
        if Path(file).name == "sample.yaml":  # RecBole reads it after the model's file and before the data set's
            for path in properties_files(self.model, self.dataset, self.model_class):
                self.internal_config_dict.update(read_yaml(path))
        return settings

    def _load_internal_config_dict(self, model: str, model_class: type[Any], dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        defaults = self.internal_config_dict
        fix_tree_settings(defaults)
        self._of_keys, external = dict(defaults), self.external_config_dict
        if (preset := external.get("preset", defaults["preset"])) is not None:
            defaults.update(preset_settings(preset, model, defaults))
        if (protocol := external.get("protocol", defaults["protocol"])) is not None:
            defaults.update(read_protocol(str(protocol)))
            if isinstance(external.get("eval_args"), dict):  # RecBole would fill in its own defaults
                external["eval_args"] = {**defaults["eval_args"], **external["eval_args"]}
        self._check_keys()
        loss_type = external.get("loss_type", defaults.get("loss_type"))
        if model_class.type == ModelType.SEQUENTIAL and loss_type == "CE":
            # RecBole's default samples negatives, which RecBole refuses with cross-entropy.
            defaults["train_neg_sample_args"] = None
        if "load_col" not in external:
            given = {**defaults, **external}
            defaults["load_col"] = columns_to_load(given, model_class, may_read_time(model_class, given))

    def _init_device(self) -> None:
        super()._init_device()
        settings = self.final_config_dict
        if not settings["use_gpu"]:  # RecBole ignores this key if there is a GPU
            settings["device"] = torch.device("cpu")
        settings["world_size"] = 1
        if distributed.launched_outside():
            self._join_processes()

    def _join_processes(self) -> None:
        """Join the process group, as RecBole's ``_init_device`` does, on CPUs and GPUs."""
        settings, local_rank = self.final_config_dict, distributed.local_rank()
        if settings["device"].type == "cuda":
            n_gpus = torch.cuda.device_count()
            if local_rank >= n_gpus:
                raise SettingError(
                    f"gpu_id {settings['gpu_id']!r} gives {counted(n_gpus, 'GPU')} to {local_rank + 1} processes or "
                    "more; name a GPU for each, such as --gpu_id=0,1, or train on CPUs with --use_gpu=False."
                )
            settings["device"] = torch.device("cuda", local_rank)
            torch.cuda.set_device(settings["device"])
        distributed.join(settings["device"], settings["process_timeout"])
        settings.update(single_spec=False, local_rank=local_rank, world_size=distributed.world_size())
        if not distributed.is_main():
            settings.update(state="error", show_progress=False, log_wandb=False, log_mlflow=False)

    # -- checks --------------------------------------------------------------------------------------------------

    def _get_final_config_dict(self) -> dict[str, Any]:
        settings: dict[str, Any] = super()._get_final_config_dict()
        write_intervals(settings)
        check_rules(settings, RUN_RULES)
        check_caches(settings)
        check_eval_args(settings["eval_args"], settings)
        check_learner_args(settings, new=True)
        if "train_objective" in self.internal_config_dict:  # a model of ours, or one derived from it
            check_model_keys(self.model, self.external_config_dict, self.internal_config_dict)
            check_rules(settings, MODEL_RULES)
            check_attention(settings, self.external_config_dict)
            resolve_encodings(settings)
            check_combinations(settings)
            # The loss draws its own negatives; RecBole's loader would repeat each sequence for every one of them.
            settings["loss_negatives"] = resolved_negatives(settings)
            settings["train_neg_sample_args"] = None
            settings["reads_time"] = resolved_reads_time(self.model_class, self.dataset, settings)
        else:
            keys = recbole_model_keys(self.model)
            check_model_types(settings, {key: self.internal_config_dict[key] for key in keys})
            check_recbole_model(self.model, settings)
            check_stage(self.model, settings)
            check_whole_sequences(self.model, self.model_class, settings)
        check_transform(self.model, settings)
        check_recipe(self.model, settings, self.external_config_dict.keys() & self.internal_config_dict.keys())
        settings["lr_decay_epochs"] = resolved_decay_epochs(settings)
        settings["plugins"] = plugins_of_run({**settings, "model": self.model})
        warn_of_keys_without_effect(self, settings)
        return settings

    def _set_default_parameters(self) -> None:
        data_path = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        self.final_config_dict["data_path"] = data_folder(self.dataset, data_path)
        warn_of_direction(self.external_config_dict, self.final_config_dict)
        check_validation_metric(self.final_config_dict)
        check_columns(self.final_config_dict)
        check_evaluation(self.final_config_dict, knows_histories(self.model))

    def _check_keys(self) -> None:
        """Refuse a key that is derived from others, and an unknown key that resembles one that this run reads."""
        for key in self.external_config_dict:
            if key in DERIVED_KEYS:
                raise SettingError(f"key {key!r} is derived from the other settings; leave it out")
        read_here = {*self.internal_config_dict, *KEYS_OF_EVERY_MODEL} - DERIVED_KEYS
        strange = self.external_config_dict.keys() - read_here
        if strange:
            strange -= property_keys("model/*.yaml", "dataset/*.yaml", "quick_start_config/*.yaml")
        for key in sorted(strange, key=str):
            nearest = difflib.get_close_matches(str(key), read_here, n=1, cutoff=0.8)
            if nearest:
                raise SettingError(f"key {key!r} is unknown. Did you mean {nearest[0]!r}?")

    # -- plain data ----------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """The resolved settings as strings, numbers, booleans, ``None``, lists and dicts."""
        return dict(plain_data(self.final_config_dict))

    @classmethod
    def from_plain(
        cls, settings: Mapping[str, Any], data_path: str | Path | None = None, given_keys: Iterable[str] = ()
    ) -> Config:
        """The inverse of :meth:`plain`; the device and the path of RecBole's own ml-100k are determined anew.

        Keys that an older version did not have get the values that continue its results.

        Args:
            settings: As :meth:`plain` returned them.
            data_path: The folder with the data set's folder in it, if it has moved.
            given_keys: The keys that were given, as opposed to defaults.

        Raises:
            SettingError: If the model is unknown here, a plugin is missing, or a setting is not allowed.
        """
        check_resolved_rules(settings, NAME_RULES | {key: rule for key, rule in RUN_RULES.items() if key != "metrics"})
        registry.hook_recbole()
        check_plugins_of_checkpoint(settings)
        check_resolved_rules(settings, {"metrics": RUN_RULES["metrics"]})  # only now are all of them registered
        config = cls.__new__(cls)
        config._given_keys = set(given_keys)
        config.compatibility_settings()
        config._init_parameters_category()
        config.yaml_loader = config._build_yaml_loader()
        config.model, config.dataset = settings["model"], settings["dataset"]
        config.model_class = registry.find_model(config.model)
        install_dataset_class(config.model, config.model_class.type)
        config.external_config_dict = {}
        config._load_internal_config_dict(config.model, config.model_class, config.dataset)
        if "train_objective" in config.internal_config_dict:  # a model of ours
            check_resolved_rules(settings, MODEL_RULES)
        defaults = {key: value_before(key, config.internal_config_dict) for key in config.internal_config_dict}
        config.final_config_dict = {**{key: defaults[key] for key in defaults.keys() - DERIVED_KEYS}, **settings}
        check_resolved(config.final_config_dict)
        check_learner_args(config.final_config_dict)
        for key, enum in _ENUM_KEYS.items():
            config.final_config_dict[key] = enum[settings[key]]
        check_validation_metric(config.final_config_dict)
        for phase in ("valid", "test"):
            config._set_eval_neg_sample_args(phase)
        config.final_config_dict.pop("local_rank", None)
        config.final_config_dict["data_path"] = data_folder(config.dataset, data_path) or settings["data_path"]
        config._init_device()
        return config


_ENUM_KEYS = {"MODEL_TYPE": ModelType, "MODEL_INPUT_TYPE": InputType, "eval_type": EvaluatorType}

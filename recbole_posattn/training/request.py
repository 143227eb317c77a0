"""What one training run is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender


@dataclass(frozen=True)
class RunRequest:
    """The arguments of :func:`recbole_posattn.run` except its processes; the same in each process.

    Attributes:
        model, dataset, config_file_list, config_dict, saved, test, callback_fn, resume, print_result: See
            :func:`recbole_posattn.run`.
        command_line: Settings ``--key=value``, which override the others.
    """

    model: str | type[AbstractRecommender] | None
    dataset: str | None
    config_file_list: Sequence[str | Path] | None
    config_dict: Mapping[str, Any] | None
    saved: bool
    command_line: Sequence[str]
    test: bool
    callback_fn: Callable[[int, float], None] | None
    resume: str | Path | None
    print_result: bool

"""The trainings of a soak: model, data set, settings, and the signals that stop some of them."""

from __future__ import annotations

import random
import re
import signal
import socket
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn import Config
from recbole_posattn.errors import SettingError
from recbole_posattn.settings.combinations import WHOLE_SEQUENCE_MODELS
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.run_keys import RUN_RULES
from tests.planted import lagged_sequences, write_atomic_file
from tests.soak.settings import (
    CARELESS,
    RUN_KEYS,
    draw_encodings,
    draw_evaluation,
    draw_filter,
    draw_kernel,
    draw_loss,
    draw_recbole_negatives,
    draw_recipe,
    draw_transformer,
    one_of,
    some,
)

# Number of users, their numbers of interactions, number of items.
DATA = {
    "short": (60, range(3, 9), 40),
    "mixed": (50, range(4, 25), 30),
    "long": (20, range(30, 70), 90),
}

OUR_MODELS = sorted(file.stem for file in (PROPERTIES / "model").glob("*.yaml"))
# RecBole's models that train on interactions alone.
SEQUENTIAL = [
    *("SASRec", "GRU4Rec", "BERT4Rec", "NARM", "STAMP", "FPMC", "TransRec", "Caser", "NextItNet", "SRGNN", "CORE"),
    *("LightSANs", "HGN", "SHAN", "SINE", "NPE", "FOSSIL"),
]
GENERAL = [
    *("BPR", "Pop", "LightGCN", "MultiVAE", "MultiDAE", "RecVAE", "MacridVAE", "NeuMF", "ItemKNN", "EASE", "DMF"),
    *("NGCF", "SGL", "SimpleX", "CDAE", "ENMF", "FISM", "DiffRec", "LINE"),
]

SIGNALS = {signal.SIGKILL: 0.6, signal.SIGTERM: 0.2, signal.SIGINT: 0.2}


class Blow(NamedTuple):
    """A signal to a training.

    Attributes:
        signum: Its number.
        moment: When to send it, as a share of the duration of the undisturbed run.
        again: Whether to send it a second time shortly after.
    """

    signum: int
    moment: float
    again: bool


class Case(NamedTuple):
    """One training.

    Attributes:
        settings: Settings by key.
        nproc: Number of processes.
        fresh: Whether to start the launcher instead of a fork.
        blows: The signals; empty for an undisturbed run only.
    """

    settings: dict[str, Any]
    nproc: int
    fresh: bool
    blows: list[Blow]

    def arguments(self, data_path: Path) -> list[str]:
        """The command line."""
        processes = [f"--nproc={self.nproc}", f"--port={_free_port()}"] if self.nproc > 1 else []
        return [f"--{key}={value}" for key, value in {"data_path": data_path, **self.settings}.items()] + processes


def draw_case(rng: random.Random, disturbed: bool) -> Case:
    """A case, which ``Config`` may refuse."""
    ours = rng.random() < 0.65
    model = rng.choice(["PosKernelSASRec"] * 8 + OUR_MODELS if ours else SEQUENTIAL + GENERAL)
    sequential = ours or model in SEQUENTIAL
    max_length = rng.choice([5, 10, 20, 50])
    settings = {
        "model": model,
        "dataset": rng.choice(list(DATA)),
        "MAX_ITEM_LIST_LENGTH": max_length,
        "epochs": rng.choice([0, 1, 2, 5, 10, 20, 30]),
        "train_batch_size": rng.choice([8, 16, 32, 128]),
        "show_progress": rng.random() < 0.3,
        "use_gpu": False,
    }
    settings |= some(rng, RUN_KEYS, 0.3)
    settings |= draw_evaluation(rng, sequential)
    if ours:
        keys = _keys_of(model)
        drawn = {
            **draw_transformer(rng),
            **draw_kernel(rng, max_length),
            **draw_encodings(rng),
            **draw_filter(rng),
            **draw_loss(rng, max_length),
            **draw_recipe(rng),
        }
        settings |= {key: value for key, value in drawn.items() if key in keys | RUN_RULES.keys()}
        settings["time_is_order"] = False  # the times are 0, 1, 2, …, and read all the same
        settings |= some(rng, {"preset": one_of("paper", None)}, 0.1)
    elif sequential:
        settings |= some(
            rng, {"lazy_prefixes": lambda rng: rng.random() < 0.5, "trim_padding": one_of("auto", False)}, 0.3
        )
        if model in WHOLE_SEQUENCE_MODELS and rng.random() < 0.3:
            settings |= {"train_objective": "sequence"}
    else:
        settings |= some(rng, {"train_neg_sample_args": draw_recbole_negatives}, 0.2)
    if rng.random() < 0.05:
        key = rng.choice(list(CARELESS))
        settings[key] = rng.choice(CARELESS[key])
    nproc = 2 if rng.random() < 0.03 else 1
    if nproc > 1:
        settings |= some(rng, {"process_timeout": one_of(60, 600.0)}, 0.5)
    fresh = nproc > 1 or rng.random() < 0.06
    return Case(settings, nproc, fresh, _blows(rng) if disturbed else [])


def _keys_of(model: str) -> set[str]:
    """The keys in the property file of one of our models, and those of RecBole's transforms."""
    text = (PROPERTIES / "model" / f"{model}.yaml").read_text(encoding="utf-8")
    return {*re.findall(r"^(\w+):", text, re.MULTILINE), "transform", "eta", "beta", "mask_ratio"}


def _blows(rng: random.Random) -> list[Blow]:
    def blow() -> Blow:
        (signum,) = rng.choices(list(SIGNALS), list(SIGNALS.values()))
        return Blow(signum, rng.random(), signum != signal.SIGKILL and rng.random() < 0.3)

    return [blow() for _ in range(2 if rng.random() < 0.25 else 1)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def accepted_case(seed: int, number: int, data_path: Path, refused: list[str]) -> Case:
    """The case of a number, drawn independently of all others.

    Args:
        seed: Random seed of all cases.
        number: From 0; every third is disturbed.
        data_path: Folder of the data sets.
        refused: Receives a line for each draw that ``Config`` refuses.
    """
    rng = random.Random(f"{seed}-{number}")
    while True:
        case = draw_case(rng, disturbed=number % 3 == 0)
        try:
            Config(command_line=case.arguments(data_path))
        except SettingError as error:
            refused.append(str(error))
        else:
            return case


def write_data(folder: Path) -> None:
    """The data sets of :data:`DATA`."""
    for name, (n_users, lengths, n_items) in DATA.items():
        write_atomic_file(folder, name, lagged_sequences(n_users, lengths, n_items, lag=2, noise=0.2, seed=1))

"""Many short trainings with random settings, a third of them killed at random moments and resumed.

    python -m benchmarks.soak                  # 200 settings; writes results/soak.md and .csv
    python -m benchmarks.soak --only 17        # one of them again, with what it says

The settings are drawn from all keys there are, for our models and some of RecBole's, on several small data sets; what
``Config`` refuses is drawn again. Each is trained undisturbed; every third then once more in another folder, where a
signal ends it at a uniformly random moment of the time that it took, and ``--resume=auto`` goes on to the end: metrics,
curve, the weights of the best epoch and the ranks of all users must be those of the undisturbed run, to the last bit.

Each training is a process of its own. Most are forks of this one, which has imported everything and trained nothing: it
has one thread (required: ``OMP_NUM_THREADS=1``), so that a fork is a whole process as if it had been started anew, and
dies of SIGKILL like one. Some, and all in two processes, are the launcher as a user starts it, with hash seeds of their
own. In the forks, the second that RecBole spends on measuring the load of the CPU is left out, lest half of the signals
fall into it.

Last, a process trains one after the other, as a notebook does, and its memory, threads and open files are looked at.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import gc
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import torch._dynamo  # what the first optimizer imports: here once, and not in each fork
from tabulate import tabulate

from benchmarks.common import RESULTS, report
from recbole_posattn import Config, run
from recbole_posattn.cli.main import launch
from recbole_posattn.errors import EXIT_USER_ERROR, SettingError, UserError
from recbole_posattn.nn.backbone import ACTIVATIONS, BACKBONES
from recbole_posattn.nn.encodings.build import ENCODINGS, check_encodings
from recbole_posattn.nn.kernels.base import ALIGNMENTS, NORMALIZATIONS
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, STRUCTURES
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.nn.losses.negatives import DISTRIBUTIONS
from recbole_posattn.settings.config import LAUNCHER_KEYS
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.training.checkpoint import BEST_NAME, LAST_NAME, read_checkpoint
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME, RunResult
from tests.planted import lagged_sequences, write_atomic_file

LAUNCHER = Path(__file__).parent.parent / "run_recbole_posattn.py"

# Users, their numbers of interactions, and items.
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

# What no run here is given, and why.
NOT_DRAWN = {
    "gpu_id": "all train on the CPU, where a resumed run is the same to the last bit",
    **dict.fromkeys(("data_path", "checkpoint_dir"), "the folders of a run"),
    **dict.fromkeys(("log_wandb", "wandb_project"), "a service on the network"),
    **dict.fromkeys(
        ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"), "refused, being pickles"
    ),
    "torch_compile": "minutes for each run",
}

# Values that are allowed for themselves, but with few of the others; given at random, they are to be refused in time.
CARELESS = {
    "kernel_bandwidth": [1, 3, 100],
    "kernel_rank": [1, 50],
    "kernel_width_penalty": [0.5],
    "n_heads": [3, 5],
    "position_encoding": [["absolute", "sinusoidal"], ["rope", "rope"], ["rpoe"]],
    "t5_max_distance": [2],
    "window_stride": [2, 1000],
    "loss_chunk_size": [4, "all"],
    "loss_type": ["BCE", "SSM", "CE"],
    "train_neg_sample_args": [{"distribution": "popularity", "sample_num": 0}, {"dynamic": True, "candidate_num": 2}],
    "mask_history": ["all", "none", "some"],
    "valid_metric": ["NDCG@7", "AUC"],
    "topk": [[0], [3, 5]],
    "metrics": [["Hit", "GAUC"], ["Hitt"]],
    "learning_rate": [0, -1.0],
    "hidden_dropout_prob": [1.0],
    "save_dataset": [True],
    "epochs": [-1],
    "protocol": ["leave_two_out"],
}

SIGNALS = {signal.SIGKILL: 0.6, signal.SIGTERM: 0.2, signal.SIGINT: 0.2}
# How a process may end when a signal reaches it: as the commands do, or as Python does before they have begun.
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}

RESUME = "--resume=auto"
LONGEST = 120  # seconds that a run may take before it is said to hang
PATIENCE = 20  # seconds that its other processes may take to end behind it
GROWTH = 50  # MiB by which this process, which starts all others, may grow
# MiB by which a process may grow that trains one after the other, behind the first round. It grows by 1 to 6: the
# allocator takes memory in steps. A model kept here takes half of one, so that tensors are counted as well.
GROWTH_IN_PROCESS = 15
N_DIFFERENT, N_ROUNDS = 5, 6  # of those

# All that a run may leave below the working folder.
_OWN_FILES = re.compile(
    r"saved/[^/]+/(best\.pth|last\.pth|result\.json|users\.parquet|run\.lock|kernels/epoch-\d+\.pth)"
    r"|log/[^/]+/[^/]+\.log|log_tensorboard/.+/events[^/]+"
)
# What may end a run that ``Config`` has accepted.
_DOCUMENTED = re.compile(r"the training loss is|cannot be trained with enable_amp|cannot sample negative")
_NO_MATTER = {"seconds", "checkpoint", "peak_mebibytes"}  # of a result: where and when it was made


class Blow(NamedTuple):
    """A signal to a training.

    Attributes:
        signum: Which one.
        moment: When, as a share of the time that the undisturbed run took.
        again: Whether it is sent a second time, shortly after.
    """

    signum: int
    moment: float
    again: bool


class Case(NamedTuple):
    """What is trained.

    Attributes:
        settings: By key.
        nproc: Processes.
        fresh: Whether the launcher is started anew for it.
        blows: The signals; none for a run that is left alone.
    """

    settings: dict[str, Any]
    nproc: int
    fresh: bool
    blows: list[Blow]

    def arguments(self, data_path: Path) -> list[str]:
        """The command line."""
        processes = [f"--nproc={self.nproc}", f"--port={_free_port()}"] if self.nproc > 1 else []
        return [f"--{key}={value}" for key, value in {"data_path": data_path, **self.settings}.items()] + processes


# -- drawing -----------------------------------------------------------------------------------------------------------


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
    settings |= _evaluation(rng, sequential)
    if ours:
        keys = _keys_of(model)
        drawn = {**_transformer(rng), **_kernel(rng, max_length), **_encodings(rng), **_loss(rng, max_length)}
        settings |= {key: value for key, value in drawn.items() if key in keys}
    elif sequential:
        settings |= some(rng, {"lazy_prefixes": lambda rng: rng.random() < 0.5}, 0.3)
    else:
        settings |= some(rng, {"train_neg_sample_args": _negatives_of_recbole}, 0.2)
    if rng.random() < 0.05:
        key = rng.choice(list(CARELESS))
        settings[key] = rng.choice(CARELESS[key])
    nproc = 2 if rng.random() < 0.03 else 1
    fresh = nproc > 1 or rng.random() < 0.06
    return Case(settings, nproc, fresh, _blows(rng) if disturbed else [])


def some(rng: random.Random, keys: Mapping[str, Callable[[random.Random], Any]], probability: float) -> dict[str, Any]:
    """A value for some of the keys."""
    return {key: value(rng) for key, value in keys.items() if rng.random() < probability}


def one_of(*choices: Any) -> Callable[[random.Random], Any]:
    """Draws one of these."""
    return lambda rng: rng.choice(choices)


def _log_uniform(low: float, high: float) -> Callable[[random.Random], float]:
    return lambda rng: float(f"{low * (high / low) ** rng.random():.3g}")


RUN_KEYS = {
    "seed": lambda rng: rng.randrange(10**6),
    "state": one_of("INFO", "WARNING", "ERROR", "CRITICAL", "DEBUG"),
    "reproducibility": one_of(True, False),
    "shuffle": one_of(True, False),
    "worker": one_of(0, 0, 1),
    "learner": one_of("adam", "sgd", "adagrad", "rmsprop"),
    "learning_rate": _log_uniform(1e-4, 0.05),
    "weight_decay": _log_uniform(1e-6, 1e-1),
    "clip_grad_norm": one_of({"max_norm": 1.0}, {"max_norm": 5, "norm_type": 1}),
    "eval_step": one_of(0, 1, 2, 3),
    "stopping_step": one_of(0, 1, 2, 5),
    "save_last_every": one_of(None, 1, 2, 3),
    "enable_amp": one_of(True, False),
    "enable_scaler": one_of(True, False),
    "loss_decimal_place": one_of(2, 6),
    "metric_decimal_place": one_of(2, 8),
    "require_pow": one_of(True, False),
    "eval_batch_size": one_of(7, 64, 4096),
}


def _evaluation(rng: random.Random, sequential: bool) -> dict[str, Any]:
    """Protocol or split, mode and mask; metrics with one of them to watch."""
    settings: dict[str, Any] = {}
    kind = rng.choice(["default", "protocol", "masked", "sampled", "split"])
    if kind == "protocol":
        settings["protocol"] = rng.choice(["leave_one_out", "leave_one_out_masked", "temporal"])
    elif kind != "default":
        splits = [{"LS": "valid_and_test"}, {"LS": "valid_only"}, {"LS": "test_only"}]
        splits += [{"RS": [0.8, 0.1, 0.1]}, {"RS": [0.5, 0.2, 0.3]}]
        if kind == "masked":
            splits.append({"TQ": [0.8, 0.9]})
            settings["mask_history"] = rng.choice(["none", "all", "except_target"])
            settings |= some(rng, {"drop_unseen_targets": one_of(True, False)}, 0.5)
        split = rng.choice(splits)
        settings["eval_args"] = {
            "split": split,
            "order": "TO" if kind == "masked" or sequential or "LS" in split else rng.choice(["TO", "RO"]),
            "group_by": "none" if "TQ" in split else rng.choice(["user", "user", "none"]) if "RS" in split else "user",
            "mode": rng.choice(["uni5", "pop5"]) if kind == "sampled" else "full",
        }
    settings |= some(rng, {"repeatable": one_of(True, False)}, 0.2)
    if rng.random() < 0.5:
        names = ["Hit", "NDCG", "MRR", "Recall", "Precision", "MAP", "ItemCoverage", "AveragePopularity"]
        names += ["GiniIndex", "ShannonEntropy", "TailPercentage", "COV"]
        metrics = rng.sample(names, rng.randint(1, 4))
        if kind in ("default", "split") and rng.random() < 0.3:
            metrics.append("GAUC")
        topk = rng.choice([[1], [5, 10], [10], [1, 3, 20]])
        watched = rng.choice(metrics)
        settings |= {
            "metrics": metrics,
            "topk": topk,
            "valid_metric": watched if watched == "GAUC" else f"{watched}@{rng.choice(topk)}",
        }
        settings |= some(rng, {"valid_metric_bigger": one_of(True, False)}, 0.3)
    return settings


def _transformer(rng: random.Random) -> dict[str, Any]:
    n_heads = rng.choice([1, 1, 2, 4])
    keys = {
        "n_layers": one_of(1, 2, 3),
        "inner_size": one_of(None, 8, 64),
        "hidden_dropout_prob": one_of(0.0, 0.1, 0.5, 0.9),
        "attn_dropout_prob": one_of(0.0, 0.1, 0.5, 0.9),
        "hidden_act": one_of(*ACTIVATIONS),
        "layer_norm_eps": _log_uniform(1e-12, 1e-3),
        "initializer_range": _log_uniform(0.001, 0.5),
        "backbone": one_of(*BACKBONES),
        "position_alignment": one_of(*ALIGNMENTS),
        "save_kernel_every": one_of(None, 1, 3),
        "length_bucketing": one_of(True, False),
        "train_objective": one_of("sequence", "augmented"),
    }
    return {"n_heads": n_heads, "hidden_size": n_heads * rng.choice([4, 8, 16]), **some(rng, keys, 0.4)}


def _kernel(rng: random.Random, max_length: int) -> dict[str, Any]:
    parts = rng.choices(list(STRUCTURES), k=2)
    keys = {
        "kernel_decays": one_of(1, 2, 8),
        "kernel_sharing": one_of("per_layer", "shared", {"u": "per_layer", "l": "shared"}),
        "kernel_groups": one_of(1, "n_heads", "hidden_size"),
        "kernel_normalization": one_of(*NORMALIZATIONS),
    }
    settings = {"kernel_structure": "-".join(parts), **some(rng, keys, 0.5)}
    if set(parts) & set(BANDED_STRUCTURES):
        settings["kernel_bandwidth"] = rng.randint(1, max_length)
    if "lowrank" in parts or rng.random() < 0.1:
        settings["kernel_rank"] = rng.randint(1, max_length)
    if "adaptive_band" in parts and rng.random() < 0.5:
        settings["kernel_width_penalty"] = rng.choice([0.01, 1.0])
    return settings


def _encodings(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(list(ENCODINGS), rng.choice([0, 0, 1, 1, 2, 3]))
    with contextlib.suppress(ValueError):
        check_encodings(names)
        settings = {"position_encoding": names}
        keys = {
            "all_absolute_sharing": one_of("per_layer", "shared"),
            "rope_base": _log_uniform(10, 1e6),
            "cape_positions": lambda rng: rng.randint(1, 60),
            "alibi_slope_exponent": _log_uniform(0.5, 16),
        }
        settings |= some(rng, keys, 0.4)
        if rng.random() < 0.4:
            buckets = rng.choice([2, 8, 32])
            settings |= {"t5_buckets": buckets, "t5_max_distance": buckets // 2 + rng.randint(1, 40)}
        return settings
    return _encodings(rng)


def _loss(rng: random.Random, max_length: int) -> dict[str, Any]:
    """The loss and its negatives, and what else depends on the objective (as :func:`_transformer` may draw it)."""
    settings: dict[str, Any] = {"loss_type": rng.choice(["CE", *LOSSES])}
    if settings["loss_type"] == "CE":
        settings |= some(rng, {"loss_chunk_size": one_of("auto", None, 1, 7, 1000)}, 0.4)
    elif rng.random() < 0.6:
        uniform = settings["loss_type"] == "gBCE"
        settings["train_neg_sample_args"] = {
            "distribution": "uniform" if uniform else rng.choice(DISTRIBUTIONS),
            "sample_num": rng.choice([1, 5, 300]),
            **some(rng, {"alpha": one_of(0.0, 0.5, 1.0)}, 0.5),
        }
    settings |= some(rng, {"gbce_calibration": one_of(0.0, 0.5, 1.0)}, 0.2)
    if rng.random() < 0.2:
        settings |= {"train_objective": "sequence", "window_stride": rng.randint(1, max_length)}
    elif rng.random() < 0.1:
        transform = rng.choice(["inverse_itemseq", "crop_itemseq", "reorder_itemseq", "mask_itemseq"])
        shares = {"crop_itemseq": "eta", "reorder_itemseq": "beta", "mask_itemseq": "mask_ratio"}
        settings |= {"train_objective": "augmented", "transform": transform}
        if transform in shares and rng.random() < 0.8:
            settings[shares[transform]] = rng.choice([0.2, 0.6])
    return settings


def _negatives_of_recbole(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        [
            {"distribution": "popularity", "sample_num": 2, "alpha": 0.5},
            {"distribution": "uniform", "sample_num": 1, "dynamic": True, "candidate_num": 4},
            {"distribution": "uniform", "sample_num": 3},
        ]
    )


def _keys_of(model: str) -> set[str]:
    """The keys of a model of ours, by its property file, and those that are nobody's."""
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
    """The case of this number, which says nothing about any other.

    Args:
        seed: Of all.
        number: From 0; every third is disturbed.
        data_path: Where the data sets are.
        refused: Gets a line for each draw that ``Config`` refuses.
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


# -- processes ---------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """A process that has ended.

    Attributes:
        code: Its exit code; negative for the signal that it died of.
        seconds: It took.
        said: All its output.
        line: Of a command that failed, as far as it said one.
        left: Processes of its session that are still there.
    """

    code: int
    seconds: float
    said: str
    line: str
    left: list[str]


def train_in_process(
    folder: Path, arguments: Sequence[str], fresh: bool, blow: Blow | None = None, expected: float = 0.0
) -> Ended:
    """Train in a new process, and wait for it and all that it has started.

    Args:
        folder: With ``work``, where it runs, and ``temp`` for temporary files.
        arguments: The command line.
        fresh: Whether the launcher is started anew.
        blow: A signal to send.
        expected: Seconds that ``blow.moment`` is a share of.
    """
    said = folder / "said.txt"
    process = multiprocessing.get_context("fork").Process(target=_be_the_run, args=(folder, said, arguments, fresh))
    started = time.perf_counter()
    process.start()
    if blow is not None:
        _wait(process, blow.moment * expected)
        for _ in range(1 + blow.again):
            if process.exitcode is None:
                os.kill(process.pid, blow.signum)
                _wait(process, 0.05)
    _wait(process, LONGEST)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGABRT)  # on which a fork tells where it is
        _wait(process, 1)
    seconds = time.perf_counter() - started
    left = _left_behind(process)
    text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    lines = [
        line for line in text.splitlines() if line.startswith("recbole-posattn: ") and "stopping after" not in line
    ]
    ended = Ended(process.exitcode, seconds, text, lines[-1] if lines else "", left)
    process.close()
    return ended


def _wait(process: ForkProcess, seconds: float) -> None:
    """``process.join(seconds)``, which for a process that has become another program would wait for its end."""
    deadline = time.perf_counter() + seconds
    while process.exitcode is None and time.perf_counter() < deadline:
        time.sleep(0.005)


def _be_the_run(folder: Path, said: Path, arguments: Sequence[str], fresh: bool) -> None:
    """What the new process does: all that a shell would, then the launcher's part."""
    os.setsid()  # by which all processes of the run are known
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
    os.chdir(folder / "work")
    _use_temporary_folder(folder / "temp")
    stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(stream)
    if fresh:
        os.environ["PYTHONPATH"] = str(LAUNCHER.parent)
        os.execv(sys.executable, [sys.executable, str(LAUNCHER), *arguments])
    faulthandler.enable()
    _skip_cpu_load()
    sys.argv = [str(LAUNCHER), *arguments]
    sys.exit(launch(arguments))


def _use_temporary_folder(folder: Path) -> None:
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def _skip_cpu_load() -> None:
    psutil.cpu_percent = lambda interval=None: 0.0  # RecBole waits a second for it


def _left_behind(process: ForkProcess) -> list[str]:
    """Command lines of what a process has started and is there no later than :data:`PATIENCE`; ended here."""
    session, deadline = process.pid, time.perf_counter() + PATIENCE
    hangs = process.exitcode is None
    while (others := list(_of_session(session))) and not hangs and time.perf_counter() < deadline:
        time.sleep(0.1)
    found = []
    for other in others:
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(other.cmdline())[-200:])
            other.kill()
    if hangs:
        process.join()
    return found


def _of_session(session: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            other = psutil.Process(pid)
            if os.getsid(pid) == session and other.status() != psutil.STATUS_ZOMBIE:
                yield other


# -- what is looked at -------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a case.

    Attributes:
        row: Of the table.
        faults: What must not be.
        ended: How the undisturbed run ended.
        stopped: Signals that found a run to stop.
        compared: Whether the resumed run was compared with it.
    """

    row: list[str]
    faults: list[str]
    ended: Ended
    stopped: list[int]
    compared: bool


def soak(number: int, case: Case, data_path: Path) -> Outcome:
    """Train a case, undisturbed and disturbed, and look at all that is left."""
    faults: list[str] = []
    stopped: list[int] = []
    compared, told = False, []
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        calm = _new_folder(Path(scratch) / "undisturbed")
        undisturbed = train_in_process(calm, case.arguments(data_path), case.fresh)
        faults += _wrong_end(undisturbed)
        for blow in case.blows:
            rough = _new_folder(Path(scratch) / "disturbed")
            arguments = [*case.arguments(data_path), RESUME]
            ended = train_in_process(rough, arguments, case.fresh, blow, undisturbed.seconds)
            name = signal.Signals(blow.signum).name
            if ended.code in CODES[blow.signum]:
                stopped.append(blow.signum)
                told.append(f"{name}{' twice' if blow.again else ''} at {blow.moment:.2f}")
                if "Traceback" in ended.said and not case.fresh:
                    faults.append(f"{name} ended in a traceback: {ended.said[-1500:]}")
                faults += [f"outlives {name}: {process}" for process in ended.left]
            else:
                told.append(f"{name} at {blow.moment:.2f}: had ended")
                faults += _wrong_end(ended)
        if case.blows:
            resumed = train_in_process(rough, [*case.arguments(data_path), RESUME], case.fresh)
            faults += _wrong_end(resumed) + _strange_files(rough)
            compared = True
            faults += [f"resumed: {what}" for what in differences(calm, undisturbed, rough, resumed)]
        faults += _strange_files(calm)
    row = [
        str(number),
        case.settings["model"],
        case.settings["dataset"],
        f"{case.nproc} processes" if case.nproc > 1 else "launcher" if case.fresh else "fork",
        f"{undisturbed.seconds:.1f}",
        str(undisturbed.code),
        ", ".join(told),
        ("differs" if any(fault.startswith("resumed: ") for fault in faults) else "equal") if compared else "",
        str(len(faults)),
    ]
    return Outcome(row, faults, undisturbed, stopped, compared)


def _new_folder(folder: Path) -> Path:
    for name in ("work", "temp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _wrong_end(ended: Ended) -> list[str]:
    """A run may end well, or with code 2 and a line that the documentation knows; it leaves no process."""
    faults = [f"left behind: {process}" for process in ended.left]
    if ended.code == EXIT_USER_ERROR and _DOCUMENTED.search(ended.line) and "Traceback" not in ended.said:
        return faults
    return faults if ended.code == 0 else [*faults, f"exit code {ended.code}: {ended.said[-3000:]}"]


def _strange_files(folder: Path) -> list[str]:
    below = [file.relative_to(folder / "work").as_posix() for file in (folder / "work").rglob("*") if file.is_file()]
    strange = [f"left over: {file}" for file in below if not _OWN_FILES.fullmatch(file)]
    return strange + [f"left in the temporary folder: {file.name}" for file in (folder / "temp").iterdir()]


def differences(calm: Path, undisturbed: Ended, rough: Path, resumed: Ended) -> list[str]:
    """What is not the same in two runs of the same settings."""
    if undisturbed.code != resumed.code:
        return [f"exit code {resumed.code} instead of {undisturbed.code}: {resumed.said[-2000:]}"]
    if undisturbed.code:
        lines = [ended.line.partition(";")[0] for ended in (undisturbed, resumed)]  # behind it is the run's folder
        return [] if lines[0] == lines[1] else [f"{lines[1]!r} instead of {lines[0]!r}"]
    (first,) = (calm / "work").glob(f"saved/*/{RESULT_NAME}")
    finished = sorted((rough / "work").glob(f"saved/*/{RESULT_NAME}"))
    if not finished or (len(finished) > 1 and list((rough / "work").glob(f"saved/*/{LAST_NAME}"))):
        return [f"{len(finished)} runs of the same settings have ended"]
    return [what for second in finished for what in _differences_of_results(first, second)]


def _differences_of_results(first: Path, second: Path) -> list[str]:
    told = [json.loads(file.read_text(encoding="utf-8")) for file in (first, second)]
    for result in told:
        for epoch in result["curve"]:
            del epoch["seconds"]
    found = [
        f"{key} {told[1][key]} instead of {told[0][key]}"
        for key in sorted(RunResult.__annotations__.keys() - _NO_MATTER)
        if json.dumps(told[0][key]) != json.dumps(told[1][key])  # as text, in which nan is nan
    ]
    before, after = (read_checkpoint(file.with_name(BEST_NAME))["state_dict"] for file in (first, second))
    if before.keys() != after.keys():
        found.append("other weights")
    found += [f"weights {name}" for name in before if name in after and not torch.equal(before[name], after[name])]
    users = [file.with_name(USERS_NAME) for file in (first, second)]
    if users[0].exists() != users[1].exists():
        found.append(f"{USERS_NAME} is in one of the two folders only")
    elif users[0].exists() and users[0].read_bytes() != users[1].read_bytes():
        found.append(f"ranks in {USERS_NAME}")
    return found


class Usage(NamedTuple):
    """What a process holds: memory in MiB, open files, threads, and tensors that Python's collector knows."""

    mebibytes: float
    files: int
    threads: int
    tensors: int


def usage() -> Usage:
    """Of this process, without what only waits to be collected."""
    gc.collect()
    process = psutil.Process()
    tensors = sum(issubclass(type(held), torch.Tensor) for held in gc.get_objects())
    return Usage(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), tensors)


def usage_of_many(cases: Sequence[Case], n_rounds: int, data_path: Path) -> list[Usage]:
    """Train one after the other in one new process, each case once a round; what that holds behind each run."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = _new_folder(Path(scratch))
        told, said = folder / "told.json", folder / "said.txt"
        arguments = [case.arguments(data_path) for case in cases] * n_rounds
        process = context.Process(target=_be_many_runs, args=(folder, told, said, arguments))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"trainings in one process failed:\n{said.read_text(encoding='utf-8')[-3000:]}")
        return [Usage(*values) for values in json.loads(told.read_text(encoding="utf-8"))]


def _be_many_runs(folder: Path, told: Path, said: Path, arguments: Sequence[Sequence[str]]) -> None:
    os.chdir(folder / "work")
    _use_temporary_folder(folder / "temp")
    _skip_cpu_load()
    stream = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    measured = []
    for line in arguments:
        with contextlib.suppress(UserError):
            run(command_line=line)
        measured.append(usage())
    told.write_text(json.dumps(measured), encoding="utf-8")


def _other_threads() -> list[str]:
    """Names of this process's threads but the main one and jemalloc's (of pyarrow), which makes it anew in a fork."""
    threads = [thread for thread in Path("/proc/self/task").iterdir() if int(thread.name) != os.getpid()]
    names = [(thread / "comm").read_text().strip() for thread in threads]
    return [name for name in names if name != "jemalloc_bg_thd"]


# -- the page ----------------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """The data sets of :data:`DATA`."""
    for name, (n_users, lengths, n_items) in DATA.items():
        write_atomic_file(folder, name, lagged_sequences(n_users, lengths, n_items, lag=2, noise=0.2, seed=1))


def main() -> int:
    """Train, look and write the page; the exit code is 1 if there was anything that must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="different settings (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=N_ROUNDS, help=f"in one process (default: {N_ROUNDS})")
    parser.add_argument("--output", default=str(RESULTS / "soak"), help="of the page, without suffix")
    parser.add_argument("--only", type=int, help="the number of one to do again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = usage()
    if others := _other_threads():
        parser.error(f"this process has the threads {', '.join(others)}, which no fork has: set OMP_NUM_THREADS=1")
    with tempfile.TemporaryDirectory(prefix="soak-data-") as folder:
        write_data(Path(folder))
        if options.only is not None:
            return _again(options.seed, options.only, Path(folder))
        return _soak_all(options, start, Path(folder))


def _again(seed: int, number: int, data_path: Path) -> int:
    case = accepted_case(seed, number, data_path, refused=[])
    print(json.dumps(case._asdict(), indent=1))
    outcome = soak(number, case, data_path)
    print(outcome.ended.said, outcome.row, *outcome.faults, sep="\n")
    return 1 if outcome.faults else 0


def _soak_all(options: argparse.Namespace, start: Usage, data_path: Path) -> int:
    began = time.perf_counter()
    data_files = _files_below(data_path)
    refused: list[str] = []
    cases = [accepted_case(options.seed, number, data_path, refused) for number in range(options.runs)]
    drawn = usage()
    outcomes, faults = [], []
    for number, case in enumerate(cases):  # without a bar, whose lock all forks would share, the killed ones too
        outcomes.append(soak(number, case, data_path))
        print(" ".join(outcomes[-1].row), flush=True)
        for fault in outcomes[-1].faults:
            faults.append(f"{number}: {fault}")
            print(faults[-1], flush=True)
    end = usage()
    faults += _grown("this process", start, end, GROWTH)
    if _files_below(data_path) != data_files:
        faults.append("there are other files than before beside the data")

    alone = [
        case for case, outcome in zip(cases, outcomes) if case.nproc == 1 and outcome.ended.code == 0 and not case.fresh
    ]
    many = usage_of_many(alone[:N_DIFFERENT], options.rounds, data_path)
    first, last = many[min(N_DIFFERENT, len(alone)) - 1], many[-1]
    faults += _grown("a process that trains one after the other", first, last, GROWTH_IN_PROCESS)

    summary = [
        ["settings drawn and trained", len(cases)],
        ["… refused by `Config` in one line, and drawn again", len(refused)],
        ["… ended with exit code 0", sum(outcome.ended.code == 0 for outcome in outcomes)],
        ["… ended with exit code 2 and one line", sum(outcome.ended.code == EXIT_USER_ERROR for outcome in outcomes)],
        ["processes started in all", sum(1 + len(case.blows) + bool(case.blows) for case in cases)],
        ["signals that stopped a run", _count_signals(outcomes)],
        ["signals that came too late", sum(len(c.blows) - len(o.stopped) for c, o in zip(cases, outcomes))],
        ["resumed runs compared with undisturbed ones", sum(outcome.compared for outcome in outcomes)],
        ["… of which differ", sum(outcome.row[-2] == "differs" for outcome in outcomes)],
        ["this process before, with all settings drawn, and at the end", _words(start, drawn, end)],
        [f"one process, after {min(N_DIFFERENT, len(alone))} and {len(many)} trainings", _words(first, last)],
        ["faults", len(faults)],
        ["minutes", f"{(time.perf_counter() - began) / 60:.1f}"],
    ]
    report(
        str(Path(options.output).resolve()),
        "Soak: random settings, random signals",
        _page(cases, outcomes, summary, refused, faults),
        ["number", "model", "data", "process", "s", "code", "signals at the share of its time", "resumed", "faults"],
        [outcome.row for outcome in outcomes],
    )
    return 1 if faults else 0


def _files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def _grown(whose: str, before: Usage, after: Usage, bound: float) -> list[str]:
    grown = []
    if after.mebibytes - before.mebibytes > bound:
        grown.append(f"{whose} has grown from {before.mebibytes:.0f} to {after.mebibytes:.0f} MiB")
    if after.files > before.files:
        grown.append(f"{whose} has {after.files} open files, {before.files} before")
    if after.threads > before.threads:
        grown.append(f"{whose} has {after.threads} threads, {before.threads} before")
    if after.tensors > before.tensors:
        grown.append(f"{whose} holds {after.tensors} tensors, {before.tensors} before")
    return grown


def _words(*measured: Usage) -> str:
    memory = ", ".join(f"{each.mebibytes:.0f}" for each in measured)
    files = ", ".join(str(each.files) for each in measured)
    threads = ", ".join(str(each.threads) for each in measured)
    tensors = ", ".join(str(each.tensors) for each in measured)
    return f"{memory} MiB; open files {files}; threads {threads}; tensors {tensors}"


def _count_signals(outcomes: Sequence[Outcome]) -> str:
    counts = collections.Counter(signum for outcome in outcomes for signum in outcome.stopped)
    return ", ".join(f"{signal.Signals(signum).name} {n}" for signum, n in counts.most_common()) or "none"


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    """A paragraph with a bullet for each line, shortened; none without lines."""
    short = [" ".join(re.sub(r"/tmp/[\w-]+/", "", line).split())[:200] for line in lines]
    return [title + "\n" + "".join(f"\n- {line}" for line in short)] if lines else []


def _page(
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
    summary: list[list],
    refused: Sequence[str],
    faults: Sequence[str],
) -> str:
    given = collections.Counter(key for case in cases for key in case.settings if key not in LAUNCHER_KEYS)
    pairs = {case.settings["kernel_structure"] for case in cases if "kernel_structure" in case.settings}
    models = {case.settings["model"] for case in cases}
    ended = [
        f"{outcome.row[0]}: {outcome.ended.line.removeprefix('recbole-posattn: ')}"
        for outcome in outcomes
        if outcome.ended.code == EXIT_USER_ERROR
    ]
    return "\n\n".join(
        [
            "Short trainings with settings drawn from all keys, each in a process of its own and undisturbed; every "
            "third once more, ended by signals at uniformly random moments and resumed with `--resume=auto`. Metrics, "
            "curve, best weights and the ranks of all users are compared bit by bit. Every run must end with code 0, "
            "or 2 and one line; no process, no strange file below the working folder and nothing in the temporary one "
            f"may be left; the process that starts all others may grow by {GROWTH} MiB, one that trains "
            f"{N_DIFFERENT} settings round after round by {GROWTH_IN_PROCESS} MiB behind the first round, and neither "
            "by an open file, a thread or a tensor. A setting is done again by `python -m benchmarks.soak --only "
            "NUMBER`.",
            tabulate(summary, headers=["what", "figure"], tablefmt="github", disable_numparse=True),
            f"{len(models)} models, {len(pairs)} pairs of kernel structures. Settings given, and how often: "
            + ", ".join(f"{key} {n}" for key, n in sorted(given.items()))
            + ".",
            *_listed("Lines of runs that ended with code 2:", ended),
            *_listed("Lines of draws that were refused:", sorted(set(refused))),
            *_listed("Faults:", faults),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

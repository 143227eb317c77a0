"""Time of a training epoch of RecBole's SASRec, by RecBole's own classes, and of our models on the same targets.

    python -m benchmarks.epoch_speed          # writes results/epoch_speed.md, .csv and .png

All take turns in one process. An epoch of ours is timed whole. RecBole pads every row to the same length, so that its
batches cost the same: some of each epoch are timed, and their mean is multiplied by the number of batches.

RecBole trains with autograd's anomaly detection on, because one of its modules (``sine``) switches it on whenever a
sequential model is looked up. This is what its users get, so ratios refer to it; it is also timed without.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from recbole_posattn.compat.tensorboard import without_tensorboard

import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.trainer import Trainer
from recbole.utils import init_seed

from benchmarks.common import bars, report, scratch_folder, taking_turns
from recbole_posattn import Config
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.trainer import trainer_class

RECBOLE, SAME_SIZES, NO_ANOMALY = "RecBole's SASRec", "the same, our sizes", "the same, our sizes, no anomaly detection"
OURS = ("NoPESASRec", "APESASRec", "PosKernelSASRec")
SIZES = ("inner_size", "n_heads")  # RecBole's defaults are 256 and 2
GOALS = {("ml-100k", 50): 100, ("amazon-beauty", 50): 25}


class Contestant(NamedTuple):
    """A model ready to train.

    Attributes:
        seconds: Trains once and returns the seconds of a whole epoch.
        targets: Targets in an epoch.
    """

    seconds: Callable[[], float]
    targets: int


def settings(dataset: str, length: int, options: argparse.Namespace) -> dict:
    """The settings shared by all models; dropout is RecBole's default for SASRec."""
    return {
        **({"data_path": options.data_path} if dataset != "ml-100k" else {}),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": length,
        "hidden_size": 64,
        "inner_size": 64,
        "n_layers": 2,
        "n_heads": 1,
        "hidden_dropout_prob": 0.5,
        "attn_dropout_prob": 0.5,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "use_gpu": options.use_gpu,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "show_progress": False,
        "state": "ERROR",
    }


def recboles(dataset: str, length: int, options: argparse.Namespace) -> dict[str, Contestant]:
    """RecBole's own SASRec, loader and trainer: as installed, with our sizes, and also without anomaly detection."""
    shared = {**settings(dataset, length, options), "lazy_prefixes": False}
    as_it_comes = {key: value for key, value in shared.items() if key not in SIZES}
    train, *_ = SequentialDataset(Config("SASRec", dataset, config_dict=shared, command_line=[])).build()

    def contestant(given: dict, anomaly_detection: bool) -> Contestant:
        config = Config("SASRec", dataset, config_dict=given, command_line=[])
        init_seed(config["seed"], config["reproducibility"])
        loader = TrainDataLoader(config, train, None, shuffle=True)
        with without_tensorboard():
            trainer = Trainer(config, config.model_class(config, train).to(config["device"]))

        def seconds() -> float:
            with torch.autograd.set_detect_anomaly(anomaly_detection):
                start = time.perf_counter()
                trainer._train_epoch(itertools.islice(loader, options.batches), 0)
                return (time.perf_counter() - start) * len(loader) / min(options.batches, len(loader))

        return Contestant(seconds, len(train))

    return {
        RECBOLE: contestant(as_it_comes, anomaly_detection=True),
        SAME_SIZES: contestant(shared, anomaly_detection=True),
        NO_ANOMALY: contestant(shared, anomaly_detection=False),
    }


def prepared(
    model: str, dataset: str, length: int, options: argparse.Namespace, **given: object
) -> tuple[Trainer, TrainDataLoader]:
    """The trainer of a model of ours with the shared settings and those given, and its training data."""
    config = Config(model, dataset, config_dict={**settings(dataset, length, options), **given}, command_line=[])
    init_seed(config["seed"], config["reproducibility"])
    _, (loader, _, _) = prepare_data(config)
    with without_tensorboard():
        trainer = trainer_class(config)(config, config.model_class(config, loader._dataset).to(config["device"]))
    return trainer, loader


def ours(model: str, dataset: str, length: int, options: argparse.Namespace, **given: object) -> Contestant:
    """A model of ours, trained on whole sequences, with the shared settings and those given."""
    trainer, loader = prepared(model, dataset, length, options, **given)

    def seconds() -> float:
        start = time.perf_counter()
        trainer._train_epoch(loader, 0)
        return time.perf_counter() - start

    return Contestant(seconds, sum(int((batch[TARGET_LIST_FIELD] > 0).sum()) for batch in loader))


def main() -> None:
    """Measure and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "amazon-beauty"])
    parser.add_argument("--data_path", default="dataset", help="folder of amazon-beauty (default: dataset)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200])
    parser.add_argument(
        "--batches", type=int, default=3, help="timed batches of the RecBole model in each round (default: 3)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one warm-up round (default: 3)")
    options = parser.parse_args()
    options.use_gpu = False

    rows, speeds = [], {}
    with scratch_folder():
        for dataset, length in itertools.product(options.datasets, options.lengths):
            contestants = recboles(dataset, length, options)
            contestants |= {model: ours(model, dataset, length, options) for model in OURS}
            assert len({contestant.targets for contestant in contestants.values()}) == 1, "the same targets for all"
            functions = {name: contestant.seconds for name, contestant in contestants.items()}
            rounds = taking_turns(functions, options.rounds, f"{dataset}, L = {length}")
            seconds = {name: statistics.median(values[1:]) for name, values in rounds.items()}
            n_targets = contestants[RECBOLE].targets
            speeds[f"{dataset}, L = {length}"] = {name: n_targets / value for name, value in seconds.items()}
            for name, value in seconds.items():
                ratios = [f"{seconds[recbole] / value:.1f}" for recbole in (RECBOLE, SAME_SIZES, NO_ANOMALY)]
                goal = GOALS.get((dataset, length)) if name in OURS else None
                figures = [f"{n_targets:,}", f"{value:.2f}", f"{n_targets / value:,.0f}", *ratios]
                rows.append([dataset, length, name, *figures, f"≥ {goal}" if goal else ""])
    bars("epoch_speed", speeds, "targets trained on per second", logarithmic=True)
    report(
        "epoch_speed",
        "Training speed beside RecBole",
        "Seconds of one training epoch over the same targets: hidden size 64, 2 layers, dropout 0.5, cross-entropy "
        "over all items, Adam, default batches (RecBole: 2,048 prefixes; ours: 128 windows). Out of the box, RecBole's "
        "SASRec has an inner size of 256 and 2 heads, and trains with autograd's anomaly detection, which its module "
        "`sine` switches on whenever a sequential model is looked up. It is also timed with our sizes (inner size 64, "
        f"1 head), and without anomaly detection. Medians of {options.rounds} rounds; all models take turns in one "
        "process. RecBole's batches all have the same shape, so only "
        f"{options.batches} a round are timed and scaled to the epoch.\n\n"
        "![targets per second](epoch_speed.png)",
        ["data", "L", "model", "targets", "s an epoch", "targets/s", "× RecBole", "× sizes", "× no anomaly", "goal"],
        rows,
    )


if __name__ == "__main__":
    main()

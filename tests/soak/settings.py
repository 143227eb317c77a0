"""Settings of a soak: values for every key, drawn at random so that most of them are accepted together."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

from recbole_posattn.nn.backbone import ACTIVATIONS
from recbole_posattn.nn.backbones import BACKBONES
from recbole_posattn.nn.encoder import BIAS_INITIALIZERS, INITIALIZERS
from recbole_posattn.nn.encodings.build import ENCODINGS, check_encodings
from recbole_posattn.nn.kernels.base import ALIGNMENTS, NORMALIZATIONS, TAP_STARTS
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, STRUCTURES
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.nn.losses.negatives import DISTRIBUTIONS

# Not drawn, with the reason.
NOT_DRAWN = {
    "gpu_id": "all train on the CPU, where a resumed run is the same to the last bit",
    **dict.fromkeys(("data_path", "checkpoint_dir"), "the folders of a run"),
    **dict.fromkeys(("log_mlflow", "log_wandb", "wandb_project"), "a service on the network"),
    **dict.fromkeys(
        ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"), "refused, being pickles"
    ),
    "torch_compile": "minutes for each run",
    "max_minutes": "ends a run by the clock, so that a resumed run may train longer",
    "data_cache": "a folder; tests/data/test_cache.py compares runs with and without",
    "plugins": "modules of the user, of which there are none",
    "time_gaps": "False refuses every model that reads time, and True is the default",
}

# Values that are allowed with few others, or not at all: drawn at random, they must be refused before the training.
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
    "learner_args": one_of({}, {"eps": 1e-6}, {"betas": [0.9, 0.98]}, {"momentum": 0.9}),  # not of every learner
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


def draw_recipe(rng: random.Random) -> dict[str, Any]:
    """The score, smoothing, dropout of items, the schedule and averaged weights; each with the keys that go with it."""
    settings = some(
        rng,
        {
            "label_smoothing": one_of(0.1, 0.3),
            "loss_precision": one_of("bfloat16"),
            "item_dropout_prob": one_of(0.1, 0.4),
            "weight_decay_on": one_of("matrices"),
        },
        0.1,
    )
    if rng.random() < 0.2:
        settings |= {rng.choice(["history_partition", "train_mask_history"]): rng.choice([True, "auto"])}
    if rng.random() < 0.15:
        settings |= {"score": "cosine", **some(rng, {"score_temperature": one_of(0.05, 0.2)}, 0.5)}
    if rng.random() < 0.15:
        schedule = rng.choice(["constant", "linear", "cosine"])
        settings |= {"lr_scheduler": schedule, **some(rng, {"lr_warmup_epochs": one_of(0.5, 1)}, 0.5)}
        if schedule != "constant":
            settings |= some(rng, {"lr_decay_epochs": one_of(3, 10), "lr_end_factor": one_of(0.1, 1.0)}, 0.5)
    if rng.random() < 0.15:
        average = rng.choice(["ema", "swa"])
        settings |= {"weight_averaging": average, **some(rng, {"averaging_start_epoch": one_of(0, 1)}, 0.5)}
        if average == "ema":
            settings |= some(rng, {"ema_decay": one_of(0.9, 0.99)}, 0.5)
    return settings


TIME_SPLIT_KEYS = {
    "drop_unseen_items": one_of(True, False),
    "time_split_second_of": one_of("all", "rest"),
    "time_split_method": one_of("linear", "lower", "higher", "midpoint", "nearest"),
    "time_split_tie": one_of("earlier", "later"),
    "max_valid_rows": one_of(None, 10, 1000),
}


def draw_evaluation(rng: random.Random, sequential: bool) -> dict[str, Any]:
    """Protocol or split, mode and mask; metrics with one of them to watch."""
    settings: dict[str, Any] = {}
    kind = rng.choice(["default", "protocol", "masked", "sampled", "split"])
    if kind == "protocol":
        settings["protocol"] = rng.choice(["leave_one_out", "leave_one_out_masked", "temporal", "temporal_paper"])
    elif kind != "default":
        splits = [{"LS": "valid_and_test"}, {"LS": "valid_only"}, {"LS": "test_only"}]
        splits += [{"RS": [0.8, 0.1, 0.1]}, {"RS": [0.5, 0.2, 0.3]}]
        if kind == "masked":
            splits.append({"TQ": [0.8, 0.9]})
            settings["mask_history"] = rng.choice(["none", "all", "except_target"])
            settings |= some(rng, {"drop_unseen_targets": one_of(True, False)}, 0.5)
        split = rng.choice(splits)
        if "TQ" in split:
            settings |= some(rng, TIME_SPLIT_KEYS, 0.4)
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


def draw_transformer(rng: random.Random) -> dict[str, Any]:
    n_heads = rng.choice([1, 1, 2, 4])
    keys = {
        "n_layers": one_of(1, 2, 3),
        "inner_size": one_of(None, 8, 64, "4x"),
        "hidden_dropout_prob": one_of(0.0, 0.1, 0.5, 0.9),
        "attn_dropout_prob": one_of(0.0, 0.1, 0.5, 0.9),
        "hidden_act": one_of(*ACTIVATIONS),
        "layer_norm_eps": _log_uniform(1e-12, 1e-3),
        "initializer": one_of(*INITIALIZERS),
        "initializer_range": _log_uniform(0.001, 0.5),
        "init_padding_row": one_of(True, False),
        "feed_forward_bias": one_of(*BIAS_INITIALIZERS),
        "output_projection": one_of(True, False),
        "attend_padding": one_of(True, False),
        "backbone": one_of(*BACKBONES),
        "position_alignment": one_of(*ALIGNMENTS),
        "save_kernel_every": one_of(None, 1, 3),
        "length_bucketing": one_of(True, False),
        "train_objective": one_of("sequence", "augmented"),
    }
    drawn = some(rng, keys, 0.4)
    if drawn.get("backbone") != "sasrec":
        drawn.pop("output_projection", None)
    if drawn.get("position_alignment") == "start":
        drawn.pop("attend_padding", None)
    return {"n_heads": n_heads, "hidden_size": n_heads * rng.choice([4, 8, 16]), **drawn}


def draw_kernel(rng: random.Random, max_length: int) -> dict[str, Any]:
    parts = rng.choices(list(STRUCTURES), k=2)
    keys = {
        "kernel_decays": one_of(1, 2, 8),
        "kernel_sharing": one_of("per_layer", "shared", {"u": "per_layer", "l": "shared_if_full"}),
        "kernel_groups": one_of(1, "n_heads", "hidden_size"),
        "kernel_normalization": one_of(*NORMALIZATIONS),
        "kernel_normalization_eps": one_of(0.0, 1e-10),
        "kernel_first_tap_start": one_of(*TAP_STARTS),
    }
    settings = {"kernel_structure": "-".join(parts), **some(rng, keys, 0.5)}
    if rng.random() < 0.4:
        settings["kernel_branch"] = rng.choice(list(STRUCTURES))
        settings |= some(rng, {"kernel_branch_groups": one_of(1, "n_heads", "hidden_size")}, 0.5)
        parts.append(settings["kernel_branch"])
        if rng.random() < 0.4:
            parts = parts[2:]
            of_attention = {"kernel_structure", "kernel_sharing", "kernel_groups"}
            settings = {key: value for key, value in settings.items() if key not in of_attention}
            settings["attention"] = "none"
    if set(parts) & set(BANDED_STRUCTURES):
        settings["kernel_bandwidth"] = rng.randint(1, max_length)
    if "lowrank" in parts or rng.random() < 0.1:
        settings["kernel_rank"] = rng.randint(1, max_length)
    if "adaptive_band" in parts and rng.random() < 0.5:
        settings["kernel_width_penalty"] = rng.choice([0.01, 1.0])
    return settings


def draw_filter(rng: random.Random) -> dict[str, Any]:
    keys = {
        "filter_padding": one_of(True, False),
        "bsarec_alpha": one_of(0, 0.3, 1.0),
        "bsarec_cutoff": one_of(1, 3, 4, 5),
        "tvrec_orthogonality": one_of(0.0, 0.1),
        "tisasrec_intervals": one_of(1, 16, 1024),
        "tisasrec_embedding_l2": one_of(0.0, 1e-4),
    }
    return some(rng, keys, 0.6)


def draw_encodings(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(list(ENCODINGS), rng.choice([0, 0, 1, 1, 2, 3]))
    with contextlib.suppress(ValueError):
        check_encodings(names)
        settings = {"position_encoding": names}
        keys = {
            "all_absolute_sharing": one_of("per_layer", "shared"),
            "rope_base": _log_uniform(10, 1e6),
            "cape_positions": lambda rng: rng.randint(1, 60),
            "alibi_slope_exponent": _log_uniform(0.5, 16),
            "time_bias_positions": one_of(True, False),
            "time_rope_base": _log_uniform(10, 1e6),
            "read_times": one_of(True, False, "auto"),
        }
        settings |= some(rng, keys, 0.4)
        if rng.random() < 0.4:
            buckets = rng.choice([2, 8, 32])
            settings |= {"t5_buckets": buckets, "t5_max_distance": buckets // 2 + rng.randint(1, 40)}
        return settings
    return draw_encodings(rng)


def draw_loss(rng: random.Random, max_length: int) -> dict[str, Any]:
    """The loss and its negatives, and what else depends on the objective (as :func:`draw_transformer` may draw it)."""
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
        settings |= {"train_objective": "sequence", "last_window_only": True}
    elif rng.random() < 0.1:
        transform = rng.choice(["inverse_itemseq", "crop_itemseq", "reorder_itemseq", "mask_itemseq"])
        shares = {"crop_itemseq": "eta", "reorder_itemseq": "beta", "mask_itemseq": "mask_ratio"}
        settings |= {"train_objective": "augmented", "transform": transform}
        if transform in shares and rng.random() < 0.8:
            settings[shares[transform]] = rng.choice([0.2, 0.6])
    return settings


def draw_recbole_negatives(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        [
            {"distribution": "popularity", "sample_num": 2, "alpha": 0.5},
            {"distribution": "uniform", "sample_num": 1, "dynamic": True, "candidate_num": 4},
            {"distribution": "uniform", "sample_num": 3},
        ]
    )

"""Time of one training step (forward, loss, backward, Adam) of each model against NoPESASRec's.

A branch and a history partition are compared with the same model without them as well.

    python -m benchmarks.step_time            # writes results/step_time.md
    python -m benchmarks.step_time --only history --lengths 50 200    # some variants, printed and not written

All models of a length take turns in one process and see the same batch: full sequences of random items, the model's
default settings but for the length, a catalogue of the size of ml-100k's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import SimpleNamespace

import torch
from recbole.data.interaction import Interaction

from benchmarks.common import interleaved_medians, report
from recbole_posattn import Config
from recbole_posattn.data.fields import TARGET_LIST_FIELD, TIME_LIST_FIELD
from recbole_posattn.reporting.terminal import markdown_table
from recbole_posattn.training.memory import keep_freed_memory

N_ITEMS = 1683  # of ml-100k, with the padding item
BASELINE = "NoPESASRec"
KERNEL = "PosKernelSASRec toeplitz-full"

# What the defaults add, each measured by itself
_PLAIN = {"history_partition": False}
_KERNEL = {**_PLAIN, "kernel_structure": "toeplitz-full", "kernel_branch": None}

VARIANTS = {
    BASELINE: ("NoPESASRec", _PLAIN),
    "RoPESASRec": ("RoPESASRec", _PLAIN),
    **{
        f"PosKernelSASRec {structure}": ("PosKernelSASRec", {**_KERNEL, "kernel_structure": structure})
        for structure in ("toeplitz-full", "toeplitz-toeplitz", "exponential-exponential", "adaptive_band-dilated")
    },
    "PosKernelSASRec, the default but history_partition": ("PosKernelSASRec", _PLAIN),
    f"{KERNEL} + branch": ("PosKernelSASRec", {**_KERNEL, "kernel_branch": "toeplitz"}),
    f"{KERNEL} + history_partition": ("PosKernelSASRec", {**_KERNEL, "history_partition": True}),
    f"{KERNEL} + train_mask_history": ("PosKernelSASRec", {**_KERNEL, "train_mask_history": True}),
    "FMLPRec": ("FMLPRec", {"train_objective": "sequence"}),
    "BSARec": ("BSARec", {"train_objective": "sequence"}),
    "TVRec": ("TVRec", {"train_objective": "sequence"}),
}
LENGTHS = {50: 128, 200: 128, 2048: 4}  # and the batch size
TARGETS = {
    **dict.fromkeys([(50, KERNEL), (200, KERNEL)], 1.15),
    (2048, "PosKernelSASRec toeplitz-toeplitz"): 1.5,
}
# The model that a variant is also compared with, and the largest allowed ratio of their step times up to T = 200.
WITHOUT = {
    f"{KERNEL} + branch": (KERNEL, 1.15),
    f"{KERNEL} + history_partition": (KERNEL, 1.25),
    f"{KERNEL} + train_mask_history": (KERNEL, 1.25),
}


def training_step(model: str, settings: dict, length: int, batch_size: int, device: str = "cpu") -> Callable[[], None]:
    """A function that does one training step on a random batch, on a GPU in mixed precision."""
    config = Config(
        model, "ml-100k", config_dict={"MAX_ITEM_LIST_LENGTH": length, **settings}, command_line=["--use_gpu=False"]
    )
    catalogue = SimpleNamespace(num=lambda field: N_ITEMS)  # all that a model asks of its data set
    torch.manual_seed(0)
    recommender = config.model_class(config, catalogue).train().to(device)
    optimizer = torch.optim.Adam(recommender.parameters(), lr=config["learning_rate"], fused=device == "cpu" or None)
    if device == "cpu":
        keep_freed_memory()  # as a trainer does
    batch = Interaction(
        {
            "item_id_list": torch.randint(1, N_ITEMS, (batch_size, length)),
            "item_length": torch.full((batch_size,), length),
            TARGET_LIST_FIELD: torch.randint(1, N_ITEMS, (batch_size, length)),
            **({TIME_LIST_FIELD: random_times(batch_size, length)} if config["reads_time"] else {}),
        }
    ).to(device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            loss = recommender.calculate_loss(batch)
        loss.backward()
        optimizer.step()

    return step


def random_times(batch_size: int, length: int) -> torch.Tensor:
    """Gaps of 1 s to 12 days, relative to the newest item; shape (b, s)."""
    times = (10.0 ** (6 * torch.rand(batch_size, length, dtype=torch.float64))).cumsum(dim=1)
    return times - times[:, -1:]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="rounds that count (default: 40)")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), choices=LENGTHS)
    parser.add_argument("--only", help="variants with this text in their names, and what they are compared with")
    options = parser.parse_args()
    chosen = [name for name in VARIANTS if options.only is None or options.only in name]
    chosen += [WITHOUT[name][0] for name in chosen if name in WITHOUT]
    variants = {name: variant for name, variant in VARIANTS.items() if name in {BASELINE, *chosen}}
    rows = []
    for length in options.lengths:
        batch_size = LENGTHS[length]
        steps = {name: training_step(*variant, length, batch_size) for name, variant in variants.items()}
        seconds = interleaved_medians(steps, options.repeats)
        for name, value in seconds.items():
            target, ratio = TARGETS.get((length, name)), value / seconds[BASELINE]
            row = [length, batch_size, name, f"{1000 * value:.0f}", f"{ratio:.2f}", f"≤ {target}" if target else ""]
            if name in WITHOUT:
                other, most = WITHOUT[name]
                row[-1] = f"× {value / seconds[other]:.2f} of {other}; ≤ {most} up to T = 200"
            rows.append(row)
    header = ["T", "batch", "model", "ms", f"× {BASELINE}", "target"]
    if options.only is not None:
        print(markdown_table(header, rows))
        return
    report(
        "step_time",
        "Time of a training step",
        "Forward, loss, backward and Adam on a batch of full sequences: hidden size 64, 2 layers, 1 head, dropout 0.5, "
        f"{N_ITEMS:,} items, float32. Medians of models that take turns in one process; compare ratios, not "
        "milliseconds.",
        header,
        rows,
    )


if __name__ == "__main__":
    main()

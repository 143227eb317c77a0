"""Time of a training step over the time of its matrix products alone, on batches of real data; and where the rest goes.

    python -m benchmarks.roofline             # writes results/roofline.md and .csv

The products of a step are recorded and computed again by themselves: the same shapes and memory layouts, the same
number of threads. Step and products take turns in one process.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import interleaved_medians, report, scratch_folder
from benchmarks.epoch_speed import prepared
from recbole_posattn.nn import gemm

MODELS = ("NoPESASRec", "PosKernelSASRec", "BSARec")
DATASETS = ("ml-100k", "amazon-beauty", "ml-1m")
LENGTHS = (50, 200)
GOAL = 1.25

# The kernels of the preset paper, without what our defaults add.
_PLAIN = {"history_partition": False}
PAPER = {
    **_PLAIN,
    "kernel_structure": "toeplitz-full",
    "kernel_sharing": {"u": "per_layer", "l": "shared_if_full"},
    "kernel_normalization": "frobenius",
    "kernel_branch": None,
}
OF_MODEL = {"NoPESASRec": _PLAIN, "PosKernelSASRec": PAPER, "BSARec": {"train_objective": "sequence"}}

# Parts of a step by what the names of operations contain; the first that fits.
PARTS = {
    "products": ("mm", "linear_pointwise"),
    "softmax": ("softmax", "amax", "aten::log"),
    "random numbers": ("random_",),
    "optimizer": ("Optimizer", "adam"),
    "moved data": ("copy_", "cat", "index", "embedding", "fill_", "zero_", "gather", "mask", "nonzero"),
}


class Operand(NamedTuple):
    """Shape and strides of a matrix, or of several."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Random numbers in this layout."""
        last = sum((n - 1) * stride for n, stride in zip(self.shape, self.stride))
        return torch.randn(last + 1).as_strided(self.shape, self.stride)


class Products(TorchDispatchMode):
    """A context that counts the products of matrices in it, by operation and operands."""

    # The place of the first of two operands.
    FIRST: ClassVar = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, "_linear_pointwise": 0}

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, Operand, Operand]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = function._schema.name.split("::")[1]
        if name in self.FIRST:
            pair = args[self.FIRST[name] :][:2]
            self.found[(name, *(Operand(tuple(x.shape), x.stride()) for x in pair))] += 1
        return function(*args, **(kwargs or {}))

    def flops(self) -> float:
        """Floating-point operations of all products."""
        columns = {name: -2 if name == "_linear_pointwise" else -1 for name in self.FIRST}
        sizes = ((n, torch.Size(x.shape).numel(), y.shape[columns[name]]) for (name, x, y), n in self.found.items())
        return 2.0 * sum(n * elements * column for n, elements, column in sizes)

    def replay(self, by_pytorch: bool) -> Callable[[], None]:
        """A function that computes them all; ``by_pytorch``: with the library that PyTorch takes by itself."""
        calls: list[tuple[int, Callable[[], object]]] = []
        for (name, x_kind, y_kind), n in self.found.items():
            x, y = x_kind.tensor(), y_kind.tensor()
            if name == "_linear_pointwise":
                if not by_pytorch:
                    calls.append((n, lambda x=x, y=y: gemm._by_onednn(x, y)))
                    continue
                x, y = x.reshape(-1, x.shape[-1]), y.T
            multiply = torch.mm if x.dim() == 2 else torch.bmm
            out = multiply(x, y)
            calls.append((n, lambda f=multiply, x=x, y=y, out=out: f(x, y, out=out)))

        def replay() -> None:
            for n, call in calls:
                for _ in range(n):
                    call()

        return replay


def training_steps(model: str, dataset: str, length: int, options: argparse.Namespace) -> Callable[[], None]:
    """A function that trains on some batches, drawn once, as a trainer does."""
    trainer, loader = prepared(model, dataset, length, options, **OF_MODEL.get(model, {}))
    rows = torch.randperm(len(loader.dataset), generator=torch.Generator().manual_seed(0))
    batches = [part.tolist() for part in rows.split(loader.step)][: options.batches]
    trainer.model.train()

    def steps() -> None:
        for batch in batches:
            interaction = loader.collate_fn(batch)
            trainer.optimizer.zero_grad()
            trainer.model.calculate_loss(interaction).backward()
            trainer.optimizer.step()

    return steps


def shares(steps: Callable[[], None]) -> dict[str, float]:
    """The share of each part in the time under a profiler, and of the time between operations."""
    seconds: Counter[str] = Counter()
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        steps()
        total = time.perf_counter() - start
    for event in profiler.key_averages():
        part = next((part for part, names in PARTS.items() if any(name in event.key for name in names)), "other")
        seconds[part] += event.self_cpu_time_total / 1e6
    seconds["between"] = max(0.0, total - seconds.total())
    return {part: seconds[part] / max(total, seconds.total()) for part in (*PARTS, "other", "between")}


def measured(model: str, dataset: str, length: int, options: argparse.Namespace) -> list[object]:
    """A row of the table."""
    steps = training_steps(model, dataset, length, options)
    for _ in range(2):
        steps()
    with Products() as products:
        steps()
    functions = {"step": steps, "products": products.replay(False), "by PyTorch": products.replay(True)}
    seconds = {name: value / options.batches for name, value in interleaved_medians(functions, options.repeats).items()}
    gflops = products.flops() / options.batches / 1e9
    ratios = [f"{seconds['step'] / seconds[name]:.2f}" for name in ("products", "by PyTorch")]
    parts = [f"{100 * share:.0f}" for share in shares(steps).values()]
    figures = [f"{1e3 * value:.1f}" for value in seconds.values()]
    return [dataset, length, model, f"{gflops:.1f}", *figures, f"{gflops / seconds['products']:.0f}", *ratios, *parts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), help="data sets; missing ones are left out")
    parser.add_argument("--data_path", default="dataset", help="folder of the data sets but ml-100k (default: dataset)")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--batches", type=int, default=4, help="batches to train on in turn (default: 4)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds that count (default: 15)")
    options = parser.parse_args(arguments)
    options.use_gpu = False
    options.data_path = str(Path(options.data_path).absolute())
    there = [name for name in options.datasets if name == "ml-100k" or (Path(options.data_path) / name).is_dir()]
    rows = []
    with scratch_folder():
        for dataset, length, model in itertools.product(there, options.lengths, options.models):
            rows.append(measured(model, dataset, length, options))
    report(
        "roofline",
        "A training step over its matrix products",
        "Milliseconds of a training step (batch of 128 windows, loss, gradients, Adam; sizes of `epoch_speed`, the "
        "kernels of the preset paper), of its matrix products alone, and of the same products by the library that "
        "PyTorch takes by itself; float32. GFLOP and GFLOP/s are those of the products. The last columns are shares of "
        "a step under a profiler, in %; *between* is the time between operations, with what the profiler adds. Medians "
        f"of {options.repeats} rounds, taking turns. Goal: at most {GOAL} × the products.",
        [
            "data",
            "T",
            "model",
            "GFLOP",
            "step ms",
            "products ms",
            "by PyTorch ms",
            "GFLOP/s",
            "step / products",
            "step / by PyTorch",
            *(f"{part} %" for part in (*PARTS, "other", "between")),
        ],
        rows,
    )


if __name__ == "__main__":
    main()

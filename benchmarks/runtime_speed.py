"""Lists of ten from PosKernelSASRec by ``recommend``, and by ONNX Runtime from the exported model, in float32 and int8.

python -m benchmarks.runtime_speed        # writes results/runtime_speed.md and .csv

The data are those of ``benchmarks.recommend_speed``. The model is trained for one epoch, since the exported file and
its int8 version are compared with the lists of the model.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor

from benchmarks.common import interleaved_medians, report, scratch_folder
from benchmarks.recommend_speed import LENGTH, K, amazon_beauty, full_histories, recommending, waits
from recbole_posattn import run
from recbole_posattn.serving.export import INPUT_NAMES, OUTPUT_NAME, export
from recbole_posattn.serving.recommender import REQUESTS_PER_BATCH, Recommender

N_HISTORIES = 4096

Lists = Callable[[Tensor], Tensor]


def in_runtime(file: Path) -> Lists:
    """The numbers of the ten best items by ONNX Runtime; shapes (b, L) to (b, 10)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def lists(items: Tensor) -> Tensor:
        length = np.full(len(items), LENGTH)
        (scores,) = session.run([OUTPUT_NAME], dict(zip(INPUT_NAMES, (items.numpy(), length))))
        return torch.topk(torch.from_numpy(scores), K).indices

    return lists


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="dataset", help="folder of amazon-beauty (default: dataset)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--calls", type=int, default=300, help="calls for the wait of one user (default: 300)")
    options = parser.parse_args()
    folder = Path(options.data_path).absolute()
    with scratch_folder() as scratch:
        data_path, dataset = amazon_beauty(folder, scratch)
        sizes = {"MAX_ITEM_LIST_LENGTH": LENGTH, "hidden_size": 64, "data_path": str(data_path), "epochs": 1}
        given = {**sizes, "use_gpu": False, "state": "ERROR", "show_progress": False}
        result = run("PosKernelSASRec", dataset, config_dict=given, command_line=[])
        recommender = Recommender.load(result["checkpoint"])
        export(result["checkpoint"], "onnx", scratch / "onnx")
        quantize_dynamic(scratch / "onnx" / "model.onnx", scratch / "int8.onnx", weight_type=QuantType.QInt8)
        runtimes = {
            "ONNX Runtime": in_runtime(scratch / "onnx" / "model.onnx"),
            "ONNX Runtime, int8": in_runtime(scratch / "int8.onnx"),
        }

        requests = full_histories(recommender, N_HISTORIES)
        n_items = recommender.loaded.dataset.item_num - 1
        items = torch.randint(1, n_items + 1, (N_HISTORIES, LENGTH), generator=torch.Generator().manual_seed(1))
        batches = items.split(REQUESTS_PER_BATCH["cpu"])
        ways = {
            "recommend": lambda: sum(map(len, recommender.blocks(requests, K))),
            **{name: lambda lists=lists: [lists(batch) for batch in batches] for name, lists in runtimes.items()},
        }
        seconds = interleaved_medians(ways, options.repeats)
        answers = {
            "recommend": recommending(recommender),
            **{
                name: lambda history, lists=lists: lists(torch.from_numpy(history)[None])
                for name, lists in runtimes.items()
            },
        }
        waited = {name: waits(answer, n_items, options.calls) for name, answer in answers.items()}
        exact = runtimes["ONNX Runtime"](items)
        common = {
            name: statistics.mean(len(set(a) & set(b)) for a, b in zip(exact.tolist(), lists(items).tolist()))
            for name, lists in runtimes.items()
        }
    report(
        "runtime_speed",
        "Recommendations by ONNX Runtime",
        f"The {K} best of {n_items:,} items by PosKernelSASRec, d = 64, 2 layers, trained for one epoch, for "
        f"{N_HISTORIES:,} histories of {LENGTH} items in batches of {len(batches[0])}, and one user's wait with such a "
        f"history. `recommend` returns tables of tokens; ONNX Runtime scores with the exported model, and `torch.topk` "
        f"takes the best. int8: dynamic quantization of all products. Medians of {options.repeats} rounds, all in "
        f"turn; the wait is the median and the 99th percentile of {options.calls} calls. Last column: how many of the "
        f"{K} items are those of float32, on average.",
        ["way", "users/s", "× recommend", "wait ms, p50", "p99", "items in common"],
        [
            [
                *(name, f"{N_HISTORIES / seconds[name]:,.0f}", f"{seconds['recommend'] / seconds[name]:.2f}"),
                *(*waited[name], f"{common[name]:.2f}" if name in common else "–"),
            ]
            for name in ways
        ],
    )


if __name__ == "__main__":
    main()

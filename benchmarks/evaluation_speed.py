"""Time of a full-catalogue evaluation by RecBole's loader, trainer and collector, and by ours, of the same model.

python -m benchmarks.evaluation_speed     # writes results/evaluation_speed.md, .csv and .png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from recbole_posattn.compat.tensorboard import without_tensorboard

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.evaluator import Collector
from recbole.trainer import Trainer
from recbole.utils import init_seed

from benchmarks.common import bars, interleaved_medians, peak_mebibytes, report, scratch_folder
from recbole_posattn import Config
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.trainer import trainer_class

MODELS = ("SASRec", "PosKernelSASRec")
METRICS = {"lists": ["Recall", "MRR", "NDCG", "Hit", "Precision"], "lists and ranks": ["NDCG", "GAUC"]}


def evaluations(model: str, dataset: str, metrics: list[str], data_path: str) -> dict[str, Callable[[], dict]]:
    """Functions that evaluate an untrained model on the test split, RecBole's way and ours."""
    given = {"metrics": metrics, "valid_metric": "NDCG@10", "use_gpu": False, "state": "ERROR"}
    given |= {"data_path": data_path} if dataset != "ml-100k" else {}
    given |= {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None}
    config = Config(model, dataset, config_dict=given, command_line=[])
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, _, test_data) = prepare_data(config)
    recommender = config.model_class(config, train_data._dataset)
    with without_tensorboard():
        recboles, ours = Trainer(config, recommender), trainer_class(config)(config, recommender)
    assert type(recboles.eval_collector) is Collector
    their_data = FullSortEvalDataLoader(config, test_data._dataset, None)
    return {
        "RecBole": lambda: recboles.evaluate(their_data, load_best_model=False),
        "ours": lambda: ours.evaluate(test_data, load_best_model=False),
    }


def main() -> None:
    """Measure and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "amazon-beauty"])
    parser.add_argument("--data_path", default="dataset", help="folder of amazon-beauty (default: dataset)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default: 3)")
    options = parser.parse_args()
    rows, plotted = [], {}
    with scratch_folder():
        for dataset in options.datasets:
            for model in MODELS:
                for kind, metrics in METRICS.items():
                    both = evaluations(model, dataset, metrics, options.data_path)
                    assert both["RecBole"]() == both["ours"](), "the same metrics"
                    seconds = interleaved_medians(both, options.repeats)
                    mebibytes = {name: peak_mebibytes(function) for name, function in both.items()}
                    if kind == "lists":
                        plotted[f"{model}, {dataset}"] = seconds
                    for name in both:
                        figures = [f"{seconds[name]:.2f}", f"{seconds['RecBole'] / seconds[name]:.1f}"]
                        rows.append([dataset, model, kind, name, *figures, f"{mebibytes[name]:,.0f}"])
    bars("evaluation_speed", plotted, "seconds of an evaluation")
    report(
        "evaluation_speed",
        "Full-catalogue evaluation",
        "Seconds and peak memory of tensors of one evaluation of the test users over all items, L = 50, "
        "eval_batch_size 4,096 (RecBole's default), with equal results: metrics of the best ten items (lists), or "
        f"with GAUC, which looks at the whole ranking. Medians of {options.repeats} rounds, taking turns in one "
        f"process, {torch.get_num_threads()} threads.\n\n![seconds](evaluation_speed.png)",
        ["data", "model", "metrics", "evaluation", "s", "× faster", "peak MiB"],
        rows,
    )


if __name__ == "__main__":
    main()

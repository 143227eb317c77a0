"""Two processes end as one does, whatever rows the splits have: no hang, the same results or the same refusal."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

from recbole_posattn import run
from recbole_posattn.distributed import Layout, launch
from recbole_posattn.errors import UserError
from tests import processes
from tests.fuzz.harness import COUNTS, TINY_RUN, write_data

HEADER = "user_id:token\titem_id:token\ttimestamp:float"

# What is drawn at random with these differs from one process, so that only the end is compared.
DRAWS = {"BPR", "uni3"}

# All rows in a step: with more steps a last one with fewer rows than processes joins the one before.
ONE_STEP = 64
SPLITS = [
    *({"LS": which} for which in ("valid_and_test", "valid_only", "test_only")),
    *({"RS": shares} for shares in ([0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.9, 0.1, 0.0])),
    {"TQ": [0.8, 0.9]},
]


def draw(rng: random.Random, name: str) -> tuple[str, dict]:
    """A model and settings, with the data that they name: few users with few rows each."""
    n_rows = [rng.choice((1, 2, 2, 3, 4, 6)) for _ in range(rng.randint(1, 10))]
    rows = [(f"u{user}", f"i{rng.randrange(7)}", t) for user, n in enumerate(n_rows) for t in range(n)]
    write_data("\n".join([HEADER, *("\t".join(map(str, row)) for row in rows), ""]).encode(), folder=name)
    split, mode = rng.choice(SPLITS), rng.choice(("full", "full", "full", "uni3"))
    by_time = "TQ" in split
    return rng.choice(("PosKernelSASRec", "NoPESASRec", "GRU4Rec", "BPR")), {
        **TINY_RUN,
        "topk": 1,
        "valid_metric": "MRR@1",
        "metrics": rng.choice((["MRR"], ["MRR", "GAUC"], ["MRR", "NDCG", "ItemCoverage"])),
        "epochs": rng.randint(1, 3),
        "stopping_step": rng.randint(0, 2),
        "train_batch_size": rng.choice((2, 3, ONE_STEP, ONE_STEP, ONE_STEP)),
        "eval_batch_size": rng.choice((1, 4096)),
        "mask_history": rng.choice((None, "all", "except_target")) if mode == "full" or by_time else None,
        "eval_args": {
            "split": split,
            "order": "TO" if by_time else rng.choice(("TO", "TO", "RO")),
            "group_by": None if by_time else rng.choice(("user", "none")),
            "mode": mode,
        },
        **dict.fromkeys(("hidden_dropout_prob", "attn_dropout_prob", "dropout_prob"), 0.0),
        "process_timeout": 600,
        "data_path": str(Path(name).absolute()),
    }


def alone(model: str, given: dict, folder: str) -> dict:
    """The outcome of a case in one process, as :func:`tests.processes.run_each` returns it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GAUC of users without a negative item is 0 / 0
            result = run(model, "tiny", config_dict={**given, "checkpoint_dir": folder}, command_line=[])
    except UserError as error:
        return {"error": str(error)}
    return {key: result[key] for key in processes.COMPARED}


@pytest.mark.slow
def test_two_processes_end_as_one_does() -> None:
    profile = settings()  # as many cases as the others have for each hundred, see harness.cases
    n_cases, seed = max(1, 12 * profile.max_examples // 100), 0
    if profile.max_examples > 100:
        seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it if the processes fail
    rng = random.Random(seed)
    cases = [draw(rng, f"data-{number}") for number in range(n_cases)]
    outcomes = launch(processes.run_each, {"cases": cases}, Layout(2, 2, "localhost", processes.free_port(), 0))
    for number, ((model, given), together) in enumerate(zip(cases, outcomes)):
        COUNTS["two processes", "refused" if "error" in together else "run"] += 1
        one, where = alone(model, given, f"alone-{number}"), f"seed {seed}, case {number}: {model}, {given}"
        if "error" in together:
            few = "error" not in one  # of one process all can be said; two may have too few rows
            assert together == one or (few and "nproc must be at most 1" in together["error"]), (where, one, together)
        elif DRAWS & {model, given["eval_args"]["mode"]} or given["train_batch_size"] < ONE_STEP:
            ends = [{key: value is None for key, value in case.items()} for case in (one, together)]
            assert ends[0] == ends[1], (where, one, together)
        else:
            assert repr(together) == repr(one), (where, one, together)  # NaN is NaN

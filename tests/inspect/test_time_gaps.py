"""Learned weights and attention by time gap, against a slow reading of the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_posattn import run
from recbole_posattn.analysis.attended import times_of, with_and_without
from recbole_posattn.analysis.inspection import inspect_checkpoint
from recbole_posattn.analysis.interference import interference
from recbole_posattn.analysis.report import report_files
from recbole_posattn.analysis.time_gaps import EDGES, attention_by_gap, weights_by_gap
from recbole_posattn.training.load import Loaded
from tests import references
from tests.timed import TIMED, loaded_timed, write_timed

PARTS = {
    "kernel_structure": "time_decay-toeplitz",
    "kernel_branch": "time_decay",
    "kernel_branch_groups": 1,
    "position_encoding": ["time_bias"],
    "n_heads": 2,
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loaded_timed(write_timed(tmp_path_factory.mktemp("timed")), **PARTS)


def test_weights_by_gap_are_the_learned_ones(loaded: Loaded) -> None:
    table = weights_by_gap(loaded.model).set_index(["layer", "part", "group", "gap"])["weight"]
    assert set(table.index.get_level_values("part")) == {"U", "branch", "time_bias"}
    block = loaded.model.backbone.blocks[1]
    bias, branch = block.attention.encodings[0].weight.detach(), block.branch
    for gap in EDGES:
        for head in (1, 2):
            assert table[2, "time_bias", head, gap] == bias[head - 1, references.time_bucket(float(gap))].item()
        matrix = references.time_decay(branch.kernel, [0.0, float(gap)])
        expected = branch.gate.detach().mean().item() * matrix[0, 1, 0].item()
        assert table[2, "branch", 1, gap] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("alignment", ["end", "start"])
def test_attention_by_gap_is_that_of_a_slow_reading(loaded: Loaded, alignment: str) -> None:
    model, rows = loaded.model, loaded.valid_data._dataset.inter_feat
    items, lengths, times = rows[model.ITEM_SEQ][:9], rows[model.ITEM_SEQ_LEN][:9], times_of(model, rows)[:9]
    parts = ["U", "time_bias"]
    table = attention_by_gap(model, items, lengths, parts, times).set_index(["layer", "head", "gap"])
    sums: dict[tuple, list] = {}
    for row, length in enumerate(lengths.tolist()):
        own = times[row : row + 1, :length] - times[row, length - 1]
        with torch.no_grad():
            pairs = with_and_without(model, items[row : row + 1, :length], lengths[row : row + 1], parts, own)
        for layer, (attended, without) in enumerate(pairs, start=1):
            change = (attended.logits - without.logits)[0]
            for t in range(length):
                for s in range(t):
                    edge = EDGES[np.searchsorted(EDGES, float(own[0, t] - own[0, s]), side="right") - 1]
                    for head in (1, 2):
                        value = change[head - 1, t, s] - change[head - 1, t, t]
                        weights = attended.weights[0, head - 1, t, s], without.weights[0, head - 1, t, s]
                        sums.setdefault((layer, head, edge), []).append((float(value), *map(float, weights)))
    assert set(table.index) == set(sums)
    for key, values in sums.items():
        found = table.loc[key]
        assert found["pairs"] == len(values)
        expected = np.mean(values, axis=0)
        np.testing.assert_allclose(found[["bias", "attention", "attention_without"]], expected, rtol=1e-3, atol=1e-5)


def test_padding_that_a_model_cuts_off_has_its_share(tmp_path: Path) -> None:
    settings = {"kernel_structure": "toeplitz-time_decay", "attend_padding": True, "position_encoding": []}
    model, rows = (
        (loaded := loaded_timed(write_timed(tmp_path), **settings)).model,
        loaded.valid_data._dataset.inter_feat,
    )
    short = rows[model.ITEM_SEQ_LEN] < model.max_seq_length
    items, lengths = rows[model.ITEM_SEQ][short][:5], rows[model.ITEM_SEQ_LEN][short][:5]
    assert model.cuts_padding and len(lengths) == 5
    tables = []
    for counted in (model.padded_length, None):
        model.counted_length = counted
        tables.append(attention_by_gap(model, items, lengths, ["U"], times_of(model, rows)[short][:5]))
    pd.testing.assert_frame_equal(*tables)


def test_models_without_times_have_no_gaps(tmp_path: Path) -> None:
    loaded = loaded_timed(write_timed(tmp_path), position_encoding=["rope"])
    model, rows = loaded.model, loaded.valid_data._dataset.inter_feat
    assert times_of(model, rows) is None and weights_by_gap(model).empty
    assert attention_by_gap(model, rows[model.ITEM_SEQ][:5], rows[model.ITEM_SEQ_LEN][:5], ["U"], None).empty


@pytest.mark.slow
def test_a_run_that_reads_time_is_inspected_and_taken_apart(tmp_path: Path) -> None:
    settings = {
        "data_path": str(write_timed(tmp_path / "data")),
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 16,
        "epochs": 1,
        "show_progress": False,
        "save_kernel_every": 1,
        **PARTS,
        "kernel_structure": "toeplitz-time_decay",
    }
    checkpoint = run(dataset=TIMED, config_dict=settings, command_line=[])["checkpoint"]
    files = report_files([inspect_checkpoint(checkpoint)])
    assert {"gaps.png", "gaps.svg", "gaps.csv", "gap_weights.csv"} <= files.keys()
    assert "Weights by time gap" in files["inspect.html"]
    found = interference(checkpoint)
    assert set(found.metrics["part"]) == {"", "U", "L", "branch", "time_bias"}
    assert set(found.layers["part"]) == {"U", "L", "time_bias"}

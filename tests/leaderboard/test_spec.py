"""What a leaderboard compares, as files and flags say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.leaderboard.published import Published
from recbole_posattn.experiments.leaderboard.spec import read_spec
from recbole_posattn.experiments.trials import checked_folders
from recbole_posattn.settings.properties import PROPERTIES, named_file
from recbole_posattn.settings.yaml import read_yaml


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def test_flags_alone_make_a_leaderboard() -> None:
    spec = read_spec(None, {"models": ["NoPESASRec", "Pop"], "seeds": 2}, {"epochs": 3})
    assert (spec.datasets, spec.protocols, spec.seeds) == (["ml-100k"], ["leave_one_out"], [2020, 2021])
    assert spec.reference == "NoPESASRec"
    trials = spec.trials("ml-100k", "leave_one_out")
    assert [(trial.name, trial.settings["seed"]) for trial in trials] == [
        ("NoPESASRec", 2020),
        ("Pop", 2020),
        ("NoPESASRec", 2021),
        ("Pop", 2021),
    ]
    assert trials[0].settings == {
        "model": "NoPESASRec",
        "epochs": 3,
        "dataset": "ml-100k",
        "protocol": "leave_one_out",
        "seed": 2020,
    }


def test_the_nearer_setting_wins(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "settings: {epochs: 1, hidden_size: 8, n_layers: 1}\n"
        "seeds: [5]\n"
        "models: {a: {model: NoPESASRec, hidden_size: 16, n_layers: 2}, b: APESASRec}\n"
        "tuned: {ml-100k: {a: {n_layers: 3}}}\n",
    )
    spec = read_spec(file, {"datasets": ["ml-100k", "ml-1m"]}, {"epochs": 9})
    sizes = {
        (dataset, trial.name): [trial.settings.get(key) for key in ("epochs", "hidden_size", "n_layers")]
        for dataset in spec.datasets
        for trial in spec.trials(dataset, "temporal")
    }
    assert sizes == {
        ("ml-100k", "a"): [9, 16, 3],
        ("ml-100k", "b"): [9, 8, 1],
        ("ml-1m", "a"): [9, 16, 2],
        ("ml-1m", "b"): [9, 8, 1],
    }


def test_runs_are_started_seed_by_seed_unless_the_definition_says_otherwise(tmp_path: Path) -> None:
    """A row may have seeds of its own, their number or a list, which --seeds overrides."""
    text = "models: {a: Pop, b: {model: BPR, seeds: 1}, c: {model: FPMC, seeds: [7, 2020]}}\nseeds: 3\n"
    file = written(tmp_path, text)

    def order(flags: dict) -> list[tuple[str, int]]:
        return [
            (trial.name, trial.settings["seed"]) for trial in read_spec(file, flags, {}).trials("ml-100k", "temporal")
        ]

    plain = [("a", 2020), ("b", 2020), ("c", 7), ("a", 2021), ("c", 2020), ("a", 2022)]
    assert order({}) == plain and "seeds" not in read_spec(file, {}, {}).models["b"]
    assert order({"seeds": 1}) == [("a", 2020), ("b", 2020), ("c", 2020)]
    file.write_text(text + "priority: [c, 2020]\n")
    assert order({}) == [("c", 7), ("c", 2020), ("a", 2020), ("b", 2020), ("a", 2021), ("a", 2022)]
    file.write_text(text + "priority: [2021]\n")
    assert order({}) == [("a", 2021), *(run for run in plain if run != ("a", 2021))]


def test_a_flag_that_names_rows_of_the_file_keeps_their_settings(tmp_path: Path) -> None:
    text = (
        "models: {NoPESASRec: {model: NoPESASRec, hidden_size: 16, seeds: [7]}, 'a, b': APESASRec, Pop: Pop}\n"
        "seeds: 2\n"
    )
    spec = read_spec(written(tmp_path, text), {"models": ["a, b", "NoPESASRec", "BPR"]}, {"epochs": 3})
    assert spec.models == {
        "a, b": {"model": "APESASRec", "epochs": 3},
        "NoPESASRec": {"model": "NoPESASRec", "hidden_size": 16, "epochs": 3},
        "BPR": {"model": "BPR", "epochs": 3},
    }
    assert spec.seeds_of_rows == {"NoPESASRec": [7]} and spec.reference == "a, b"


def test_flags_leave_out_what_other_entries_of_the_file_name(tmp_path: Path) -> None:
    text = (
        "models: {a: Pop, b: BPR}\nseeds: [2020]\ndatasets: [ml-100k]\nreference: a\npriority: [2020, a, b]\n"
        "tuned: {ml-100k: {a: {epochs: 3}}}\n"
    )
    file = written(tmp_path, text)
    assert read_spec(file, {"seeds": [2021], "datasets": ["tiny"]}, {}).seeds == [2021]
    file.write_text(text.replace("[ml-100k]", "ml-100k"))
    assert read_spec(file, {"datasets": ["tiny"]}, {}).datasets == ["tiny"]
    spec = read_spec(file, {"models": ["FPMC", "Pop"]}, {})
    assert spec.reference == "FPMC"
    with pytest.raises(SettingError, match="reference must be one of FPMC, Pop; got 'a'"):
        read_spec(file, {"models": ["FPMC", "Pop"], "reference": "a"}, {})


def test_rows_may_have_numbers_as_names(tmp_path: Path) -> None:
    text = "{models: {1: Pop, 2: BPR}, reference: 2, priority: [2], tuned: {ml-100k: {1: {epochs: 3}}}}"
    spec = read_spec(written(tmp_path, text), {}, {})
    assert spec.reference == "2" and spec.priority == ["2"] and spec.tuned["ml-100k"] == {"1": {"epochs": 3}}


def test_data_sets_may_have_numbers_as_names(tmp_path: Path) -> None:
    text = "{models: [Pop], datasets: ['2024'], tuned: {2024: {Pop: {epochs: 3}}}}"
    assert read_spec(written(tmp_path, text), {}, {}).tuned == {"2024": {"Pop": {"epochs": 3}}}


def test_names_that_yaml_reads_as_other_values_stay_names(tmp_path: Path) -> None:
    text = "models: {A: NoPESASRec, no: Pop, 1: BPR, on: FPMC}\nreference: no\npriority: [on, 2021]\nseeds: 2\n"
    spec = read_spec(written(tmp_path, text), {}, {})
    assert list(spec.models) == ["A", "no", "1", "on"]
    assert [row["model"] for row in spec.models.values()] == ["NoPESASRec", "Pop", "BPR", "FPMC"]
    assert spec.reference == "no"
    started = [(trial.name, trial.settings["seed"]) for trial in spec.trials("ml-100k", "leave_one_out")]
    assert started[:3] == [("on", 2020), ("on", 2021), ("A", 2021)]
    tuned = "models: {no: Pop, A: Pop}\ntuned: {ml-100k: {no: {epochs: 7}}}\nnot_run: {off: too slow}\n"
    spec = read_spec(written(tmp_path, tuned), {}, {})
    assert spec.trials("ml-100k", "leave_one_out")[0].settings["epochs"] == 7
    assert spec.not_run == {"off": "too slow"}


def test_keys_of_other_files_keep_their_values(tmp_path: Path) -> None:
    text = "reference: 0.5\nprotocols: [true]\npriority: [no]\n"
    assert read_yaml(written(tmp_path, text)) == {"reference": 0.5, "protocols": [True], "priority": [False]}


@pytest.mark.parametrize("reference", ["off", "0", "''"])
def test_a_reference_that_is_no_row_is_refused(tmp_path: Path, reference: str) -> None:
    file = written(tmp_path, f"models: [NoPESASRec, Pop]\nreference: {reference}\n")
    with pytest.raises(SettingError, match="reference must be one of NoPESASRec, Pop"):
        read_spec(file, {}, {})


def test_figures_of_others_are_read(tmp_path: Path) -> None:
    text = (
        "models: [Pop]\n"
        "published:\n"
        "  - {model: BSARec, dataset: beauty, protocol: masked, source: AAAI, metrics: {hit@10: 0.1, ndcg@10: 1}}\n"
    )
    (entry,) = read_spec(written(tmp_path, text), {}, {}).published
    assert entry == Published("BSARec", "beauty", "masked", "AAAI", {"hit@10": 0.1, "ndcg@10": 1})


def test_settings_that_override_a_protocol_are_told(tmp_path: Path) -> None:
    text = "settings: {mask_history: none, topk: [5, 10, 20], epochs: 3}\nmodels: [Pop, BPR]\n"
    spec = read_spec(written(tmp_path, text), {}, {})
    assert spec.protocol_changes("ml-100k", "temporal_paper") == ["mask_history none instead of the protocol's all"]


def test_parts_of_eval_args_are_told_only_where_they_differ(tmp_path: Path) -> None:
    same = "settings: {eval_args: {group_by: user}}\nmodels: [Pop]\n"
    assert read_spec(written(tmp_path, same), {}, {}).protocol_changes("ml-100k", "leave_one_out_masked") == []
    other = "settings: {eval_args: {group_by: user, mode: uni100}}\nmodels: [Pop]\n"
    changes = read_spec(written(tmp_path, other), {}, {}).protocol_changes("ml-100k", "leave_one_out_masked")
    assert changes == ["eval_args {mode: uni100} instead of the protocol's {mode: full}"]


def test_a_grid_makes_a_row_of_each_combination(tmp_path: Path) -> None:
    text = "models: {PosKernelSASRec: {n_heads: 2, grid: {kernel_groups: [1, n_heads], n_layers: [1, 2]}}}\n"
    spec = read_spec(written(tmp_path, text), {}, {})
    assert list(spec.models) == [
        "PosKernelSASRec, 1, 1",
        "PosKernelSASRec, 1, 2",
        "PosKernelSASRec, n_heads, 1",
        "PosKernelSASRec, n_heads, 2",
    ]
    expected = {"model": "PosKernelSASRec", "n_heads": 2, "kernel_groups": "n_heads", "n_layers": 1}
    assert spec.models["PosKernelSASRec, n_heads, 1"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((PROPERTIES / "leaderboard").glob("*.yaml")), ids=lambda file: file.stem)
def test_leaderboards_that_come_along_can_be_run(file: Path) -> None:
    """Every run's settings hold, and no two are the same; on ml-100k, which is there everywhere."""
    spec = read_spec(named_file("leaderboard", file.stem), {"seeds": 1, "datasets": ["ml-100k"]}, {})
    for dataset in spec.datasets:
        for protocol in spec.protocols:
            trials = spec.trials(dataset, protocol)
            assert len(checked_folders(trials, Path("runs"))) == len(trials) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [Pop]", "key 'model' is unknown. Did you mean 'models'"),
        ("seeds: 3", "no models; name some with --models"),
        ("models: [Popp]", "model 'Popp' is unknown. Did you mean 'Pop'"),
        ("{models: [Pop], seeds: 0}", "seeds must be their number or a list of different integers; got 0"),
        ("{models: [Pop], seeds: [1, 1]}", r"got \[1, 1\]"),
        (
            "{models: [Pop], seeds: 2020}",
            r"seeds must be their number, at most 1,000, .* the seed 2020 alone, give \[2020\]",
        ),
        ("{models: {a: {model: Pop, seeds: 0}}}", "models: a: seeds must be their number or a list"),
        ("{models: [Pop], priority: [BPR]}", r"priority must be a list of rows and seeds \(Pop, 2020, .*; got 'BPR'"),
        ("{models: [Pop], priority: 3}", "priority must be a list; got 3"),
        ("{models: [Pop], seeds_of_rows: {}}", "key 'seeds_of_rows' is unknown"),
        ("{models: [Pop], reference: BPR}", "reference must be one of Pop; got 'BPR'"),
        ("{models: [Pop], reference: [Pop]}", r"reference must be one of Pop; got \['Pop'\]"),
        ("{models: [[Pop], BPR]}", "models must be a list; got"),
        ("{models: [Pop, Pop]}", "models has 'Pop' twice; leave one out, or name the rows"),
        ("{models: {2020: {topk: 5}}}", "models: 2020: topk must be the same in all rows"),
        ("{models: {2020: {n_layers: 1}}}", "model '2020' is unknown"),
        (
            "{models: {A: {model: NoPESASRec, grid: {n_layers: [1, 2]}}, 'A, 1': {model: Pop}}}",
            "models: two rows have the name 'A, 1'; rename one",
        ),
        ("{models: {1: Pop, '1': BPR}}", "key '1' is given twice, in line 1 and in line 1"),
        ("{models: [Pop], datasets: [tiny, tiny]}", "two datasets have the name 'tiny'; leave one out"),
        (
            "{models: [Pop], protocols: [a/p.yaml, b/p.yaml]}",
            "two protocols have the name 'p'; leave one out",
        ),
        ("{models: [Pop], protocols: [leave_one]}", "protocol must be one of .*; got 'leave_one'. Did you mean"),
        ("{models: [Pop], datasets: {a: b}}", "datasets must be a list; got"),
        ("{models: [Pop], settings: [1]}", r"settings must be a mapping of keys to values; got \[1\]"),
        ("{models: [Pop], tuned: {ml-100k: {BPR: {}}}}", "tuned: ml-100k has 'BPR', which is not one of the models"),
        (
            "{models: [Pop], tuned: {ml-1M: {Pop: {}}}}",
            r"tuned has 'ml-1M', which is not one of the data sets \(ml-100k\)",
        ),
        ("{models: {a: {model: 3}}}", "models: a: model must be a name; got 3"),
        ("{models: [Pop], published: [{model: BSARec}]}", "published: each must have the strings model, dataset"),
        (
            "{models: [Pop], published: [3]}",
            "published: each must be a mapping of keys to values or the name of a file; got 3",
        ),
        (
            "{models: [Pop], published: [{model: a, dataset: b, protocol: c, source: d, metrics: {hit@10: high}}]}",
            "metrics, a mapping of names such as ndcg@10 to numbers, .*; got .*'high'",
        ),
        (
            "{models: {a: {model: Pop, mask_history: all}}}",
            "models: a: mask_history must be the same in all rows; give",
        ),
        (
            "{models: {a: {model: Pop, topk: [3]}}}",
            "topk must be the same in all rows; give it under settings or a pro",
        ),
        ("{models: {a: {model: Pop, grid: {seed: [1, 2]}}}}", "a, 1: seed is set by the leaderboard itself; .* seeds"),
        ("{models: {a: {model: Pop, rm_dup_inter: first}}}", "rm_dup_inter must be the same in all rows"),
        ("{models: [Pop], settings: {dataset: ml-1m}}", "settings of all runs: dataset .*; give it under datasets"),
        ("{models: [Pop], settings: {protocol: temporal}}", "protocol is set by .*; give it under protocols"),
        ("{models: [Pop], tuned: {ml-100k: {Pop: {metrics: [Hit]}}}}", "tuned: ml-100k: Pop: metrics must be the same"),
        ("{models: [Pop], plugins: [a-b]}", "plugins: each must be the dotted name of a module, .*; got 'a-b'"),
        ("{models: 3}", "models must be a mapping of keys to values; got '3'"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_spec(written(tmp_path, text), {}, {})


def test_a_preset_of_a_row_does_not_change_the_evaluation(tmp_path: Path) -> None:
    """Found at once, not after the training."""
    preset = tmp_path / "own.yaml"
    preset.write_text("n_layers: 1\nmax_valid_rows: 9\nvalid_metric: Hit@3\n")  # the protocol sets the metric
    of_row, tuned = f"{{model: NoPESASRec, preset: {preset}}}", f"{{ml-100k: {{a: {{preset: {preset}}}}}}}"
    for text in (f"{{models: {{a: {of_row}}}}}", f"{{models: {{a: NoPESASRec}}, tuned: {tuned}}}"):
        file = written(tmp_path, text)
        with pytest.raises(SettingError, match=r"models: a: preset .*own\.yaml: max_valid_rows must be the same in"):
            read_spec(file, {}, {})
        read_spec(file, {}, {"max_valid_rows": 8})  # of all rows


def test_a_row_may_not_turn_off_a_preset_that_changes_the_evaluation(tmp_path: Path) -> None:
    preset = tmp_path / "own.yaml"
    preset.write_text("n_layers: 1\nmax_valid_rows: 9\n")
    file = written(
        tmp_path, f"{{models: {{a: NoPESASRec, b: {{model: Pop, preset: ~}}}}, settings: {{preset: {preset}}}}}"
    )
    with pytest.raises(
        SettingError, match=r"models: b: preset ~ instead of .*own\.yaml: max_valid_rows must be the same"
    ):
        read_spec(file, {}, {})
    preset.write_text("n_layers: 1\n")
    read_spec(file, {}, {})


def test_settings_of_all_runs_on_the_command_line_are_no_names_of_runs() -> None:
    with pytest.raises(SettingError, match=r"settings of all runs: seed is set by .*; give it under seeds"):
        read_spec(None, {"models": ["Pop"]}, {"seed": 3})
    assert read_spec(None, {"models": ["Pop"]}, {"topk": [5]}).models["Pop"]["topk"] == [5]


def test_of_a_tuned_file_only_what_rows_may_differ_in_is_used(tmp_path: Path) -> None:
    """The best.yaml of a search has the settings of its evaluation, too."""
    best = tmp_path / "best.yaml"
    best.write_text("model: NoPESASRec\nprotocol: temporal\nmask_history: all\nseed: 3\nhidden_size: 32\n")
    text = f"models: [NoPESASRec]\ntuned: {{ml-100k: {{NoPESASRec: {best}}}}}\n"
    row = read_spec(written(tmp_path, text), {}, {}).row("NoPESASRec", "ml-100k", "leave_one_out")
    assert row == {"model": "NoPESASRec", "hidden_size": 32, "dataset": "ml-100k", "protocol": "leave_one_out"}
    best.write_text("model: APESASRec\nhidden_size: 32\n")
    with pytest.raises(SettingError, match=r"best\.yaml is of the model APESASRec, and the row has NoPESASRec"):
        read_spec(tmp_path / "mine.yaml", {}, {})


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ("{model: APESASRec}", "a: it has the model APESASRec, and the row has NoPESASRec"),
        ("{grid: {n_layers: [1, 2]}}", "a: grid is for rows; give it under models"),
        ("{seeds: 2}", "a: seeds is for rows; give it under models"),
    ],
)
def test_tuned_settings_leave_a_row_its_model_and_seeds(tmp_path: Path, tuned: str, message: str) -> None:
    text = f"models: {{a: NoPESASRec, b: Pop}}\ntuned: {{ml-100k: {{a: {tuned}}}}}\n"
    with pytest.raises(SettingError, match=message):
        read_spec(written(tmp_path, text), {}, {})


def test_the_name_of_a_grid_stands_for_its_rows(tmp_path: Path) -> None:
    text = "models:\n  NoPESASRec: {hidden_size: 32, grid: {n_layers: [1, 2]}}\n  Pop: Pop\n"
    models = read_spec(written(tmp_path, text), {"models": ["NoPESASRec"]}, {}).models
    assert models == {f"NoPESASRec, {n}": {"model": "NoPESASRec", "hidden_size": 32, "n_layers": n} for n in (1, 2)}
    assert list(read_spec(tmp_path / "mine.yaml", {"models": ["Pop", "NoPESASRec, 2"]}, {}).models) == [
        *("Pop", "NoPESASRec, 2")
    ]


def test_leaderboards_are_found_by_name_or_path(tmp_path: Path) -> None:
    assert named_file("leaderboard", "encodings").parent == PROPERTIES / "leaderboard"
    assert named_file("leaderboard", str(written(tmp_path, ""))) == tmp_path / "mine.yaml"
    with pytest.raises(SettingError, match=r"leaderboard must be one of .*; got 'encoding'. Did you mean 'encodings'"):
        named_file("leaderboard", "encoding")

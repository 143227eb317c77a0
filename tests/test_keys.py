"""The table of keys: what follows from it, and that the property files and docs/settings.md agree with it."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

from recbole_posattn.models.filters import FILTER_MODELS
from recbole_posattn.models.rivals import RIVALS
from recbole_posattn.settings import keys
from recbole_posattn.settings.key import Source
from recbole_posattn.settings.keys import KEYS
from recbole_posattn.settings.model_keys import MODEL_KEYS
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.run_keys import RUN_KEYS
from recbole_posattn.settings.single_model_keys import SINGLE_MODEL_KEYS
from recbole_posattn.settings.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent
# Where the defaults are those of the authors; sinusoids need items scaled by √d, as in the paper's block.
OWN_DEFAULTS = {"SinusoidalSASRec", *(model.__name__ for model in (*FILTER_MODELS, *RIVALS))}
FILES = [PROPERTIES / "overall.yaml", *sorted((PROPERTIES / "model").glob("*.yaml"))]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """docs/settings.py."""
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- the sets that follow from it ------------------------------------------------------------------------------------


def test_a_key_stands_in_the_table_once() -> None:
    counts = Counter(key.name for key in (*MODEL_KEYS, *SINGLE_MODEL_KEYS, *RUN_KEYS))
    assert [name for name, count in counts.items() if count > 1] == []
    assert all(name == key.name for name, key in KEYS.items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "RESUMABLE",
            "checkpoint_dir data_cache data_path device epochs eval_batch_size gpu_id local_rank log_mlflow log_wandb "
            "max_minutes "
            "plugins "
            "process_timeout save_last_every show_progress single_spec state stopping_step use_gpu wandb_project "
            "worker",
        ),
        ("CHANGEABLE", "clip_grad_norm enable_amp learning_rate loss_chunk_size train_batch_size"),
        (
            "WITHOUT_EFFECT_ON_RESULT",
            "checkpoint_dir data_cache data_path device gpu_id local_rank log_mlflow log_wandb max_minutes plugins "
            "process_timeout save_kernel_every "
            "save_last_every show_progress state world_size",
        ),
        ("LAUNCHER_ARGUMENTS", "config_files resume nproc ip port group_offset"),
        ("UNLISTED_RECBOLE_KEYS", "encoding neg_sampling training_neg_sample_num xgb_early_stopping_rounds"),
        (
            "DERIVED_KEYS",
            "MODEL_TYPE MODEL_INPUT_TYPE eval_type device local_rank offset single_spec valid_neg_sample_args "
            "test_neg_sample_args loss_negatives reads_time",
        ),
        (
            "SAME_IN_ALL_ROWS",
            "dataset protocol seed eval_args mask_history drop_unseen_items drop_unseen_targets max_valid_rows "
            "time_split_method time_split_second_of time_split_tie metrics topk valid_metric "
            "valid_metric_bigger metric_decimal_place repeatable rm_dup_inter val_interval benchmark_filename "
            "filter_inter_by_user_or_item user_inter_num_interval item_inter_num_interval",
        ),
        (
            "PLACES",
            "checkpoint_dir data_cache data_path device gpu_id local_rank log_mlflow log_wandb max_minutes "
            "process_timeout "
            "save_kernel_every "
            "save_last_every show_progress state world_size",
        ),
        ("PATH_KEYS", "checkpoint_dir data_cache data_path"),
        (
            "ID_FIELD_KEYS",
            "USER_ID_FIELD ITEM_ID_FIELD ENTITY_ID_FIELD HEAD_ENTITY_ID_FIELD TAIL_ENTITY_ID_FIELD RELATION_ID_FIELD",
        ),
        ("RUN_NAMES", "model dataset protocol seed"),
        ("NAMES_OF_SETTINGS", "protocol preset"),
    ],
)
def test_checkpoints_and_trials_rely_on_these_sets(name: str, expected: str) -> None:
    """A key that leaves one of them makes runs of before another run, one that joins them mixes runs up."""
    assert getattr(keys, name) == set(expected.split())


def test_what_may_be_tuned_is_what_changes_a_result_but_not_its_meaning() -> None:
    tunable = {"learning_rate", "train_batch_size", "kernel_structure", "loss_type", "epochs", "MAX_ITEM_LIST_LENGTH"}
    assert tunable <= keys.TUNABLE
    others = keys.SAME_IN_ALL_ROWS | keys.WITHOUT_EFFECT_ON_RESULT | keys.DERIVED_KEYS | keys.LAUNCHER_ARGUMENTS
    assert not keys.TUNABLE & others and "model" not in keys.TUNABLE
    assert {key.name for key in MODEL_KEYS} - keys.TUNABLE == {"save_kernel_every"}


def test_what_is_filtered_and_what_needs_memory() -> None:
    filters = ["rm_dup_inter", "val_interval", "user_inter_num_interval", "item_inter_num_interval"]
    assert filters == keys.FILTER_KEYS
    assert keys.sizes_of("training") == [
        *("train_batch_size", "loss_chunk_size"),  # the run can go on with smaller ones
        *("MAX_ITEM_LIST_LENGTH", "n_layers", "hidden_size"),
    ]
    assert keys.sizes_of("evaluation") == ["eval_batch_size", "MAX_ITEM_LIST_LENGTH", "hidden_size"]


def test_every_key_that_recbole_reads_is_in_the_table() -> None:
    """But for one that nothing reads any more."""
    of_recbole = {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments} - {"config_file"}
    assert of_recbole - KEYS.keys() == set()


# -- defaults and comments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_defaults_and_comments_of_a_property_file_are_those_of_the_table(page: ModuleType, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    defaults = read_yaml(file)
    if file.stem not in OWN_DEFAULTS:
        assert defaults == {name: KEYS[name].default for name in defaults}
    assert page.commented(text) == text, "run: python docs/settings.py"
    assert set(page.property_files()) == set(FILES)


def test_a_comment_that_differs_is_replaced_and_nothing_else(page: ModuleType) -> None:
    text = "# Size\nn_heads: 3   # (int) Eyes.\nhidden_act: 'a #b'  # (str) Any.\n"
    heads, act = KEYS["n_heads"].doc, KEYS["hidden_act"].doc
    assert page.commented(text) == f"# Size\nn_heads: 3   # {heads}\nhidden_act: 'a #b'  # {act}\n"


@pytest.mark.parametrize(("source", "file"), [(Source.MODEL, "model/PosKernelSASRec"), (Source.OVERALL, "overall")])
def test_every_key_of_ours_has_its_line_in_a_property_file(source: Source, file: str) -> None:
    of_single = {key.name for key in SINGLE_MODEL_KEYS}
    expected = {name for name, key in KEYS.items() if key.source is source and name not in of_single}
    assert expected == set(read_yaml(PROPERTIES / f"{file}.yaml"))
    in_files = set().union(*(read_yaml(PROPERTIES / "model" / f"{model}.yaml") for model in OWN_DEFAULTS))
    assert of_single <= in_files


def test_every_default_is_allowed(page: ModuleType) -> None:
    defaults = page.recbole_defaults() | {key.name: key.default for key in KEYS.values() if key.doc}
    checked = {name: key.rule for name, key in KEYS.items() if key.rule is not None and name != "dataset"}
    assert [name for name, rule in checked.items() if not rule.holds(defaults[name])] == []


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_that_of_the_table(page: ModuleType) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.drawn_page(text) == text, "run: python docs/settings.py"


def test_the_page_has_a_row_for_every_key_that_can_be_given(page: ModuleType) -> None:
    rows = [line.split("|")[1:-1] for line in page.tables().splitlines() if line.startswith("| `")]
    assert all(len(row) == 5 for row in rows)
    given = {key.name for key in KEYS.values() if key.doc or key.source is Source.RECBOLE}
    assert Counter(row[0].strip(" `") for row in rows) == Counter(given)


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, 1e-8, 1e20, "CE", "NDCG@10", "a b", "\t", "~", "1e3", [], ["x", 1]]
)
def test_a_default_is_shown_as_yaml(page: ModuleType, tmp_path: Path, value: object) -> None:
    (tmp_path / "shown.yaml").write_text(f"key: {page.default_text(value)}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "shown.yaml") == {"key": value}


def test_signs_of_markdown_are_escaped_outside_code(page: ModuleType) -> None:
    assert page._markdown("<U> or '*', the user's ~ or 'a|b'") == r"\<U> or `*`, the user's \~ or `a|b`"

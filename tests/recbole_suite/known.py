"""The tests of RecBole 1.2.1 that fail here, each with what it must fail with and why that is right."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class Known(NamedTuple):
    """A test that fails.

    Attributes:
        message: Part of the failure's message; a failure with another one is unexpected.
        reason: Why it is right that it fails.
        unless: A package with which the test passes.
    """

    message: str
    reason: str
    unless: str | None = None

    def holds(self) -> bool:
        """Whether the test fails with the packages that are installed."""
        return self.unless is None or find_spec(self.unless) is None


_DGL, _SCATTER, _FAISS = (
    Known(f"needs the package {package}", f"RecBole needs {package}, which is not installed", unless=package)
    for package in ("dgl", "torch_scatter", "faiss")
)
_VALID_METRIC = Known(
    "valid_metric must be one of", "topk lacks 10 while valid_metric stays MRR@10, which nothing would compute"
)

_ALL_ROWS = Known(
    "needs the lists of all rows in memory",
    "it transforms all rows at once, whose histories are cut out batch by batch; lazy_prefixes: False writes them out",
)

# By the name of class and test, which are unique among RecBole's.
KNOWN = {
    "TestGeneralRecommender::test_NCL": _FAISS,
    "TestKnowledgeRecommender::test_kgat": _DGL,
    "TestKnowledgeRecommender::test_kgat_with_gcn": _DGL,
    "TestKnowledgeRecommender::test_kgat_with_graphsage": _DGL,
    "TestKnowledgeRecommender::test_kgin": _SCATTER,
    "TestKnowledgeRecommender::test_mcclk": _SCATTER,
    "TestGeneralDataloader::test_general_diff_eval_neg_sample_args_in_valid_test_phases": Known(
        "has all 50 items that popularity negatives are drawn from",
        "a user has all items; RecBole builds the loader, and drawing from it never ends",
    ),
    "TestTransform::test_mask_itemseq": _ALL_ROWS,
    "TestTransform::test_inverse_itemseq": _ALL_ROWS,
    "TestTransform::test_crop_itemseq": _ALL_ROWS,
    "TestTransform::test_reorder_itemseq": _ALL_ROWS,
    "TestConfigClass::test_config_dict": _VALID_METRIC,
    "TestConfigClass::test_config_file_list": _VALID_METRIC,
    "TestConfigClass::test_priority": _VALID_METRIC,
    "TestOverallConfig::test_learner": Known(
        "learner must be one of", "there is no learner foo; RecBole takes Adam in its place with a warning"
    ),
    "TestOverallConfig::test_learning_rate": Known("learning_rate must be a number above 0", "0 trains nothing"),
}

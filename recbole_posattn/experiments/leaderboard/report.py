"""The files of a leaderboard: Markdown, CSV, LaTeX, HTML and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.columns import COSTS
from recbole_posattn.experiments.leaderboard.latex import latex
from recbole_posattn.experiments.leaderboard.markdown import markdown
from recbole_posattn.experiments.leaderboard.page import html
from recbole_posattn.experiments.leaderboard.public import NAME, json_report
from recbole_posattn.experiments.leaderboard.table import Provenance
from recbole_posattn.reporting.page import write_files

CSV_COLUMNS = [
    *("dataset", "protocol", "model", "kind", "metric", "mean", "deviation", "low", "high", "p", "verdict"),
    *("n_targets", "n_users", "seeds"),
]


def write_report(boards: Sequence[Board], provenance: Provenance, folder: Path) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv``, ``.tex``, ``.html`` and ``.json``, each written whole or not at all.

    The same boards and provenance always give the same bytes.

    Args:
        boards: In the order shown.
        provenance: How they were made.
        folder: Created if missing.

    Returns:
        The files.

    Raises:
        UserError: If the folder cannot be written.
    """
    contents = {
        "leaderboard.md": markdown(boards, provenance),
        "leaderboard.csv": csv(boards),
        "leaderboard.tex": latex(boards, provenance),
        "leaderboard.html": html(boards, provenance),
        NAME: json_report(boards, provenance),
    }
    return write_files(folder, contents)


def csv(boards: Sequence[Board]) -> str:
    """All boards as one long table with the columns :data:`CSV_COLUMNS`, with full precision.

    Each row holds one number of one model. ``kind`` is ``metric`` or ``cost``, and ``metric`` its name (``ndcg@10``,
    ``parameters``, ``training_seconds`` …). ``mean`` is the mean over seeds. Costs have no spread, interval or test;
    these cells are empty, as is ``verdict`` without a test. ``seeds`` is the number of finished runs.
    """
    table = []
    for board in boards:
        costs = board.costs.set_index("model")
        for model in board.models:
            about: dict[str, Any] = {"dataset": board.dataset, "protocol": board.protocol, "model": model}
            about |= {"n_targets": board.n_targets, "n_users": board.n_users}
            about |= {"seeds": costs.loc[model, "seeds"]}
            for metric in board.metrics:
                verdict = board.verdict(model, metric)
                table.append({**board.score(model, metric), **about, "kind": "metric", "verdict": verdict})
            for cost in COSTS:
                if cost != "seeds":
                    table.append({**about, "kind": "cost", "metric": cost, "mean": costs.loc[model, cost]})
    return pd.DataFrame(table, columns=CSV_COLUMNS).to_csv(index=False)

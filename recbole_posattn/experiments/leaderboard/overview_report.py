"""Leaderboards side by side as files: a page, Markdown, CSV and a picture."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.leaderboard.board import FEW_SEEDS, SIGNIFICANCE
from recbole_posattn.experiments.leaderboard.markdown import escaped, table_lines
from recbole_posattn.experiments.leaderboard.overview import GAIN_COLUMNS, Gains
from recbole_posattn.experiments.leaderboard.overview_figure import draw_gains, model_order
from recbole_posattn.reporting.drawing import drawing
from recbole_posattn.reporting.names import metric_title
from recbole_posattn.reporting.page import MARKS, MISSING, WEAK_MARKS, Cell, render_page, write_files

TITLE = "Leaderboards side by side"


def write_overview(
    boards: Sequence[Gains], left_out: Sequence[str], baseline: str, command: str, folder: Path
) -> list[Path]:
    """Write ``overview.md``, ``.html``, ``.csv`` and ``.png``; the same records always give the same bytes.

    Args:
        boards: In the order shown.
        left_out: Lines about boards that are not shown.
        baseline: Name of the common model.
        command: The command line.
        folder: Created if missing.

    Returns:
        The files.

    Raises:
        UserError: If the folder cannot be written.
    """
    figure = drawing(
        functools.partial(draw_gains, boards, baseline),
        f"Gain over {baseline}",
        "Lines: 95 % intervals of the gain, by bootstrap over users and seeds. Colours: the paired test against "
        f"{baseline}.",
        True,
        "overview",
        with_png=True,
    )
    assert figure is not None and figure.png is not None  # there is at least one board
    header, rows = gain_table(boards)
    date = max(board.date for board in boards)
    page = render_page(
        Path(__file__).with_name("overview.html.j2"),
        title=TITLE,
        date=date,
        command=command,
        origin=[("date", date)],
        boards=[(board, _link(board, folder, "leaderboard.html")) for board in boards],
        summary=_summary(baseline),
        header=header,
        rows=rows,
        drawings=[figure],
        left_out=left_out,
    )
    return write_files(
        folder,
        {
            "overview.md": _markdown(boards, left_out, baseline, command, date, folder),
            "overview.html": page,
            "overview.csv": _csv(boards),
            "overview.png": figure.png,
        },
    )


def _summary(baseline: str) -> str:
    return (
        f"Gain of each model over the row “{baseline}” in the metric of early stopping, in per cent. "
        f"{MARKS['better']} better, {MARKS['worse']} worse, {MARKS['tie']} tie by a paired test over users and seeds "
        f"against “{baseline}”, with Holm's correction for the rows of the board, at p < {SIGNIFICANCE}; "
        f"{WEAK_MARKS['better']} and {WEAK_MARKS['worse']} with fewer than {FEW_SEEDS} seeds: weaker evidence. "
        "Without a mark: one seed, not tested."
    )


def gain_table(boards: Sequence[Gains]) -> tuple[list[str], list[list[Cell]]]:
    """The gains by model and board: the columns and the rows."""
    header = ["model", *(board.title for board in boards)]
    return header, [[Cell(model, model), *(_cell(board, model) for board in boards)] for model in model_order(boards)]


def _cell(board: Gains, model: str) -> Cell:
    found = board.table[board.table["model"] == model]
    if found.empty:
        return Cell(MISSING, None)
    row = found.iloc[0]
    verdict = board.verdict(row)
    text = f"{100 * row['share']:+z.1f} %".replace("-", "−")
    best = row["mean"] == board.table["mean"].max()
    return Cell(text, float(row["share"]), best, verdict, float(row["p"]), bool(verdict) and board.has_few_seeds(row))


def _markdown(
    boards: Sequence[Gains], left_out: Sequence[str], baseline: str, command: str, date: str, folder: Path
) -> str:
    lines = [f"# {TITLE}", "", f"![Gain of each model over “{escaped(baseline)}” on each board](overview.png)", ""]
    lines += [*table_lines(*gain_table(boards)), "", escaped(_summary(baseline)), ""]
    for board in boards:
        lines += [f"## [{escaped(board.title)}]({_link(board, folder, 'leaderboard.md')})", ""]
        lines += [
            f"{board.n_users:,} users; “{escaped(baseline)}” has {metric_title(board.metric)} {board.baseline:.4f}. "
            f"{escaped(' '.join(board.findings))}".strip(),
            "",
        ]
    if left_out:
        lines += ["## Not shown", "", *(f"- {escaped(one_line(line))}" for line in left_out), ""]
    lines += ["## How it was made", "", "```bash", command, "```", "", f"- date: {date}"]
    return "\n".join(lines) + "\n"


def _link(board: Gains, folder: Path, name: str) -> str:
    return quote(Path(os.path.relpath(board.folder / name, folder)).as_posix())


def _csv(boards: Sequence[Gains]) -> str:
    tables = [
        board.table.assign(
            leaderboard=board.place or board.folder.resolve().name,
            dataset=board.dataset,
            protocol=board.protocol,
            metric=board.metric,
            baseline=board.baseline,
        )
        for board in boards
    ]
    columns = ["leaderboard", "dataset", "protocol", "metric", "baseline", *GAIN_COLUMNS]
    return pd.concat(tables)[columns].to_csv(index=False)

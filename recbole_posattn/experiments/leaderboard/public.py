"""``leaderboard.json``: all that the page shows, for other programs, and what is needed to make the page again.

``leaderboard.schema.json`` beside this module describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import DataError
from recbole_posattn.experiments.leaderboard.board import Board, gather
from recbole_posattn.experiments.leaderboard.columns import COSTS
from recbole_posattn.experiments.leaderboard.findings import findings
from recbole_posattn.experiments.leaderboard.published import Published
from recbole_posattn.experiments.leaderboard.table import Provenance
from recbole_posattn.experiments.records import RUNS
from recbole_posattn.experiments.trials import Outcome, Trial
from recbole_posattn.files import json_lines
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME

NAME = "leaderboard.json"
SCHEMA = Path(__file__).with_name("leaderboard.schema.json")

# Raised when the format changes so that programs that read it must change.
FORMAT_VERSION = 1

_MISSING_RUN = ("row", "seed", "reason")


def json_report(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard as JSON; what is missing or not a finite number is ``null``."""
    content = {
        "format": "recbole-posattn leaderboard",
        "format_version": FORMAT_VERSION,
        **{key: value for key, value in provenance._asdict().items() if key != "published"},
        "boards": [_plain_board(board) for board in boards],
        "published": [entry._asdict() for entry in provenance.published],
    }
    return json_lines(plain_data(content), width=200)


def _plain_board(board: Board) -> dict[str, Any]:
    costs = board.costs.set_index("model")
    best = {metric: board.best(metric) for metric in board.metrics}
    rows = [
        {
            "name": model,
            "scores": {
                metric: {
                    **board.score(model, metric)[["mean", "deviation", "low", "high", "p"]].to_dict(),
                    "verdict": board.verdict(model, metric) or None,
                    "few_seeds": board.has_few_seeds(model, board.reference),
                    "best": model in best[metric],
                    "seeds": {str(seed): value for seed, value in board.of_seeds(model, metric).items()},
                }
                for metric in board.metrics
            },
            "costs": {cost: costs.loc[model, cost] for cost in COSTS},
        }
        for model in board.models
    ]
    return {
        "dataset": board.dataset,
        "protocol": board.protocol,
        "reference": board.reference,
        "metrics": board.metrics,
        "n_targets": board.n_targets,
        "n_users": board.n_users,
        "seen_targets": board.seen_targets,
        "findings": findings(board),
        "rows": rows,
        "pairs": _records(board.pairs),
        "runs": board.runs,
        "failures": [dict(zip(_MISSING_RUN, failure)) for failure in board.failures],
        "not_started": [dict(zip(_MISSING_RUN, missing)) for missing in board.not_started],
        "curves": _records(board.curves),
        "groups": _records(board.groups),
    }


def _records(table: Any) -> list[dict[str, Any]]:
    return table.rename(columns={"model": "row"}).to_dict("records")


class Recorded(NamedTuple):
    """A board of ``leaderboard.json``, and its runs by their records."""

    content: dict[str, Any]
    outcomes: list[Outcome]

    @property
    def name(self) -> str:
        """Of the board."""
        return f"{self.content['dataset']}, {self.content['protocol']}"


def read_report(folder: Path) -> tuple[list[Board], Provenance]:
    """The boards of a leaderboard, computed again from the records in its folder, and its provenance.

    Args:
        folder: With ``leaderboard.json`` and the records in ``runs/``.

    Raises:
        DataError: If a file is missing or cannot be read.
    """
    provenance, recorded = read_records(folder)
    boards = []
    for each in recorded:
        with readable(each):
            content = each.content
            boards.append(gather(each.outcomes, content["dataset"], content["protocol"], content["reference"]))
    return [board for board in boards if board is not None], provenance


def read_records(folder: Path) -> tuple[Provenance, list[Recorded]]:
    """The provenance of a leaderboard, and its boards with their records, which exist but are not yet read.

    Raises:
        DataError: If a file is missing, or ``leaderboard.json`` cannot be read.
    """
    file = folder / NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file} has format version {content['format_version']}, and this package reads {FORMAT_VERSION}"
            )
        provenance = Provenance(
            **{field: content[field] for field in Provenance._fields if field != "published"},
            published=[Published(**entry) for entry in content["published"]],
        )
        return provenance, [Recorded(board, _outcomes(board, folder / RUNS)) for board in content["boards"]]
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror or error}; a leaderboard writes it when it ends"
        ) from error
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not a leaderboard of this package: {type(error).__name__} {error}") from error


@contextmanager
def readable(recorded: Recorded) -> Iterator[None]:
    """Errors of a damaged record of a board in one line."""
    try:
        yield
    except DataError:
        raise
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"a record of {recorded.name} cannot be read: {type(error).__name__} {error}") from error


def _outcomes(board: dict[str, Any], runs: Path) -> list[Outcome]:
    outcomes = []
    for run in board["runs"]:
        folder = runs / run["fingerprint"]
        for name in (RESULT_NAME, USERS_NAME):
            if not (folder / name).is_file():
                raise DataError(
                    f"{folder / name} is missing, the record of {run['row']}, seed {run['seed']}: without it the "
                    "leaderboard cannot be written again"
                )
        outcomes.append(Outcome(Trial(run["row"], {"seed": run["seed"]}), folder, reused=True))
    for key, started in (("failures", True), ("not_started", False)):
        for missing in board[key]:
            trial = Trial(missing["row"], {"seed": missing["seed"]})
            outcomes.append(Outcome(trial, runs, missing["reason"], started=started))
    return outcomes

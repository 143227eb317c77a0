"""The progress of a leaderboard: a table that is updated as runs finish, or in a log a line for each run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from recbole_posattn.experiments.trials import Outcome, Trial
from recbole_posattn.reporting.terminal import print_line


class LiveTable:
    """The results of each model so far, with a progress bar; in a log, a line for each run instead.

    Args:
        title: Title of the table.
        trials: All runs.
        console: Shows the progress.
    """

    def __init__(self, title: str, trials: Sequence[Trial], console: Console) -> None:
        self.title = title
        self.console = console
        self.trials = trials
        self.outcomes: dict[str, list[Outcome]] = {trial.name: [] for trial in trials}
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self.task = self.progress.add_task("runs", total=len(self.trials))
        self.live = Live(self._drawn(), console=console, refresh_per_second=2) if console.is_terminal else None
        self.started = time.monotonic()

    def __enter__(self) -> LiveTable:
        if self.live is not None:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.__exit__(kind, error, trace)

    def add(self, outcome: Outcome) -> None:
        """Show the outcome of a run."""
        self.outcomes[outcome.trial.name].append(outcome)
        self.progress.advance(self.task)
        if self.live is not None:
            self.live.update(self._drawn())
            return
        done = sum(map(len, self.outcomes.values()))
        unfinished = "failed" if outcome.started else "not started"
        state = "reused" if outcome.reused else f"{unfinished}: {outcome.error}" if outcome.error else "done"
        seconds = time.monotonic() - self.started
        seed = outcome.trial.settings["seed"]
        row = f"{outcome.trial.name}, seed {seed}: {state}"
        print_line(self.console, f"{self.title}  {done}/{len(self.trials)}  {row}  ({seconds:.0f} s since the start)")

    def _drawn(self) -> Group:
        table = Table(title=Text(self.title, style="table.title"), title_justify="left")
        results = (outcome.result for outcomes in self.outcomes.values() for outcome in outcomes if outcome.has_result)
        metric = next((f"{result['config']['valid_metric'].lower()}, valid" for result in results), "valid")
        for column in ("model", "runs", metric, "s an epoch", "state"):
            table.add_column(column, justify="left" if column in ("model", "state") else "right")
        for name, outcomes in self.outcomes.items():
            finished = [outcome.result for outcome in outcomes if outcome.has_result]
            scores = [result["best_valid_score"] for result in finished]
            seconds = [point["seconds"] for result in finished for point in result["curve"]]
            n_missing = len(outcomes) - len(finished)
            n_trials = sum(trial.name == name for trial in self.trials)
            table.add_row(
                Text(name),  # a name with brackets is not markup
                f"{len(outcomes)}/{n_trials}",
                f"{sum(scores) / len(scores):.4f}" if scores else "",
                f"{sum(seconds) / len(seconds):.1f}" if seconds else "",
                f"{len(finished)} of {len(outcomes)} seeds, {n_missing} failed or not started"
                if n_missing
                else "done"
                if len(outcomes) == n_trials
                else "",
            )
        return Group(table, self.progress)

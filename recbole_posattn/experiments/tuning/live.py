"""How a search is going: a progress bar, or in a log a line for each trial."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recbole_posattn.experiments.tuning.records import PRUNED, TrialRecord, best_trial, n_failed


class LiveSearch:
    """A bar with the best score so far, and what has become of the trials.

    Args:
        title: What is searched.
        n_trials: Trials to come, those of before included.
        metric: The one that is watched.
        bigger: Whether more of it is better.
        console: Where it is shown.
    """

    def __init__(self, title: str, n_trials: int, metric: str, bigger: bool, console: Console) -> None:
        self.title = title
        self.n_trials = n_trials
        self.metric = metric
        self.bigger = bigger
        self.console = console
        self.records: list[TrialRecord] = []
        self.progress = Progress(
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            TextColumn("{task.fields[told]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task(title, total=n_trials, told="")

    def __enter__(self) -> LiveSearch:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def add(self, record: TrialRecord) -> None:
        """Show a trial that has ended."""
        self.records.append(record)
        self.progress.update(self.task, advance=1, told=self._summary())
        if not self.console.is_terminal:
            score = record.best(self.bigger)
            found = f"{self.metric} {score:.4f}" if score is not None else f"no {self.metric} that is a number"
            told = record.error or f"{found} after {record.curve[-1][0]} epochs"
            done = f"{self.title}  {len(self.records)}/{self.n_trials}"
            line = f"{done}  trial {record.number} {record.state}: {told}  ({record.seconds:.0f} s)  {record.settings}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _summary(self) -> str:
        best = best_trial(self.records, self.bigger)
        states = [record.state for record in self.records]
        failed = n_failed(self.records)
        facts = [
            f"best {self.metric} {best.best(self.bigger):.4f}" if best is not None else "",
            f"{states.count(PRUNED)} stopped early" if PRUNED in states else "",
            f"{failed} failed" if failed else "",
        ]
        return ", ".join(fact for fact in facts if fact)

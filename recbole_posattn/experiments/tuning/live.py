"""The progress of a search: a progress bar, or in a log a line for each trial."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recbole_posattn.errors import counted
from recbole_posattn.experiments.tuning.records import PRUNED, TrialRecord, best_trial, n_failed
from recbole_posattn.reporting.terminal import print_line


class LiveSearch:
    """A progress bar with the best score so far and the number of stopped and failed trials.

    Args:
        title: Name of the search.
        n_trials: Number of trials, including those of earlier calls.
        metric: The watched metric.
        bigger: Whether higher is better.
        console: Shows the progress.
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
            TextColumn("{task.fields[summary]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task(title, total=n_trials, summary="")

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
        self.progress.update(self.task, advance=1, summary=self._summary())
        if not self.console.is_terminal:
            score = record.best(self.bigger)
            result = f"{self.metric} {score:.4f}" if score is not None else f"no finite {self.metric}"
            outcome = record.error or f"{result} after {counted(record.curve[-1][0], 'epoch')}"
            done = f"{self.title}  {len(self.records)}/{self.n_trials}"
            line = (
                f"{done}  trial {record.number} {record.state}: {outcome}  ({record.seconds:.0f} s)  {record.settings}"
            )
            print_line(self.console, line)

    def _summary(self) -> str:
        best = best_trial(self.records, self.bigger)
        states = [record.state for record in self.records]
        failed = n_failed(self.records)
        score = None if best is None else best.best(self.bigger)
        facts = [
            "" if score is None else f"best {self.metric} {score:.4f}",
            f"{states.count(PRUNED)} stopped early" if PRUNED in states else "",
            f"{failed} failed" if failed else "",
        ]
        return ", ".join(fact for fact in facts if fact)

"""The progress of a search: a line for each trial, and in a terminal a progress bar below."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recbole_posattn.experiments.tuning.records import PRUNED, TrialRecord, best_trial, n_failed
from recbole_posattn.reporting.terminal import print_line


class LiveSearch:
    """A line for each trial, and a progress bar with the best score so far and the numbers of pruned and failed trials.

    Args:
        title: Name of the search.
        n_trials: Number of trials, including those of earlier calls.
        metric: ``valid_metric``.
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
            *(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            TextColumn("{task.fields[summary]}", markup=False),
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
        print_line(self.console, f"{self.title}  {len(self.records)}/{self.n_trials}  {self._line(record)}")

    def _line(self, record: TrialRecord) -> str:
        """What became of a trial, in one short line."""
        score, best = record.best(self.bigger), best_trial(self.records, self.bigger)
        parts = [f"trial {record.number}", record.state]
        if record.error:
            parts.append(record.error)
        else:
            parts.append(f"no finite {self.metric}" if score is None else f"{self.metric} {score:.4f}")
        if record.curve:
            parts.append(f"epoch {record.curve[-1][0]:,}")
        parts.append(f"{record.seconds:.0f} s")
        return ", ".join(parts) + (" (best so far)" if record is best else "")

    def _summary(self) -> str:
        best = best_trial(self.records, self.bigger)
        states = [record.state for record in self.records]
        failed = n_failed(self.records)
        score = None if best is None else best.best(self.bigger)
        facts = [
            "" if score is None else f"best {self.metric} {score:.4f}",
            f"{states.count(PRUNED)} pruned" if PRUNED in states else "",
            f"{failed} failed" if failed else "",
        ]
        return ", ".join(fact for fact in facts if fact)

"""A search for the best settings, on validation data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recbole_posattn.experiments.cluster import Resources, ray_cluster
from recbole_posattn.experiments.messages import each_message_once
from recbole_posattn.experiments.records import RUNS
from recbole_posattn.experiments.run_folders import remove_left_over
from recbole_posattn.experiments.tuning.records import WAIT_FOR_ORPHANS, TrialRecord, open_search, take_records
from recbole_posattn.experiments.tuning.shared import check_same_search, data_of_trials, search_identity
from recbole_posattn.experiments.tuning.spec import Search, check_search


@each_message_once()
def run_search(
    search: Search,
    folder: Path,
    where: Resources,
    resume: bool = False,
    on_end: Callable[[TrialRecord], None] = lambda record: None,
    earlier: Sequence[TrialRecord] = (),
) -> list[TrialRecord]:
    """Run all trials of a search, or the remaining ones. No trial sees the test set.

    Args:
        search: The search.
        folder: Where runs and records go; all machines of a cluster must see it.
        where: Where to run the trials.
        resume: Whether to continue the search in ``folder``.
        on_end: Called with each trial that has ended, those of earlier calls first.
        earlier: Trials of other searches of the same definition, which count as trials of this one.

    Returns:
        The trials, by number.

    Raises:
        SettingError: If a setting is invalid, or ``folder`` and ``resume`` do not fit together.
        DataError: If the data set cannot be read.
        UserError: If the folder cannot be written.
    """
    config = check_search(search)
    total = search.total(config)
    identity = search_identity(search)
    if resume:
        check_same_search(search, identity, folder)
    data = data_of_trials(search, identity)
    records = open_search(folder, search.plain(), search.space, total, resume, identity.plain(), data)
    records += take_records(folder, records, earlier, max(0, total - len(records)))
    for record in records:
        on_end(record)
    if len(records) < total:
        with ray_cluster(where):
            from recbole_posattn.experiments.tuning.ray_tune import run_trials  # needs Ray

            try:
                records = run_trials(search, config, folder, where, records, on_end, data)
            finally:
                remove_left_over(folder / RUNS, wait=WAIT_FOR_ORPHANS)
    return sorted(records, key=lambda record: record.number)

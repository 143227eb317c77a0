"""``recbole-posattn recommend``: the best items of a trained model, as a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_posattn.cli.checkpoint import add_checkpoint_arguments, add_output_argument, reading_options
from recbole_posattn.errors import SettingError, counted
from recbole_posattn.settings.choices import SPLITS
from recbole_posattn.training.run_folder import checkpoint_file

if TYPE_CHECKING:
    from recbole_posattn.serving.recommender import Recommender
    from recbole_posattn.serving.requests import Requests

OUTPUT_NAME = "recommendations.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write the items that a trained model scores highest, for the users of its data set or for new "
        "histories: user, rank, item, score. See docs/recommend.md."
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--k", type=int, default=10, help="items for each user (default: 10)")
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--users", type=Path, help="a file of users of the data set (default: all of them)")
    whom.add_argument("--histories", type=Path, help="a file of user, item[, time]; the users may be new")
    parser.add_argument(
        "--new_interactions",
        type=Path,
        help="a file of user, item[, time]: interactions that follow those of the data set",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=SPLITS[0],
        help="interactions of the data set to use: all (default), or those before each target of valid or test",
    )
    parser.add_argument(
        "--history",
        choices=["exclude", "include", "keep"],
        metavar="{exclude,include}",
        help="whether items of a user's history are recommended (default: exclude; with --split=valid or test, as the "
        "model was evaluated)",
    )
    parser.add_argument("--restrict_to", type=Path, help="a file of items; recommend only these")
    parser.add_argument("--exclude", type=Path, help="a file of items not to recommend")
    parser.add_argument("--titles", action="store_true", help="add a column with the titles of the items")
    parser.add_argument("--title_field", metavar="COLUMN", help="column of the titles in the data set's file of items")
    add_output_argument(
        parser,
        f".csv, .parquet or .jsonl, or - for CSV on standard output (default: {OUTPUT_NAME} in its folder)",
        type=str,
    )
    parser.add_argument(
        "--escape_formulas",
        action="store_true",
        help="CSV for spreadsheets: an apostrophe before users and items that begin with =, +, -, @, tab or CR",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing file")


def execute(options: argparse.Namespace) -> int:
    """Recommend and write; returns the exit code."""
    if options.histories is not None and options.split != SPLITS[0]:
        raise SettingError("split is for users of the data set; leave out --split or --histories.")
    if options.new_interactions is not None and (options.histories is not None or options.split != SPLITS[0]):
        other = "histories" if options.histories is not None else f"split {options.split}"
        raise SettingError(
            f"new_interactions extends the whole histories of the data set's users; leave it out, or {other}."
        )
    from recbole_posattn.serving.tables import (
        STANDARD_OUTPUT,
        check_formulas,
        check_output,
        read_tokens,
        without_formulas,
        writing,
    )

    checkpoint = checkpoint_file(options.checkpoint)
    output = options.output or str(checkpoint.parent / OUTPUT_NAME)
    check_output(output, options.overwrite)
    if options.escape_formulas:
        check_formulas(output)
    from recbole_posattn.serving.lists import SCHEMA, SCHEMA_WITH_TITLES
    from recbole_posattn.serving.recommender import Recommender

    recommender = Recommender.load(checkpoint, report=_report, **reading_options(options))
    item_field = recommender.loaded.config["ITEM_ID_FIELD"]
    requests = _requests(recommender, options)
    titles = options.title_field or options.titles
    tables = recommender.blocks(
        requests,
        options.k,
        exclude_history=None if options.history is None else options.history == "exclude",
        restrict_to=None if options.restrict_to is None else read_tokens(options.restrict_to, "item", item_field),
        exclude=() if options.exclude is None else read_tokens(options.exclude, "item", item_field),
        titles=titles,
        show_progress=sys.stderr.isatty(),
    )
    _report_history(recommender, requests, options.history)
    n_rows = 0
    with writing(output, SCHEMA_WITH_TITLES if titles else SCHEMA) as write:
        for table in tables:
            write(without_formulas(table) if options.escape_formulas else table)
            n_rows += len(table)
    if output != STANDARD_OUTPUT:
        print(f"written: {output} ({counted(n_rows, 'row')}, {counted(len(requests), 'list')})")
    return 0


def _report_history(recommender: Recommender, requests: Requests, history: str | None) -> None:
    """Say what the flag ``--history`` means for these lists, where that may not be expected."""
    if history is None and recommender.leaves_out_history(requests):
        _report("items of a user's own history are left out; --history=include keeps them")
    if history in ("include", "keep") and getattr(recommender.loaded.model, "masks_history", False):
        _report(
            "this model was trained with train_mask_history, so it has not learned how to rank items of the history "
            "(--history=include); train with --mask_history=none to learn it"
        )


def _requests(recommender: Recommender, options: argparse.Namespace) -> Requests:
    from recbole_posattn.serving.tables import read_table, read_tokens

    config = recommender.loaded.config
    columns = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD", "time": "TIME_FIELD"}
    names = {column: config[key] for column, key in columns.items()}
    if options.histories is not None:
        return recommender.new_histories(read_table(options.histories, names))
    if options.new_interactions is not None:
        recommender.add_interactions(read_table(options.new_interactions, names))
    users = None if options.users is None else read_tokens(options.users, "user", config["USER_ID_FIELD"])
    return recommender.known_users(users, options.split)


def _report(line: str) -> None:
    print(f"recbole-posattn: {line}", file=sys.stderr)

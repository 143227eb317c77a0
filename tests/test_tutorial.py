"""docs/tutorial.md and docs/first_hour.md, from start to end as a reader would type them, with one epoch."""

from __future__ import annotations

import os
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from recbole_posattn.cli import main as cli

ROOT = Path(__file__).parent.parent
TUTORIAL, FIRST_HOUR = ROOT / "docs" / "tutorial.md", ROOT / "docs" / "first_hour.md"
pytestmark = pytest.mark.skipif(not TUTORIAL.exists(), reason="the docs are part of a checkout, not of the wheel")

# What makes the commands of a page quick: as much is said, less is learned.
SHORT = {
    r"--epochs=\d+": "--epochs=1",
    r"--seeds=\d+": "--seeds=1",
    r"--train_batch_size=\d+": "--train_batch_size=256",
}


class Step(NamedTuple):
    """Commands of a page, and what it shows of their output."""

    commands: str
    shown: str


def steps(page: Path, replaced: dict[str, str]) -> list[Step]:
    """The blocks of commands with the text blocks that follow them at once."""
    found = re.findall(r"^```bash\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", page.read_text("utf-8"), flags=re.M | re.S)
    for pattern, replacement in replaced.items():
        found = [(re.sub(pattern, replacement, commands), shown) for commands, shown in found]
    return [Step(*each) for each in found]


def short() -> dict[str, str]:
    """:data:`SHORT`, and the data's folder as a whole path: a run in this process changes its working folder."""
    return {**SHORT, "--datasets=films": f"--datasets=films --data_path={Path.cwd() / 'dataset'}"}


def shell(command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", command], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    return done.stdout.strip()


def type_commands(commands: str, variables: dict[str, str]) -> int:
    """Run commands of a shell, but this package's in this process; returns the number of these."""
    n_ours = 0
    for line in commands.splitlines():
        expanded = string.Template(line).safe_substitute(variables)
        program, *arguments = shlex.split(expanded)
        if program == "recbole-posattn":
            assert cli.main(arguments) == 0, line
            n_ours += 1
        elif assignment := re.fullmatch(r"(\w+)=(.+)", line):
            variables[assignment[1]] = shell(f"echo {assignment[2]}")
        else:
            print(shell(expanded))
    return n_ours


def first_words(lines: list[str]) -> set[str]:
    """What the lines begin with, other than numbers, rules and marks."""
    return {found[0] for line in lines if (found := re.match(r"[A-Za-z][\w@-]*", line.strip()))}


@pytest.mark.slow
def test_the_tutorial_runs(empty_folder: Path, without_ray: None) -> None:
    variables: dict[str, str] = {}
    assert sum(type_commands(step.commands, variables) for step in steps(TUTORIAL, short())) == 7

    interactions = pd.read_csv("dataset/films/films.inter", sep="\t", dtype=str)
    assert interactions["rating:float"].astype(float).min() >= 4
    assert interactions["user_id:token"].value_counts().min() >= 20
    seen = set(zip(interactions["user_id:token"], interactions["item_id:token"]))
    films = pd.read_csv("films.csv", dtype=str)
    assert set(films["user"]) == set(interactions["user_id:token"]) and len(films) == 10 * films["user"].nunique()
    assert not seen & set(zip(films["user"], films["item"]))
    assert len(pd.read_csv("anna.csv")) == 5
    board = Path("leaderboards/own/leaderboard.md").read_text(encoding="utf-8")
    assert all(model in board for model in ("PosKernelSASRec", "NoPESASRec", "Pop"))
    assert Path("learned/inspect.html").is_file() and Path("films-stats.png").is_file()


@pytest.mark.slow
def test_the_first_hour_runs_and_shows_its_output(
    empty_folder: Path, without_ray: None, registrations: None, capsys: pytest.CaptureFixture
) -> None:
    """What comes before training is compared line by line; of the rest, what the lines begin with."""
    variables: dict[str, str] = {}
    n_ours = 0
    for commands, shown in steps(FIRST_HOUR, {**short(), r"~/recbole-posattn": str(ROOT)}):
        capsys.readouterr()
        n_ours += type_commands(commands, variables)
        printed = capsys.readouterr().out.splitlines()
        if " data " in commands or commands.startswith("python"):
            assert [line for line in shown.splitlines() if line not in printed] == []
        elif " recommend " in commands:  # other titles after one epoch
            lines = [line for line in printed if line.startswith('"')]
            assert lines[0] == shown.splitlines()[0] and len(lines) == len(shown.splitlines()) == 6
            assert not {"50", "172", "181"} & {line.split(",")[2].strip('"') for line in lines}
        else:
            assert first_words(shown.splitlines()) - first_words(printed) == set()
    assert n_ours == 6
    assert all(Path(file).is_file() for file in ("learned/inspect.html", "leaderboards/own/leaderboard.html"))

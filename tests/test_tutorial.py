"""docs/tutorial.md, from start to end as a reader would type it."""

from __future__ import annotations

import os
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import recbole_posattn
from recbole_posattn.cli import main as cli

PAGE = Path(recbole_posattn.__file__).parent.parent / "docs" / "tutorial.md"


def shell(command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", command], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    return done.stdout.strip()


def type_commands(commands: str) -> int:
    """Run commands of a shell, but this package's in this process; returns the number of these."""
    variables: dict[str, str] = {}
    n_ours = 0
    for line in commands.splitlines():
        program, *arguments = shlex.split(string.Template(line).safe_substitute(variables))
        if program == "recbole-posattn":
            assert cli.main(arguments) == 0, line
            n_ours += 1
        elif assignment := re.fullmatch(r"(\w+)=(.+)", line):
            variables[assignment[1]] = shell(f"echo {assignment[2]}")
        else:
            shell(line)
    return n_ours


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="the docs are part of a checkout, not of the wheel")
def test_the_page_runs(empty_folder: Path) -> None:
    commands = "".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S))
    assert type_commands(commands) == 7

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
    assert Path("learned/evolution.png").is_file() and Path("films-stats.png").is_file()

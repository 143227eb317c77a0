"""``python -m tests.offline DATA_PATH``: a run, and all that is made of it, in a process that no network is open to.

Prints the modules that were imported, the exit codes of the commands, and whatever tried to reach a network.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

REACHING_OUT = {
    *("socket.connect", "socket.sendto", "socket.sendmsg"),
    *("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"),
    *("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"),
}


def forbid_network() -> list[str]:
    """Let Python's network calls fail from here on, for good, and note them in the list that is returned."""
    attempts: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in REACHING_OUT:
            attempts.append(f"{event}{arguments!r}")
            raise PermissionError(f"no network here: {event}")

    sys.addaudithook(hook)
    return attempts


def import_all() -> list[str]:
    """Import every module of the package; their names."""
    package = importlib.import_module("recbole_posattn")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "recbole_posattn.")]
    for name in names:
        if not name.endswith(".__main__"):  # which runs
            importlib.import_module(name)
    return names


def main(data_path: str) -> None:
    """Import, train, load, recommend, inspect and export."""
    attempts = forbid_network()
    modules = import_all()
    cli, quick_start = sys.modules["recbole_posattn.cli.main"], sys.modules["recbole_posattn.quick_start"]
    settings = ("--epochs=1", "--hidden_size=8", "--MAX_ITEM_LIST_LENGTH=10", "--show_progress=False")
    codes = {"run": cli.main(["run", "--dataset=tiny", f"--data_path={data_path}", *settings])}
    (checkpoint,) = map(str, Path("saved").glob("*/best.pth"))
    for command in (
        ("recommend", checkpoint, "--output=lists.csv"),
        ("inspect", checkpoint),
        ("interference", checkpoint),
        ("export", checkpoint, "--format=torch-export", "--output=torch"),
        ("export", checkpoint, "--format=onnx", "--output=onnx"),
        ("data", "stats", "tiny", f"--data_path={data_path}"),
    ):
        codes[f"{command[0]} {command[-1]}"] = cli.main(command)
    loaded = quick_start.load(checkpoint)
    report = {"modules": modules, "codes": codes, "items": loaded.dataset.item_num, "attempts": attempts}
    Path("report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])

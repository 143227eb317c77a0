"""A run's use of CPU, GPU and memory, for its log."""

from __future__ import annotations

import logging

import recbole_posattn.compat  # noqa: F401

import psutil
import torch
from recbole.config import Config
from recbole.utils import get_gpu_usage

from recbole_posattn.reporting.terminal import text_table
from recbole_posattn.training.cpu_watch import CpuWatch

cpu_watch = CpuWatch()


def start_watching() -> None:
    """Start the period over which :func:`environment_table` and :data:`cpu_watch` average the load of the CPU."""
    psutil.cpu_percent()
    cpu_watch.start()


def warn_of_busy_machine(device: torch.device) -> None:
    """Log a line if the machine has too few CPUs for this run and what else runs on it; once in a run."""
    line = cpu_watch.warning(device)
    if line is not None:
        logging.getLogger().warning(line)


def environment_table(config: Config) -> str:
    """RecBole's table of the environment: load of the CPU, memory of the GPU and of this process.

    RecBole's ``get_environment`` measures the load for one second after the run; this is the load since
    :func:`start_watching`, and takes no time.
    """
    gibibyte = 1024**3
    used, total = psutil.Process().memory_info().rss / gibibyte, psutil.virtual_memory().total / gibibyte
    gpu = get_gpu_usage(config["device"]) if config["device"].type == "cuda" else "none"
    rows = [("CPU", f"{psutil.cpu_percent():.2f} %"), ("GPU", gpu), ("Memory", f"{used:.2f} G/{total:.2f} G")]
    return text_table(("Environment", "Usage"), rows)

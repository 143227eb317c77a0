"""Choices and defaults of the command line, without heavy imports, so that ``--help`` answers at once."""

from typing import Literal

DEFAULT_MODEL, DEFAULT_DATASET = "PosKernelSASRec", "ml-100k"

# How `tune` draws settings, and how it stops hopeless trials; the first is the default.
ALGORITHMS = ("tpe", "random", "grid")
SCHEDULERS = ("asha", "none")

# Trials of a search, of `tune` and of each row of `leaderboard --tune`.
DEFAULT_TRIALS = 20

# The rows of a data set that `recommend` uses; the first is the default.
SPLITS = ("all", "valid", "test")

# The formats of `export`, with the name of the file.
MODEL_NAMES = {"onnx": "model.onnx", "torch-export": "model.pt2"}

# The repeated interactions that `data convert` leaves out.
Deduplicate = Literal["none", "exact", "first", "last"]

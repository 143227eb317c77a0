"""Export of a trained model to a file that runs without this package: ONNX, or PyTorch's export format.

Shape keys: b sequences, L = MAX_ITEM_LIST_LENGTH, n items, including padding.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_posattn.data.fields import TIME_LIST_FIELD
from recbole_posattn.data.relative_times import relative_times
from recbole_posattn.errors import CheckpointError, SettingError, UserError
from recbole_posattn.files import json_text
from recbole_posattn.serving.comparison import compare
from recbole_posattn.serving.scores import all_scores, reads_sequences, reads_times
from recbole_posattn.serving.traceable import exportable
from recbole_posattn.settings.choices import MODEL_NAMES
from recbole_posattn.training.load import Loaded, load
from recbole_posattn.training.result import versions

INPUT_NAMES = ("item_id_list", "item_length", "item_times")  # the last one of models that read time
OUTPUT_NAME = "scores"
ITEMS_NAME, DESCRIPTION_NAME = "items.json", "export.json"

# Sizes of the batches of random histories on which the file is compared with the model, and the length of a list.
BATCHES, LIST_LENGTH = (1, 7, 32), 100

_TIMES = {"order": "as the items, in non-decreasing order", "unit": "of the data set, usually Unix seconds"}

# With more bytes of weights, an ONNX file stores them in a second file: protobuf limits it to 2 GiB.
_ONE_FILE = 2**30


class Comparison(NamedTuple):
    """Comparison of an exported file with the model on random histories.

    Attributes:
        largest_difference: Largest difference of a score from the model's own.
        histories: Number of histories.
        list_length: Number of items compared in each list.
        ties: Number of lists in which items with equal scores, up to rounding, are in a different order.
    """

    largest_difference: float
    histories: int
    list_length: int
    ties: int


class Exported(NamedTuple):
    """The result of :func:`export`.

    Attributes:
        files: The files written.
        comparison: Comparison with the model; ``None`` if no runtime for the file is installed.
    """

    files: list[Path]
    comparison: Comparison | None

    @property
    def largest_difference(self) -> float | None:
        """Largest difference of a score from the model's own; ``None`` if no runtime for the file is installed."""
        return None if self.comparison is None else self.comparison.largest_difference


def export(
    checkpoint: str | Path, format: str, folder: str | Path, overwrite: bool = False, **options: Any
) -> Exported:
    """Write a trained model as ``model.onnx`` or ``model.pt2``, with its item tokens and a description, and check it.

    The inputs are ``item_id_list``, int64 of shape (b, L), the newest L items of each history, oldest first and padded
    with 0 at the end; ``item_length``, int64 of shape (b,), at least 1; and, for a model that reads time,
    ``item_times``, float64 of shape (b, L), the times of the items, which must not fall along a history. The output is
    ``scores``, float32 of shape (b, n), −∞ for the padding item 0. b is dynamic. ``items.json`` lists the tokens of the
    items.

    Args:
        checkpoint: A file written by :func:`recbole_posattn.run`, or the folder of a run.
        format: ``onnx`` (https://onnx.ai) or ``torch-export`` (``torch.export``).
        folder: Created if missing.
        overwrite: Whether to overwrite existing files.
        options: Keyword arguments of :func:`recbole_posattn.load`.

    Raises:
        SettingError: If the format is unknown or needs a package that is missing, or a file exists.
        CheckpointError: If the checkpoint cannot be read, or its model cannot be exported.
        DataError: If its data set cannot be read.
        UserError: If the folder cannot be written.
    """
    folder = Path(folder)
    _check(format, folder, overwrite)
    loaded = load(checkpoint, **options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".incomplete-") as scratch:
            comparison = _write(loaded, format, Path(scratch))
            written = sorted(Path(scratch).iterdir(), key=lambda file: file.name == DESCRIPTION_NAME)
            for file in written:
                os.replace(file, folder / file.name)
            if overwrite:
                _remove_other_models(folder, {file.name for file in written})
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return Exported([folder / file.name for file in written], comparison)


def _remove_other_models(folder: Path, written: Container[str]) -> None:
    """Remove the models of earlier exports, to which the new items and description do not belong."""
    for model in MODEL_NAMES.values():
        for name in (model, f"{model}.data"):  # large ONNX models have their weights in a file of their own
            if name not in written:
                (folder / name).unlink(missing_ok=True)


def _check(format: str, folder: Path, overwrite: bool) -> None:
    if format not in MODEL_NAMES:
        raise SettingError(f"format must be one of {', '.join(MODEL_NAMES)}; got {format!r}.")
    needed = ("onnx", "onnxscript") if format == "onnx" else ()
    missing = [package for package in needed if not _is_installed(package)]
    if missing:
        raise SettingError(
            f"format onnx needs {' and '.join(missing)}, not installed here: pip install onnx onnxruntime onnxscript"
        )
    for name in (MODEL_NAMES[format], ITEMS_NAME, DESCRIPTION_NAME):
        if os.path.exists(folder / name) and not overwrite:
            raise SettingError(f"{folder / name} already exists; give another --output, or --overwrite.")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _write(loaded: Loaded, format: str, folder: Path) -> Comparison | None:
    """Write all files into an empty folder and compare the model in them with its own."""
    name, file = loaded.config["model"], folder / MODEL_NAMES[format]
    if not reads_sequences(loaded):
        raise CheckpointError(f"{name} does not read histories, which are the input of an exported model")
    expected = {n: _own_scores(loaded, n) for n in BATCHES}
    try:
        with _quiet():
            _WRITERS[format](_traced(exportable(loaded.model), loaded), file)
    except Exception as error:  # exporters raise errors of any class
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{name} cannot be exported as {format}: {type(error).__name__}: {reason}") from error
    run = _RUNNERS[format](file)
    comparison = None if run is None else _compared(run, loaded, expected)
    tokens = [str(token) for token in loaded.dataset.field2id_token[loaded.dataset.iid_field]]
    description = _description(loaded, format, comparison)
    (folder / ITEMS_NAME).write_text(json_text(tokens, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    (folder / DESCRIPTION_NAME).write_text(json_text(description, indent=2) + "\n", encoding="utf-8")
    return comparison


def _description(loaded: Loaded, format: str, comparison: Comparison | None) -> dict[str, Any]:
    length = loaded.config["MAX_ITEM_LIST_LENGTH"]
    return {
        "model": loaded.config["model"],
        "dataset": loaded.config["dataset"],
        "format": format,
        "file": MODEL_NAMES[format],
        "inputs": {
            INPUT_NAMES[0]: {"type": "int64", "shape": ["batch", length], "order": "oldest first, then zeros"},
            INPUT_NAMES[1]: {"type": "int64", "shape": ["batch"], "range": [1, length]},
            **(
                {INPUT_NAMES[2]: {"type": "float64", "shape": ["batch", length], **_TIMES}}
                if reads_times(loaded)
                else {}
            ),
        },
        "outputs": {OUTPUT_NAME: {"type": "float32", "shape": ["batch", loaded.dataset.item_num]}},
        "max_length": length,
        "items": ITEMS_NAME,
        "padding_item": 0,
        "largest_difference": None if comparison is None else comparison.largest_difference,
        "comparison": None if comparison is None else comparison._asdict(),
        "versions": versions(),
    }


# -- formats ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _traced(scorer: nn.Module, loaded: Loaded) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    histories = _random_histories(loaded, 2)
    shapes = {name: {0: batch} for name, _ in zip(INPUT_NAMES, histories)}
    return torch.export.export(scorer, histories, dynamic_shapes=shapes)


def _random_histories(loaded: Loaded, n: int) -> tuple[Tensor, ...]:
    """Items and lengths, the first of length L, and times if the model reads them; shapes (n, L), (n,), (n, L)."""
    random = torch.Generator().manual_seed(n)
    longest = loaded.config["MAX_ITEM_LIST_LENGTH"]
    length = torch.randint(1, longest + 1, (n,), generator=random)
    length[0] = longest
    items = torch.randint(1, loaded.dataset.item_num, (n, longest), generator=random)
    items = items.masked_fill(torch.arange(longest) >= length[:, None], 0)
    if not reads_times(loaded):
        return items, length
    gaps = loaded.model.median_gap * 10 * torch.rand(n, longest, generator=random, dtype=torch.float64).pow(4)
    return items, length, 1.7e9 + gaps.cumsum(dim=1)


def _write_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    n_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    torch.onnx.export(
        program,
        f=file,
        input_names=INPUT_NAMES[: len(program.graph_signature.user_inputs)],
        output_names=[OUTPUT_NAME],
        dynamo=True,
        external_data=n_bytes > _ONE_FILE,
        verbose=False,
    )


def _write_torch_export(program: torch.export.ExportedProgram, file: Path) -> None:
    torch.export.save(program, content := io.BytesIO())  # on a full disk, PyTorch's own writer aborts the process
    file.write_bytes(content.getbuffer())


_WRITERS: dict[str, Callable[[torch.export.ExportedProgram, Path], None]] = {
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
}

Run = Callable[..., Tensor]


def _run_onnx(file: Path) -> Run | None:
    if not _is_installed("onnxruntime"):
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(*tensors: Tensor) -> Tensor:
        inputs = {name: tensor.numpy() for name, tensor in zip(INPUT_NAMES, tensors)}
        return torch.from_numpy(session.run([OUTPUT_NAME], inputs)[0])

    return run


_RUNNERS: dict[str, Callable[[Path], Run | None]] = {
    "onnx": _run_onnx,
    "torch-export": lambda file: torch.export.load(file).module(),
}


@torch.no_grad()
def _own_scores(loaded: Loaded, n: int) -> Tensor:
    """The model's scores for n random histories, without the padding item."""
    items, length, *times = _random_histories(loaded, n)
    fields = {loaded.model.ITEM_SEQ: items, loaded.model.ITEM_SEQ_LEN: length}
    if times:
        fields[TIME_LIST_FIELD] = relative_times(times[0], length)
    return all_scores(loaded, fields).cpu()[:, 1:]


@torch.no_grad()
def _compared(run: Run, loaded: Loaded, expected: Mapping[int, Tensor]) -> Comparison:
    """Compare the scores and lists of a written file with the model's own.

    Raises:
        CheckpointError: If they differ.
    """
    length = min(LIST_LENGTH, loaded.dataset.item_num - 1)
    largest, ties = 0.0, 0
    for n, own in expected.items():
        difference, n_ties = compare(own, run(*_random_histories(loaded, n))[:, 1:], length, loaded.config["model"])
        largest, ties = max(largest, difference), ties + n_ties
    return Comparison(largest, sum(expected), length, ties)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which print remarks on optional packages and on graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

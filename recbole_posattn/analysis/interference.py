"""How much each positional part of a trained model contributes, and whether the parts interfere with each other.

The parts are the kernels U and L, the branch and the encodings. Two measurements, on the validation or the test rows:

- The *metrics* with a part switched off, with all others switched off, and with all of them off. The weights stay as
  they were trained.
- Part by part and layer by layer, what the part does to the attention: to its logits, to the entropy of its weights,
  and to its output. The branch is beside the attention and has no effect on it.

See :mod:`recbole_posattn.analysis.switches` for what switching off means.

Shape keys: b batch, h heads, s sequence length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import recbole_posattn.compat  # noqa: F401

import pandas as pd
import torch
from recbole.data.dataloader import AbstractDataLoader
from torch import Tensor
from tqdm import tqdm

from recbole_posattn.analysis.attended import (
    Attended,
    counted_rows,
    require_positions,
    split_for_attention,
    times_of,
    with_and_without,
)
from recbole_posattn.analysis.switches import BRANCH_PART, attentions_of, positional_parts, switched_off
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.training.load import Loaded, evaluating_trainer, load
from recbole_posattn.training.state import random_state, restore_random_state

Split = Literal["valid", "test"]

# The columns of the effects of a part on the attention of a layer.
EFFECTS = ("logit_rms", "logit_share", "entropy", "entropy_without", "output_change")


class Interference(NamedTuple):
    """The result of :func:`interference`.

    Attributes:
        metrics: A row for ``all`` and, for each part, one ``without`` it; if there are several parts, also one for each
            part ``alone`` and one for ``none``. Columns ``parts`` (which of these), ``part``, and one per metric.
        layers: A row for each layer and part; columns ``layer`` (from 1), ``part``, ``logit_rms`` (root mean square of
            what the part adds to the logits), ``logit_share`` (that over the logits' own root mean square),
            ``entropy`` and ``entropy_without`` (of the attention weights, in nats), and ``output_change`` (norm of the
            change of the attention's output over its norm). The mean of each row of logits is
            subtracted, which does not change the softmax; rows with a single key are ignored.
        valid_metric: The column of ``metrics`` with the watched metric (of early stopping).
        split: The rows measured on.
    """

    metrics: pd.DataFrame
    layers: pd.DataFrame
    valid_metric: str
    split: Split


def interference(
    checkpoint: str | Path, split: Split = "valid", show_progress: bool = False, **options: Any
) -> Interference:
    """Measure the contribution of each positional part of a trained model.

    Args:
        checkpoint: A file written by :func:`recbole_posattn.run`, or the folder of a run, of one of our models.
        split: The rows to measure on. Use ``valid`` if you will choose settings by the result.
        show_progress: Whether to show a progress bar.
        options: Keyword arguments of :func:`recbole_posattn.load`.

    Returns:
        Two tables, see :class:`Interference`.

    Raises:
        SettingError: If ``split`` is unknown.
        CheckpointError: If the checkpoint cannot be read, or its model has no positional part.
        DataError: If the data set cannot be read, or the split has no history of two items.
    """
    if split not in ("valid", "test"):
        raise SettingError(f"split must be valid or test; got {split!r}.")
    loaded = load(checkpoint, **options)
    parts = positional_parts(loaded.model) if isinstance(loaded.model, SASRecBase) else []
    if not parts:
        raise CheckpointError(
            f"checkpoint {checkpoint}: {loaded.config['model']} has no kernel, branch or position_encoding to switch "
            "off"
        )
    require_positions(loaded.config, checkpoint)
    if not len(_loader(loaded, split)):
        raise DataError(f"data set {loaded.config['dataset']!r}: the {split} split has no rows to measure on")
    if not (_loader(loaded, split)._dataset.inter_feat[loaded.model.ITEM_SEQ_LEN] > 1).any():
        raise DataError(f"data set {loaded.config['dataset']!r}: no {split} target has a history of two items")
    return Interference(
        metrics=_metrics(loaded, parts, split, show_progress),
        layers=_effects_by_layer(loaded, parts, split),
        valid_metric=loaded.config["valid_metric"].lower(),
        split=split,
    )


def _loader(loaded: Loaded, split: Split) -> AbstractDataLoader:
    return loaded.valid_data if split == "valid" else loaded.test_data


# -- metrics ---------------------------------------------------------------------------------------------------------


def _metrics(loaded: Loaded, parts: Sequence[str], split: Split, show_progress: bool) -> pd.DataFrame:
    trainer = evaluating_trainer(loaded)
    settings: list[tuple[str, str, Sequence[str]]] = [("all", "", [])]
    settings += [("without", part, [part]) for part in parts]
    if len(parts) > 1:
        settings += [("alone", part, [other for other in parts if other != part]) for part in parts]
        settings += [("none", "", parts)]
    rows, state = [], random_state(loaded.train_data)
    for name, part, off in tqdm(settings, desc="switching parts off", disable=not show_progress):
        restore_random_state(state)  # sampled negatives are the same for all rows
        with switched_off(loaded.model, off):
            result = trainer.evaluate(_loader(loaded, split), load_best_model=False)
        rows.append({"parts": name, "part": part, **result})
    return pd.DataFrame(rows)


# -- effects on the attention ----------------------------------------------------------------------------------------


@torch.no_grad()
def _effects_by_layer(loaded: Loaded, parts: Sequence[str], split: Split) -> pd.DataFrame:
    model = loaded.model
    parts = [part for part in parts if part != BRANCH_PART]  # which is beside the attention
    rows = _loader(loaded, split)._dataset.inter_feat
    sums = {
        key: torch.zeros(8, dtype=torch.float64) for key in itertools.product(range(len(attentions_of(model))), parts)
    }
    if not sums:
        return pd.DataFrame(columns=["layer", "part", *EFFECTS])
    given = rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN], times_of(model, rows)
    for items, lengths, times in split_for_attention(model, *given):
        counted = counted_rows(model, lengths)
        for part in parts:
            for layer, (with_part, without) in enumerate(with_and_without(model, items, lengths, [part], times)):
                sums[layer, part] += _sums(with_part, without, counted)
    return pd.DataFrame({"layer": layer + 1, "part": part, **_effect(total)} for (layer, part), total in sums.items())


def _sums(with_part: Attended, without: Attended, counted: Tensor) -> Tensor:
    """The sums that :func:`_effect` needs, over counted rows and heads; shape (8,), float64."""
    rows = counted[:, None, :].expand(with_part.weights.shape[:-1])  # (b, h, s)

    def over_rows(x: Tensor) -> Tensor:
        return x.expand(-1, rows.shape[1], -1, -1).sum(dim=-1, dtype=torch.float64)[rows].sum()

    return torch.stack(
        [
            rows.sum(),
            over_rows(with_part.mask),
            over_rows(with_part.logits.square()),
            over_rows((with_part.logits - without.logits).square()),
            over_rows(torch.special.entr(with_part.weights)),
            over_rows(torch.special.entr(without.weights)),
            over_rows(with_part.output.square()),
            over_rows((with_part.output - without.output).square()),
        ]
    ).cpu()


def _effect(sums: Tensor) -> dict[str, float]:
    rows, pairs, logits, logit_change, entropy, entropy_without, output, output_change = sums.tolist()
    values = (
        math.sqrt(logit_change / pairs),
        math.sqrt(logit_change / logits) if logits else 0.0,
        entropy / rows,
        entropy_without / rows,
        math.sqrt(output_change / output) if output else 0.0,
    )
    return dict(zip(EFFECTS, values, strict=True))

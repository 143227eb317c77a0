"""Histories of targets against a plain reading of the sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.data import histories
from recbole_posattn.data.histories import Histories

SEQUENCES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=8), min_size=1, max_size=6)


@given(sequences=SEQUENCES, data=st.data())
def test_a_history_is_all_that_the_user_did_before(sequences: list[list[int]], data: st.DataObject) -> None:
    places = [(user, nth) for user, sequence in enumerate(sequences) for nth in range(len(sequence))]
    later = [i for i, (_, nth) in enumerate(places) if nth > 0]
    chosen = data.draw(st.lists(st.sampled_from(later), unique=True)) if later else []
    item = torch.tensor([item for sequence in sequences for item in sequence])
    position, every_position = (torch.tensor(part, dtype=torch.int64) for part in (chosen, later))
    (found,) = Histories.of_parts(item, [position], every_position)
    expected = [sequences[places[i][0]][: places[i][1]] for i in chosen]
    assert found.length.tolist() == [len(history) for history in expected]
    assert found.target.tolist() == [sequences[places[i][0]][places[i][1]] for i in chosen]
    row, flat = found.flat()
    assert [flat[row == i].tolist() for i in range(len(chosen))] == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histories, "_TARGETS", 2)
        assert found.contain_target().tolist() == [
            target in history for target, history in zip(found.target.tolist(), expected)
        ]

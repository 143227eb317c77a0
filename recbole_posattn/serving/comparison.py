"""Comparison of the scores of an exported model, and of the resulting lists, with the model's own."""

from __future__ import annotations

from torch import Tensor

from recbole_posattn.errors import CheckpointError

# Largest allowed difference of a score from the model's own, relative to the largest score of the list.
TOLERANCE = 1e-3

# Scores closer than this, relative to the largest, are equal up to rounding: only such items may change their order.
TIE = 1e-5


def compare(own: Tensor, exported: Tensor, length: int, name: str) -> tuple[float, int]:
    """Compare the scores of an exported model, and the resulting lists, with the model's own.

    Args:
        own: Scores of the model, shape (b, n).
        exported: Scores of the file, shape (b, n).
        length: Length of the lists, at most n.
        name: Name of the model.

    Returns:
        The largest difference of a score, and the number of lists in which ties are in a different order.

    Raises:
        CheckpointError: If a score differs by more than :data:`TOLERANCE`, or a list by more than the order of
            items whose scores are closer than :data:`TIE`.
    """
    scale = own.abs().amax(dim=1, keepdim=True)
    differences = (exported - own).abs()
    if not bool((differences <= TOLERANCE * scale).all()):  # False for NaN
        difference = float(differences.max())
        raise CheckpointError(
            f"{name} returns different scores when exported (by {difference:.3g}); nothing is written"
        )
    own_list, exported_list = own.topk(length).indices, exported.topk(length).indices
    # By the model's own scores, the item at each place must be as good as the model's item.
    loss = (own.gather(1, own_list) - own.gather(1, exported_list)).abs()
    wrong = loss > TIE * scale
    if bool(wrong.any()):
        row, place = wrong.nonzero()[0].tolist()
        raise CheckpointError(
            f"{name} returns different lists when exported: the score of the item at rank {place + 1} differs by "
            f"{float(loss[row, place]):.3g} from that of the model's item; nothing is written"
        )
    return float(differences.max()), int((own_list != exported_list).any(dim=1).sum())

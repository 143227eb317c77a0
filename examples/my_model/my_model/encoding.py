"""An encoding: a bias of the attention logits by distance."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn.encodings.base import PositionEncoding


class LogDistanceBias(PositionEncoding):
    """−r₁ log(1 + r₂ (t − s)) is added to the logits (Chi et al., KERPLE, arXiv 2205.09921, the logarithmic variant).

    An encoding says where it ``enters`` and defines the method of that place; see ``PositionEncoding``. Both r are
    learned and kept above 0 by a softplus.
    """

    enters = "logits"

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(2))

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """The bias of the queries from row ``first`` on, shape (1, 1, queries, keys)."""
        row = first + torch.arange(query.shape[-2], device=query.device)
        distance = (row[:, None] - torch.arange(key.shape[-2], device=key.device)).clamp(min=0)
        scale, rate = F.softplus(self.raw)
        return (-scale * torch.log1p(rate * distance))[None, None]

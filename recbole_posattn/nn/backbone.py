"""Transformer backbones around positional-kernel attention.

``sasrec`` is the paper's block (arXiv 2602.21052, after SASRec, arXiv 1808.09781): pre-norm, queries from the
normalized and keys and values from the raw input. ``recbole`` is RecBole's ``TransformerEncoder``: post-norm, one input
for all three, an output projection.

Shape keys: b batch, s sequence length, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.dropout import Dropout
from recbole_posattn.nn.encodings.base import PositionEncoding

# The activations that RecBole's FeedForward offers, by its names.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class FeedForward(nn.Module):
    """W₂ dropout(act(W₁ x)), position by position.

    Args:
        hidden_size: Channels d.
        inner_size: Channels of the inner layer.
        hidden_act: A name of :data:`ACTIVATIONS`.
        dropout: Probability of zeroing an element behind each layer.
        inner_dropout: Whether there is dropout behind the first layer too (the paper's block has it, RecBole's not).
    """

    def __init__(self, hidden_size: int, inner_size: int, hidden_act: str, dropout: float, inner_dropout: bool) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(hidden_size, inner_size)
        self.dense_2 = nn.Linear(inner_size, hidden_size)
        self.activation = ACTIVATIONS[hidden_act]
        self.inner_dropout = Dropout(dropout if inner_dropout else 0.0)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (b, s, d) to (b, s, d)."""
        return self.dropout(self.dense_2(self.activation(self.inner_dropout(self.dense_1(x)))))


class SASRecBlock(nn.Module):
    """The paper's block: h = LN(x), a = h + Attn(h, x), y = LN(a), out = y + FFN(y).

    Args:
        attention: The block's attention.
        hidden_size: Channels d.
        inner_size: Inner channels of the feed-forward network.
        hidden_act: A name of :data:`ACTIVATIONS`.
        dropout: Probability of zeroing an element in the feed-forward network.
        layer_norm_eps: Added to the variance in LayerNorm.
    """

    def __init__(
        self,
        attention: PositionKernelAttention,
        hidden_size: int,
        inner_size: int,
        hidden_act: str,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.attention = attention
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = FeedForward(hidden_size, inner_size, hidden_act, dropout, inner_dropout=True)

    def forward(self, x: Tensor, valid: Tensor | None = None, last_only: bool = False) -> Tensor:
        """Shape (b, s, d) to (b, s, d), or to (b, 1, d) if ``last_only``; ``valid`` as in ``causal_attention``."""
        h = self.attention_norm(x[:, -1:] if last_only else x)
        y = self.feed_forward_norm(h + self.attention(h, x, valid))
        return y + self.feed_forward(y)


class RecBoleBlock(nn.Module):
    """RecBole's ``TransformerLayer``: a = LN(x + W_O Attn(x, x)), out = LN(a + FFN(a)).

    The arguments are :class:`SASRecBlock`'s; there is dropout behind the output projection W_O, too.
    """

    def __init__(
        self,
        attention: PositionKernelAttention,
        hidden_size: int,
        inner_size: int,
        hidden_act: str,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = FeedForward(hidden_size, inner_size, hidden_act, dropout, inner_dropout=False)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, x: Tensor, valid: Tensor | None = None, last_only: bool = False) -> Tensor:
        """Shape (b, s, d) to (b, s, d), or to (b, 1, d) if ``last_only``; ``valid`` as in ``causal_attention``."""
        h = x[:, -1:] if last_only else x
        a = self.attention_norm(h + self.dropout(self.dense(self.attention(h, x, valid))))
        return self.feed_forward_norm(a + self.feed_forward(a))


class Backbone(nn.Module):
    """Blocks between an input stage with dropout and the outputs, with one LayerNorm outside the blocks.

    Args:
        attentions: One attention a block, first block first.
        hidden_size: Channels d.
        inner_size: Inner channels of the feed-forward networks.
        hidden_act: A name of :data:`ACTIVATIONS`.
        dropout: Probability of zeroing an element of the input and in the blocks.
        layer_norm_eps: Added to the variance in LayerNorm.
        input_encodings: Positional encodings that enter at the input.
    """

    block_class: type[SASRecBlock] | type[RecBoleBlock]

    def __init__(
        self,
        attentions: Sequence[PositionKernelAttention],
        hidden_size: int,
        inner_size: int,
        hidden_act: str,
        dropout: float,
        layer_norm_eps: float,
        input_encodings: Sequence[PositionEncoding] = (),
    ) -> None:
        super().__init__()
        self.input_encodings = nn.ModuleList(input_encodings)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            self.block_class(attention, hidden_size, inner_size, hidden_act, dropout, layer_norm_eps)
            for attention in attentions
        )

    def forward(self, item_embedding: Tensor, valid: Tensor | None = None, last_only: bool = False) -> Tensor:
        """Encode sequences of item embeddings.

        Args:
            item_embedding: Shape (b, s, d).
            valid: Shape (b, s), False at padding; ``None`` where padding stands behind the items only.
            last_only: Whether the output at the last position is all that is wanted: the last block then computes
                nothing else.

        Returns:
            Tensor of shape (b, s, d), or (b, 1, d) if ``last_only``; rows at padding have no meaning.
        """
        raise NotImplementedError

    def _through_blocks(self, x: Tensor, valid: Tensor | None, last_only: bool) -> Tensor:
        for block in self.blocks:
            x = block(x, valid, last_only and block is self.blocks[-1])
        return x

    def _with_positions(self, x: Tensor) -> Tensor:
        for encoding in self.input_encodings:
            x = encoding.at_input(x)
        return x


class SASRecBackbone(Backbone):
    """√d-scaled item embeddings, dropout, the paper's blocks, LayerNorm.

    The authors zero the padding rows after each block; here the attention keeps padding out by itself.
    """

    block_class = SASRecBlock

    def forward(self, item_embedding: Tensor, valid: Tensor | None = None, last_only: bool = False) -> Tensor:
        """See :meth:`Backbone.forward`."""
        x = self.dropout(self._with_positions(item_embedding * item_embedding.shape[-1] ** 0.5))
        return self.norm(self._through_blocks(x, valid, last_only))


class RecBoleBackbone(Backbone):
    """LayerNorm and dropout on the item embeddings, then RecBole's blocks."""

    block_class = RecBoleBlock

    def forward(self, item_embedding: Tensor, valid: Tensor | None = None, last_only: bool = False) -> Tensor:
        """See :meth:`Backbone.forward`."""
        x = self.dropout(self.norm(self._with_positions(item_embedding)))
        return self._through_blocks(x, valid, last_only)


BACKBONES: dict[str, type[Backbone]] = {"sasrec": SASRecBackbone, "recbole": RecBoleBackbone}

"""Transformer backbones around positional-kernel attention.

``sasrec`` is the paper's block (arXiv 2602.21052, after SASRec, arXiv 1808.09781): pre-norm, queries from the
normalized input, keys and values from the raw one. ``recbole`` is RecBole's ``TransformerEncoder``: post-norm, one
input for all three, an output projection. In either, a :class:`KernelBranch` may stand beside the attention or in its
place:

    sasrec:  h = LN(x), a = h + Attn(h, x) + γ ⊙ dropout(M h)
    recbole: a = LN(x + W_O Attn(x, x) + γ ⊙ dropout(M x)), where x is normalized already

Shape keys: b batch, s sequence length, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.dropout import Dropout
from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.gemm import Linear
from recbole_posattn.nn.times import Times

# The activations that RecBole's FeedForward offers, by its names.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class BlockOptions:
    """Sizes and options of a block.

    Attributes:
        hidden_size: Channels d.
        inner_size: Inner channels of the feed-forward network; ``None`` for d.
        hidden_act: A name of :data:`ACTIVATIONS`.
        dropout: Probability of zeroing an element of the input and in the feed-forward networks; in [0, 1).
        layer_norm_eps: Added to the variance in LayerNorm.
        output_projection: See :class:`PositionKernelAttention`; the ``recbole`` backbone has a projection of its own.
        attend_padding: See :class:`PositionKernelAttention`.
    """

    hidden_size: int
    inner_size: int | None = None
    hidden_act: str = "relu"
    dropout: float = 0.0
    layer_norm_eps: float = 1e-8
    output_projection: bool = False
    attend_padding: bool = False

    def layer_norm(self) -> nn.LayerNorm:
        """A LayerNorm over the channels."""
        return nn.LayerNorm(self.hidden_size, eps=self.layer_norm_eps)


class FeedForward(nn.Module):
    """W₂ dropout(act(W₁ x)), position by position.

    Args:
        options: Sizes, activation and dropout.
        inner_dropout: Whether dropout also follows the first layer (it does in the paper's block, not in RecBole's).
    """

    def __init__(self, options: BlockOptions, inner_dropout: bool) -> None:
        super().__init__()
        inner_size = options.inner_size or options.hidden_size
        self.dense_1 = Linear(options.hidden_size, inner_size)
        self.dense_2 = Linear(inner_size, options.hidden_size)
        self.activation = ACTIVATIONS[options.hidden_act]
        self.inner_dropout = Dropout(options.dropout if inner_dropout else 0.0)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (b, s, d) to (b, s, d)."""
        y: Tensor = self.dropout(self.dense_2(self.activation(self.inner_dropout(self.dense_1(x)))))
        return y


class Block(nn.Module):
    """A mixer of positions and a feed-forward network, with the residual connections and LayerNorms of a subclass.

    Args:
        attention: The block's attention; ``None`` if the branch is the whole mixer.
        options: The rest of the block.
        branch: A kernel beside the attention or in its place.

    Raises:
        ValueError: If there is neither an attention nor a branch.
    """

    attention: nn.Module | None
    branch: KernelBranch | None

    def __init__(self, attention: nn.Module | None, options: BlockOptions, branch: KernelBranch | None = None) -> None:
        super().__init__()
        if attention is None and branch is None:
            raise ValueError("a block needs an attention or a branch, got neither")

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """Shape (b, s, d) to (b, s, d), or to (b, 1, d) if ``last_only``; ``valid`` as in ``causal_attention``."""
        raise NotImplementedError


class SASRecBlock(Block):
    """The paper's block: h = LN(x), a = h + Attn(h, x), y = LN(a), out = y + FFN(y).

    A branch adds γ ⊙ dropout(M h) to a. The arguments are those of :class:`Block`.
    """

    def __init__(self, attention: nn.Module | None, options: BlockOptions, branch: KernelBranch | None = None) -> None:
        super().__init__(attention, options, branch)
        self.attention_norm = options.layer_norm()
        self.attention = attention
        self.branch = branch
        self.feed_forward_norm = options.layer_norm()
        self.feed_forward = FeedForward(options, inner_dropout=True)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """See :meth:`Block.forward`."""
        normalized = self.attention_norm(x[:, -1:] if last_only and self.branch is None else x)
        h = a = normalized[:, -1:] if last_only else normalized
        if self.attention is not None:
            a = a + self.attention(h, x, valid, times)
        if self.branch is not None:
            a = a + self.branch(normalized, valid, last_only, times)
        y: Tensor = self.feed_forward_norm(a)
        y = y + self.feed_forward(y)
        return y


class RecBoleBlock(Block):
    """RecBole's ``TransformerLayer``: a = LN(x + W_O Attn(x, x)), out = LN(a + FFN(a)).

    A branch adds γ ⊙ dropout(M x) under the first LN. The arguments are those of :class:`Block`; dropout also follows
    the output projection W_O.
    """

    def __init__(self, attention: nn.Module | None, options: BlockOptions, branch: KernelBranch | None = None) -> None:
        super().__init__(attention, options, branch)
        if options.output_projection:
            raise ValueError(
                "output_projection is for the sasrec backbone; the recbole backbone always has a projection"
            )
        self.attention = attention
        self.branch = branch
        if attention is not None:
            self.dense = Linear(options.hidden_size, options.hidden_size)
        self.dropout = Dropout(options.dropout)
        self.attention_norm = options.layer_norm()
        self.feed_forward = FeedForward(options, inner_dropout=False)
        self.feed_forward_norm = options.layer_norm()

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """See :meth:`Block.forward`."""
        h = a = x[:, -1:] if last_only else x
        if self.attention is not None:
            a = a + self.dropout(self.dense(self.attention(h, x, valid, times)))
        if self.branch is not None:
            a = a + self.branch(x, valid, last_only, times)
        a = self.attention_norm(a)
        y: Tensor = self.feed_forward_norm(a + self.feed_forward(a))
        return y


class BSARecBlock(RecBoleBlock):
    """BSARec's block: a = α LN(x + dropout(F x)) + (1 − α) LN(x + W_O Attn(x, x)), out = LN(a + FFN(a)).

    Shin et al., arXiv 2312.10325, eqs. 7 to 13, where F is the frequency rescaler, and a LayerNorm each.

    Args:
        attention: See :class:`Block`.
        options: See :class:`Block`.
        branch: F.
        alpha: α, the share of the filter; in [0, 1].
    """

    def __init__(
        self, attention: PositionKernelAttention, options: BlockOptions, branch: KernelBranch, alpha: float
    ) -> None:
        super().__init__(attention, options, branch)
        self.alpha = alpha
        self.branch_norm = options.layer_norm()

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """See :meth:`Block.forward`."""
        assert self.attention is not None and self.branch is not None
        h = x[:, -1:] if last_only else x
        filtered = self.branch_norm(h + self.branch(x, valid, last_only, times))
        attended = self.attention_norm(h + self.dropout(self.dense(self.attention(h, x, valid, times))))
        a = self.alpha * filtered + (1 - self.alpha) * attended
        y: Tensor = self.feed_forward_norm(a + self.feed_forward(a))
        return y


class Backbone(nn.Module):
    """An input stage with dropout, the blocks, and usually one LayerNorm outside the blocks.

    Args:
        attentions: The attention of each block, in order; ``None`` in a block without.
        options: The rest of each block.
        input_encodings: Positional encodings that enter at the input.
        branches: One branch a block; ``None`` in a block without.
        block: What builds a block from its attention, the options and its branch; :attr:`block_class` by default.
    """

    block_class: type[Block]
    normalizes = True  # whether there is a LayerNorm outside the blocks

    def __init__(
        self,
        attentions: Iterable[nn.Module | None],
        options: BlockOptions,
        input_encodings: Sequence[PositionEncoding] = (),
        branches: Iterable[KernelBranch | None] | None = None,
        block: Callable[..., Block] | None = None,
    ) -> None:
        super().__init__()
        self.input_encodings = nn.ModuleList(input_encodings)
        self.norm = options.layer_norm() if self.normalizes else nn.Identity()
        self.dropout = Dropout(options.dropout)
        block, attentions = block or self.block_class, list(attentions)
        self.blocks = nn.ModuleList(
            block(attention, options, branch)
            for attention, branch in zip(attentions, branches or [None] * len(attentions), strict=True)
        )

    def forward(
        self,
        item_embedding: Tensor,
        valid: Tensor | None = None,
        last_only: bool = False,
        times: Tensor | None = None,
    ) -> Tensor:
        """Encode sequences of item embeddings.

        Args:
            item_embedding: Shape (b, s, d).
            valid: Shape (b, s), False at padding; ``None`` if all padding follows the items.
            last_only: Whether only the output at the last position is needed; the last block then skips the
                others.
            times: Seconds of each item from any origin, never falling along a sequence; float64, shape (b, s). Padding
                has the time of the item next to it. ``None`` if nothing reads them, or for items at equal distances.

        Returns:
            Tensor of shape (b, s, d), or (b, 1, d) if ``last_only``; rows at padding have no meaning.
        """
        x = self.before_blocks(item_embedding)
        timed = () if times is None else (Times(times),)  # a block from elsewhere may have no argument for them
        for block in self.blocks:
            x = block(x, valid, last_only and block is self.blocks[-1], *timed)
        return self.after_blocks(x)

    def before_blocks(self, item_embedding: Tensor) -> Tensor:
        """The input of the first block; shape (b, s, d) to (b, s, d)."""
        raise NotImplementedError

    def after_blocks(self, x: Tensor) -> Tensor:
        """The output, by default that of the last block; shape (b, s, d) to (b, s, d)."""
        return x

    def _with_positions(self, x: Tensor) -> Tensor:
        for encoding in self.input_encodings:
            if isinstance(encoding, PositionEncoding):
                x = encoding.at_input(x)
        return x


class SASRecBackbone(Backbone):
    """√d-scaled item embeddings, dropout, the paper's blocks, LayerNorm.

    The authors zero the padding rows after each block; here the attention does so with its input.
    """

    block_class = SASRecBlock

    def before_blocks(self, item_embedding: Tensor) -> Tensor:
        """See :meth:`Backbone.before_blocks`."""
        x: Tensor = self.dropout(self._with_positions(item_embedding * item_embedding.shape[-1] ** 0.5))
        return x

    def after_blocks(self, x: Tensor) -> Tensor:
        """See :meth:`Backbone.after_blocks`."""
        y: Tensor = self.norm(x)
        return y


class RecBoleBackbone(Backbone):
    """LayerNorm and dropout on the item embeddings, then RecBole's blocks."""

    block_class = RecBoleBlock

    def before_blocks(self, item_embedding: Tensor) -> Tensor:
        """See :meth:`Backbone.before_blocks`."""
        x: Tensor = self.dropout(self.norm(self._with_positions(item_embedding)))
        return x

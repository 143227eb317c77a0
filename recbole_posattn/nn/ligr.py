"""LiGR's gated transformer block, that of eSASRec, and its backbone.

    h = LN(x)    a = x + σ(G₁ x + b₁) ⊙ dropout(W_O Attn(h, h))        out = a + σ(G₂ a + b₂) ⊙ dropout(FFN(LN(a)))
    FFN(y) = W₂ dropout(SiLU(W₁ y) ⊙ W₃ y)

Borisyuk et al., arXiv 2502.03417, in the form of RecTools' LiGRLayers, with which eSASRec (Tikhonovich et al., RecSys
2025, arXiv 2508.06450) was measured.

Shape keys: b batch, s sequence length, d hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.backbone import Backbone, Block, BlockOptions
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.dropout import Dropout
from recbole_posattn.nn.times import Times


class SwiGLU(nn.Module):
    """W₂ dropout(SiLU(W₁ x) ⊙ W₃ x), position by position, without biases (Shazeer, arXiv 2002.05202).

    Args:
        options: Sizes and dropout; the activation is SiLU.
    """

    def __init__(self, options: BlockOptions) -> None:
        super().__init__()
        inner_size = options.inner_size or options.hidden_size
        self.dense_1 = nn.Linear(options.hidden_size, inner_size, bias=False)
        self.dense_2 = nn.Linear(inner_size, options.hidden_size, bias=False)
        self.dense_3 = nn.Linear(options.hidden_size, inner_size, bias=False)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (b, s, d) to (b, s, d)."""
        y: Tensor = self.dense_2(self.dropout(F.silu(self.dense_1(x)) * self.dense_3(x)))
        return y


class LiGRBlock(Block):
    """The block of this module. A branch adds γ ⊙ dropout(M h) to W_O Attn(h, h).

    The arguments are those of :class:`Block`.
    """

    def __init__(
        self, attention: PositionKernelAttention | None, options: BlockOptions, branch: KernelBranch | None = None
    ) -> None:
        super().__init__(attention, options, branch)
        if options.output_projection:
            raise ValueError("output_projection is for the sasrec backbone; the ligr backbone always has a projection")
        self.attention_norm = options.layer_norm()
        self.attention = attention
        self.branch = branch
        if attention is not None:
            self.dense = nn.Linear(options.hidden_size, options.hidden_size)
        self.dropout = Dropout(options.dropout)
        self.attention_gate = nn.Linear(options.hidden_size, options.hidden_size)
        self.feed_forward_norm = options.layer_norm()
        self.feed_forward = SwiGLU(options)
        self.feed_forward_gate = nn.Linear(options.hidden_size, options.hidden_size)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """See :meth:`Block.forward`."""
        h = self.attention_norm(x)
        last = slice(-1, None) if last_only else slice(None)
        mixed: Tensor | float = 0.0
        if self.attention is not None:
            mixed = self.dropout(self.dense(self.attention(h[:, last], h, valid, times)))
        if self.branch is not None:
            mixed = mixed + self.branch(h, valid, last_only, times)
        x = x[:, last]
        a: Tensor = x + torch.sigmoid(self.attention_gate(x)) * mixed
        y: Tensor = self.dropout(self.feed_forward(self.feed_forward_norm(a)))
        y = a + torch.sigmoid(self.feed_forward_gate(a)) * y
        return y


class LiGRBackbone(Backbone):
    """Dropout on the item embeddings, then LiGR's blocks, without a LayerNorm outside them."""

    block_class = LiGRBlock
    normalizes = False

    def before_blocks(self, item_embedding: Tensor) -> Tensor:
        """See :meth:`Backbone.before_blocks`."""
        x: Tensor = self.dropout(self._with_positions(item_embedding))
        return x

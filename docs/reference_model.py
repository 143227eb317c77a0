"""The default PosKernelSASRec from top to bottom: RoPE and a kernel branch M per layer, no dropout, plain attention.

`kernel_structure: toeplitz-full` has the paper's kernels U and L instead of RoPE; by default, they are the identity.
The bias on items of the history (history_partition), which acts only if they are ranked, is left out.

The package computes the same faster, and with more structures; a test compares the two.
Shape keys: b batch, t positions (zeros in front, the newest item last), d hidden size, n items.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rotate(x: Tensor) -> Tensor:
    """RoPE of shape (b, t, d): channels i and i + d / 2 of position t rotate by the angle t / 10000^(2i / d)."""
    t, d = x.shape[-2:]
    angle = torch.arange(t, dtype=x.dtype)[:, None] / 10000 ** (torch.arange(0, d, 2, dtype=x.dtype) / d)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


class Branch(nn.Module):
    """γ ⊙ M x: in each channel, a sum over all earlier positions with a weight per lag."""

    def __init__(self, d: int, length: int) -> None:
        super().__init__()
        self.taps, self.gate = nn.Parameter(0.02 * torch.randn(d, length)), nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (b, t, d) to (b, t, d)."""
        position = torch.arange(x.shape[1])
        lag = position[:, None] - position
        m = torch.where(lag >= 0, self.taps[:, lag.clamp(min=0)], 0.0)  # (d, t, t), lower triangular
        return self.gate * (m @ x.mT[..., None]).squeeze(-1).mT


class Block(nn.Module):
    """a = LN(x + W_O Attn(x) + γ ⊙ M x), out = LN(a + W₂ gelu(W₁ a))."""

    def __init__(self, d: int, length: int) -> None:
        super().__init__()
        self.branch = Branch(d, length)
        self.query, self.key, self.value, self.output = (nn.Linear(d, d) for _ in range(4))
        self.dense_1, self.dense_2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.norm_1, self.norm_2 = nn.LayerNorm(d, eps=1e-8), nn.LayerNorm(d, eps=1e-8)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Shape (b, t, d) to (b, t, d); ``valid`` is False at padding, shape (b, t)."""
        x = x * valid[..., None]  # padding gives nothing to the positions that mix it in
        q, k, v = rotate(self.query(x)), rotate(self.key(x)), self.value(x)
        logits = q @ k.mT / q.shape[-1] ** 0.5
        attended = (valid[:, None, :] & torch.ones_like(logits[0], dtype=torch.bool).tril()).bool()
        weights = torch.softmax(logits.masked_fill(~attended, -torch.inf), dim=-1).nan_to_num()
        a = self.norm_1(x + self.output(weights @ v) + self.branch(x))
        return self.norm_2(a + self.dense_2(F.gelu(self.dense_1(a))))


class ReferenceModel(nn.Module):
    """Items to scores of the next item, at every position."""

    def __init__(self, n_items: int, d: int = 64, length: int = 50, n_layers: int = 2) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, d, padding_idx=0)
        self.norm = nn.LayerNorm(d, eps=1e-8)
        self.blocks = nn.ModuleList(Block(d, length) for _ in range(n_layers))

    def forward(self, item_seq: Tensor) -> Tensor:
        """Shape (b, t) to (b, t, n)."""
        valid = item_seq > 0
        x = self.norm(self.items(item_seq))
        for block in self.blocks:
            x = block(x, valid)
        return x @ self.items.weight.T

"""The default PosKernelSASRec from top to bottom: one kernel U and a branch M per layer, no dropout, plain attention.

The paper's kernel L of the values, which `kernel_structure: toeplitz-full` adds, is the identity by default.
The bias on items of the history (history_partition), which acts only if they are ranked, is left out.

The package computes the same faster, and with more structures; a test compares the two.
Shape keys: b batch, t positions (zeros in front, the newest item last), d hidden size, n items.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionalKernel(nn.Module):
    """Kernels of one layer. Uᵀ has a weight per lag (g₀ = 1), M one per lag and channel."""

    def __init__(self, d: int, length: int) -> None:
        super().__init__()
        self.branch = nn.Parameter(0.02 * torch.randn(d, length))
        self.taps = nn.Parameter(0.02 * torch.randn(length - 1).abs())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Uᵀ and M, lower triangular; shapes (t, t) and (d, t, t)."""
        g = F.pad(self.taps, (1, 0), value=1.0)
        position = torch.arange(len(g))
        lag = position[:, None] - position
        u_transposed, branch = (torch.where(lag >= 0, w[..., lag.clamp(min=0)], 0.0) for w in (g, self.branch))
        return u_transposed, branch


class Block(nn.Module):
    """h = LN(x), y = LN(h + Attn(h, x) + γ ⊙ M h), out = y + W₂ relu(W₁ y)."""

    def __init__(self, d: int, length: int) -> None:
        super().__init__()
        self.kernel, self.gate = PositionalKernel(d, length), nn.Parameter(torch.ones(d))
        self.norm_1, self.norm_2 = nn.LayerNorm(d, eps=1e-8), nn.LayerNorm(d, eps=1e-8)
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.dense_1, self.dense_2 = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Shape (b, t, d) to (b, t, d); ``valid`` is False at padding, shape (b, t)."""
        x = x * valid[..., None]  # padding gives nothing to the positions that mix it in
        u_transposed, branch = self.kernel()
        h = self.norm_1(x) * valid[..., None]
        q = self.query(h)
        k = u_transposed @ F.linear(x, self.key.weight) + self.key.bias  # the biases are not mixed
        v = self.value(x)
        logits = q @ k.mT / q.shape[-1] ** 0.5  # (Q Kᵀ / √d) U = Q (Uᵀ K)ᵀ / √d
        attended = (valid[:, None, :] & torch.ones_like(logits[0], dtype=torch.bool).tril()).bool()
        weights = torch.softmax(logits.masked_fill(~attended, -torch.inf), dim=-1).nan_to_num()
        y = self.norm_2(h + weights @ v + self.gate * (branch @ h.mT[..., None]).squeeze(-1).mT)
        return y + self.dense_2(F.relu(self.dense_1(y)))


class ReferenceModel(nn.Module):
    """Items to scores of the next item, at every position."""

    def __init__(self, n_items: int, d: int = 64, length: int = 50, n_layers: int = 2) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, d, padding_idx=0)
        self.blocks = nn.ModuleList(Block(d, length) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d, eps=1e-8)

    def forward(self, item_seq: Tensor) -> Tensor:
        """Shape (b, t) to (b, t, n)."""
        valid = item_seq > 0
        x = self.items(item_seq) * self.items.embedding_dim**0.5
        for block in self.blocks:
            x = block(x, valid)
        return self.norm(x) @ self.items.weight.T

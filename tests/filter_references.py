"""FMLP-Rec, BSARec and TV-Rec once more, slowly and straight from their papers' formulas, to compare with.

Everything is float64 and without dropout; T is the length to which histories are padded in front.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor, nn

from recbole_posattn.models.filters import BSARec, FMLPRec, TVRec
from recbole_posattn.models.sasrec import SASRecBase


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return norm.weight * (x - mean) / (variance + norm.eps).sqrt() + norm.bias


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def fourier(length: int) -> Tensor:
    """F[f, t] = exp(−2πi f t / T), complex, shape (T, T)."""
    rows = [[cmath.exp(-2j * math.pi * f * t / length) for t in range(length)] for f in range(length)]
    return torch.tensor(rows, dtype=torch.complex128)


def fmlp_filter(x: Tensor, spectrum: Tensor) -> Tensor:
    """F⁻¹(W ⊙ F(x)) for x (T, d) and W (d, T // 2 + 1, 2); frequencies above T / 2 have the conjugate weights."""
    length = len(x)
    weight = torch.complex(spectrum[..., 0], spectrum[..., 1]).T
    weight = torch.cat([weight, torch.conj(weight[1 : (length + 1) // 2].flip(0))])
    weight[0] = weight[0].real  # real signals have real components there
    if length % 2 == 0:
        weight[length // 2] = weight[length // 2].real
    transform = fourier(length)
    return (transform.conj().T / length @ (weight * (transform @ x.to(torch.complex128)))).real


def bsarec_filter(x: Tensor, beta: Tensor, cutoff: int) -> Tensor:
    """LP(x) + β² (x − LP(x)) for x (T, d): LP keeps the frequencies up to ⌊c / 2⌋ of either sign."""
    length = len(x)
    transform = fourier(length)
    kept = [min(f, length - f) <= cutoff // 2 for f in range(length)]
    components = transform @ x.to(torch.complex128) * torch.tensor(kept)[:, None]
    low = (transform.conj().T / length @ components).real
    return low + beta**2 * (x - low)


def tvrec_filter(x: Tensor, coefficient: Tensor, basis: Tensor) -> Tensor:
    """The real part of (U ⊙ (H Λᵀ)) U⁻¹ x, U the eigenvectors of a directed cycle of positions, for x (T, d).

    Λ[j, k] is the k-th power of the j-th eigenvalue, and H = C B̄. T more positions with zeros keep the cycle apart.
    """
    length = len(x)
    size = 2 * length
    shift = torch.zeros(size, size, dtype=torch.complex128)
    for position in range(size):
        shift[position, position - 1] = 1
    eigenvalues, eigenvectors = torch.linalg.eig(shift)
    powers = torch.stack([eigenvalues**k for k in range(length)], dim=1)
    taps = coefficient @ (basis / basis.norm(dim=1, keepdim=True))
    taps = torch.cat([taps, torch.zeros_like(taps)]).to(torch.complex128)
    padded = torch.cat([x, torch.zeros_like(x)]).to(torch.complex128)
    filtered = (eigenvectors * (taps @ powers.T)) @ torch.linalg.inv(eigenvectors) @ padded
    return filtered.real[:length]


def restricted(matrix_of: object, x: Tensor) -> Tensor:
    """A filter that sees at each position t the positions up to t only: the sequence is cut, the rest are zeros."""
    rows = []
    for t in range(len(x)):
        seen = x.clone()
        seen[t + 1 :] = 0
        rows.append(matrix_of(seen)[t])
    return torch.stack(rows)


def attention(x: Tensor, valid: Tensor, block: nn.Module) -> Tensor:
    """W_O softmax(Q Kᵀ / √d_h) V, each item attending to itself and the items before it; 0 at padding."""
    module, d = block.attention, x.shape[-1]
    d_h = d // module.n_heads
    query, key, value = (linear(x, layer) for layer in (module.query, module.key, module.value))
    rows = []
    for t in range(len(x)):
        heads = []
        for head in range(module.n_heads):
            channels = slice(head * d_h, (head + 1) * d_h)
            seen = [s for s in range(t + 1) if valid[s]]
            if not valid[t]:
                heads.append(torch.zeros(d_h, dtype=x.dtype))
                continue
            weights = torch.softmax(key[seen][:, channels] @ query[t, channels] / math.sqrt(d_h), dim=0)
            heads.append(weights @ value[seen][:, channels])
        rows.append(torch.cat(heads))
    return linear(torch.stack(rows), block.dense)


def encoded(model: SASRecBase, items: Tensor, causal: bool, with_padding: bool) -> Tensor:
    """Outputs (T, d) of one history, padded in front with 0 to T items."""
    valid = items > 0
    x = model.item_embedding.weight[items]
    for encoding in model.backbone.input_encodings:
        x = x + encoding.embedding.weight
    x = layer_norm(x, model.backbone.norm)
    for block in model.backbone.blocks:
        mixed = x if with_padding else x * valid[:, None]
        kernel = block.branch.kernel
        if isinstance(model, FMLPRec):
            filtered = lambda y, kernel=kernel: fmlp_filter(y, kernel.spectrum)  # noqa: E731
        elif isinstance(model, BSARec):
            filtered = lambda y, kernel=kernel: low_part_of(y, kernel, causal)  # noqa: E731
        else:
            assert isinstance(model, TVRec)
            filtered = lambda y, kernel=kernel: tvrec_filter(y, kernel.coefficient[0], kernel.basis[0])  # noqa: E731
        y = restricted(filtered, mixed) if causal and isinstance(model, FMLPRec) else filtered(mixed)
        if isinstance(model, BSARec):
            filter_path = layer_norm(x + y, block.branch_norm)
            attention_path = layer_norm(x + attention(x, valid, block), block.attention_norm)
            a = block.alpha * filter_path + (1 - block.alpha) * attention_path
        else:
            a = layer_norm(x + y, block.attention_norm)
        forward = linear(gelu(linear(a, block.feed_forward.dense_1)), block.feed_forward.dense_2)
        x = layer_norm(a + forward, block.feed_forward_norm)
    return x


def low_part_of(x: Tensor, kernel: nn.Module, causal: bool) -> Tensor:
    """BSARec's filter; read causally, its low pass sees at each position the positions up to it only."""
    if not causal:
        return bsarec_filter(x, kernel.beta, kernel.cutoff)
    zero = torch.zeros_like(kernel.beta)
    low = restricted(lambda y: bsarec_filter(y, zero, kernel.cutoff), x)
    return low + kernel.beta**2 * (x - low)

"""eSASRec, HSTU and TiSASRec once more, slowly and straight from their papers' formulas, to compare with.

Everything is float64 and without dropout; a history has items only, without padding, and ends at the last one.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from recbole_posattn.models.rivals import HSTU, ESASRec, TiSASRec
from recbole_posattn.models.sasrec import SASRecBase
from tests.filter_references import layer_norm, linear


def plain_norm(x: Tensor, eps: float) -> Tensor:
    """(x − mean) / √(variance + ε), row by row."""
    mean = x.mean(dim=-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(dim=-1, keepdim=True) + eps).sqrt()


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def ligr_block(x: Tensor, block: nn.Module) -> Tensor:
    """Algorithm of RecTools' LiGRLayer: pre-norm attention and SwiGLU, each behind a gate."""
    h, module = layer_norm(x, block.attention_norm), block.attention
    d_h = x.shape[-1] // module.n_heads
    query, key, value = (linear(h, layer) for layer in (module.query, module.key, module.value))
    rows = []
    for t in range(len(x)):
        heads = []
        for head in range(module.n_heads):
            c = slice(head * d_h, (head + 1) * d_h)
            logits = torch.stack([query[t, c] @ key[s, c] / math.sqrt(d_h) for s in range(t + 1)])
            heads.append(torch.softmax(logits, dim=0) @ value[: t + 1, c])
        rows.append(torch.cat(heads))
    a = x + sigmoid(linear(x, block.attention_gate)) * linear(torch.stack(rows), block.dense)
    y, forward = layer_norm(a, block.feed_forward_norm), block.feed_forward
    gated = silu(y @ forward.dense_1.weight.T) * (y @ forward.dense_3.weight.T)
    return a + sigmoid(linear(a, block.feed_forward_gate)) * (gated @ forward.dense_2.weight.T)


def hstu_block(x: Tensor, block: nn.Module, times: list[float] | None, max_length: int) -> Tensor:
    """Equations 1 to 3: U, V, Q, K = SiLU(f₁(norm(x))), A = SiLU(Q Kᵀ + rab) / N, f₂(norm(A V) ⊙ U)."""
    module, d = block.pointwise, x.shape[-1]
    d_h = d // module.n_heads
    u, value, query, key = silu(plain_norm(x, block.eps) @ module.uvqk.weight.T).split(d, dim=-1)
    mixed = torch.zeros_like(x)
    for t in range(len(x)):
        for head in range(module.n_heads):
            c = slice(head * d_h, (head + 1) * d_h)
            for s in range(t + 1):
                bias = module.bias.position[head, t - s]
                if times is not None:
                    bucket = min(128, int(math.log(max(1.0, times[t] - times[s])) / 0.301))
                    bias = bias + module.bias.time.weight[head, bucket]
                mixed[t, c] = mixed[t, c] + silu(query[t, c] @ key[s, c] + bias) / max_length * value[s, c]
    return x + linear(plain_norm(mixed, module.eps) * u, module.output)


def tisasrec_intervals(times: list[float], largest: int) -> list[list[int]]:
    """r_ij for j ≤ i: the time between two items, in shortest intervals above 0 of the items up to i."""
    rows = []
    for i in range(len(times)):
        shortest = [b - a for a, b in itertools.pairwise(times[: i + 1]) if b > a]
        rows.append(
            [min(largest, math.floor((times[i] - times[j]) / min(shortest))) if shortest else 0 for j in range(i + 1)]
        )
    return rows


def tisasrec_block(x: Tensor, block: nn.Module, times: list[float] | None, alignment: str) -> Tensor:
    """Equations 5 to 10, pair by pair, with the residual connections of SASRec's code."""
    module, h = block.attention, layer_norm(x, block.attention_norm)
    tables, n = module.tables, len(x)
    d_h = x.shape[-1] // module.n_heads
    start = tables.max_length - n if alignment == "end" else 0
    query, key, value = linear(h, module.query), linear(x, module.key), linear(x, module.value)
    interval = None if times is None else tisasrec_intervals(times, tables.max_interval)
    rows = []
    for i in range(n):
        heads = []
        for head in range(module.n_heads):
            c = slice(head * d_h, (head + 1) * d_h)
            keys, values = [], []
            for j in range(i + 1):
                k = key[j, c] + tables.position_key.weight[start + j, c]
                v = value[j, c] + tables.position_value.weight[start + j, c]
                if interval is not None:
                    k = k + tables.interval_key.weight[interval[i][j], c]
                    v = v + tables.interval_value.weight[interval[i][j], c]
                keys.append(k)
                values.append(v)
            weights = torch.softmax(torch.stack(keys) @ query[i, c] / math.sqrt(d_h), dim=0)
            heads.append(weights @ torch.stack(values))
        rows.append(torch.cat(heads))
    a = layer_norm(h + torch.stack(rows), block.feed_forward_norm)
    return a + linear(linear(a, block.feed_forward.dense_1).clamp(min=0), block.feed_forward.dense_2)


def encoded(model: SASRecBase, items: Tensor, times: list[float] | None, alignment: str) -> Tensor:
    """Outputs (s, d) of one history of s items."""
    n, x = len(items), model.item_embedding.weight[items]
    if not isinstance(model, ESASRec):
        x = x * math.sqrt(x.shape[-1])
    for encoding in model.backbone.input_encodings:
        table = encoding.embedding.weight
        x = x + (table[len(table) - n :] if alignment == "end" else table[:n])
    for block in model.backbone.blocks:
        if isinstance(model, ESASRec):
            x = ligr_block(x, block)
        elif isinstance(model, HSTU):
            x = hstu_block(x, block, times, model.max_seq_length)
        else:
            assert isinstance(model, TiSASRec)
            x = tisasrec_block(x, block, times, alignment)
    return layer_norm(x, model.backbone.norm) if isinstance(model, TiSASRec) else x

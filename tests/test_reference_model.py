"""PosKernelSASRec equals the reference model of the documentation, which reads top to bottom."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from recbole_posattn.nn.kernels.base import IdentityKernel

FILE = Path(__file__).resolve().parent.parent / "docs" / "reference_model.py"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_model", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The reference model's weights into the package's model."""
    pairs = [(source.items, target.item_embedding), (source.norm, target.backbone.norm)]
    for ours, block in zip(source.blocks, target.backbone.blocks, strict=True):
        attention = block.attention
        pairs += [
            (ours.norm_1, block.attention_norm),
            (ours.norm_2, block.feed_forward_norm),
            (ours.output, block.dense),
        ]
        pairs += [(getattr(ours, name), getattr(attention, name)) for name in ("query", "key", "value")]
        pairs += [(getattr(ours, name), getattr(block.feed_forward, name)) for name in ("dense_1", "dense_2")]
        assert isinstance(attention.u_kernel, IdentityKernel) and isinstance(attention.l_kernel, IdentityKernel)
        with torch.no_grad():
            block.branch.kernel.free.copy_(ours.branch.taps)
            block.branch.gate.copy_(ours.branch.gate)
    for module, other in pairs:
        other.load_state_dict(module.state_dict())


def test_the_package_computes_the_reference_model(reference: ModuleType, build: Callable) -> None:
    length, hidden_size = 10, 16
    model, _ = build("PosKernelSASRec", MAX_ITEM_LIST_LENGTH=length, hidden_size=hidden_size, n_heads=1)
    torch.manual_seed(5)
    reference_model = reference.ReferenceModel(model.n_items, hidden_size, length).double()
    for parameter in reference_model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        reference_model.items.weight[0] = 0.0
    copy_weights(reference_model, model)

    n_items = torch.tensor([10, 7, 3, 1])  # in each sequence
    item_seq = torch.randint(1, model.n_items, (4, length))
    item_seq[torch.arange(length) < length - n_items[:, None]] = 0
    valid = item_seq > 0
    with torch.no_grad():
        hidden = model.encode(item_seq)
        scores = hidden @ model.item_embedding.weight.T
        torch.testing.assert_close(scores[valid], reference_model(item_seq)[valid])
        behind = torch.stack([row.roll(int(n) - length) for row, n in zip(item_seq, n_items)])
        newest = model(behind, n_items) @ model.item_embedding.weight.T
        torch.testing.assert_close(newest, reference_model(item_seq)[:, -1])


def test_gradients_are_equal_too(reference: ModuleType, build: Callable) -> None:
    length, hidden_size = 6, 8
    model, _ = build("PosKernelSASRec", MAX_ITEM_LIST_LENGTH=length, hidden_size=hidden_size, n_heads=1)
    torch.manual_seed(6)
    reference_model = reference.ReferenceModel(model.n_items, hidden_size, length).double()
    copy_weights(reference_model, model)
    item_seq = torch.randint(1, model.n_items, (3, length))
    (model.encode(item_seq) @ model.item_embedding.weight.T).logsumexp(-1).sum().backward()
    reference_model(item_seq).logsumexp(-1).sum().backward()
    for block, ours in zip(model.backbone.blocks, reference_model.blocks, strict=True):
        torch.testing.assert_close(block.attention.key.weight.grad, ours.key.weight.grad)
        torch.testing.assert_close(block.branch.kernel.free.grad, ours.branch.taps.grad)
        torch.testing.assert_close(block.branch.gate.grad, ours.branch.gate.grad)


def test_it_is_readable_in_one_sitting() -> None:
    code = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 60

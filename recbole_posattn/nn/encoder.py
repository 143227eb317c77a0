"""The encoder of PosKernelSASRec from plain arguments: kernels, encodings and blocks put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.backbone import BACKBONES, Backbone, Block, BlockOptions
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encodings.base import EncodingOptions, PositionEncoding, Sharing
from recbole_posattn.nn.encodings.build import build_encodings
from recbole_posattn.nn.kernels.base import KernelOptions, PositionKernel
from recbole_posattn.nn.kernels.structures import build_kernel, parse_kernel_structure

KernelPair = tuple[PositionKernel, PositionKernel]


def build_encoder(
    max_length: int,
    hidden_size: int = 64,
    n_layers: int = 2,
    n_heads: int = 1,
    kernel_structure: str = "toeplitz-full",
    encodings: Sequence[str] = (),
    *,
    attention: Literal["softmax", "none"] = "softmax",
    kernel_branch: str | None = None,
    kernel_branch_groups: int | None = None,
    backbone: str = "sasrec",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    kernel_sharing: Sharing = "per_layer",
    kernel_options: Mapping[str, Any] | None = None,
    encoding_options: Mapping[str, Any] | None = None,
    block_options: Mapping[str, Any] | None = None,
    initializer_range: float = 0.02,
) -> Backbone:
    """An encoder of sequences, initialized: embeddings of shape (b, s, d) to hidden states of that shape.

    Args:
        max_length: The longest sequence, in positions.
        hidden_size: Channels d.
        n_layers: Blocks.
        n_heads: Attention heads; must divide ``hidden_size``.
        kernel_structure: ``<U>-<L>``, each a name of :data:`STRUCTURES`.
        encodings: Names of :data:`ENCODINGS`.
        attention: ``none`` for blocks in which ``kernel_branch`` is the whole mixer.
        kernel_branch: A name of :data:`STRUCTURES` for a branch beside the attention; ``None`` for none.
        kernel_branch_groups: Groups of the branch's kernels; ``hidden_size`` if ``None``.
        backbone: A name of :data:`BACKBONES`.
        dropout: See :class:`BlockOptions`.
        attention_dropout: Probability of zeroing an attention weight; in [0, 1).
        kernel_sharing: A kernel for each layer, or one for all.
        kernel_options: Further fields of :class:`KernelOptions`.
        encoding_options: Further fields of :class:`EncodingOptions`.
        block_options: Further fields of :class:`BlockOptions`.
        initializer_range: Standard deviation of the normal start of the weights.

    Raises:
        ValueError: If a name is unknown or an option out of range.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
    of_kernels = KernelOptions("u", max_length, **kernel_options or {})
    kernels: Sequence[KernelPair | None] = [None] * n_layers
    if attention == "softmax":
        kernels = build_layer_kernels(kernel_structure, n_layers, of_kernels, kernel_sharing, kernel_sharing)
    branches = None
    if kernel_branch is not None:
        of_branch = of_kernels._replace(n_groups=kernel_branch_groups or hidden_size)
        branches = build_branches(kernel_branch, n_layers, of_branch, hidden_size, dropout)
    options = EncodingOptions(max_length, hidden_size, n_heads, **encoding_options or {})
    layer_encodings = build_encodings(encodings, n_layers, options)
    block = BlockOptions(hidden_size, dropout=dropout, **block_options or {})
    encoder = assemble_encoder(backbone, kernels, layer_encodings, block, n_heads, attention_dropout, branches)
    return encoder.apply(lambda module: init_weights(module, initializer_range))


def assemble_encoder(
    backbone: str,
    kernels: Sequence[KernelPair | None],
    encodings: Sequence[Sequence[PositionEncoding]],
    options: BlockOptions,
    n_heads: int,
    attention_dropout: float,
    branches: Sequence[KernelBranch | None] | None = None,
    block: Callable[..., Block] | None = None,
) -> Backbone:
    """An encoder of given parts, with PyTorch's start values.

    Args:
        backbone: A name of :data:`BACKBONES`.
        kernels: (Uᵀ, L) of each layer; ``None`` in a layer without an attention.
        encodings: The encodings of each layer.
        options: The rest of each block.
        n_heads: Attention heads.
        attention_dropout: Probability of zeroing an attention weight.
        branches: See :class:`Backbone`.
        block: See :class:`Backbone`.
    """
    attentions = [
        None
        if pair is None
        else PositionKernelAttention(
            options.hidden_size,
            n_heads,
            *pair,
            dropout=attention_dropout,
            encodings=[encoding for encoding in layer if encoding.enters != "input"],
        )
        for pair, layer in zip(kernels, encodings, strict=True)
    ]
    at_input = [encoding for encoding in encodings[0] if encoding.enters == "input"]
    return BACKBONES[backbone](attentions, options, at_input, branches, block)


def build_layer_kernels(
    kernel_structure: str, n_layers: int, options: KernelOptions, sharing_u: Sharing, sharing_l: Sharing
) -> list[KernelPair]:
    """The (Uᵀ, L) kernels of each layer; a shared kernel is one module in all of them.

    Args:
        kernel_structure: ``<U>-<L>``, each a name of :data:`STRUCTURES`.
        n_layers: Blocks.
        options: Sizes and options; the role is set here.
        sharing_u: A U for each layer, or one for all.
        sharing_l: An L for each layer, or one for all.

    Raises:
        ValueError: See :func:`build_kernel`.
    """
    structure_u, structure_l = parse_kernel_structure(kernel_structure)

    def build(role: Literal["u", "l"], structure: str, sharing: Sharing) -> list[PositionKernel]:
        n_kernels = 1 if sharing == "shared" else n_layers
        kernels = [build_kernel(structure, options._replace(role=role)) for _ in range(n_kernels)]
        return kernels * n_layers if sharing == "shared" else kernels

    return list(zip(build("u", structure_u, sharing_u), build("l", structure_l, sharing_l), strict=True))


def build_branches(
    structure: str, n_layers: int, options: KernelOptions, hidden_size: int, dropout: float
) -> list[KernelBranch]:
    """The branch of each layer, each with a kernel of its own, which starts near 0 and is not normalized.

    Args:
        structure: A name of :data:`STRUCTURES`.
        n_layers: Blocks.
        options: Sizes and options of the kernels; role and normalization are set here.
        hidden_size: Channels d.
        dropout: See :class:`KernelBranch`.

    Raises:
        ValueError: See :func:`build_kernel` and :class:`KernelBranch`.
    """
    free = options._replace(role="l", normalization="none")  # lag 0 is learned, and the gate has the scale
    kernels = [build_kernel(structure, free) for _ in range(n_layers)]
    for kernel in kernels:
        kernel.start_near_zero()
    return [KernelBranch(kernel, hidden_size, dropout) for kernel in kernels]


def init_weights(module: nn.Module, std: float) -> None:
    """RecBole's start of a layer, N(0, ``std``²) without bias; kernels and LayerNorms keep the start of their class."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)

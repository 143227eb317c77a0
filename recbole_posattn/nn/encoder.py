"""Build the encoder of PosKernelSASRec from plain arguments: kernels, encodings and blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.backbone import Backbone, Block, BlockOptions, FeedForward
from recbole_posattn.nn.backbones import BACKBONES
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encodings.base import EncodingOptions, PositionEncoding
from recbole_posattn.nn.encodings.build import build_encodings
from recbole_posattn.nn.intervals import IntervalAttention
from recbole_posattn.nn.kernels.base import KernelOptions, PositionKernel
from recbole_posattn.nn.kernels.structures import build_kernel, parse_kernel_structure

KernelPair = tuple[PositionKernel, PositionKernel]
KernelSharing = Literal["per_layer", "shared", "shared_if_full"]
KERNEL_SHARINGS: tuple[KernelSharing, ...] = ("per_layer", "shared", "shared_if_full")
Initializer = Literal["normal", "xavier_uniform", "xavier_uniform_stacked", "xavier_normal", "xavier_normal_stacked"]
BiasInitializer = Literal["zeros", "uniform"]
INITIALIZERS: tuple[Initializer, ...] = (
    "normal",
    "xavier_uniform",
    "xavier_uniform_stacked",
    "xavier_normal",
    "xavier_normal_stacked",
)
BIAS_INITIALIZERS: tuple[BiasInitializer, ...] = ("zeros", "uniform")


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
    kernel_sharing: KernelSharing = "per_layer",
    kernel_options: Mapping[str, Any] | None = None,
    encoding_options: Mapping[str, Any] | None = None,
    block_options: Mapping[str, Any] | None = None,
    initializer_range: float = 0.02,
) -> Backbone:
    """Build and initialize an encoder, which maps embeddings of shape (b, s, d) to hidden states of the same shape.

    Args:
        max_length: The longest sequence, in positions.
        hidden_size: Channels d.
        n_layers: Number of blocks.
        n_heads: Attention heads; must divide ``hidden_size``.
        kernel_structure: ``<U>-<L>``, each a name of :data:`STRUCTURES`.
        encodings: Names of :data:`ENCODINGS`.
        attention: ``none`` for blocks in which ``kernel_branch`` is the whole mixer; ``kernel_structure`` has no effect
            then.
        kernel_branch: A name of :data:`STRUCTURES` for a branch beside the attention; ``None`` for none.
        kernel_branch_groups: Groups of the branch's kernels; ``hidden_size`` if ``None``.
        backbone: A name of :data:`BACKBONES`.
        dropout: See :class:`BlockOptions`.
        attention_dropout: Probability of zeroing an attention weight; in [0, 1).
        kernel_sharing: See :func:`build_layer_kernels`, for U and L.
        kernel_options: Further fields of :class:`KernelOptions`.
        encoding_options: Further fields of :class:`EncodingOptions`.
        block_options: Further fields of :class:`BlockOptions`.
        initializer_range: Standard deviation of the weights' normal initialization.

    Raises:
        ValueError: If a name is unknown or an option out of range.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
    if attention not in ("softmax", "none"):
        raise ValueError(f"attention must be softmax or none, got {attention!r}")
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
    if attention == "none" and any(encoding.enters != "input" for encoding in layer_encodings[0]):
        raise ValueError(f"without attention, encodings must act at the input, got {', '.join(encodings)}")
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
    """Build an encoder from its parts, with PyTorch's initialization.

    Args:
        backbone: A name of :data:`BACKBONES`.
        kernels: (Uᵀ, L) of each layer; ``None`` in a layer without an attention.
        encodings: The encodings of each layer.
        options: The other sizes and options of each block.
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
            output_projection=options.output_projection,
            attend_padding=options.attend_padding,
        )
        for pair, layer in zip(kernels, encodings, strict=True)
    ]
    at_input = [encoding for encoding in encodings[0] if encoding.enters == "input"]
    return BACKBONES[backbone](attentions, options, at_input, branches, block)


def count_padding(encoder: Backbone, length: int) -> bool:
    """Let the attention of each block count padding up to ``length`` positions, however much is in the batch.

    Returns:
        Whether padding may be cut off: not where an encoding gives each padding key a logit of its own, nor with an
        attention from elsewhere, which counts nothing.
    """
    attentions = [block.attention for block in encoder.blocks if isinstance(block.attention, PositionKernelAttention)]
    ours = [attention for attention in attentions if type(attention).forward is PositionKernelAttention.forward]
    if len(ours) < len(encoder.blocks) or any(attention.tells_padding_apart() for attention in ours):
        return False
    for attention in ours:
        attention.padded_length = length
    return True


def build_layer_kernels(
    kernel_structure: str,
    n_layers: int,
    options: KernelOptions,
    sharing_u: KernelSharing,
    sharing_l: KernelSharing,
) -> list[KernelPair]:
    """The (Uᵀ, L) kernels of each layer; a shared kernel is one module in all of them.

    Args:
        kernel_structure: ``<U>-<L>``, each a name of :data:`STRUCTURES`.
        n_layers: Number of blocks.
        options: Sizes and options; the role is set here.
        sharing_u: A U for each layer, or one for all; ``shared_if_full``: one for all where the structure is ``full``,
            as L in the authors' code.
        sharing_l: The same for L.

    Raises:
        ValueError: See :func:`build_kernel`.
    """
    structure_u, structure_l = parse_kernel_structure(kernel_structure)

    def build(role: Literal["u", "l"], structure: str, sharing: KernelSharing) -> list[PositionKernel]:
        shared = sharing == "shared" or (sharing == "shared_if_full" and structure == "full")
        kernels = [build_kernel(structure, options._replace(role=role)) for _ in range(1 if shared else n_layers)]
        return kernels * n_layers if shared else kernels

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


def init_weights(
    module: nn.Module,
    std: float,
    initializer: Initializer = "normal",
    feed_forward_bias: BiasInitializer = "zeros",
) -> None:
    """Initialize a layer, for ``nn.Module.apply``; kernels and LayerNorms keep the initialization of their class.

    Args:
        module: A layer; the layers in it are initialized already.
        std: Standard deviation of ``normal``.
        initializer: Initialization of matrices. ``normal``: N(0, ``std``²), as in RecBole; ``xavier_uniform``: U(−a, a)
            with a² = 6 / (inputs + outputs); ``xavier_normal``: N(0, 2 / (inputs + outputs)); with ``_stacked``: the
            same, W_Q, W_K and W_V taken as one matrix of 3 d outputs, as in PyTorch's ``MultiheadAttention``.
        feed_forward_bias: Initialization of the biases of feed-forward networks. ``zeros``, like all other biases;
            ``uniform``: U(−a, a) with a² = 1 / inputs, PyTorch's default for linear and convolution layers.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        if initializer == "normal":
            nn.init.normal_(module.weight, std=std)
        else:
            _xavier(initializer)(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, (PositionKernelAttention, IntervalAttention)) and initializer.endswith("_stacked"):
        for projection in (module.query, module.key, module.value):
            _xavier(initializer)(projection.weight, gain=math.sqrt(1 / 2))  # 6 / (d + 3 d) = 1/2 · 6 / (d + d)
    if isinstance(module, FeedForward) and feed_forward_bias == "uniform":
        for dense in (module.dense_1, module.dense_2):
            bound = 1 / math.sqrt(dense.in_features)
            nn.init.uniform_(dense.bias, -bound, bound)


def _xavier(initializer: Initializer) -> Callable[..., object]:
    return nn.init.xavier_normal_ if initializer.startswith("xavier_normal") else nn.init.xavier_uniform_

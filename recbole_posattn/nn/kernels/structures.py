"""The structures of kernels by name, and the positional kernel C = U L."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from recbole_posattn.nn.kernels.base import IdentityKernel, KernelOptions, LearnedKernel, PositionKernel
from recbole_posattn.nn.kernels.by_lag import AdaptiveBandKernel, DilatedKernel, ExponentialKernel, ToeplitzKernel
from recbole_posattn.nn.kernels.by_position import FullKernel, LowRankKernel, TimeVariantKernel
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel

STRUCTURES: dict[str, Callable[[KernelOptions], PositionKernel]] = {
    "identity": lambda o: IdentityKernel(o.max_length, o.n_groups),
    "toeplitz": lambda o: ToeplitzKernel(*o.common, None, o.role == "u", o.first_tap_start),
    "banded_toeplitz": lambda o: ToeplitzKernel(*o.common, o.bandwidth, o.role == "u", o.first_tap_start),
    "full": lambda o: FullKernel(*o.common, alignment=o.alignment),
    "banded": lambda o: FullKernel(*o.common, bandwidth=o.bandwidth, alignment=o.alignment),
    "exponential": lambda o: ExponentialKernel(*o.common, n_decays=o.n_decays),
    "lowrank": lambda o: LowRankKernel(*o.common, rank=o.rank, alignment=o.alignment),
    "adaptive_band": lambda o: AdaptiveBandKernel(*o.common, o.role == "u", o.first_tap_start),
    "dilated": lambda o: DilatedKernel(*o.common, o.role == "u", o.first_tap_start),
    "time_variant": lambda o: TimeVariantKernel(*o.common, rank=o.rank, alignment=o.alignment),
    "time_decay": lambda o: TimeDecayKernel(*o.common, n_decays=o.n_decays, median_gap=o.median_gap),
}

# The structures that read the times between items.
READS_TIME = {"time_decay"}

# The structures that need a bandwidth.
BANDED_STRUCTURES = ("banded_toeplitz", "banded")


def parse_kernel_structure(kernel_structure: str) -> tuple[str, str]:
    """Split ``<U>-<L>``, such as ``toeplitz-full``, into the structures of U and L.

    Raises:
        ValueError: If it is not two names of :data:`STRUCTURES` with a dash between.
    """
    parts = str(kernel_structure).split("-")
    if len(parts) != 2 or not set(parts) <= set(STRUCTURES):
        raise ValueError(
            f"kernel_structure must be <U>-<L>, each one of {', '.join(STRUCTURES)}, got {kernel_structure!r}"
        )
    return parts[0], parts[1]


def build_kernel(structure: str, options: KernelOptions) -> PositionKernel:
    """The kernel of one role in an attention block.

    Args:
        structure: A name of :data:`STRUCTURES`.
        options: Role, sizes and options of the structure.

    Raises:
        ValueError: If the structure is unknown, a banded one has no bandwidth, or an option is out of range.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}, got {structure!r}")
    if structure in BANDED_STRUCTURES and options.bandwidth is None:
        raise ValueError(f"structure {structure} needs a bandwidth, the number of lags it keeps")
    kernel = STRUCTURES[structure](options)
    if isinstance(kernel, LearnedKernel):
        kernel.normalization_eps = options.normalization_eps
    return kernel


def positional_kernel(u_kernel: PositionKernel, l_kernel: PositionKernel, length: int | None = None) -> Tensor:
    """The dense positional kernel C = U L.

    Args:
        u_kernel: The kernel that stores Uᵀ.
        l_kernel: The kernel that stores L.
        length: Positions, ``max_length`` by default.

    Returns:
        Tensor of shape (g, s, s).

    Raises:
        ValueError: If ``length`` is not in 1 … ``max_length``.
    """
    return u_kernel.dense(length).mT @ l_kernel.dense(length)

"""Cross-entropy of RecBole's models without all scores in memory.

RecBole's models multiply their outputs with the embeddings of all items and give the product to cross-entropy, which
makes two more tensors of that size. :class:`recbole_posattn.nn.losses.cross_entropy.CrossEntropy` computes both chunk
by chunk; here it takes the place of these two operations wherever a model's own code has them.

Shape keys: n outputs, d channels, i items.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from recbole_posattn.nn.losses.cross_entropy import CrossEntropy

_MATMULS: Collection[Any] = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)


class ItemScores:
    """Outputs times the embeddings of all items, made when something other than cross-entropy asks for it.

    Args:
        hidden: Outputs, shape (n, d).
        item_weight: Embeddings, shape (i, d).
    """

    _loss = CrossEntropy()

    def __init__(self, hidden: Tensor, item_weight: Tensor) -> None:
        self._factors = (hidden, item_weight)
        self._product: Tensor | None = None

    def tensor(self) -> Tensor:
        """The scores, shape (n, i)."""
        if self._product is None:
            hidden, item_weight = self._factors
            self._product = F.linear(hidden, item_weight)  # none of the products that become scores again
        return self._product

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor(), name)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Cross-entropy with its default options is the chunked one; all other functions get the tensor.

        Once there is a tensor, cross-entropy gets it, too: the model may have changed it in place.
        """
        kwargs = kwargs or {}
        if function is F.cross_entropy and len(args) == 2 and isinstance(args[0], cls) and _is_plain(args[1], kwargs):
            scores, target = args
            if scores._product is None:
                hidden, item_weight = scores._factors
                return cls._loss(hidden, target, item_weight)
        args, kwargs = pytree.tree_map_only(cls, cls.tensor, (tuple(args), dict(kwargs)))
        return function(*args, **kwargs)


def _operator(name: str) -> Callable[..., Any]:
    """A method of tensors that Python looks up in the class."""

    def method(scores: ItemScores, *args: Any) -> Any:
        return getattr(scores.tensor(), name)(*args)

    return method


for _name in (
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "neg",
    "pow",
    "getitem",
    "setitem",
    "len",
    "matmul",
):
    setattr(ItemScores, f"__{_name}__", _operator(f"__{_name}__"))


def _is_plain(target: Any, options: Mapping[str, Any]) -> bool:
    """Whether targets are numbers of items, and cross-entropy is the mean over them without weights."""
    defaults = {"weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    defaults |= {"size_average": None, "reduce": None}  # older names of reduction
    is_plain = all(key in defaults and value == defaults[key] for key, value in options.items())
    return is_plain and isinstance(target, Tensor) and target.dtype == torch.int64 and target.dim() == 1


class _LazyProducts(TorchFunctionMode):
    """Products of outputs with a whole table of embeddings become :class:`ItemScores`."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function in _MATMULS and len(args) == 2 and not kwargs:
            hidden, transposed = args
            table = transposed._base if isinstance(transposed, Tensor) else None
            are_outputs = isinstance(hidden, Tensor) and hidden.dim() == 2
            if are_outputs and table is not None and _is_transpose(transposed, table):
                return ItemScores(hidden, table)
        return function(*args, **(kwargs or {}))


def _is_transpose(transposed: Tensor, table: Tensor) -> bool:
    if not isinstance(table, nn.Parameter) or table.dim() != 2 or transposed.dim() != 2:
        return False
    same = (transposed.shape, transposed.stride()) == (table.shape[::-1], table.stride()[::-1])
    return same and transposed.data_ptr() == table.data_ptr()


def with_lazy_scores(loss_func: Callable[..., Any]) -> Callable[..., Any]:
    """The same loss, with cross-entropy over all items computed in chunks."""

    def loss(*args: Any) -> Any:
        with _LazyProducts():
            return loss_func(*args)

    return loss

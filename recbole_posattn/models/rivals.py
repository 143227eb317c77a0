"""Published transformers: eSASRec, HSTU and TiSASRec.

Formulas, settings and differences from their authors' code are in ``docs/models.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import recbole_posattn.compat  # noqa: F401

from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_posattn.models.options import block_options, encoding_options, position_alignment
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.backbone import Backbone, SASRecBackbone
from recbole_posattn.nn.encodings.at_input import AbsoluteEncoding
from recbole_posattn.nn.encodings.build import build_encodings
from recbole_posattn.nn.hstu import HSTUBackbone, PointwiseAttention
from recbole_posattn.nn.intervals import IntervalAttention, IntervalTables


class ESASRec(SASRecBase):
    """eSASRec: LiGR's gated blocks and a sampled softmax (Tikhonovich et al., RecSys 2025, arXiv 2508.06450).

    h = LN(x), a = x + σ(G₁ x) ⊙ W_O Attn(h), out = a + σ(G₂ a) ⊙ FFN(LN(a)), on items plus absolute positions.
    """

    def encoding_names(self, config: Config) -> Sequence[str]:
        """See :meth:`SASRecBase.encoding_names`."""
        return ["absolute"]


class HSTU(SASRecBase):
    """Pointwise attention with biases by position and by time gap (Zhai et al., arXiv 2402.17152).

    U, V, Q, K = SiLU(norm(x) W), out = x + W_O (norm(SiLU(Q Kᵀ + B) / N V) ⊙ U), on items plus absolute positions.
    Without times, B is the bias by position alone.
    """

    time_parts: ClassVar[tuple[str, ...]] = ("the bias by time gap of HSTU",)

    def encoder(self, config: Config) -> Backbone:
        """See :meth:`SASRecBase.encoder`."""
        options, n_layers = block_options(config), config["n_layers"]
        sizes = (options.hidden_size, config["n_heads"], config["MAX_ITEM_LIST_LENGTH"], options.dropout)
        attentions = [PointwiseAttention(*sizes, self.reads_time, options.layer_norm_eps) for _ in range(n_layers)]
        return HSTUBackbone(attentions, options, build_encodings(["absolute"], n_layers, encoding_options(config))[0])

    def _init_weights(self, module: nn.Module) -> None:
        """As the authors: N(0, 0.02²), but W_O by Xavier, and positions N(0, 1 / d), cut at two deviations."""
        super()._init_weights(module)
        if isinstance(module, PointwiseAttention):
            nn.init.xavier_uniform_(module.output.weight)
        if isinstance(module, AbsoluteEncoding):
            std = module.embedding.embedding_dim**-0.5
            nn.init.trunc_normal_(module.embedding.weight, std=std, a=-2 * std, b=2 * std)


class TiSASRec(SASRecBase):
    """Positions and personal intervals between items in the keys and values of SASRec (Li et al., WSDM 2020).

    s_ij = q_i · (k_j + e_{r_ij} + p_j) / √d_h, where r_ij is the time between two items in shortest intervals of the
    user. Without times, there are positions alone.
    """

    time_parts: ClassVar[tuple[str, ...]] = ("the attention to intervals of TiSASRec",)

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.embedding_l2 = config["tisasrec_embedding_l2"]

    def encoder(self, config: Config) -> Backbone:
        """See :meth:`SASRecBase.encoder`."""
        options = block_options(config)
        tables = IntervalTables(
            options.hidden_size,
            config["MAX_ITEM_LIST_LENGTH"],
            config["tisasrec_intervals"] if self.reads_time else 0,
            options.dropout,
            position_alignment(config),
        )
        attentions = [
            IntervalAttention(options.hidden_size, config["n_heads"], tables, config["attn_dropout_prob"])
            for _ in range(config["n_layers"])
        ]
        return SASRecBackbone(attentions, options)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of :class:`SASRecBase`, plus ``tisasrec_embedding_l2`` times the squares of all embeddings."""
        loss: Tensor = super().calculate_loss(interaction)
        if not self.embedding_l2:
            return loss
        tables = next(module for module in self.modules() if isinstance(module, IntervalTables))  # of all layers
        return loss + self.embedding_l2 * (self.item_embedding.weight.square().sum() + tables.penalty())


RIVALS = (ESASRec, HSTU, TiSASRec)

"""The backbones by name."""

from __future__ import annotations

from recbole_posattn.nn.backbone import Backbone, RecBoleBackbone, SASRecBackbone
from recbole_posattn.nn.ligr import LiGRBackbone

BACKBONES: dict[str, type[Backbone]] = {"sasrec": SASRecBackbone, "recbole": RecBoleBackbone, "ligr": LiGRBackbone}

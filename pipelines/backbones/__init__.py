"""Pretrained models with their hidden layers found. One module per modality, all behind `Backbone`."""

from pipelines.backbones.base import Backbone
from pipelines.backbones.text import load_text_backbone

__all__ = ["Backbone", "load_text_backbone"]

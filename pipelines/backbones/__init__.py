"""Pretrained models with their hidden layers found. One module per modality, all behind `Backbone`."""

from pipelines.backbones.base import Backbone
from pipelines.backbones.text import continue_text_backbone, load_saved_model, load_text_backbone

__all__ = ["Backbone", "continue_text_backbone", "load_saved_model", "load_text_backbone"]

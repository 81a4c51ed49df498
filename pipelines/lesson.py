"""What a teacher says of items, and what it costs a student to say something else.

::

    loss = (1 - weight) * cross-entropy with the labels                              labelled items
         + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T))           all items

Hinton et al. 2015, arXiv 1503.02531.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

from pipelines.config import DistillConfig
from pipelines.records import FloatArray, IntArray


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of the N training items and of M items without a label.

    Attributes:
        texts: M.
        logits: (N + M, C), in the order of the student's classes.
        seconds: that the teacher took.
    """

    config: DistillConfig
    texts: list[str]
    logits: FloatArray
    seconds: float

    def losses(self, logits: torch.Tensor, numbers: IntArray) -> torch.Tensor:
        """T^2 times the divergence of a student's logits (B, C) from the teacher's of the same items (B,), (B,)."""
        T = self.config.temperature
        wanted = torch.from_numpy(self.logits[numbers]).to(logits).div(T).log_softmax(dim=-1)
        own = (logits / T).log_softmax(dim=-1)
        return F.kl_div(own, wanted, reduction="none", log_target=True).sum(dim=-1) * T**2

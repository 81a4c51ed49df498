"""Which words moved a prediction: integrated gradients on the word embeddings, and how well they add up.

Integrated gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365) by captum's LayerIntegratedGradients. F is the
logit of the class that was predicted less that of the runner-up: a logit alone means nothing, since a constant on all
of them changes no probability. x' is the same text with every word blanked, x the text itself; on the straight line
between their word embeddings the gradient of F is added up. Positions, special tokens and attention mask are those of x
all along. In exact arithmetic the attributions add up to F(x) - F(x') ("completeness"); what they miss is the gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from scipy.special import softmax
from torch import nn

from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.device import device
from pipelines.first_token import first_token_only
from pipelines.predict import BATCH_TOKENS, predict_logits
from pipelines.records import FloatArray
from pipelines.words import Word, words_of

STEPS, MOST_STEPS = 32, 512  # of Gauss-Legendre quadrature; doubled from the first until the gap is small
GRADIENT_TOKENS = 1024  # of a batch; a MiniLM keeps 200 KiB of each for the way back
GAP = 0.05  # of the difference that is to be explained
SMALL = 0.01  # logits: a gap that moves a probability by 0.25 points at most
METHOD = (
    "Integrated gradients on the word embeddings, in fp32, of the logit of the predicted class less that of the "
    "runner-up, from the same text with every word blanked. They should add up to the change of that score; the gap is "
    f"what they miss, and counts as small up to {GAP:.0%} of the change or {SMALL} logits. Occlusion: how much of the "
    "score is lost where one word is blanked and all others stay; a model that is very sure hardly misses any one "
    "word, so that its ranks say little."
)
CAVEAT = (
    "Attributions approximate what moved the score of this model on this text. They are not a cause: they do not say "
    "what the model would have answered had a word been another, what it has learned in general, or what is true of "
    "the text. How words that act together share what they do is a convention, so two methods may well differ."
)


@dataclass(frozen=True)
class Attribution:
    """One explained prediction, in logits.

    Attributes:
        encoding: T tokens.
        spans: characters of each, (start, end); None for special ones.
        cut: tokens of the text that the model did not read.
        logits: (C,).
        towards, against: class numbers; F is the logit of the first less that of the second.
        score, reference: F(x) and F(x').
        tokens: what each token adds, (T,); special tokens add 0.
        words: of the text.
        weights: what each word adds, one for every word; they add up to as much as `tokens`.
        steps: of the quadrature, the last time.
    """

    encoding: Encoding
    spans: list[tuple[int, int] | None]
    cut: int
    logits: FloatArray
    towards: int
    against: int
    score: float
    reference: float
    tokens: FloatArray
    words: tuple[Word, ...]
    weights: FloatArray
    steps: int

    @property
    def probability(self) -> float:
        """Of the class `towards`."""
        return float(softmax(self.logits)[self.towards])

    @property
    def gap(self) -> float:
        """How much the attributions miss of the difference that they should add up to, in logits."""
        return abs(float(self.tokens.sum()) - (self.score - self.reference))

    @property
    def complete(self) -> bool:
        return self.gap <= max(GAP * abs(self.score - self.reference), SMALL)


class Margin:
    """F, as a function of the tokens whose word embeddings the model gets.

    Args:
        backbone: in eval mode.
        encoding: T tokens, which decide positions and attention mask: RoBERTa counts positions from what is no
            padding, and decoders look there for the token that their heads read.
        towards, against: class numbers.
    """

    def __init__(self, backbone: Backbone, encoding: Encoding, towards: int, against: int) -> None:
        self.backbone = backbone
        self.towards = towards
        self.against = against
        self._inputs = {name: tensor.to(device()) for name, tensor in backbone.collate([encoding]).items()}

    @property
    def layer(self) -> nn.Module:
        """Word embeddings."""
        layer: nn.Module = self.backbone.model.get_input_embeddings()
        return layer

    def __call__(self, seen: torch.Tensor) -> torch.Tensor:
        """F, (B,), where the word embeddings are those of `seen`, (B, T) token ids, and all else is as in the text."""
        inputs = {name: tensor.expand(len(seen), -1) for name, tensor in self._inputs.items()}
        with _given(self.layer, seen), first_token_only(self.backbone):
            logits = self.backbone.model(**inputs).logits
        return logits[:, self.towards] - logits[:, self.against]

    def of(self, encodings: Sequence[Encoding]) -> FloatArray:
        """F, (N,), where the word embeddings are those of these encodings of T tokens each."""
        size = max(1, BATCH_TOKENS // self.backbone.length(encodings[0]))
        with torch.inference_mode():
            batches = [encodings[start : start + size] for start in range(0, len(encodings), size)]
            values = [self(self._ids(batch)).cpu().double().numpy() for batch in batches]
        return np.concatenate(values)

    def attributions(self, text: Encoding, blank: Encoding, steps: int) -> FloatArray:
        """What each of T tokens adds to F on the way from `blank` to `text`, (T,)."""
        size = max(1, GRADIENT_TOKENS // self.backbone.length(text))
        found = LayerIntegratedGradients(self, self.layer).attribute(
            self._ids([text]), baselines=self._ids([blank]), n_steps=steps, internal_batch_size=size
        )
        added: FloatArray = found.detach().cpu().double().sum(dim=-1)[0].numpy()
        return added

    def _ids(self, encodings: Sequence[Encoding]) -> torch.Tensor:
        return self.backbone.collate(encodings)["input_ids"].to(device())


def attribute(
    backbone: Backbone, content: str, towards: int | None = None, steps: int = STEPS, most: int = MOST_STEPS
) -> Attribution:
    """Explain one prediction, in fp32.

    Args:
        backbone: put into eval mode here.
        content: a text with at least one word.
        towards: class number; the one that is predicted where none is given.
        steps: to begin with; at most `most`.

    Raises:
        BackboneError: the tokenizer cannot say where its tokens stand in the text.
    """
    backbone.model.eval().to(device())
    encoding, spans, cut = backbone.located(content)
    logits = predict_logits(backbone, [encoding], "fp32")[0]
    order = np.argsort(-logits, kind="stable").tolist()
    towards = order[0] if towards is None else towards
    against = next(number for number in order if number != towards)
    blank = backbone.blanked(encoding, [place for place, span in enumerate(spans) if span is not None])
    margin = Margin(backbone, encoding, towards, against)
    score, reference = margin.of([encoding, blank]).tolist()
    words = tuple(words_of(content, spans))
    while True:
        tokens = margin.attributions(encoding, blank, steps)
        weights = np.array([tokens[list(word.positions)].sum() for word in words])
        found = Attribution(
            encoding, spans, cut, logits, towards, against, score, reference, tokens, words, weights, steps
        )
        if found.complete or 2 * steps > most:
            return found
        steps *= 2


@contextmanager
def _given(layer: nn.Module, seen: torch.Tensor) -> Iterator[None]:
    """Within it, the layer is called with `seen` instead of what the model gives it."""
    handle = layer.register_forward_pre_hook(lambda _, inputs: (seen, *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()

"""What can go wrong with a live request.

::

    overloaded         too many requests wait, or too many models are asked for in turn    ask again later
    unavailable        the inference process cannot be started, or died at it twice        ask again later
    invalid_text       the tokenizer cannot read one of the texts                          the request's fault
    request_too_large  the texts are too long together                                     the request's fault
    model_unusable     the run directory is missing, incomplete, changed or not supported  the model's fault
    model_too_large    the model does not fit into the memory bound                        the operator's choice
    internal_error     a fault in Rootstock; standard error of the inference process has more

Messages of `unavailable`, `model_unusable` and `internal_error` may hold paths of this machine: they are for a log, not
for a caller.
"""

from __future__ import annotations

from typing import Literal

from pipelines.errors import RootstockError

Code = Literal[
    "overloaded",
    "unavailable",
    "invalid_text",
    "request_too_large",
    "model_unusable",
    "model_too_large",
    "internal_error",
]


class InferenceError(RootstockError):
    """A request that gets no answer.

    Args:
        code: see above.
        message: expected, found and next step.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code

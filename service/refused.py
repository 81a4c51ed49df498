"""What the API says of an upload, or of a request in it, that cannot be used."""

from __future__ import annotations

from pipelines.errors import RootstockError

INVALID_VALUE = "invalid_value"  # of a request body; in a training file the file is invalid
INVALID_FILE = "invalid_training_file"
NOT_CLASSIFICATION = "not_classification_data"
TOO_LARGE = "file_too_large"


class UploadRefused(RootstockError):
    """An upload, or one request of a batch, cannot be used.

    Args:
        message: expected, found and next step; of an upload also file and line.
        code: for programs, such as `not_classification_data`.
        param: what to change: `training_file`, `data.label`, `messages[1].content`.
        line: 1-based line of a text file, or row of Parquet, where it is known.
        columns: of the file, where the wrong ones are named.
    """

    def __init__(
        self,
        message: str,
        code: str,
        param: str | None = None,
        line: int | None = None,
        columns: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.line = line
        self.columns = columns

"""Request bodies. OpenAI's fields that mean nothing for a classifier are accepted; any other unknown one is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from pipelines.config import EMBEDDED_BACKBONE

Id = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# ---- fine-tuning


class Hyperparameters(Body):
    n_epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000, strict=False)] | Literal["auto"] = "auto"


class Supervised(Body):
    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Body):
    type: str
    supervised: Supervised = Supervised()

    @field_validator("type")
    @classmethod
    def _supervised(cls, value: str) -> str:
        if value != "supervised":
            raise ValueError("expected supervised: classifiers learn from labelled examples")
        return value


class DataSection(Body):
    """The `data` section of a run's config, less its files."""

    text: Id | None = None
    label: Id | None = None
    id: Id | None = None
    group: Id | None = None
    slices: list[Id] = []
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_train_items: Annotated[int, Field(ge=1)] | None = None
    max_length: Annotated[int, Field(ge=8)] | None = None

    @property
    def mapping(self) -> dict[str, Any]:
        """Columns of the upload."""
        return self.model_dump(include={"text", "label", "id", "group", "slices"}, exclude_none=True)

    @property
    def settings(self) -> dict[str, Any]:
        """What goes into the config as it is."""
        return self.model_dump(include={"validation", "test", "max_train_items", "max_length"}, exclude_none=True)


class JobRequest(Body):
    model: Id
    training_file: Id
    validation_file: Id | None = None
    suffix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}\z")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: Metadata | None = None
    integrations: list[Any] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    priority: Annotated[int, Field(ge=1, le=10_000)] | None = None
    task: str | None = None
    data: DataSection = DataSection()
    backbone: dict[str, Any] = {}
    adapter: dict[str, Any] = {}
    training: dict[str, Any] = {}
    baselines: list[str] | None = None
    evaluation: dict[str, Any] = {}

    @field_validator("integrations")
    @classmethod
    def _none(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError("expected none: this server calls no other one")
        return value


class CheckRequest(JobRequest):
    model: Id = EMBEDDED_BACKBONE  # whose tokens are counted, and whose embeddings doubt labels


class ColumnsRequest(Body):
    file_id: Id
    metadata: Metadata | None = None


class ExplainRequest(Body):
    model: Id
    input: Annotated[list[str], Field(max_length=20)] | str = []  # none: what the model's report lists
    metadata: Metadata | None = None


# ---- comparisons, batches, live classification


class CompareRequest(Body):
    models: Annotated[list[Id], Field(min_length=1, max_length=20)]
    file_id: Id
    data: DataSection = DataSection()
    metadata: Metadata | None = None


class ExpiresAfter(Body):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchRequest(Body):
    input_file_id: Id
    endpoint: Literal["/v1/classify", "/v1/chat/completions"]
    completion_window: Literal["24h"] = "24h"
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    model: Id | None = None  # ours: the file is a table, and this model classifies its rows
    text: Id = "text"  # ours: the column with the text


TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}


class ClassifyRequest(BaseModel):
    """The shape; `bodies.py` says what else is accepted, the same for live calls and batches."""

    model_config = ConfigDict(extra="allow")

    model: str
    input: Any = Field(json_schema_extra={"anyOf": [{"type": "string"}, TEXTS]})


class ChatRequest(BaseModel):
    """The shape; `bodies.py` says what else is accepted, the same for live calls and batches."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Any = Field(json_schema_extra={"type": "array", "items": {"type": "object"}})
    logprobs: bool | None = None
    top_logprobs: int | None = None


class HuggingFaceRequest(Body):
    inputs: str | list[str]
    parameters: dict[str, Any] = {}
    options: dict[str, Any] = {}

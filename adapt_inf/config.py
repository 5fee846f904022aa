"""params.yaml as frozen dataclasses: parsed once, unknown keys and wrong types refused by name.

The comments in params.yaml say what each key does; the defaults here are the same, and a test holds them together.
"""

from __future__ import annotations

import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from adapt_inf.errors import ConfigError
from adapt_inf.files import parse_yaml

_STRICT = ConfigDict(extra="forbid", strict=True)

_Stage = Literal["ingest", "sketch", "cluster", "score", "select", "prune", "train", "evaluate"]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=_STRICT)
class Executor:
    kind: Literal["local", "ray"] = "local"
    address: str | None = Field(default=None, pattern=r"^(ray://)?[^\s/@]+:\d+$")
    workers: int | None = Field(default=None, gt=0)
    gpus_per_worker: int | float = Field(default=0, ge=0)
    launcher: str | None = Field(default=None, min_length=1)

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: int | float) -> int | float:
        if value > 1 and value != int(value):
            raise PydanticCustomError("gpus", "Input should be a whole number of GPUs, or a part of one below 1")
        return value


@dataclass(frozen=True, config=_STRICT)
class Ingest:
    max_reject_fraction: float = Field(default=0.5, ge=0, le=1)
    max_pixels: int = Field(default=50_000_000, gt=0)
    shard_samples: int = Field(default=1000, gt=0)


@dataclass(frozen=True, config=_STRICT)
class Sketch:
    model: Literal["parent", "proxy"] = "parent"
    layers: Literal["middle", "last"] | list[int] = "middle"
    params: Literal["auto", "lora", "full"] = "auto"
    dim: int = Field(default=2048, gt=0)
    hidden: bool = False
    batch_size: int = Field(default=32, gt=0)
    shard_samples: int = Field(default=1024, gt=0)


@dataclass(frozen=True, config=_STRICT)
class Cluster:
    features: Literal["gradient", "hidden"] = "gradient"
    k: Literal["auto"] | int = "auto"
    points_per_centroid: int = Field(default=256, gt=0)


@dataclass(frozen=True, config=_STRICT)
class Score:
    batch_size: int = Field(default=32, gt=0)
    without_image: Literal["blank", "drop"] = "blank"


@dataclass(frozen=True, config=_STRICT)
class Select:
    strategy: str = "adapt_inf"
    budget: int | float = Field(default=0.25, gt=0)
    split: Literal["equal", "proportional", "density", "loss"] = "equal"
    scores: list[str] = Field(
        default_factory=lambda: ["perplexity", "el2n", "entropy", "grand", "image_grounding"], min_length=1
    )
    min_cluster: int = Field(default=32, ge=0)
    bins: int = Field(default=50, ge=2)
    strata: int = Field(default=50, ge=1)
    tail: float = Field(default=0.05, ge=0, lt=0.5)

    @field_validator("budget")
    @classmethod
    def _count_or_fraction(cls, value: int | float) -> int | float:
        if isinstance(value, float) and value > 1:
            message = "Input should be a whole number of samples, or a fraction of them up to 1.0"
            raise PydanticCustomError("budget", message)
        return value


@dataclass(frozen=True, config=_STRICT)
class Prune:
    features: Literal["gradient", "hidden"] = "gradient"
    pool_cap: int | None = Field(default=None, gt=0)


@dataclass(frozen=True, config=_STRICT)
class Train:
    steps: int | None = Field(default=None, gt=0)
    epochs: int | float = Field(default=1, gt=0)
    batch_size: int = Field(default=32, gt=0)
    micro_batch: int | None = Field(default=None, gt=0)
    gradient_checkpointing: bool = False
    learning_rate: float = Field(default=2.0e-4, gt=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str = "text+projector"
    checkpoint_steps: int = Field(default=200, gt=0)
    cache_mb: int = Field(default=2048, ge=0)

    @field_validator("micro_batch")
    @classmethod
    def _part_of_a_batch(cls, value: int | None, others: ValidationInfo) -> int | None:
        whole = others.data.get("batch_size")  # not there where it is at fault itself
        if value is not None and whole is not None and value > whole:
            raise PydanticCustomError(
                "micro_batch", "Input should be at most train.batch_size, {whole}", {"whole": whole}
            )
        return value


@dataclass(frozen=True, config=_STRICT)
class Evaluate:
    batch_size: int = Field(default=64, gt=0)
    max_new_tokens: int = Field(default=32, gt=0)

    @property
    def part_samples(self) -> int:
        """Samples of a suite that one process answers in one go: four batches."""
        return 4 * self.batch_size


@dataclass(frozen=True, config=_STRICT)
class Gate:
    max_forgetting: float | None = Field(default=None, ge=0, le=1)
    min_average_accuracy: float | None = Field(default=None, ge=0, le=1)
    min_relative_gain: float | None = Field(default=None, ge=0)
    approval: Literal["automatic", "required"] = "automatic"


@dataclass(frozen=True, config=_STRICT)
class Git:
    commit: bool = True


@dataclass(frozen=True, config=_STRICT)
class Retries:
    count: _Count | dict[_Stage, _Count] = 1
    delay_seconds: float = Field(default=10, ge=0)

    def of(self, stage: str) -> int:
        """How often `stage` is tried again."""
        counts: dict[Any, int] | int = self.count
        return counts.get(stage, 0) if isinstance(counts, dict) else counts


@dataclass(frozen=True, config=_STRICT)
class Schedule:
    poll_seconds: float | None = Field(default=60, ge=1)
    cron: str | None = "0 3 * * *"
    timezone: str = "UTC"


@dataclass(frozen=True, config=_STRICT)
class Params:
    """Everything in params.yaml. `round`, `parent` and `drop` are filled in when a round begins."""

    round: str = "scratch"
    parent: str = "base"
    drop: str = "scratch"
    scratch: list[Literal["scratch"]] = Field(default_factory=list, max_length=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    memory_mb: int = Field(default=1024, gt=0)
    executor: Executor = field(default_factory=Executor)
    ingest: Ingest = field(default_factory=Ingest)
    sketch: Sketch = field(default_factory=Sketch)
    cluster: Cluster = field(default_factory=Cluster)
    score: Score = field(default_factory=Score)
    select: Select = field(default_factory=Select)
    prune: Prune = field(default_factory=Prune)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    gate: Gate = field(default_factory=Gate)
    retries: Retries = field(default_factory=Retries)
    schedule: Schedule = field(default_factory=Schedule)
    git: Git = field(default_factory=Git)

    @property
    def keeps_hidden(self) -> bool:
        """Whether the sketch pass leaves hidden states, too."""
        return self.sketch.hidden or "hidden" in (self.cluster.features, self.prune.features)


def load_params(path: Path) -> Params:
    """Read a params.yaml.

    Raises:
        ConfigError: naming the file and the first key that is unknown, missing or of the wrong type.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(path, "*", "the file is not there") from None
    except yaml.YAMLError as error:
        raise ConfigError(path, "*", f"this is no YAML ({str(error).splitlines()[0]})") from error
    return parse_params(values if values is not None else {}, path)


def set_values(text: str, values: dict[str, Any]) -> str:
    """The text of a params.yaml with `section.key` (or `key`) set to each of `values`; comments and the rest stay.

    Raises:
        KeyError: there is no line for that key.
    """
    lines = text.splitlines()
    for place, value in values.items():
        *section, key = place.split(".")
        start = (
            next(i for i, line in enumerate(lines) if line.partition("#")[0].rstrip() == f"{section[0]}:")
            if section
            else -1
        )
        lead = ("  " if section else "") + f"{key}:"
        for i, line in enumerate(lines[start + 1 :], start + 1):
            if section and line and not line.startswith(" "):
                raise KeyError(place)
            if line.startswith(lead):
                _, mark, comment = line.partition(" #")
                lines[i] = f"{lead} {json.dumps(value)}".ljust(27 if mark else 0) + f"{mark}{comment}"
                break
        else:
            raise KeyError(place)
    return "\n".join(lines) + "\n"


def parse_params(values: Any, path: Path) -> Params:
    """Check `values` as read from `path`; see `load_params`."""
    try:
        return TypeAdapter(Params).validate_json(
            json.dumps(values, default=str)
        )  # strict JSON takes dicts as dataclasses
    except ValidationError as error:
        first = error.errors()[0]
        # A union reports one error per member, with the member's type at the end of the place: the key is enough.
        key = ".".join(str(part) for part in first["loc"][:2]) or "*"
        if first["type"] == "unexpected_keyword_argument":
            raise ConfigError(path, key, "no such key") from error
        raise ConfigError(path, key, f"{first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}") from error

"""The record: one JSON file for one (artifact, evaluation architecture), written whole, never edited."""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

RECORD_SCHEMA: Final = 1
ANY_ARCHITECTURE: Final = "any"  # the distillation architecture of a method that uses none
_CANONICAL = json.JSONEncoder(sort_keys=True)
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what a table has room for
LrFrom = Literal["protocol", "artifact", "holdout"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Storage(_Part):
    """What the distilled set takes: everything stored counts, a label that position implies does not."""

    floats: Whole = Field(ge=0)
    bytes: Whole = Field(ge=0)  # floats at fp32
    bytes_uint8: Whole = Field(ge=0)  # the same with stored images as one byte a value
    ipc_equivalent: float = Field(ge=0)  # floats / (classes x C x H x W)
    within_budget: bool
    exempt: bool  # not a distilled set (the whole training set): no budget applies
    transform_floats: Whole = Field(default=0, ge=0)  # of a whitening: the data's, so in no budget


class Cost(_Part):
    """Measured, so never the same twice: seconds synchronised with the device, bytes at their peak."""

    prepare_s: float = Field(ge=0)  # original cost of every prerequisite, paid once, charged to each user
    distill_s: float | None = Field(ge=0)  # None: distilled elsewhere, measured by nobody
    evaluate_s: float = Field(ge=0)
    peak_memory_bytes: Whole = Field(ge=0)  # the largest of the three phases
    peak_memory: dict[str, int]  # by phase: prepare, distill, evaluate
    device: str
    cpus: Whole
    gpus: float
    exclusive: bool  # the job had its device to itself
    warm: bool  # the process had run a job before this one


class StudentTraining(_Part):
    """What a student went through, with all choices made."""

    steps: Whole = Field(gt=0)  # of the optimiser
    lr: float = Field(gt=0)
    lr_from: LrFrom  # the artifact: a learned step size
    holdout_scores: dict[str, float] | None  # learning rate -> accuracy on a hold-out of the training set
    labels: Literal["stored", "hard", "teacher"]
    soft: bool  # the targets were probabilities
    augment: str
    cutmix: float
    preprocess: str  # normalise, or a whitening


class CurvePoint(_Part):
    """The students' accuracies after a part of their training; scored after its end, chosen by nothing."""

    fraction: float = Field(gt=0, lt=1)
    step: Whole = Field(gt=0)
    accuracies: list[float]  # a fraction per student


class Snapshot(_Part):
    """What the students make of the set as it was after a part of its distillation; chosen by nothing."""

    fraction: float = Field(gt=0, le=1)
    step: Whole = Field(gt=0)  # of the distillation
    seconds: float = Field(ge=0)  # of the distillation so far, without its prerequisites
    accuracies: list[float]  # a fraction per student


class Metrics(_Part):
    """More than the accuracy, of the same predictions."""

    class_accuracies: list[list[float | None]]  # per student and class; None: the test split has none
    calibration_errors: list[float]  # expected calibration error per student, 15 bins
    agreement: float | None  # mean over pairs of students: the same class predicted; None: one student
    curve: list[CurvePoint] = []
    snapshots: list[Snapshot] | None = None  # the last one is the set itself; None: not asked for


class Record(_Part):
    """Everything that a table needs to know about one scored artifact."""

    schema_version: Literal[1] = RECORD_SCHEMA
    key: str  # of the evaluation, and the file's name
    artifact: str  # key of the distilled set
    method: str
    method_version: Whole
    hyperparameters: dict[str, Any]
    dataset: str
    dataset_fingerprint: str
    image_shape: tuple[Whole, Whole, Whole]
    n_classes: Whole
    ipc: Whole | None  # None: the whole training set
    distill_arch: str  # "any" where the method uses no network
    eval_arch: str
    protocol: str
    protocol_version: Whole
    seed: Whole
    accuracies: list[float] = Field(min_length=1)  # a fraction per student
    metrics: Metrics | None = None  # None: a record from before there were any
    training: StudentTraining | None = None
    storage: Storage
    cost: Cost
    versions: dict[str, str]

    @field_validator("accuracies")
    @classmethod
    def _fractions(cls, values: list[float]) -> list[float]:
        if not all(math.isfinite(v) and 0 <= v <= 1 for v in values):
            raise ValueError("accuracies are fractions between 0 and 1")
        return values


def content_digest(content: dict[str, Any]) -> str:
    """sha256 of the canonical JSON text."""
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def dump_record(record: Record) -> str:
    """The file's text: the record and, last, its own checksum."""
    content = record.model_dump(mode="json")
    return json.dumps({**content, "sha256": content_digest(content)}, indent=1) + "\n"


def load_record(path: Path) -> Record:
    """Read one record.

    Raises ValueError with the reason when the file is unreadable, of another schema, altered or misnamed.
    """
    try:
        content = from_json(path.read_bytes())  # like json.loads, several times as fast
        checksum = content.pop("sha256")
        record = Record.model_validate(content)
    except (KeyError, AttributeError, TypeError):
        raise ValueError("has no checksum") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"does not fit schema {RECORD_SCHEMA}: {where}: {first['msg']}") from None
    except (OSError, ValueError):
        raise ValueError("is not readable as JSON") from None
    if content_digest(content) != checksum:
        raise ValueError("does not match its checksum")
    if record.key != path.stem:
        raise ValueError(f"holds the record {record.key}")
    return record

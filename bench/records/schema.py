"""The record: one JSON file per artifact and evaluation architecture, written once and never changed."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.core.io import read_json
from bench.core.words import plain_text

RECORD_SCHEMA: Final = 2
ANY_ARCHITECTURE: Final = "any"  # the distillation architecture of a method that uses none
EXTERNAL_HYPERPARAMETERS: Final = {"format", "sha256"}  # those of a set distilled elsewhere
_CANONICAL = json.JSONEncoder(sort_keys=True)
# Each with all of its bounds: of two `ge`, one here and one at a field, a single one would count.
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # fits into int64, the type of a column
Count = Annotated[int, Field(ge=0, lt=2**63)]
Real = Annotated[float, Field(ge=-1e12, le=1e12)]  # sums and squares stay finite
Amount = Annotated[float, Field(ge=0, le=1e12)]
Flop = Annotated[float, Field(ge=0, le=1e30)]  # floating-point operations; a multiply-add is two
Fraction = Annotated[float, Field(ge=0, le=1)]
# on one line of a table or plot, without signs that turn the direction of writing
Name = Annotated[str, Field(max_length=255, pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]*$")]
FolderName = Annotated[str, Field(max_length=255, pattern=r"^[^/.\p{Cc}][^/\p{Cc}]*$")]
LrFrom = Literal["protocol", "artifact", "holdout"]
Phase = Literal["prepare", "teacher", "distill", "tune", "evaluate"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Storage(_Part):
    """The size of the distilled set: all that is stored, except labels that are implied by position."""

    floats: Count
    bytes: Count  # floats at fp32, but for soft labels at fp16
    # of images that are kept, and were scored, at one byte a value; None: they are floats
    bytes_uint8: Count | None = None
    ipc_equivalent: Amount  # floats / (classes x C x H x W)
    within_budget: bool
    exempt: bool  # not distilled (the whole training set), so that no budget applies
    transform_floats: Count = 0  # of the whitening, which belongs to the data and not to the budget
    # of the network that labels what students are trained on, no part of the budget; 0: the protocol has none
    teacher_bytes: Count
    # of labels, counted in floats and bytes: learned with the set, or given to it by the protocol's teacher;
    # None: an earlier ddbench did not count them apart
    label_floats: Count | None = None


class Operations(_Part):
    """Floating-point operations of convolutions and matrix products, counted from shapes and not timed."""

    prepare: Flop  # of all prerequisites, charged in full to every record that uses them
    distill: Flop  # the method's own
    budget: Flop | None = None  # what the sweep let every distillation spend; None: any amount


class Cost(_Part):
    """Measured costs: seconds of wall-clock time, synchronised with the device, and peak memory in bytes."""

    prepare_s: Amount  # of all prerequisites, charged in full to every record that uses them
    prerequisites_s: dict[Name, Amount]  # the same by role
    teacher_s: Amount  # 0: the protocol has none
    distill_s: Amount | None  # the method's own; None: distilled elsewhere, not measured
    # of reports, snapshots and checkpoints while it was distilled; None: distilled elsewhere
    bookkeeping_s: Amount | None
    tune_s: Amount  # of choosing a learning rate; 0: the protocol has one
    evaluate_s: Amount
    peak_memory_bytes: Count  # the largest of the phases
    peak_memory: dict[Name, Count]  # by phase
    device: Name
    cpus: Whole
    gpus: Real
    exclusive: bool  # the job had its device to itself
    warm: bool  # the process of the evaluation had run a job before
    cold: list[Phase]  # phases whose process had run no job before
    operations: Operations | None = None  # None: not counted
    devices: dict[Phase, Name] = {}  # of the phases that had another device


class GivenTeacher(_Part):
    """A teacher that was trained elsewhere."""

    architecture: Name
    weights: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class SoftLabels(_Part):
    """Which labels a teacher gave the images of a set, once."""

    stop: float = Field(gt=0, le=1)  # fraction of the teacher's training after which it gave them
    temperature: float = Field(gt=0)
    stored_as: Literal["fp32", "fp16"] = "fp32"
    # "stop/temperature" -> accuracy on a hold-out of the training set
    holdout_scores: dict[Name, Fraction] | None


class StudentTraining(_Part):
    """How the students were trained, with all choices resolved."""

    steps: Whole = Field(gt=0)  # of the optimiser
    lr: Real = Field(gt=0)
    lr_from: LrFrom  # where lr comes from; artifact: the set stores it
    holdout_scores: dict[Name, Fraction] | None  # learning rate -> accuracy on a hold-out of the training set
    labels: Literal["stored", "hard", "soft", "teacher"]
    soft: bool  # the labels were probabilities
    augment: Name
    cutmix: Real
    preprocess: Name  # normalise, paper, or zca (KIND)
    soft_labels: SoftLabels | None = None  # of `labels: soft`
    given_teacher: GivenTeacher | None = None  # None: the protocol's own, or none
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"  # of the students' arithmetic


class CurvePoint(_Part):
    """The students' accuracies after a fraction of their training; no choice depends on them."""

    fraction: float = Field(gt=0, lt=1)
    step: Whole = Field(gt=0)
    accuracies: list[Fraction]  # one per student


class Snapshot(_Part):
    """Accuracies on the set as it was after a fraction of its distillation; no choice depends on them."""

    fraction: float = Field(gt=0, le=1)
    step: Whole = Field(gt=0)  # of the distillation
    seconds: Amount  # of the distillation so far, without its prerequisites
    accuracies: list[Fraction]  # one per student


class Metrics(_Part):
    """Further metrics of the same predictions."""

    class_accuracies: list[list[Fraction | None]]  # per student and class; None: no test images
    calibration_errors: list[Real | None]  # expected calibration error per student, 15 bins; None: diverged
    # share of equal predictions, mean over pairs of students that did not diverge; None: fewer than two
    agreement: Real | None
    diverged: Count  # students with logits that are not finite
    curve: list[CurvePoint]
    snapshots: list[Snapshot] | None  # the last one is the final set; None: not requested


class Record(_Part):
    """All that tables need to know about one evaluation of an artifact."""

    schema_version: Literal[2] = RECORD_SCHEMA
    key: str  # of the evaluation job; also the file's name
    artifact: FolderName  # key of the distilled set
    method: Name
    method_version: Whole
    hyperparameters: dict[str, Any]
    dataset: Name
    dataset_fingerprint: Name
    image_shape: tuple[Whole, Whole, Whole]
    n_classes: Whole
    ipc: Annotated[int, Field(ge=0, lt=2**53)] | None  # None: the whole training set
    distill_arch: Name  # "any" where the method uses no network
    eval_arch: Name
    protocol: Name
    protocol_version: Whole
    seed: Whole
    accuracies: list[Fraction] = Field(min_length=1)  # one per student
    metrics: Metrics
    training: StudentTraining
    storage: Storage
    cost: Cost
    versions: dict[str, str]


def content_digest(content: dict[str, Any]) -> str:
    """sha256 of the canonical JSON text, in hex."""
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


def dump_record(record: Record) -> str:
    """The text of the record's file; its last key is a checksum of the others."""
    content = record.model_dump(mode="json")
    return json.dumps({**content, "sha256": content_digest(content)}, indent=1) + "\n"


class OlderSchemaError(ValueError):
    """A record that an earlier ddbench wrote; its key is none that is planned today."""


def load_record(path: Path) -> Record:
    """Read one record.

    Raises:
        ValueError: when the file is unreadable, of another schema, altered or misnamed; the message continues
            a sentence that begins with the file's name. OlderSchemaError for an older schema.
    """
    try:
        content = read_json(path)
        checksum, schema = content.pop("sha256"), content.get("schema_version")
        if isinstance(schema, int) and schema < RECORD_SCHEMA:
            raise OlderSchemaError(
                f"was written by an older schema ({plain_text(str(schema))}, now {RECORD_SCHEMA})"
            )
        record = Record.model_validate(content)
        digest = content_digest(content)
    except (KeyError, AttributeError, TypeError):
        raise ValueError("has no checksum") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = plain_text(".".join(map(str, first["loc"])))
        raise ValueError(f"does not fit schema {RECORD_SCHEMA}: {where}: {first['msg']}") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if digest != checksum:
        raise ValueError("does not match its checksum")
    if record.key != path.stem:
        raise ValueError(f"holds the record {plain_text(record.key)}")
    return record

"""Sweep files: read, checked, and frozen."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bench.core.errors import UserError
from bench.core.method import Method, takes_exact_gradients
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.precision import DEFAULT, PRECISIONS, Precision
from bench.core.preprocess import NORMALISE, PREPROCESSES
from bench.core.registry import choose, did_you_mean, method_class, method_names
from bench.core.strict import Distinct, Strict, check_distinct, faults_error, valid_name
from bench.core.teacher_file import read_teacher
from bench.core.words import LONGEST_NAME, check_printable
from bench.data.spec import DatasetSpec
from bench.planning.budget import Budget
from bench.planning.overrides import set_keys
from bench.planning.presets import preset, read_presets
from bench.planning.protocols import (
    LabelKind,
    Protocol,
    TeacherEntry,
    in_regimes,
    load_protocols,
    protocol_names,
)
from bench.planning.resources import Resources
from bench.planning.yaml_schema import Positive, describe_faults, list_faults, read_yaml


def _architecture(value: Any) -> Architecture:
    if isinstance(value, Architecture):
        return value
    if not isinstance(value, str | Mapping):
        raise UserError("an architecture is a name or a mapping with a name")
    return parse_architecture(value)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _protocol(name: str) -> str:
    return choose("protocol", name, protocol_names())


Architectures = Annotated[tuple[Annotated[Architecture, BeforeValidator(_architecture)], ...], Distinct]
MOST_SEEDS = 1000  # of a method's entry
MOST_METHODS = 1000  # of a sweep
MOST_RECORDS = 1_000_000  # of a sweep: its plan takes gigabytes of memory
ProtocolName = Annotated[str, AfterValidator(_protocol)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class MethodEntry(BaseModel):
    """A method of the sweep and the hyper-parameters that the sweep sets.

    `seeds`: how many it has, 0, 1, ...; None: those of the sweep. What costs milliseconds may have more.
    `presets`: files whose rows win over those of ddbench, later ones over earlier ones.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    values: dict[str, Any]
    seeds: int | None = None
    presets: tuple[Path, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        entry = {"name": value} if isinstance(value, str) else value
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise UserError("a method is a name or a mapping with a name")
        name = choose("method", entry["name"], method_names())
        values = {k: v for k, v in entry.items() if k not in ("name", "seeds", "presets")}
        seeds = entry.get("seeds")
        if seeds is not None and not (type(seeds) is int and 0 < seeds <= MOST_SEEDS):
            raise UserError(
                f"method {name}: seeds: how many, a whole number from 1 to {MOST_SEEDS}, not {seeds!r}"
            )
        given = _as_list(entry.get("presets", ()))
        if not isinstance(given, list | tuple) or not all(isinstance(one, str | Path) for one in given):
            raise UserError(f"method {name}: presets: the path of a file, or a list, not {given!r}")
        presets = tuple(Path(one).expanduser().absolute() for one in given)
        for path in presets:
            read_presets(path)
        # refuse bad hyper-parameters here, where the file and the key are known
        if faults := _build(name, values)[1]:
            raise faults_error(cls.__name__, faults)
        return {"name": name, "values": values, "seeds": seeds, "presets": presets}

    def _chosen(self, dataset: str, ipc: int) -> dict[str, Any]:
        return preset(self.name, dataset, ipc, self.values, self.presets) | self.values

    def resolve(self, dataset: str, ipc: int) -> Method:
        """The method with its hyper-parameters: defaults < presets of configs/methods < the sweep's values.

        Args:
            dataset: whose presets hold.
            ipc: images per class.
        """
        return build_method(self.name, self._chosen(dataset, ipc))

    def preprocess(self, dataset: str, ipc: int) -> str:
        """What it distills on, one of `PREPROCESSES`, resolved in the same order."""
        return _preprocess(self._chosen(dataset, ipc))

    def precision(self, dataset: str, ipc: int, method: Method, default: Precision) -> Precision:
        """At which it distills: its own, else the sweep's, which leaves exact gradients at fp32.

        Args:
            dataset: as in `resolve`.
            ipc: images per class.
            method: as `resolve` makes it.
            default: the sweep's.

        Raises:
            UserError: it asks for bf16, which would spoil its gradients.
        """
        own = _precision(preset(self.name, dataset, ipc, self.values) | self.values)
        if not takes_exact_gradients(method):
            return own or default
        if own == "bf16":
            raise UserError(
                f"method {self.name}: precision: bf16 would spoil its gradients, which go back through the "
                "steps of a training: use fp32 or tf32"
            )
        return own or DEFAULT


BESIDE = ("preprocess", "precision")  # of a method's entry, no hyper-parameters of its own


def _preprocess(values: Mapping[str, Any]) -> str:
    return choose("preprocess", str(values.get("preprocess", NORMALISE)), PREPROCESSES)


def _precision(values: Mapping[str, Any]) -> Precision | None:
    if "precision" not in values:
        return None
    found: Precision = choose("precision", str(values["precision"]), PRECISIONS)  # type: ignore[assignment]
    return found


def build_method(name: str, values: Mapping[str, Any]) -> Method:
    """Make a method with these hyper-parameters.

    Args:
        name: of the method.
        values: its hyper-parameters; `preprocess` and `precision` may be among them, and are checked only.

    Raises:
        UserError: for an unknown method or hyper-parameter and for a bad value; all faults in one line.
    """
    built, faults = _build(name, values)
    if built is None or faults:
        raise UserError("; ".join(faults))
    return built


def _build(name: str, values: Mapping[str, Any]) -> tuple[Method | None, list[str]]:
    """The method, where it can be built, and the faults of its hyper-parameters."""
    cls = method_class(name)
    known = [f.name for f in dataclasses.fields(cls)]
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    faults = [
        f"method {name} does not take the parameter {key!r}{did_you_mean(str(key), known)}; {takes}"
        for key in values
        if key not in known and key not in BESIDE
    ]
    for read in (_preprocess, _precision):
        try:
            read(values)
        except UserError as error:
            faults.append(str(error))
    values = {key: value for key, value in values.items() if key in known}
    try:
        built: Method = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        return None, faults + [f"method {name}: {fault}" for fault in list_faults(error)]
    for key in values:
        faults += [f"method {name}: {key}: {fault}" for fault in _unfit(getattr(built, key))]
    return built, faults


def _unfit(value: Any) -> Iterator[str]:
    """What no key, tensor or table can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"a finite number, not {value!r}"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield "a whole number below 2^63, not a larger one"
    elif isinstance(value, str):
        if len(value.splitlines()) > 1:
            yield "one line, not several"
        try:
            check_printable(value)
        except UserError as error:
            yield str(error)
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _unfit(part)


class DistillConfig(Strict):
    """What the sets are distilled with."""

    architectures: Architectures = Field(
        default=("convnet",),
        validate_default=True,
        min_length=1,
        description="architectures of the networks that distill",
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...], Distinct] = Field(
        default=(0, 1, 2), min_length=1, description="seeds; each gives a set of its own"
    )
    experts_per_seed: bool = Field(
        default=False,
        strict=True,
        description="train the experts of trajectory methods anew for each seed; by default all seeds share "
        "one bank of them, as in the papers",
    )
    precision: Precision = Field(
        default=DEFAULT,
        description="of the arithmetic, also of prerequisites: fp32, without TF32; tf32; or bf16, autocast "
        "of networks' forward passes. Methods that differentiate a training stay at fp32, unless their own "
        "entry has a `precision`",
    )


def _read_teacher(value: Any) -> Any:
    """Of a file what keys need of it."""
    if not isinstance(value, str):
        return value
    found = read_teacher(Path(value))
    return {"architecture": found.architecture, "weights": found.digest, "file": str(Path(value).resolve())}


class EvaluateConfig(Strict):
    """How the sets are scored."""

    architectures: Architectures = Field(
        default=(), min_length=1, description="architectures of the students; by default those of `distill`"
    )
    students: Positive = Field(default=5, description="students trained on each set and averaged")
    protocol: Annotated[tuple[ProtocolName, ...], BeforeValidator(_as_list), Distinct] = Field(
        default=("standard",),
        min_length=1,
        description="a protocol of configs/protocols, or a list",
    )
    labels: Annotated[tuple[LabelKind, ...], BeforeValidator(_as_list), Distinct] = Field(
        default=(),
        description="score under each protocol with each of these labels, `NAME.LABELS` of its file, in the "
        "place of its own; by default with its own. With hard and stored, stored ones are for sets that have "
        "other labels than hard ones",
    )
    teacher: Annotated[
        TeacherEntry | None, BeforeValidator(_read_teacher), WithJsonSchema({"type": "string"})
    ] = Field(
        default=None,
        description="a file that `ddbench teacher` made: the teacher of every protocol that has one, in the "
        "place of its own",
    )
    precision: Precision = Field(
        default=DEFAULT, description="as in `distill`: of the students, and of a protocol's teacher"
    )
    curve: Annotated[tuple[Fraction, ...], Distinct] = Field(
        default=(),
        description="fractions of the training at which accuracy is recorded too",
    )
    snapshots: bool = Field(
        default=False,
        strict=True,
        description="also score the sets as they were at 10, 20, 50 and 100 % of the distillation",
    )


class Sweep(Strict):
    """A checked sweep file: every method x data set x ipc x architecture x seed, scored in the same ways."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=LONGEST_NAME,
        description="names the folder results/NAME; by default the file's name",
    )
    datasets: tuple[DatasetSpec, ...] = Field(
        min_length=1, description="data sets, each a name, the path of a folder of images, or a mapping"
    )
    methods: Annotated[tuple[MethodEntry, ...], Distinct] = Field(
        min_length=1,
        max_length=MOST_METHODS,
        description="methods, each a name, or a mapping of name and hyper-parameters",
    )
    ipc: Annotated[tuple[Positive, ...], Distinct] = Field(
        min_length=1, description="numbers of images per class"
    )
    distill: DistillConfig = Field(default=DistillConfig(), description="what the sets are distilled with")
    evaluate: EvaluateConfig = Field(
        default=EvaluateConfig(), validate_default=True, description="how the sets are scored"
    )
    resources: Resources = Field(default=Resources(), description="what each job gets")
    budget: Budget | None = Field(
        default=None, description="what each distillation may spend; by default any amount"
    )

    @field_validator("datasets")
    @classmethod
    def _distinct_labels(cls, datasets: tuple[DatasetSpec, ...]) -> tuple[DatasetSpec, ...]:
        check_distinct([spec.label for spec in datasets])
        return datasets

    @field_validator("evaluate")
    @classmethod
    def _same_architectures(cls, evaluate: EvaluateConfig, info: ValidationInfo) -> EvaluateConfig:
        """Without architectures of their own, students have those that the sets were distilled with."""
        if evaluate.architectures or "distill" not in info.data:
            return evaluate
        return evaluate.model_copy(update={"architectures": info.data["distill"].architectures})

    @field_validator("evaluate")
    @classmethod
    def _in_regimes(cls, evaluate: EvaluateConfig) -> EvaluateConfig:
        """Each label regime is a protocol of its own, by the name of the variant."""
        if not evaluate.labels:
            return evaluate
        names = [named for name in evaluate.protocol for named in in_regimes(name, evaluate.labels)]
        return evaluate.model_copy(update={"protocol": tuple(check_distinct(names)), "labels": ()})

    @property
    def protocols(self) -> list[Protocol]:
        """Those that score the sets, with the teacher and the precision that the sweep gives them."""
        named = [protocol for name in self.evaluate.protocol for protocol in load_protocols(name)]
        taught = [protocol.taught_by(self.evaluate.teacher) for protocol in named]
        return [protocol.computed_at(self.evaluate.precision) for protocol in taught]

    @model_validator(mode="after")
    def _plannable(self) -> "Sweep":
        """A grid is short to write, and all of it is planned."""
        seeds = sum(entry.seeds or len(self.distill.seeds) for entry in self.methods)
        cells = len(self.datasets) * len(self.ipc) * len(self.distill.architectures) * seeds
        records = cells * len(self.evaluate.architectures) * len(self.evaluate.protocol)
        if records > MOST_RECORDS:
            raise UserError(f"{records:,} records, a sweep may have {MOST_RECORDS:,}: split it")
        return self


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a sweep file with its name, which is the file's where it gives none, and what is set.

    Raises UserError for a file that is no mapping, and for keys that lead nowhere.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file is a mapping with {', '.join(Sweep.model_fields)}")
    content = {"name": valid_name(path.stem), **content}
    set_keys(content, overrides)
    return content


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read and check a sweep file.

    Args:
        path: of the YAML file.
        overrides: KEY=VALUE, with KEY a dotted path into the file.

    Raises:
        UserError: names the file and all faults, each with its key and the valid choices.
    """
    content = read_sweep(path, overrides)
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_faults(list_faults(error))}") from None

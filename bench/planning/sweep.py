"""Sweep files: read, check, freeze."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from bench.core.errors import UserError
from bench.core.method import Method
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.preprocess import NORMALISE, ZCA
from bench.core.registry import choose, method_class, method_names
from bench.data.spec import DatasetSpec, read_entry
from bench.planning.presets import preset
from bench.planning.protocols import protocol_names
from bench.planning.yaml_schema import Positive, Strict, check_distinct, faults, read_yaml, refusal


def _architecture(value: Any) -> Architecture:
    if isinstance(value, Architecture):
        return value
    if not isinstance(value, str | Mapping):
        raise UserError("an architecture is a name or a mapping with a name")
    return parse_architecture(value)


def _protocol(name: str) -> str:
    return choose("protocol", name, protocol_names())


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# what a file may hold in their place, for an editor's schema
_Parsed = BeforeValidator(_architecture, json_schema_input_type=str | dict[str, Any])
_Listed = BeforeValidator(_several, json_schema_input_type=str | tuple[str, ...])
_Entry = BeforeValidator(read_entry, json_schema_input_type=str | DatasetSpec)
Architectures = tuple[Annotated[Architecture, _Parsed], ...]


class MethodEntry(BaseModel):
    """A method of the sweep and the hyper-parameters that the sweep sets."""

    model_config = ConfigDict(frozen=True)
    name: str
    values: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        entry = {"name": value} if isinstance(value, str) else value
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise UserError("a method is a name or a mapping with a name")
        name = choose("method", entry["name"], method_names())
        values = {k: v for k, v in entry.items() if k != "name"}
        build_method(name, values)  # refuse bad hyper-parameters here, where the file and the key are known
        return {"name": name, "values": values}

    def resolve(self, dataset: str, ipc: int) -> Method:
        """Defaults < presets of configs/methods by data set and ipc < the sweep's own values."""
        return build_method(self.name, preset(self.name, dataset, ipc) | self.values)

    def preprocess(self, dataset: str, ipc: int) -> str:
        """What it distils on, normalised or whitened images, resolved alike."""
        return _preprocess(preset(self.name, dataset, ipc) | self.values)


def _preprocess(values: Mapping[str, Any]) -> str:
    """The key beside a method's own hyper-parameters. Raises UserError for what it cannot be."""
    return choose("preprocess", str(values.get("preprocess", NORMALISE)), (NORMALISE, ZCA))


def build_method(name: str, values: Mapping[str, Any]) -> Method:
    """A method with these hyper-parameters; `preprocess` may stand beside them, and is checked only.

    Raises UserError that names what the method takes.
    """
    _preprocess(values)
    values = {key: value for key, value in values.items() if key != "preprocess"}
    cls = method_class(name)
    known = [f.name for f in dataclasses.fields(cls)]
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    unknown = [
        f"method {name} does not take the parameter {key!r}; {takes}" for key in values if key not in known
    ]
    if unknown:
        raise UserError("\n".join(unknown))
    try:
        built: Method = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise UserError("\n".join(f"method {name}: {fault}" for fault in faults(error))) from None
    for key in values:
        value = getattr(built, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"method {name}: {key}: a finite number, not {value!r}")
    return built


class DistillConfig(Strict):
    """Which networks and seeds every method distills with."""

    architectures: Architectures = Field(
        default=(parse_architecture("convnet"),),
        min_length=1,
        description="networks that methods distill with; methods that use none run once for all",
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...] = Field(
        default=(0, 1, 2), min_length=1, description="distillation seeds; spread and intervals are over them"
    )

    @model_validator(mode="after")
    def _check(self) -> "DistillConfig":
        check_distinct({"architectures": self.architectures, "seeds": self.seeds})
        return self


Fraction = Annotated[float, Field(gt=0, lt=1)]


class EvaluateConfig(Strict):
    """How every distilled set is scored."""

    architectures: Architectures = Field(
        default=(parse_architecture("convnet"),),
        min_length=1,
        description="networks that are trained on each set; by default those of `distill`",
    )
    students: Positive = Field(default=5, description="networks trained on each set, averaged first")
    protocol: Annotated[tuple[Annotated[str, AfterValidator(_protocol)], ...], _Listed] = Field(
        default=("standard",),
        min_length=1,
        description="how they are trained: the name of a file in configs/protocols, or a list of names",
    )
    curve: tuple[Fraction, ...] = Field(
        default=(), description="fractions of the students' training after which accuracy is recorded too"
    )
    snapshots: bool = Field(
        default=False,
        strict=True,
        description="also score the sets as they were after 10, 20 and 50 % of the distillation",
    )

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        check_distinct({"architectures": self.architectures, "protocol": self.protocol, "curve": self.curve})
        return self


class Resources(Strict):
    """What one job gets."""

    cpus: Positive = Field(default=1, description="threads of a job")
    gpus: float = Field(default=0, ge=0, le=1, description="GPUs of a job: 0, 1, or a fraction to share one")


_METHOD = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ]
}


class Sweep(Strict):
    """A checked sweep file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="of the result folder, results/<name>; by default the file's name",
    )
    datasets: tuple[Annotated[DatasetSpec, _Entry], ...] = Field(
        min_length=1, description="a name, a folder of images, or a mapping (see below)"
    )
    methods: tuple[Annotated[MethodEntry, WithJsonSchema(_METHOD)], ...] = Field(
        min_length=1,
        description="a name, or a mapping of `name` and hyper-parameters, which win over presets; "
        "`preprocess: zca` distills on whitened images",
    )
    ipc: tuple[Positive, ...] = Field(min_length=1, description="images per class: the budgets")
    distill: DistillConfig = Field(default=DistillConfig(), description="networks and seeds (see below)")
    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="how sets are scored (see below)")
    resources: Resources = Field(default=Resources(), description="of each job (see below)")

    @model_validator(mode="before")
    @classmethod
    def _same_networks(cls, value: Any) -> Any:
        """Sets are scored on the networks that they were distilled with, if the sweep names no others."""
        if not isinstance(value, Mapping):
            return value
        distill, evaluate = value.get("distill"), value.get("evaluate", {})
        if isinstance(distill, Mapping) and isinstance(evaluate, Mapping) and "architectures" in distill:
            return {**value, "evaluate": {"architectures": distill["architectures"], **evaluate}}
        return value

    @model_validator(mode="after")
    def _check(self) -> "Sweep":
        labels = [d.label for d in self.datasets]
        check_distinct({"datasets": labels, "methods": self.methods, "ipc": self.ipc})
        return self


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file.

    Args:
        path: the file; its name is the sweep's where it gives none.
        overrides: `KEY=VALUE` texts, applied one after the other.

    Raises:
        UserError: names the file and, a line a fault, the key and the valid choices.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file is a mapping with {', '.join(Sweep.model_fields)}")
    content.setdefault("name", path.stem)
    for override in overrides:
        _override(content, override)
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        raise refusal(path, faults(error)) from None


def _override(content: Any, override: str) -> None:
    """Apply KEY=VALUE, where KEY is a dotted path; a list's entry is reached by its position or its name."""
    key, sign, text = override.partition("=")
    *parents, last = key.split(".")
    if not sign or not all([*parents, last]):
        raise UserError(f"--set {override}: write KEY=VALUE, for example --set evaluate.students=5")
    for part in parents:
        content = _child(content, part, override)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not YAML") from None
    if isinstance(content, list):
        content[_position(content, last, override)] = value
    else:
        content[last] = value


def _child(content: Any, part: str, override: str) -> Any:
    if isinstance(content, list):
        i = _position(content, part, override)
        if isinstance(content[i], str):
            content[i] = {"name": content[i]}
        if not isinstance(content[i], dict | list):
            raise UserError(f"--set {override}: {part} holds no keys")
        return content[i]
    if not isinstance(content.setdefault(part, {}), dict | list):
        raise UserError(f"--set {override}: {part} holds no keys")
    return content[part]


def _position(entries: list[Any], part: str, override: str) -> int:
    names = [e.get("name") if isinstance(e, dict) else e for e in entries]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(entries):
        return int(part)
    raise UserError(f"--set {override}: no entry {part!r}; there are {', '.join(map(str, names))}")

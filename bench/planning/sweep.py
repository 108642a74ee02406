"""Sweep files: read, check, freeze."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from bench.core.errors import UserError
from bench.core.method import Method
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.preprocess import NORMALISE, ZCA
from bench.core.registry import choose, method_class, method_names
from bench.data.spec import DatasetSpec
from bench.planning.presets import preset
from bench.planning.protocols import protocol_names
from bench.planning.yaml_schema import Positive, Strict, check_distinct, first_complaint, read_yaml


def _architecture(value: Any) -> Architecture:
    if isinstance(value, Architecture):
        return value
    if not isinstance(value, str | Mapping):
        raise UserError("an architecture is a name or a mapping with a name")
    return parse_architecture(value)


def _dataset(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Architectures = tuple[Annotated[Architecture, BeforeValidator(_architecture)], ...]


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
    for key in values:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(f"method {name} does not take the parameter {key!r}; {takes}")
    try:
        built: Method = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise UserError(f"method {name}: {first_complaint(error)}") from None
    for key in values:
        value = getattr(built, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"method {name}: {key}: a finite number, not {value!r}")
    return built


class DistillConfig(Strict):
    architectures: Architectures = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "DistillConfig":
        check_distinct("architectures", self.architectures)
        check_distinct("seeds", self.seeds)
        return self


Fraction = Annotated[float, Field(gt=0, lt=1)]


class EvaluateConfig(Strict):
    architectures: Architectures = Field(min_length=1)
    students: Positive = 5
    protocol: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(min_length=1)  # one or several
    curve: tuple[Fraction, ...] = ()  # parts of the training after which accuracy is told as well
    snapshots: bool = Field(default=False, strict=True)  # score what parts of the distillation had made, too

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        check_distinct("architectures", self.architectures)
        check_distinct("protocol", self.protocol)
        check_distinct("curve", self.curve)
        for name in self.protocol:
            choose("protocol", name, protocol_names())
        return self


class Resources(Strict):
    """Per job."""

    cpus: Positive = 1
    gpus: float = Field(default=0, ge=0, le=1)


class Sweep(Strict):
    """A checked sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    datasets: tuple[Annotated[DatasetSpec, BeforeValidator(_dataset)], ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    ipc: tuple[Positive, ...] = Field(min_length=1)
    distill: DistillConfig
    evaluate: EvaluateConfig
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _check(self) -> "Sweep":
        check_distinct("datasets", [d.label for d in self.datasets])
        check_distinct("methods", self.methods)
        check_distinct("ipc", self.ipc)
        return self


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file. Raises UserError in one line that names the file, the key and the valid choices."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file is a mapping with {', '.join(Sweep.model_fields)}")
    for override in overrides:
        _override(content, override)
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_complaint(error)}") from None


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

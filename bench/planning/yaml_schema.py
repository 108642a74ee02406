"""Files that people write: YAML, read strictly, and refused in one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.core.errors import UserError
from bench.core.registry import choose

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Positive = Annotated[int, Field(gt=0, strict=True)]


class Strict(BaseModel):
    """Refuses unknown keys and names the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                choose("key", str(key), cls.model_fields)
        return value


def check_distinct(key: str, values: Sequence[Any]) -> None:
    twice = [v for i, v in enumerate(values) if v in values[:i]]
    if twice:
        name = getattr(twice[0], "label", getattr(twice[0], "name", twice[0]))
        raise UserError(f"{key}: {name} stands there twice")


_PLAIN = {  # pydantic's error types in the words of a config file
    "tuple_type": "must be a list, like [1, 10]",
    "too_short": "must name at least one",
    "model_type": "must be a mapping",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must be letters, digits, dots, dashes and underscores",
}


def first_complaint(error: ValidationError) -> str:
    """The first complaint of pydantic in one line: where, what."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    kind = first["type"]
    if kind == "missing":
        what = "is missing"
    elif kind == "value_error":  # one of ours
        what = first["msg"].removeprefix("Value error, ")
    else:
        what = _PLAIN.get(kind, first["msg"].replace("Input should be", "must be"))
        what += f", not {first['input']!r}"
    return f"{where}: {what}" if where else what


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands in a mapping twice; YAML would take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} stands there twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None

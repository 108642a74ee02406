"""Files that people write: YAML, read strictly; what is wrong with them is said in full, a line a fault."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from bench.core.errors import UserError
from bench.core.registry import choose

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Positive = Annotated[int, Field(gt=0, strict=True)]


class Strict(BaseModel):
    """A mapping of a file that people write: unknown keys are refused, all faults are found in one pass."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _known_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse unknown keys with the nearest known one, beside whatever else is wrong."""
        if not isinstance(value, Mapping):
            return handler(value)
        unknown = [key for key in value if key not in cls.model_fields]
        try:
            made = handler({key: value[key] for key in value if key not in unknown})
        except ValidationError as error:
            if not unknown:
                raise
            found = [_again(fault) for fault in error.errors(include_url=False)]
        else:
            found = []
            if not unknown:
                return made
        refused = [_refused(key, cls.model_fields) for key in unknown]
        raise ValidationError.from_exception_data(cls.__name__, [*refused, *found])


def _again(fault: ErrorDetails) -> InitErrorDetails:
    """A fault that pydantic found, to be raised once more beside others."""
    return {
        "type": fault["type"],
        "loc": fault["loc"],
        "input": fault["input"],
        "ctx": fault.get("ctx", {}),
    }


def _refused(key: object, known: Iterable[str]) -> InitErrorDetails:
    try:
        choose("key", str(key), known)
    except UserError as error:
        return {"type": "value_error", "loc": (), "input": key, "ctx": {"error": error}}
    return {
        "type": "value_error",
        "loc": (),
        "input": key,
        "ctx": {"error": UserError(f"{key!r} is no text")},
    }


def check_distinct(lists: Mapping[str, Sequence[Any]]) -> None:
    """Raises UserError, a line for each list that holds a value twice."""
    faults = []
    for key, values in lists.items():
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            name = getattr(twice[0], "label", getattr(twice[0], "name", twice[0]))
            faults.append(f"{key}: {name} is listed twice")
    if faults:
        raise UserError("\n".join(faults))


_PLAIN = {  # pydantic's error types in the words of a config file
    "tuple_type": "must be a list, like [1, 10]",
    "too_short": "must name at least one",
    "model_type": "must be a mapping",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must be letters, digits, dots, dashes and underscores",
}


def faults(error: ValidationError) -> list[str]:
    """What pydantic complains of, a line a fault: where, what."""
    found = {
        _place(fault): fault for fault in reversed(error.errors(include_url=False)) if not _follows(fault)
    }
    return [line for fault in reversed(found.values()) for line in _lines(fault)]


def _place(fault: ErrorDetails) -> tuple[object, ...]:
    """Where it is: what may be a number or a text fails as both, and is one fault."""
    where = fault["loc"]
    union = where[-1:] in (("int",), ("str",))
    return (where[:-1], "") if union else (where, fault["msg"])


def _follows(fault: ErrorDetails) -> bool:
    """A list that is too short only because what it holds was refused already."""
    return fault["type"] == "too_short" and bool(fault["input"])


def _lines(fault: ErrorDetails) -> list[str]:
    where = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
    kind = fault["type"]
    if kind == "missing":
        found = ["is missing"]
    elif kind == "extra_forbidden":
        found = ["is no key of this entry"]
    elif kind == "value_error":  # one of ours, which may be several lines
        found = fault["msg"].removeprefix("Value error, ").splitlines()
    else:
        what = _PLAIN.get(kind, fault["msg"].replace("Input should be", "must be"))
        found = [f"{what}, not {fault['input']!r}"]
    return [f"{where}: {what}" if where else what for what in found]


def refusal(where: object, found: Sequence[str]) -> UserError:
    """One line for one fault; for several, their number and a line each."""
    if len(found) == 1:
        return UserError(f"{where}: {found[0]}")
    return UserError("\n  ".join([f"{where}: {len(found)} faults", *found]))


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping holds twice; YAML would take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} is given twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises UserError for one that is missing, unreadable or not YAML."""
    try:
        return yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None

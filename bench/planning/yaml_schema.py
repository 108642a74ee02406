"""YAML files that people write: read strictly, with all their faults named at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from bench.core.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Positive = Annotated[int, Field(gt=0, strict=True)]


_PLAIN = {  # pydantic's error types in the words of a config file
    "tuple_type": "must be a list, like [1, 10]",
    "too_short": "must name at least one",
    "model_type": "must be a mapping",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must be letters, digits, dots, dashes and underscores",
}


def list_faults(error: ValidationError) -> list[str]:
    """All faults that pydantic found, a line each: where, what."""
    faults = error.errors(include_url=False)
    # pydantic does not count the bad entries of a list, and may call it too short because of them
    return [_fault(fault) for fault in faults if fault["type"] != "too_short" or not fault["input"]]


def _fault(fault: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
    kind = fault["type"]
    if kind == "missing":
        what = "is missing"
    elif kind == "value_error":  # one of ours
        what = fault["msg"].removeprefix("Value error, ")
    else:
        what = _PLAIN.get(kind, fault["msg"].replace("Input should be", "must be"))
        what += f", not {fault['input']!r}"
    return f"{where}: {what}" if where else what


def describe_faults(faults: Sequence[str]) -> str:
    """One fault as it is; several as "3 things to mend:" and an indented line each."""
    if len(faults) == 1:
        return faults[0]
    return "\n  ".join([f"{len(faults)} things to mend:", *faults])


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} is given twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: for a file that is missing, unreadable or not YAML, and for a key given twice.
    """
    try:
        return yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None

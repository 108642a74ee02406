"""YAML files that people write: read strictly, with all their faults named at once."""

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from bench.core.errors import UserError
from bench.core.io import read_plain_file
from bench.core.words import plain_text
from bench.planning.yaml_text import parse_yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MOST_BYTES = 2**20  # of a file that people write
MOST_FAULTS = 20  # of one message
Positive = Annotated[int, Field(gt=0, lt=2**63, strict=True)]


_SHORT = reprlib.Repr()  # of what may be large
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80
LONGEST_FAULT = 500  # characters
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
    parts = [plain_text(str(part)) for part in fault["loc"]]
    where = ".".join(part for part in parts if not part.startswith("function-"))
    kind = fault["type"]
    if kind == "missing":
        what = "is missing"
    elif kind == "value_error":  # one of ours
        what = fault["msg"].removeprefix("Value error, ")
    else:
        what = _PLAIN.get(kind, fault["msg"].replace("Input should be", "must be"))
        what += f", not {_SHORT.repr(fault['input'])}"
    text = f"{where}: {what}" if where else what
    return text if len(text) <= LONGEST_FAULT else f"{text[:LONGEST_FAULT]}..."


def describe_faults(faults: Sequence[str]) -> str:
    """One fault as it is; several as "3 things to mend:" and an indented line each, the first of many."""
    if len(faults) == 1:
        return faults[0]
    more = [f"and {len(faults) - MOST_FAULTS:,} more"] if len(faults) > MOST_FAULTS else []
    return "\n  ".join([f"{len(faults):,} things to mend:", *faults[:MOST_FAULTS], *more])


def read_yaml(path: Path) -> Any:
    """Read a YAML file, see `parse_yaml`.

    Raises:
        UserError: for a file that is missing, unreadable, too large or not YAML, and for a key given twice.
    """
    text = read_text(path)
    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_text(path: Path) -> str:
    """The text of a file that people write. Raises UserError if it is missing, unreadable or too large."""
    try:
        return read_plain_file(path, MOST_BYTES).decode()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}: give a YAML file") from None

"""Models of the files that people write: unknown keys are refused, and all faults are reported at once."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from bench.core.errors import UserError
from bench.core.registry import choose, did_you_mean

Values = TypeVar("Values", bound=Sequence[Any])


class Strict(BaseModel):
    """A model that refuses unknown keys and names the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_known_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            unknown = [str(fault["loc"][0]) for fault in faults if _is_unknown_key(fault)]
            if not unknown:
                raise
        meant = {did_you_mean(key, cls.model_fields) for key in unknown}
        others = []
        for fault in faults:
            # a required key that is only misspelled is one fault, not two
            missing = fault["type"] == "missing" and len(fault["loc"]) == 1
            misspelled = missing and did_you_mean(str(fault["loc"][0]), cls.model_fields) in meant
            if not _is_unknown_key(fault) and not misspelled:
                others.append(fault)
        raise faults_error(cls.__name__, [_unknown_key(key, cls.model_fields) for key in unknown], others)


def _is_unknown_key(fault: Mapping[str, Any]) -> bool:
    return fault["type"] in ("extra_forbidden", "invalid_key") and len(fault["loc"]) == 1


def _unknown_key(key: str, known: Mapping[str, Any]) -> str:
    try:
        return choose("key", key, known)
    except UserError as error:
        return str(error)


def faults_error(
    title: str, messages: Sequence[str], others: Sequence[Mapping[str, Any]] = ()
) -> ValidationError:
    """Make an error with which a validator reports several faults of one value.

    Args:
        title: the name of the model.
        messages: one for each fault.
        others: faults that pydantic found, as `ValidationError.errors` gives them.

    Returns:
        The error, to be raised.
    """
    found: list[Any] = [
        {"type": "value_error", "loc": (), "input": None, "ctx": {"error": UserError(message)}}
        for message in messages
    ]
    found += [{key: f[key] for key in ("type", "loc", "input", "ctx") if key in f} for f in others]
    return ValidationError.from_exception_data(title, found)


def check_distinct(values: Values) -> Values:
    """Refuse a list in which an entry is given twice; return it unchanged."""
    hashable = all(isinstance(value, int | float | str) for value in values)
    if hashable and len(set(values)) == len(values):
        return values  # seeds may be thousands
    for i, value in enumerate(values):
        if value in values[:i]:
            name = getattr(value, "label", getattr(value, "name", value))
            raise UserError(f"{name} is given twice")
    return values


Distinct = AfterValidator(check_distinct)  # of a list: no entry is given twice


def valid_name(text: str) -> str:
    """Turn a text into a valid sweep name: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "sweep"

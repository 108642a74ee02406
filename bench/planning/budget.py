"""What a sweep lets each distillation spend, as people write it."""

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from bench.core.errors import UserError
from bench.core.strict import Strict
from bench.core.words import FLOP_UNITS, plain_text

_WRITTEN = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Z]?FLOP)s?")


def parse_flop(value: Any) -> float:
    """Operations, from a number or a text like `200 TFLOP`. Raises UserError for anything else."""
    found = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
    if found and found[2] in FLOP_UNITS:
        value = float(found[1]) * FLOP_UNITS[found[2]]
    if type(value) not in (int, float) or not 1 <= value < math.inf:
        units = ", ".join(FLOP_UNITS)
        raise UserError(f"operations like 200 TFLOP ({units}), not {plain_text(repr(value))}")
    return float(value)


class Budget(Strict):
    """What a distillation may spend."""

    compute: Annotated[
        float,
        BeforeValidator(parse_flop),
        Field(le=1e30),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]}),
    ] = Field(
        description="floating-point operations of a distillation with its prerequisites, like 200 TFLOP; "
        "they say how many steps it takes"
    )

"""Where a tuning looks for the values of a hyper-parameter: metadata beside its type.

    lr: Annotated[float, Gt(0), Search(0.01, 100)] = 1.0

What is declared should change neither the cost of a step nor a prerequisite: trials are to cost the same.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

DIGITS = 3  # significant, of a value that is drawn: people copy them


@dataclass(frozen=True)
class Search:
    """A range of numbers, drawn evenly on its scale."""

    low: float
    high: float
    scale: Literal["log", "linear"] = "log"

    def at(self, place: float) -> float:
        """The value at a place from 0, the low end, to 1, the high one."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        return float(f"{value:.{DIGITS}g}")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} ({self.scale})"


@dataclass(frozen=True)
class Choices:
    """A few values, drawn alike often."""

    values: tuple[str, ...]

    def at(self, place: float) -> str:
        """The value at a place from 0 to 1."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]

    def __str__(self) -> str:
        return " or ".join(self.values)


Space = Mapping[str, Search | Choices]


def search_space(method: Any, fixed: Collection[str] = ()) -> Space:
    """Where to look for the hyper-parameters of a method.

    Args:
        method: its class.
        fixed: names to leave out.

    Returns:
        {name: where} of those that declare it; may be empty.
    """
    return {
        name: where
        for name, hint in get_type_hints(method, include_extras=True).items()
        if name not in fixed
        for where in getattr(hint, "__metadata__", ())
        if isinstance(where, Search | Choices)
    }

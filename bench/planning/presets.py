"""Presets: the papers' hyper-parameters, from the files of configs/methods. No torch."""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from bench.core.errors import UserError
from bench.core.registry import brought_presets
from bench.core.strict import Strict
from bench.planning.yaml_schema import CONFIGS, describe_faults, list_faults, read_text
from bench.planning.yaml_text import parse_yaml

DIGITS = 12  # significant, of a product: 7.656e-6 x 10 is 7.656e-5


class Preset(Strict):
    """Hyper-parameters that hold for some data sets and budgets, and where they come from."""

    datasets: tuple[str, ...] | None = Field(
        default=None, description="data sets it holds for; by default all"
    )
    ipc: tuple[int, ...] | None = Field(
        default=None, description="images per class it holds for; by default all"
    )
    when: dict[str, Any] = Field(
        default={},
        description="hyper-parameters that the sweep has to give for it to hold, and their values",
    )
    values: dict[str, Any] = Field(
        default={}, description="hyper-parameters of the method, `preprocess` and `precision`"
    )
    per_ipc: dict[str, float] = Field(
        default={}, description="hyper-parameters that grow with ipc: their value is this times ipc"
    )
    source: str = Field(description="the paper, or the file of its authors' code, that gives the values")

    def holds(self, dataset: str, ipc: int, chosen: Mapping[str, Any]) -> bool:
        """Whether it holds for a data set and ipc, with what the sweep gives."""
        named = (self.datasets is None or dataset in self.datasets) and (self.ipc is None or ipc in self.ipc)
        return named and all(chosen.get(name) == value for name, value in self.when.items())

    def at(self, ipc: int) -> dict[str, Any]:
        """Its values for an ipc."""
        return self.values | {name: float(f"{x * ipc:.{DIGITS}g}") for name, x in self.per_ipc.items()}


def preset(
    method: str,
    dataset: str,
    ipc: int,
    chosen: Mapping[str, Any] | None = None,
    files: Sequence[Path] = (),
) -> dict[str, Any]:
    """Hyper-parameters from configs/methods/METHOD.yaml, or from the package that brings the method.

    Args:
        method: its name.
        dataset: `bench.data.spec.preset_name` of the data set.
        ipc: images per class.
        chosen: the sweep's own hyper-parameters, on which rows may depend.
        files: with further rows, which win.

    Returns:
        The values of all rows that hold for them; later rows win. Empty without a file.

    Raises:
        UserError: for a bad file.
    """
    values: dict[str, Any] = {}
    for row in itertools.chain(_rows(method), *map(read_presets, files)):
        if row.holds(dataset, ipc, chosen or {}):
            values |= row.at(ipc)
    return values


def not_covered(method: str, dataset: str, ipc: int, chosen: Mapping[str, Any]) -> list[str]:
    """Hyper-parameters that a preset gives for each ipc that it names, and not for this ipc or data set.

    Args:
        method, dataset, ipc, chosen: as for `preset`.

    Returns:
        Their names, without what the sweep gives itself; the method's defaults hold for them.
    """
    by_ipc = [row.values for row in _rows(method) if row.ipc is not None]
    given = preset(method, dataset, ipc, chosen).keys() | chosen.keys()
    names = by_ipc[0] if by_ipc else {}
    return [name for name in names if name not in given and all(name in values for values in by_ipc)]


def _rows(method: str) -> list[Preset]:
    path = brought_presets(method) or CONFIGS / "methods" / f"{method}.yaml"
    return read_presets(path) if path.exists() else []


def read_presets(path: Path) -> list[Preset]:
    """The rows of a file of presets. Raises UserError for a bad file."""
    text = read_text(path)
    try:
        return _parsed(text)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_faults(list_faults(error))}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


@lru_cache(maxsize=64)
def _parsed(text: str) -> list[Preset]:
    """A grid asks for the same rows once a cell, and YAML takes milliseconds."""
    return TypeAdapter(list[Preset]).validate_python(parse_yaml(text))

"""The papers' hyper-parameters: the files of configs/methods. No torch."""

from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from bench.core.registry import brought_presets
from bench.planning.yaml_schema import CONFIGS, Strict, faults, read_yaml, refusal


class Preset(Strict):
    """Hyper-parameters that hold for some data sets and budgets, and where they come from."""

    datasets: tuple[str, ...] | None = Field(
        default=None, description="where it holds; by default everywhere"
    )
    ipc: tuple[int, ...] | None = Field(
        default=None, description="the budgets where it holds; by default all"
    )
    values: dict[str, Any] = Field(description="hyper-parameters; a later row wins over an earlier one")
    source: str = Field(description="where the values come from: paper, section, code")


def preset(method: str, dataset: str, ipc: int) -> dict[str, Any]:
    """Hyper-parameters from the method's file of presets, its package's or ours; later rows win."""
    path = brought_presets(method) or CONFIGS / "methods" / f"{method}.yaml"
    values: dict[str, Any] = {}
    if path.exists():
        try:
            rows = TypeAdapter(list[Preset]).validate_python(read_yaml(path))
        except ValidationError as error:
            raise refusal(path, faults(error)) from None
        for row in rows:
            if (row.datasets is None or dataset in row.datasets) and (row.ipc is None or ipc in row.ipc):
                values |= row.values
    return values

"""The papers' hyper-parameters: the files of configs/methods. No torch."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import UserError
from bench.planning.yaml_schema import CONFIGS, Strict, first_complaint, read_yaml


class Preset(Strict):
    """Hyper-parameters that hold for some data sets and budgets, and where they come from."""

    datasets: tuple[str, ...] | None = None  # None: all
    ipc: tuple[int, ...] | None = None
    values: dict[str, Any]
    source: str


def preset(method: str, dataset: str, ipc: int) -> dict[str, Any]:
    """Hyper-parameters from configs/methods/<method>.yaml; later rows win over earlier ones."""
    path = CONFIGS / "methods" / f"{method}.yaml"
    values: dict[str, Any] = {}
    if path.exists():
        try:
            rows = TypeAdapter(list[Preset]).validate_python(read_yaml(path))
        except ValidationError as error:
            raise UserError(f"{path}: {first_complaint(error)}") from None
        for row in rows:
            if (row.datasets is None or dataset in row.datasets) and (row.ipc is None or ipc in row.ipc):
                values |= row.values
    return values

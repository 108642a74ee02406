"""Presets: the papers' hyper-parameters, from the files of configs/methods. No torch."""

from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from bench.core.errors import UserError
from bench.core.registry import brought_presets
from bench.core.strict import Strict
from bench.planning.yaml_schema import CONFIGS, describe_faults, list_faults, read_yaml


class Preset(Strict):
    """Hyper-parameters that hold for some data sets and budgets, and where they come from."""

    datasets: tuple[str, ...] | None = Field(
        default=None, description="data sets it holds for; by default all"
    )
    ipc: tuple[int, ...] | None = Field(
        default=None, description="images per class it holds for; by default all"
    )
    values: dict[str, Any] = Field(description="hyper-parameters of the method, and `preprocess`")
    source: str = Field(description="the paper, or the file of its authors' code, that gives the values")


def preset(method: str, dataset: str, ipc: int) -> dict[str, Any]:
    """Hyper-parameters from configs/methods/METHOD.yaml, or from the package that brings the method.

    Args:
        method: its name.
        dataset: `bench.data.spec.preset_name` of the data set.
        ipc: images per class.

    Returns:
        The values of all rows that hold for them; later rows win. Empty without a file.

    Raises:
        UserError: for a bad file.
    """
    path = brought_presets(method) or CONFIGS / "methods" / f"{method}.yaml"
    values: dict[str, Any] = {}
    if path.exists():
        try:
            rows = TypeAdapter(list[Preset]).validate_python(read_yaml(path))
        except ValidationError as error:
            raise UserError(f"{path}: {describe_faults(list_faults(error))}") from None
        for row in rows:
            if (row.datasets is None or dataset in row.datasets) and (row.ipc is None or ipc in row.ipc):
                values |= row.values
    return values

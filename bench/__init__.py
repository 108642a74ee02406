"""ddbench from Python: `import bench as dd`.

>>> data = dd.load_dataset("digits")
>>> s = dd.distill("dm", data, ipc=10, steps=300)
>>> dd.evaluate(s, data, protocol="quick", students=3)
>>> frame = dd.load_records("results/quickstart")

Importing it loads nothing: each name is fetched, and torch with it, when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api.distillation import Evaluation, distill, evaluate, load_dataset, show
    from bench.api.results import compare, load_records, report, run, summary
    from bench.core.distilled import DistilledDataset
    from bench.core.distilled import load_distilled as load
    from bench.core.errors import UserError
    from bench.testing.contract import check_method

_WHERE = {  # name -> its module, and its name there
    "DistilledDataset": ("bench.core.distilled", "DistilledDataset"),
    "Evaluation": ("bench.api.distillation", "Evaluation"),
    "UserError": ("bench.core.errors", "UserError"),
    "check_method": ("bench.testing.contract", "check_method"),
    "compare": ("bench.api.results", "compare"),
    "distill": ("bench.api.distillation", "distill"),
    "evaluate": ("bench.api.distillation", "evaluate"),
    "load": ("bench.core.distilled", "load_distilled"),
    "load_dataset": ("bench.api.distillation", "load_dataset"),
    "load_records": ("bench.api.results", "load_records"),
    "report": ("bench.api.results", "report"),
    "run": ("bench.api.results", "run"),
    "show": ("bench.api.distillation", "show"),
    "summary": ("bench.api.results", "summary"),
}
__all__ = [
    "DistilledDataset",
    "Evaluation",
    "UserError",
    "check_method",
    "compare",
    "distill",
    "evaluate",
    "load",
    "load_dataset",
    "load_records",
    "report",
    "run",
    "show",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _WHERE[name]
    return getattr(importlib.import_module(module), own)


def __dir__() -> list[str]:
    return sorted(__all__)

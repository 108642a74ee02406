"""Small plans, for the tests of planning and of the queue."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench.core.method import SEED, Prerequisite, Problem
from bench.data.dataset import Dataset, Split
from bench.planning.graph import Job, plan_sweep
from bench.planning.protocols import Protocol, load_protocol
from bench.planning.sweep import Sweep
from methods.random_real import RandomReal


def sweep(**changes: Any) -> Sweep:
    """Changes to a small sweep; architectures, seeds, students and so on by their own names."""
    content: dict[str, Any] = {
        "name": "tiny",
        "datasets": ["digits"],
        "methods": ["dm"],
        "ipc": [1],
        "distill": {"architectures": ["convnet-d2-w8"], "seeds": [0]},
        "evaluate": {"architectures": ["convnet-d2-w8"], "students": 2, "protocol": "quick"},
    }
    for key, value in changes.items():
        part = "distill" if key in ("architectures", "seeds") else "evaluate"
        if key in content or key == "resources":
            content[key] = value
        else:
            content[part] = {**content[part], {"students_on": "architectures"}.get(key, key): value}
    return Sweep.model_validate(content)


def dataset(n: int = 40, fingerprint: str = "f" * 32, side: int = 8, label: str = "digits") -> Dataset:
    """Four images a class, less for a smaller n."""
    images, labels = torch.zeros(n, 1, side, side, dtype=torch.uint8), torch.arange(n) % 10
    classes = tuple(f"class {c}" for c in range(10))
    split = Split(images, labels)
    return Dataset("digits", label, split, split, classes, fingerprint, (0.5,), (0.5,))


QUICK = load_protocol("quick")
Jobs = dict[str, Job]


def planned(chosen: Sweep | None = None, data: Dataset | None = None, protocol: Protocol = QUICK) -> Jobs:
    return plan_sweep(chosen or sweep(), {"digits": data or dataset()}, [protocol])


def keys(kind: str, jobs: Jobs) -> set[str]:
    return {key for key, job in jobs.items() if job.kind == kind}


@dataclass(frozen=True)
class Link:
    """A prerequisite that requires the one before it, twice."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({SEED})

    n: float

    def requires(self) -> dict[str, Prerequisite]:
        return {"before": Link(self.n - 1), "again": Link(self.n - 1)} if self.n > 0 else {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        return {}


def chain(*links: float, seeds: tuple[int, ...] = (0,)) -> Jobs:
    """The jobs of a method that requires these links by their numbers."""
    method = type("Method", (RandomReal,), {"requires": lambda _: {f"link {n}": Link(n) for n in links}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.planning.sweep.method_class", lambda _: method)
        return planned(sweep(methods=["random_real"], seeds=list(seeds)))

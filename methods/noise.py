"""Noise: images without content. A baseline whose accuracy must be at chance."""

from dataclasses import dataclass
from typing import ClassVar

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, Prerequisite, Problem
from methods.blocks.parameterise.pixels import Pixels


@dataclass(frozen=True)
class Noise:
    """`ipc` images per class, drawn from N(0, 1) in normalised space."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: Gaussian noise"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        """Draw `ipc` images of Gaussian noise for each class."""
        return Pixels.start(problem, problem.rng("noise"), init="noise")


METHOD = Noise

"""The contract of a method: a Problem goes in, a DistilledDataset comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess

# What a result may depend on besides the data set and the hyper-parameters. A method that ignores an axis
# leaves it out of `uses`, and one artifact then serves all its values.
IPC, ARCHITECTURE, SEED = "ipc", "architecture", "seed"


@dataclass(frozen=True)
class Problem:
    """What a method may know: one real training set, one budget, one source of randomness. No test split."""

    images: Tensor  # uint8 [N,C,H,W], on the job's device
    labels: Tensor  # int64 [N]
    n_classes: int
    ipc: int  # images per class; the budget is ipc x classes x C x H x W floats
    preprocess: Preprocess  # uint8 -> what a network sees
    make_net: Callable[[torch.Generator], Network]  # a fresh network of the distillation architecture
    seed: int
    prepared: Mapping[str, Mapping[str, Tensor]]  # role -> tensors of what the method required
    loop: Loop = field(default_factory=Loop)  # the loop of steps: progress, snapshots, resuming

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.images.shape
        return c, h, w

    @property
    def budget(self) -> int:
        """How many floats may be stored."""
        c, h, w = self.image_shape
        return self.ipc * self.n_classes * c * h * w

    def rng(self, *purpose: str | int) -> torch.Generator:
        """A CPU generator for one purpose of this seed."""
        return random.generator(self.seed, *purpose)


class Prerequisite(Protocol):
    """A prerequisite: a frozen dataclass, built once, found by key, charged to every method that reads it."""

    version: ClassVar[int]
    depends_on: ClassVar[frozenset[str]]

    def requires(self) -> "dict[str, Prerequisite]":
        """{role: prerequisite} of this one; their tensors are in the `prepared` of the problem it gets."""
        ...

    def build(self, problem: Problem) -> dict[str, Tensor]: ...


class Method(Protocol):
    """A frozen dataclass whose fields are the paper's hyper-parameters; its module names it as `METHOD`."""

    version: ClassVar[int]  # bumped when the numbers may move
    paper: ClassVar[str]
    depends_on: ClassVar[frozenset[str]]

    def requires(self) -> dict[str, Prerequisite]:
        """{role: prerequisite}."""
        ...

    def distill(self, problem: Problem) -> DistilledDataset: ...

"""Five students of one set: one by one, together, and as the rule has it. A group a size; read the ratio.

On a CPU the time is that of the processor, which other work moves little.
Batches of 256, as in the protocols of DC and DSA: a batch is all of the set up to 25 images per class.
"""

import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.meter import DEVICE

from bench.core import random
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess
from bench.core.timing import synchronize
from bench.core.training import Recipe
from bench.evaluation.students import TrainingSet, train_students

CLASSES, STUDENTS = 10, 5
DSA = "color_crop_cutout_flip_scale_rotate"
TIMER = time.process_time if DEVICE.type == "cpu" else time.perf_counter
WAYS = {"one_by_one": False, "together": True, "default": None}


@dataclass(frozen=True)
class Size:
    """A network, the side of its images, an augmentation, and how many steps are taken."""

    architecture: str
    side: int
    augment: str
    steps: int

    def __str__(self) -> str:
        return f"{self.architecture} {self.side}px {'dsa' if self.augment == DSA else 'plain'}"

    def training_set(self, ipc: int) -> TrainingSet:
        n, channels = ipc * CLASSES, 1 if self.side == 8 else 3
        images = torch.randn(n, channels, self.side, self.side, generator=random.generator(0)).to(DEVICE)
        recipe = Recipe(batch_size=256, lr=0.01, steps=self.steps, augment=self.augment)
        preprocess = Preprocess((0.5,) * channels, (0.25,) * channels)
        return TrainingSet(images, torch.arange(n, device=DEVICE) % CLASSES, recipe, preprocess)

    def build(self, i: int) -> Network:
        shape = (1 if self.side == 8 else 3, self.side, self.side)
        return parse_architecture(self.architecture).build(shape, CLASSES, random.generator(i))


SIZES = (
    Size("mlp", 8, "none", 50),
    Size("mlp", 8, DSA, 30),
    Size("convnet-d2-w32", 8, DSA, 10),
    Size("convnet-d2-w64", 8, "none", 10),
    Size("convnet-d2-w64", 8, DSA, 10),
    Size("convnet-w32", 32, DSA, 2),
)


@pytest.mark.benchmark(timer=TIMER)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ipc", [1, 10, 50])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_students(benchmark: Any, size: Size, ipc: int, way: str) -> None:
    training_set = size.training_set(ipc)
    benchmark.group = f"{size}, ipc {ipc}, {size.steps} steps"

    def taught() -> Any:
        orders = [random.generator(i, "order") for i in range(STUDENTS)]
        (found,) = train_students(size.build, training_set, orders, together=WAYS[way]).values()
        synchronize(DEVICE)
        return found

    found = benchmark.pedantic(taught, rounds=3, warmup_rounds=1)
    assert found.logits(training_set.images[:2]).isfinite().all()

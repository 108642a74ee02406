"""What a self-test works on: sizes of a paper for a GPU, and sizes that a CPU tries in seconds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop
from bench.core.method import Method, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.precision import DEFAULT, computing
from bench.core.registry import own_method_names
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset, Split
from bench.data.spec import DatasetSpec, preset_name
from bench.execution.jobs import job_precision
from bench.planning.graph import Cell, Job, plan_distillation
from bench.planning.sweep import MethodEntry
from bench.tools.profile.prepare import PrerequisiteMaker

CLASSES = 10


@dataclass
class Clock:
    """The time of a self-test: what is left of it, and parts of that."""

    seconds: float
    begin: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the end, at least 0."""
        return max(0.0, self.begin + self.seconds - time.monotonic())

    def part(self, fraction: float) -> "Clock":
        """A fraction of what is left."""
        return Clock(fraction * self.left)


@dataclass(frozen=True)
class Setting:
    """Device and sizes."""

    device: torch.device
    digits: Dataset  # for what is compared with a CPU
    cifar: Dataset  # of CIFAR-10's shape, for what is timed; its pixels are drawn
    small: str  # the network on digits
    architecture: str  # the network on `cifar`
    deep: str  # another one, with batch norm
    ipcs: tuple[int, ...]  # of the students' training
    ipc: int  # of the timed distillations
    seeds: int
    students: int
    batch: int  # images of a timed step
    pieces: tuple[int, ...]  # images that are scored at a time
    compiler: str  # backend of torch.compile
    methods: tuple[str, ...]  # whose steps are tried
    compared: tuple[str, ...]  # whose accuracies are
    clock: Clock

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU that is tested."""
        return self.device.type == "cuda"


def gpu_setting(minutes: float) -> Setting:
    """The papers' sizes on CIFAR-10, on the first GPU."""
    return Setting(
        device=torch.device("cuda:0"),
        digits=load_digits(),
        cifar=drawn_cifar(5000, 1000, 32),
        small="convnet-d2-w32",
        architecture="convnet",
        deep="resnet18",
        ipcs=(1, 10, 50),
        ipc=10,
        seeds=3,
        students=5,
        batch=256,
        pieces=(500, 1000, 2000, 4000, 10_000),
        compiler="inductor",
        methods=tuple(own_method_names()),
        compared=("random_real", "dm", "dc", "bptt", "mtt"),
        clock=Clock(60 * minutes),
    )


def cpu_setting(minutes: float) -> Setting:
    """All that is done on a GPU, at sizes for a CPU."""
    return Setting(
        device=torch.device("cpu"),
        digits=load_digits(),
        cifar=drawn_cifar(20, 4, 8),
        small="convnet-d1-w8",
        architecture="convnet-d1-w8",
        deep="resnet10-w8",
        ipcs=(1, 2),
        ipc=2,
        seeds=2,
        students=2,
        batch=16,
        pieces=(10, 20),
        compiler="eager",
        methods=tuple(own_method_names()),
        compared=("random_real", "dm"),
        clock=Clock(60 * minutes),
    )


def load_digits() -> Dataset:
    """scikit-learn's digits, which need no download."""
    return read_dataset(prepare_dataset(DatasetSpec(name="digits")))


def drawn_cifar(train: int, test: int, side: int) -> Dataset:
    """Images of CIFAR-10's shape, so many a class: a pattern for each class under noise."""
    generator = random.generator(0, "selftest", "images")
    patterns = torch.randint(256, (CLASSES, 3, side, side), generator=generator, dtype=torch.uint8)

    def split(per_class: int) -> Split:
        labels = torch.arange(CLASSES).repeat(per_class)
        shape = (len(labels), 3, side, side)
        noise = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return Split(patterns[labels] // 2 + noise // 2, labels)

    drawn = split(train)
    pixels = drawn.images.float().div(255).transpose(0, 1).flatten(1)
    mean, std = pixels.mean(1).tolist(), pixels.std(1).tolist()
    classes = tuple(f"class {c}" for c in range(CLASSES))
    name = f"drawn, {side} pixels"
    return Dataset("cifar10", "cifar10", drawn, split(test), classes, name, tuple(mean), tuple(std))


@dataclass(frozen=True)
class Distillation:
    """A method with what it needs to run on a device."""

    method: Method
    job: Job
    problem: Problem

    def run(self, loop: Loop) -> DistilledDataset:
        """Distill inside this loop, at the precision of the job."""
        with computing(job_precision(self.job)):
            return self.method.distill(replace(self.problem, loop=loop))


def prepared_distillation(
    name: str,
    values: Mapping[str, Any],
    data: Dataset,
    ipc: int,
    architecture: str,
    device: torch.device,
    seconds: float,
    seed: int = 0,
) -> Distillation:
    """A method at its presets for this data, and its prerequisites, built in about so many seconds.

    What would take longer has similar tensors in its place, see `PrerequisiteMaker`.
    """
    entry = MethodEntry.model_validate({"name": name, **values})
    presets = preset_name(data.name, data.label)
    method = entry.resolve(presets, ipc)
    precision = entry.precision(presets, ipc, method, DEFAULT)
    network = parse_architecture(architecture)
    cell = Cell(data, ipc, network, seed, entry.preprocess(presets, ipc), precision=precision)
    jobs: dict[str, Job] = {}
    job = plan_distillation(jobs, name, method, cell)
    maker = PrerequisiteMaker(data, device, torch.get_num_threads())
    made = maker.prepare(jobs, seconds)
    return Distillation(method, job, maker.problem(job, jobs, made.tensors))


@contextmanager
def forbidding_syncs(device: torch.device) -> Iterator[None]:
    """On a GPU, what waits for the device inside raises RuntimeError; on a CPU nothing does."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)

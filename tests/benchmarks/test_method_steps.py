"""One step of every method, taken by the method itself: at a CPU's size, and at that of its paper.

What leads up to a step is not timed (`meter.Probe`). Where the paper's step would take a CPU minutes, the
entry takes less of what it repeats, and says so; a GPU takes the whole step.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.hypergradient import Case, adjoint, unroll
from helpers.meter import DEVICE, OperationCost, Probe, StepClock, Summary, count_operations
from torch import Tensor

from bench.core import random
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess
from bench.core.registry import method_class
from bench.data.dataset import Dataset
from bench.planning.presets import preset
from methods.blocks.hypergradient import SGD, FlatNetwork
from methods.blocks.inner_batches import shuffled_batches

ON_CPU = DEVICE.type == "cpu"
IPC, CLASSES = 10, 10
CLOCK = StepClock(DEVICE)


def inside_steps() -> float:
    """The time that pytest-benchmark reads."""
    return CLOCK.seconds


@pytest.fixture(scope="module")
def summary(request: pytest.FixtureRequest) -> Summary:
    table = Summary()
    request.config.pluginmanager.register(table)
    return table


# --- the sizes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """A data set, the preset that goes with it, and the network."""

    name: str
    dataset: str
    architecture: str
    images: Tensor
    labels: Tensor
    preprocess: Preprocess

    def problem(self, method: Any = None, **changes: Any) -> Problem:
        """With made-up experts for those that the method requires: to match a drift takes as long."""
        images, parsed = self.images.to(DEVICE), parse_architecture(self.architecture)
        shape = images.shape[1:]

        def make_net(generator: torch.Generator) -> Network:
            return parsed.build(shape, CLASSES, generator).to(DEVICE)

        start = FlatNetwork(make_net(random.generator(0))).weights().cpu()
        drift = 0.01 * torch.randn(1, len(start), generator=random.generator(1))
        required = method.requires() if method else {}
        prepared = {role: {"weights": start + block.epoch * drift} for role, block in required.items()}
        arguments = {"ipc": IPC, "seed": 0, "prepared": prepared, **changes}
        return Problem(
            images=images,
            labels=self.labels.to(DEVICE),
            n_classes=CLASSES,
            preprocess=self.preprocess,
            make_net=make_net,
            **arguments,
        )


@pytest.fixture(scope="module", params=["cpu", "paper"])
def size(request: pytest.FixtureRequest, digits: Dataset) -> Size:
    """The digits with a small network; or random images of CIFAR-10's shape with the papers' network."""
    if request.param == "cpu":
        images, labels = digits.train.images, digits.train.labels
        return Size("cpu", "digits", "convnet-d2-w32", images, labels, Preprocess(digits.mean, digits.std))
    images = torch.randint(256, (5120, 3, 32, 32), generator=random.generator(0)).byte()
    norm = Preprocess((0.5,) * 3, (0.25,) * 3)
    return Size("paper", "cifar10", "convnet", images, torch.arange(5120) % CLASSES, norm)


# --- the steps ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A part of a method's loop."""

    method: str
    part: str  # of `meter.Probe`
    inner: str | None = None  # the field that counts its inner steps
    cut: Mapping[str, Any] = field(default_factory=dict)  # what a CPU takes at the paper's size
    options: Mapping[str, Any] = field(default_factory=dict)  # at every size
    label: str = ""  # in the place of the part

    def __str__(self) -> str:
        return f"{self.method}-{self.label or self.part}".replace(" ", "-")


ONE = {"experts": 1}
STEPS = (
    Step("idc", "decode"),
    Step("idc", "matching", cut={"batch_real": 8, "batch_synthetic": 5}),
    Step("idc", "network", cut={"net_images": 128}),
    Step("dc", "matching", cut={"batch_real": 8}),
    Step("dc", "network", cut={"net_epochs": 1}),
    Step("dsa", "matching", cut={"batch_real": 8}),
    Step("dsa", "network", cut={"net_epochs": 1}),
    Step("dm", "step", cut={"batch_real": 64}, label="matching"),
    Step("mtt", "step", "inner_steps", {"inner_steps": 1}, ONE),
    Step("tesla", "step", "inner_steps", {"inner_steps": 1}, ONE),
    Step("haba", "decode", options=ONE),
    Step("haba", "step", "inner_steps", {"inner_steps": 1}, ONE),
    Step("rtp", "decode"),
    Step("rtp", "step", "unroll", {"unroll": 1, "batch_per_class": 10, "batch_real": 4}),
    Step(
        "rtp",
        "step",
        "window_length",
        {"window_length": 1, "batch_per_class": 10, "batch_real": 4},
        {"window": "online", "window_length": 10, "networks": 1},
        "step online",
    ),
    Step("bptt", "step", "unroll", {"unroll": 1, "batch_real": 4}),
    Step("rat_bptt", "step", "window", {"window": 1, "batch_real": 4}),
)


def preset_of(method: str, size: Size) -> dict[str, Any]:
    """Without `preprocess`, which is of the data, and not of the method."""
    return {k: v for k, v in preset(method, size.dataset, IPC).items() if k != "preprocess"}


def configured(step: Step, size: Size) -> tuple[Any, str]:
    """The method with its preset, and in words what it takes less of."""
    make = method_class(step.method)
    wanted = make(**preset_of(step.method, size) | dict(step.options))
    cut = dict(step.cut) if size.name == "paper" and ON_CPU else {}
    if step.method == "rat_bptt":  # the plain steps before the window are as many as chance has it: none here
        cut["unroll"] = cut.get("window", wanted.window)
    words = ", ".join(f"{name} {value} of {getattr(wanted, name)}" for name, value in cut.items())
    return dataclasses.replace(wanted, **cut), words


@pytest.mark.benchmark(timer=inside_steps)
@pytest.mark.parametrize("step", STEPS, ids=str)
def test_one_step(benchmark: Any, summary: Summary, size: Size, step: Step) -> None:
    method, cut = configured(step, size)
    probe = Probe(step.part, CLOCK)
    problem = size.problem(method, loop=probe)
    rounds = 1 if size.name == "paper" and ON_CPU else 3
    synthetic = benchmark.pedantic(lambda: method.distill(problem), rounds=rounds)
    inner = getattr(method, step.inner) if step.inner else None
    labels = {"method": step.method, "step": step.label or step.part, "size": size.name}
    summary.note(benchmark, probe.cost, inner_steps=inner, cut=cut, **labels)
    assert all(torch.isfinite(p).all() for p in synthetic.parameters())


def repeated(benchmark: Any, function: Callable[[], Any], rounds: int = 1) -> tuple[OperationCost, Any]:
    """Time what is no step of a loop: its cost, counted in a first run that warms up, and its result."""
    cost = OperationCost()
    with count_operations(cost, DEVICE):
        function()

    def whole() -> Any:
        with CLOCK.running():
            return function()

    return cost, benchmark.pedantic(whole, rounds=rounds)


@pytest.mark.benchmark(timer=inside_steps)
def test_one_epoch_of_one_expert(benchmark: Any, summary: Summary, size: Size) -> None:
    """The prerequisite of trajectory matching, with the recipe of MTT; of 50,000 images a part at most."""
    block = method_class("mtt")(**preset_of("mtt", size) | ONE).requires()["experts/0/1"]
    n = 512 if ON_CPU else 5120
    cut = f"images {n} of 50000" if size.name == "paper" else ""
    size = dataclasses.replace(size, images=size.images[:n], labels=size.labels[:n]) if cut else size
    problem = size.problem()
    before = FlatNetwork(problem.make_net(random.generator(0))).weights()[None]
    problem = dataclasses.replace(problem, prepared={"before": {"weights": before}})
    cost, built = repeated(benchmark, lambda: block.build(problem))
    summary.note(benchmark, cost, method="experts", step="epoch", size=size.name, cut=cut)
    assert built["weights"].isfinite().all()
    assert not built["weights"].equal(before)


# --- the memory of an unroll ----------------------------------------------------------------------


def inner_problem(size: Size, steps: int) -> Case:
    """`steps` steps of gradient descent on 100 images, judged by 100 others."""
    problem = size.problem()
    net = FlatNetwork(problem.make_net(random.generator(0)))
    images, labels = problem.preprocess(problem.images[:200]), problem.labels[:200]
    return Case(
        net=net,
        rule=SGD(),
        images=images[:100].clone().requires_grad_(),
        targets=labels[:100],
        lr=torch.tensor(0.01, device=DEVICE),
        momentum=None,
        batches=shuffled_batches(100, 100, steps, random.generator(0), "none", device=DEVICE),
        start=SGD().start(net.weights()),
        outer=lambda w: F.cross_entropy(net(w, images[100:]), labels[100:]),
    )


@pytest.mark.benchmark(timer=inside_steps)
@pytest.mark.parametrize("steps", [10, 20, 40])
@pytest.mark.parametrize("way", [adjoint, unroll], ids=["adjoint", "graph"])
@pytest.mark.parametrize("size", ["cpu"], indirect=True)
def test_unroll(benchmark: Any, summary: Summary, size: Size, way: Any, steps: int) -> None:
    """The exact gradient through N steps: a step more costs a weight vector, and not its activations."""
    short, long = inner_problem(size, 5), inner_problem(size, steps)
    cost, _ = repeated(benchmark, lambda: way(long))
    name = "adjoint" if way is adjoint else "whole graph"
    summary.note(
        benchmark, cost, method="unroll", step=f"{name}, {steps} steps", size="cpu", inner_steps=steps
    )
    fewer = OperationCost()
    with count_operations(fewer, DEVICE):
        way(short)
    weights = 4 * short.net.size
    a_step = (cost.peak_bytes - fewer.peak_bytes) / (steps - 5)
    if way is adjoint:
        assert 0.9 * weights < a_step < 1.1 * weights
    else:
        assert a_step > 50 * weights

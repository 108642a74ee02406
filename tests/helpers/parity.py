"""Numbers that the authors' codes gave, and how ours are compared with them.

`PYTHONPATH=.:tests python -m helpers.parity` runs tests/parity and prints the table of methods/README.md.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench.core import random
from bench.core.augment import dsa
from bench.core.augment.dsa import Draw, Pick, parse_strategy
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.planning.sweep import build_method
from helpers.method import Exact, losses
from methods.blocks import matching_batches
from methods.blocks.inner_batches import InnerBatch

FOLDER = Path(__file__).parents[1] / "parity"
DATA = FOLDER / "data"
EXACT = 1e-12  # the difference that is allowed where both sides compute in float64
Compare = Callable[..., None]

# --- the files --------------------------------------------------------------------------------------------


def load(name: str) -> dict[str, Any]:
    """The arrays of a file as tensors, numbers without dimension as Python's own."""
    with np.load(DATA / f"{name}.npz") as held:
        return {key: held[key].item() if held[key].ndim == 0 else torch.from_numpy(held[key]) for key in held}


def relative(ours: Any, theirs: Any) -> float:
    """The largest difference over the largest number of theirs; infinite for another shape, or nan."""
    a, b = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
    if a.shape != b.shape or not a.isfinite().all():
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


def comparison(note: Callable[[str, Any], None]) -> Compare:
    """`compare(method, what, ours, theirs, allowed)`: notes the relative difference, and holds it."""

    def compare(method: str, what: str, ours: Any, theirs: Any, allowed: float = EXACT) -> None:
        found = relative(ours, theirs)
        note("parity", (method, what, torch.as_tensor(theirs).numel(), found, allowed))
        assert found <= allowed, f"{method}: {what} is off by {found:.1e}, and {allowed:.0e} are allowed"

    return compare


# --- inputs that are formulas of a seed -------------------------------------------------------------------


def golden(shape: Any, k: int) -> Tensor:
    """Multiples of the golden ratio, modulo 1, minus a half."""
    t = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (torch.frac((t + 1) * 0.6180339887498949 * (k + 1) + 0.137 * k) - 0.5).reshape(shape)


def normal(shape: Any, seed: int, scale: float = 1.0) -> Tensor:
    return torch.tensor(np.random.RandomState(seed).standard_normal(shape) * scale)


def golden_net(width: int, shape: tuple[int, int, int], n_classes: int) -> Network:
    """A ConvNet-3 in float64 whose parameters are `golden`, at the scale of their layer."""
    net = parse_architecture(f"convnet-d3-w{width}").build(shape, n_classes, random.generator(0)).double()
    with torch.no_grad():
        for i, (name, p) in enumerate(net.named_parameters()):
            v = golden(p.shape, i)
            if p.dim() > 1:
                v = v * 2 * (3.0 / float(np.prod(p.shape[1:]))) ** 0.5
            else:
                v = 1 + v * 0.4 if name.endswith("weight") else v * 0.2
            p.copy_(v)
    return net


def normal_net(
    architecture: str, shape: tuple[int, ...], n_classes: int, seed: int, drift: float = 0.0
) -> Network:
    """A ConvNet in float64 with normal weights; `drift` adds noise of this length, relative to theirs."""
    c, h, w = shape
    net = parse_architecture(architecture).build((c, h, w), n_classes, random.generator(0)).double()
    numbers, parts = np.random.RandomState(seed), []
    for i, p in enumerate(net.parameters()):  # of a block: kernel, bias, and the norm's weight and bias
        drawn, fan = numbers.standard_normal(p.numel()), np.prod(p.shape[1:])
        parts.append(drawn / np.sqrt(fan) if p.dim() > 1 else (i % 4 == 2) + 0.1 * drawn)
    weights = np.concatenate(parts)
    noise = np.random.RandomState(seed + 1).standard_normal(len(weights)) / np.sqrt(len(weights))
    vector_to_parameters(torch.tensor(weights + drift * noise * np.linalg.norm(weights)), net.parameters())
    return net


# --- problems and draws -----------------------------------------------------------------------------------


def problem_of(
    images: Tensor, labels: Tensor, ipc: int, mean: Any, std: Any, net: Callable[[], Network] | None = None
) -> Problem:
    """A problem in float64; `net` makes the networks, one after the other."""

    def make_net(_: torch.Generator) -> Network:
        assert net is not None
        return net()

    seen = Exact(tuple(map(float, mean)), tuple(map(float, std)))
    labels = labels.long()
    return Problem(images, labels, int(labels.max()) + 1, ipc, seen, make_net, 0, {})


def matching_problem(held: dict[str, Any]) -> Problem:
    """The problem of a recorded matching step, under a small ConvNet-3 with the same weights each time."""
    k, shape = int(held["labels"].max()) + 1, tuple(held["images"].shape[1:])
    ipc = len(held["stored"]) // k
    return problem_of(
        held["images"], held["labels"], ipc, held["mean"], held["std"], lambda: golden_net(8, shape, k)
    )


def drawn(strategy: str, choice: Any, uniforms: Tensor) -> Draw:
    """A recorded augmentation: each stage's operation, broadcast to [stages,G], and numbers [stages,G,3]."""
    stages, groups = parse_strategy(strategy), uniforms.shape[1]
    if not stages:
        return Draw(groups, ())
    ops = torch.as_tensor(choice).long().broadcast_to(len(stages), groups)
    return Draw(groups, tuple(map(Pick, stages, ops, uniforms)))


class Recorded:
    """Stands where a sampler or a generator of batches does, and gives what was recorded."""

    def __init__(self, values: Any) -> None:
        self._values = iter(values)

    def next(self, *_: Any, **__: Any) -> Any:
        return next(self._values)

    def state_dict(self) -> dict[str, Any]:
        return {}


CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def expert_problem(held: dict[str, Any], nets: list[Network] | None = None) -> tuple[Problem, Tensor]:
    """The problem of a recorded run with one expert of one epoch, and its first images, normalised.

    Its networks all start from the same weights, and are put into `nets`.
    """
    name, shape, k = f"convnet-d{held['depth']}-w{held['width']}", tuple(held["u8"].shape[1:]), held["K"]

    def make() -> Network:
        net = normal_net(name, shape, k, 13)
        if nets is not None:
            nets.append(net)
        return net

    labels = torch.arange(k).repeat_interleave(len(held["u8"]) // k)
    problem = problem_of(held["u8"], labels, held["ipc"], *CIFAR10, make)
    ends = [normal_net(name, shape, k, 11, drift) for drift in (0.0, 0.05)]
    expert = {f"experts/0/{epoch}": {"weights": weights_of(net)[None]} for epoch, net in enumerate(ends)}
    problem = dataclasses.replace(problem, prepared=expert)
    return problem, problem.preprocess(problem.images)[held["perm"]]


def recorded_batches(held: dict[str, Any]) -> Iterator[InnerBatch]:
    """The batches of the inner steps: one operation for all images of a batch, each with its own numbers."""
    for i, op in enumerate(held["ops"].tolist()):
        strategy = held["aug"] if op >= 0 else "none"
        yield InnerBatch(held[f"items{i}"], drawn(strategy, op, held[f"draw{i}"][None]))


@dataclasses.dataclass
class Step:
    """A step of an optimiser: the gradient and the new value of each tensor, by its name."""

    gradient: dict[str, Tensor]
    after: dict[str, Tensor]
    loss: float | None = None


@contextmanager
def steps_of(*modules: nn.Module, later: Sequence[nn.Module] = ()) -> Iterator[list[Step]]:
    """Every optimiser's step on parameters of these modules, or of those that `later` holds by then."""
    found: list[Step] = []

    def note(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        names = {id(p): name for module in (*modules, *later) for name, p in module.named_parameters()}
        moved = [p for group in optimiser.param_groups for p in group["params"] if id(p) in names]
        if moved:
            gradients = {names[id(p)]: p.grad.clone() for p in moved if p.grad is not None}
            found.append(Step(gradients, {names[id(p)]: p.detach().clone() for p in moved}))

    hook = register_optimizer_step_post_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def first_step(name: str, values: dict[str, Any], held: dict[str, Any], start: Any, draw: Draw) -> Step:
    """A method's first step on a recorded real batch and augmentation, from `start`; with its loss."""
    problem = matching_problem(held)
    batch = held["index"].long().view(problem.n_classes, -1)
    method = build_method(name, {**values, "batch_real": batch.shape[1]})
    with pytest.MonkeyPatch.context() as patch, steps_of(start) as steps:
        patch.setattr(type(start), "start", lambda *_, **__: start)
        patch.setattr(matching_batches, "ClassSampler", lambda *_: Recorded([batch]))
        patch.setattr(dsa, "draw", lambda *_: draw)
        _, (loss,) = losses(method, problem)
    return dataclasses.replace(steps[0], loss=loss)


def weights_of(net: nn.Module) -> Tensor:
    return parameters_to_vector(net.parameters()).detach()


# --- the table --------------------------------------------------------------------------------------------

OPERATIONS = "an operation is drawn for each image (theirs: for each batch)"
STEP_SIZE = "the logarithm of the step size is learned (theirs: the step size)"
GUARD = "the cosine divides by max(norms, 1e-6) (theirs: norms + 1e-6)"
ROWS = {  # the authors' code and its commit, and what differs on purpose
    "idc": (
        "snu-mllab/Efficient-Dataset-Condensation ceac95a",
        "one optimiser step for all classes (theirs: one after each class; both move a class by 2 lr); "
        "initial tiles are shrunk by area (theirs: nearest)",
    ),
    "dc": ("VICO-UoE/DatasetCondensation 53f63a6", GUARD),
    "dsa": ("VICO-UoE/DatasetCondensation 53f63a6", f"{GUARD}; in the networks' training {OPERATIONS}"),
    "dm": ("VICO-UoE/DatasetCondensation 53f63a6", "nothing"),
    "mtt": ("GeorgeCazenavette/mtt-distillation 50dccea", f"{STEP_SIZE}; {OPERATIONS}"),
    "tesla": (
        "justincui03/tesla 488842e",
        f"our gradient of the images is twice theirs; {STEP_SIZE}; {OPERATIONS}",
    ),
    "haba": ("Huage001/DatasetFactorization 60c9128", f"{STEP_SIZE}; {OPERATIONS}"),
    "rtp": (
        "princetonvisualai/RememberThePast-DatasetDistillation f49e631",
        "the clip divides by norm + 1e-12 (theirs: norm + 1e-6)",
    ),
}
HEAD = ("method", "authors' code", "compared", "arrays", "numbers", "largest difference", "on purpose")


class Table:
    """A plugin of pytest: what the comparisons noted, and the table of it at the end of the run."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, int, float, float]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.noted += [value for name, value in report.user_properties if name == "parity"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> Iterator[str]:
        """A Markdown table, a row a method."""
        for cells in (HEAD, (":--", ":--", ":--", "--:", "--:", ":--", ":--"), *map(self._cells, ROWS)):
            yield f"| {' | '.join(cells)} |"

    def _cells(self, method: str) -> tuple[str, ...]:
        mine = [row[1:] for row in self.noted if row[0] == method]
        found: dict[tuple[str, float], float] = {}  # the worst of each thing, and how it is held
        for what, _, difference, allowed in mine:
            found[what, allowed] = max(difference, found.get((what, allowed), 0.0))
        worst = max(difference for (_, allowed), difference in found.items() if allowed <= EXACT)
        loose = [
            f"{what} {difference:.0e}" for (what, allowed), difference in found.items() if allowed > EXACT
        ]
        code, purpose = ROWS[method]
        return (
            f"`{method}`",
            code,
            ", ".join(what for what, _ in found),
            f"{len(mine)}",
            f"{sum(numbers for _, numbers, *_ in mine):,}",
            "; ".join([f"{worst:.0e}", *loose]),
            purpose,
        )


if __name__ == "__main__":
    sys.exit(pytest.main([str(FOLDER), "-q"], plugins=[Table()]))

"""What tests of whole methods share: small settings, small problems, and how to interrupt one."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop, Steps
from bench.core.method import Method, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.registry import method_class
from bench.planning.sweep import build_method
from helpers import parameterise as parameterise_tools
from methods.blocks.experts import Experts

SMALL = {  # whichever of these a method has
    **{
        "steps": 3,
        "iterations": 2,
        "inner_steps": 2,
        "network_steps": 10,
        "network_epochs": 2,
        "members": 2,
        "epoch": 2,
        "batch_real": 16,
    },
    **{"net_images": 64, "net_epochs": 1, "experts": 2, "start_epochs": 2, "expert_epochs": 1},
    **{"unroll": 3, "window": 2, "batch_per_class": 4, "bases": 4, "hallucinators": 2},
    **{"teacher": "convnet-d1-w4-batch", "teacher_epochs": 1},
    **{"last_start_epochs": 2, "label_experts": 2},
}


def small(name: str, **values: Any) -> Method:
    """The method at its smallest; a `window` that is a name, and not a number, keeps its default."""
    takes = {f.name: type(f.default) for f in dataclasses.fields(method_class(name))}
    return build_method(
        name, {key: value for key, value in SMALL.items() if takes.get(key) is type(value)} | values
    )


class Exact(Preprocess):
    """In float64."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images.double() / 255 if images.dtype == torch.uint8 else images)


def problem_for(
    method: Method | None = None,
    *,
    architecture: str = "convnet-d1-w4",
    exact: bool = False,
    prepared: dict[str, dict[str, Tensor]] | None = None,
    **shape: Any,
) -> Problem:
    """`parameterise_tools.make(**shape)` with networks, and what the method requires, built."""
    bare = parameterise_tools.make(**shape)
    parsed = parse_architecture(architecture)

    def make_net(generator: torch.Generator) -> Any:
        net = parsed.build(bare.image_shape, bare.n_classes, generator)
        return net.double() if exact else net

    preprocess = Exact(bare.preprocess.mean, bare.preprocess.std) if exact else bare.preprocess
    problem = dataclasses.replace(bare, make_net=make_net, preprocess=preprocess)

    def build(user: Any) -> dict[str, dict[str, Tensor]]:
        return {
            role: block.build(dataclasses.replace(problem, prepared=build(block)))
            for role, block in user.requires().items()
        }

    return problem if method is None else dataclasses.replace(problem, prepared=build(method))


@dataclasses.dataclass(frozen=True)
class Nameless(Problem):
    """A problem whose draws do not hold the method's name, so that two methods see the same ones."""

    def rng(self, *purpose: str | int) -> torch.Generator:
        return super().rng("method", *purpose[1:])


def nameless(problem: Problem) -> Nameless:
    return Nameless(**{f.name: getattr(problem, f.name) for f in dataclasses.fields(Problem)})


def state(distilled: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in distilled.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def segments_read(patch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A list to which every (expert, epoch) is added whose weights are read from now on."""
    read: list[tuple[int, int]] = []
    weights = Experts.weights

    def spy(self: Experts, expert: int, epoch: int) -> Tensor:
        read.append((expert, epoch))
        return weights(self, expert, epoch)

    patch.setattr(Experts, "weights", spy)
    return read


class Killed(BaseException):
    """What ends a process, for these tests."""


@contextmanager
def dying(step: int) -> Iterator[None]:
    """A distillation dies in this step (the first is 1), after all that it does and before it is kept."""
    note = Steps.loss

    def loss(run: Steps, value: Tensor) -> None:
        note(run, value)
        if run._losses[-1][0] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "loss", loss)
        with pytest.raises(Killed):
            yield


def keep(problem: Problem, folder: Path) -> Problem:
    return dataclasses.replace(problem, loop=Loop(folder, every_s=0))


def losses(method: Method, problem: Problem) -> tuple[DistilledDataset, list[float]]:
    """What the method gives, and the losses that it noted on the way."""
    noted: list[float] = []
    note = Steps.loss

    def loss(run: Steps, value: Tensor) -> None:
        noted.append(float(value.detach()))
        note(run, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "loss", loss)
        return method.distill(problem), noted

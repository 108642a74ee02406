"""HaBa against the authors' code: whole outer steps of both players, its hallucinators and its losses."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import Exact, losses
from helpers.parity import (
    CIFAR10,
    Compare,
    expert_problem,
    load,
    normal,
    problem_of,
    recorded_batches,
    steps_of,
)
from torch import Tensor

import methods.haba
from bench.core import random
from bench.core.augment.dsa import Draw, Pick
from bench.core.networks.base import Network
from bench.planning.sweep import build_method
from methods.blocks.inner_batches import InnerBatch
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.hallucinators import Hallucinators

MAPS = ("scale", "shift", "encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")


def shapes(channels: int, latent: int) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a hallucinator of bases with so many channels."""
    square, kernel = (3, latent, latent), (3, 3, 3, 3)
    return dict(zip(MAPS, (square, square, (3, channels, 3, 3), (3,), kernel, (3,)), strict=True))


def another_operation(drawn: Draw) -> Draw:
    """As if the second half of the images had an operation of its own: the method must not use it."""
    (pick,) = drawn.stages
    assert isinstance(pick, Pick)
    half = drawn.groups // 2
    choice = torch.cat([pick.choice[:half], (pick.choice[half:] + 1) % len(pick.ops)])
    return Draw(drawn.groups, (Pick(pick.ops, choice, pick.uniforms),))


def projected(tensors: Any) -> Tensor:
    """Of each parameter: three random projections and the norm, [P,4]."""
    rows = [
        [(t.flatten() * normal(t.numel(), 900 + 7 * i + q)).sum() for q in range(3)] + [t.norm()]
        for i, t in enumerate(tensors)
    ]
    return torch.tensor(rows)


def test_outer_steps(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two outer steps: the trajectory, the likeness against the extractor F, and the training of F."""
    held = load("haba_n3")
    nets: list[Network] = []
    problem, bases = expert_problem(held, nets)
    n, h, outer = held["N"] + 2, held["H"], len(held["dlr"])  # the last two batches of an outer step are F's
    maps = {
        name: torch.stack([normal(shape, 100 + 10 * j + i, 0.2) + (i == 0) for j in range(h)])
        for i, (name, shape) in enumerate(shapes(3, 30).items())
    }
    start = Hallucinators(bases, **maps, n_classes=held["K"], padding=0, preprocess=problem.preprocess)

    every = list(recorded_batches(held))
    of_f = [i % n >= n - 2 for i in range(len(every))]
    batches = iter([InnerBatch(b.items, Draw(1, ())) if f else b for b, f in zip(every, of_f, strict=True)])
    pairs = iter([another_operation(b.draw) for b, f in zip(every, of_f, strict=True) if f])
    single = iter([held[f"style{i}"] for i, f in enumerate(of_f) if not f])
    double = iter([held[f"style{i}"] for i, f in enumerate(of_f) if f])
    given = {"randint": lambda *_, **__: next(single), "randperm": lambda *_, **__: next(double)}
    monkeypatch.setattr(methods.haba, "torch", SimpleNamespace(**vars(torch) | given))
    monkeypatch.setattr(methods.haba, "shuffled_batches", lambda *_, **__: [next(batches) for _ in range(n)])
    monkeypatch.setattr(methods.haba.dsa, "draw", lambda *_: next(pairs))
    monkeypatch.setattr(Hallucinators, "start", lambda *_, **__: start)
    rates: list[Tensor] = []
    likenesses: list[Tensor] = []
    contrasts: list[Tensor] = []
    for owner, name, into in (
        (methods.haba, "likeness", likenesses),
        (methods.haba, "supervised_contrastive", contrasts),
    ):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), into))
    step = LearnedScalars.step
    monkeypatch.setattr(LearnedScalars, "step", lambda self, g: (rates.append(g), step(self, g)))
    values = {
        "steps": outer,
        "hallucinators": h,
        "inner_steps": held["N"],
        "expert_epochs": 1,
        "start_epochs": 1,
        "batch_synthetic": held["batch"],
        "lr": held["lr_img"],
        "inner_lr": held["alpha"],
        "lr_lr": held["lr_lr"],
        "augment": held["aug"],
        "experts": 1,
    }
    method = build_method("haba", values)
    with steps_of(start) as steps, steps_of(later=nets) as net_steps:
        _, found = losses(method, problem)
    compare("haba", "trajectory loss", found, held["loss_Param_Loss"])
    against, for_f = torch.stack(likenesses)[0::2], torch.stack(likenesses)[1::2]
    compare("haba", "likeness loss", 0.1 * against, held["loss_Club_Content_Loss"])
    compare("haba", "likeness loss of F", 0.1 * (1 - for_f), held["loss_Likeli_Content_Loss"])
    compare("haba", "contrastive loss of F", 0.1 * torch.stack(contrasts), held["loss_Contrast_Content_Loss"])
    compare("haba", "gradient of the step size", torch.stack(rates), held["dlr"])
    like = start.bases.shape
    gradients = torch.stack([s.gradient["bases"] for s in steps])
    compare("haba", "gradient of the bases", gradients, held["grad"].reshape(outer, *like))
    compare("haba", "bases after all steps", steps[-1].after["bases"], held["after"].reshape(like))
    for name in MAPS:
        theirs = torch.stack([held[f"hg{o}_{name}"] for o in range(outer)])
        compare(
            "haba", "gradients of the hallucinators", torch.stack([s.gradient[name] for s in steps]), theirs
        )
        compare("haba", "hallucinators after all steps", steps[-1].after[name], held[f"ha_{name}"])
    gradients = torch.stack([projected(s.gradient.values()) for s in net_steps])
    compare("haba", "gradient of F", gradients, held["fgrad"])
    compare(
        "haba",
        "F after all steps",
        torch.stack([projected(s.after.values()) for s in net_steps]),
        held["fafter"],
    )


def noted(function: Any, into: list[Tensor]) -> Any:
    """The function, whose results are put into a list."""

    def call(*arguments: Any) -> Tensor:
        found = function(*arguments)
        into.append(found.detach())
        return found

    return call


def test_the_contrastive_loss(compare: Compare) -> None:
    features = F.normalize(normal((6, 2, 16), 81), dim=2)
    labels = torch.tensor([0, 0, 1, 2, 1, 3])
    ours = methods.haba.supervised_contrastive(torch.cat(features.unbind(1)), labels.repeat(2))
    compare("haba", "supervised contrastive loss", ours, load("misc_haba")["supcon"])


@pytest.mark.parametrize("channels", [3, 1])
def test_a_hallucinator(channels: int, compare: Compare) -> None:
    """Of bases in colour, and of grey ones."""
    maps = {name: normal((1, *s), 90 + i) for i, (name, s) in enumerate(shapes(channels, 6).items())}
    bases, pixels = normal((5, channels, 8, 8), 95), Exact(*CIFAR10)
    images, _ = Hallucinators(bases, **maps, n_classes=5, padding=0, preprocess=pixels).decode()
    compare("haba", "hallucinated images", images, load("misc_haba")[f"style_c{channels}"])


def test_the_first_hallucinators(compare: Compare) -> None:
    """The standard deviations of weights and biases: two samples of one distribution.

    The smallest, of biases, has 900 numbers here: 2 % of noise.
    """
    problem = problem_of(torch.zeros(10, 3, 32, 32).byte(), torch.arange(10), 1, *CIFAR10)
    ours = Hallucinators.start(
        problem, random.generator(0), hallucinators=300, bases_per_class=1, init="noise"
    )
    found = [getattr(ours, part).std() for part in MAPS[2:]]
    compare(
        "haba", "spread of the first hallucinators", torch.stack(found), load("misc_haba")["style_init"], 0.05
    )

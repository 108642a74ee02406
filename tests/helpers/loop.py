"""Loops that are killed, for the tests of loops."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from bench.core import random as rng
from bench.core.loop import Loop
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from methods.blocks.parameterise.pixels import Pixels


class Killed(BaseException):
    """What ends a process, for these tests."""


def pixels(value: float = 0.0) -> Pixels:
    return Pixels(torch.full((2, 1, 2, 2), value), [1, 1], Preprocess((0.5,), (0.25,)))


def walk(
    kept: Loop, total: int, *, kill: int | None = None, losses: dict[int, float] | None = None
) -> tuple[Pixels, list[int]]:
    """Adam on noise: what each step does depends on all before it. Killed in the middle of step `kill`."""
    synthetic, noise, seen = pixels(), rng.generator(0, "noise"), []
    optimiser = torch.optim.Adam([synthetic.images], lr=0.1)
    run = kept.steps(total, synthetic, "lr", optimiser=optimiser, noise=noise)
    for step in run:
        seen.append(step)
        optimiser.zero_grad()
        (synthetic.images - torch.randn(2, 1, 2, 2, generator=noise)).square().sum().backward()
        if step == kill:
            raise Killed
        optimiser.step()
        run.loss(torch.tensor((losses or {}).get(step, float(step)), dtype=torch.float64))
    return synthetic, seen


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def dying_network(problem: Problem, step: int) -> Problem:
    """A problem whose network of this step, counted in this process, is the process's last."""
    made = 0

    def make_net(generator: torch.Generator) -> Any:
        nonlocal made
        made += 1
        if made > step:
            raise Killed
        return problem.make_net(generator)

    return dataclasses.replace(problem, make_net=make_net)


def keep(problem: Problem, folder: Path) -> Problem:
    return dataclasses.replace(problem, loop=Loop(folder, every_s=0))

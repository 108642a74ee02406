"""MTT and TESLA against the authors' codes: whole outer steps, through every inner step."""

import pytest
import torch
from helpers.method import losses
from helpers.parity import Compare, expert_problem, load, recorded_batches, steps_of
from torch import Tensor

from bench.planning.sweep import build_method
from methods.blocks import trajectory
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.pixels import Pixels


@pytest.mark.parametrize(
    ("method", "name", "factor"),
    # the authors' code of TESLA loses the factor 2 of the squared distance in the gradient of the images
    [("mtt", "mtt_n3_plain", 1), ("mtt", "mtt_n5", 1), ("tesla", "tesla_n5", 2)],
)
def test_outer_steps(
    method: str, name: str, factor: int, compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three outer steps; ours is `factor` times their gradient of the images."""
    held = load(name)
    problem, first = expert_problem(held)
    start = Pixels(first, [held["ipc"]] * held["K"], problem.preprocess)
    batches, n = recorded_batches(held), held["N"]
    monkeypatch.setattr(Pixels, "start", lambda *_, **__: start)
    monkeypatch.setattr(trajectory, "shuffled_batches", lambda *_, **__: [next(batches) for _ in range(n)])
    gradients: list[Tensor] = []
    rates: list[Tensor] = []
    step = LearnedScalars.step

    def learn(self: LearnedScalars, gradient: Tensor) -> None:
        gradients.append(gradient)
        step(self, gradient)
        rates.append(self.value.detach())

    monkeypatch.setattr(LearnedScalars, "step", learn)
    values = {
        "steps": len(held["loss"]),
        "inner_steps": n,
        "expert_epochs": 1,
        "start_epochs": 1,
        "batch_synthetic": held["batch"],
        "lr": held["lr_img"] / factor,
        "momentum": 0.5,
        "inner_lr": held["alpha"],
        "lr_lr": held["lr_lr"],
        "augment": held["aug"],
        "experts": 1,
    }
    with steps_of(start) as steps:
        _, noted = losses(build_method(method, values), problem)
    compare(method, "trajectory loss", noted, held["loss"])
    images = torch.stack([step.gradient["images"] for step in steps])
    compare(method, "gradient of the images", images, held["grad"] * factor)
    compare(method, "images after all steps", steps[-1].after["images"], held["after"])
    compare(method, "gradient of the step size", torch.stack(gradients), held["dlr"])
    # they move alpha by d; ours, whose logarithm is learned, becomes alpha_0 exp(d / alpha_0); so small a d
    # (1e-12 of 0.02) has five digits in float64
    moved = held["alpha"] * (torch.stack(rates) / held["alpha"]).log()
    compare(method, "logarithm of the step size", moved, held["lr_after"] - held["alpha"], 1e-5)

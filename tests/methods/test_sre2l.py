"""SRe2L: batch-norm statistics against a slow formula, its views, and batches that do not see each other."""

import math
from typing import Any

import pytest
import torch
from helpers.method import losses, problem_for, small
from helpers.parameterise import noise
from torch import Tensor, nn

from bench.core import random
from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from methods import sre2l as module
from methods.blocks.crops import cut_crops, draw_crops
from methods.blocks.objectives import batch_norm_statistics
from methods.sre2l import rolled


def sre2l(**values: Any) -> Any:
    return small("sre2l", **values)


def problem_of(method: Any, **shape: Any) -> Problem:
    return problem_for(method, **{"side": 8, "n_classes": 3, "ipc": 2, "members": 12} | shape)


@pytest.fixture(params=["convnet-d2-w4-batch", "resnet10-w4-batch"])
def net(request: pytest.FixtureRequest) -> Any:
    """A network in float64 whose batch norms keep statistics of their own."""
    net = parse_architecture(request.param).build((3, 8, 8), 3, random.generator(0)).double()
    net(noise(16, 3, 8, 8, seed=1))  # in training mode: the statistics move
    return net.eval().requires_grad_(False)


def slow(net: nn.Module, images: Tensor, first: float) -> float:
    """Layer after layer and channel after channel, of one batch."""
    given: list[tuple[Any, Tensor]] = []
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(lambda m, x, _: given.append((m, x[0]))) for layer in layers]
    net(images)
    for hook in hooks:
        hook.remove()
    total = 0.0
    for i, (layer, x) in enumerate(given):
        gaps_mean, gaps_var = [], []
        for c in range(x.shape[1]):
            values = [float(v) for v in x[:, c].flatten()]
            mean = sum(values) / len(values)
            gaps_mean.append(mean - float(layer.running_mean[c]))
            gaps_var.append(sum((v - mean) ** 2 for v in values) / len(values) - float(layer.running_var[c]))
        total += (first if i == 0 else 1) * (math.hypot(*gaps_mean) + math.hypot(*gaps_var))
    return total


@pytest.mark.parametrize("first", [10.0, 1.0, 0.0])
def test_the_distance_is_that_of_a_slow_formula_for_each_batch(net: nn.Module, first: float) -> None:
    images = noise(6, 3, 8, 8)
    logits, distance = batch_norm_statistics(net, images, 2, first)
    wanted = [slow(net, batch, first) for batch in images.split(3)]
    torch.testing.assert_close(distance, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(logits, net(images), rtol=0, atol=1e-12)
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_the_gradient_of_the_distance() -> None:
    net = parse_architecture("convnet-d1-w2-batch").build((1, 4, 4), 2, random.generator(0)).double()
    net.eval().requires_grad_(False)
    images = noise(4, 1, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: batch_norm_statistics(net, x, 2)[1], images)


def test_a_batch_with_the_statistics_that_are_kept_has_no_distance() -> None:
    net = parse_architecture("convnet-d1-w4-batch").build((3, 8, 8), 3, random.generator(0)).double()
    images = noise(5, 3, 8, 8)
    layer = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    layer.momentum = 1.0
    net(images)
    n = 5 * 8 * 8
    layer.running_var *= (n - 1) / n  # torch keeps the unbiased one
    assert float(batch_norm_statistics(net.eval(), images, 1)[1].detach()) < 1e-12


@pytest.mark.parametrize("init", ["noise", "real"])
def test_a_step_is_one_of_adam_on_the_papers_loss_for_each_batch_alone(init: str) -> None:
    """In float64: the batches of ipc 2, each on its own, through the slow formula's loss and autograd."""
    method = sre2l(steps=1, init=init, roll=0, lr=0.1, r_bn=0.5)
    problem = problem_of(method)
    net = method.named_teacher.trained(problem)
    start = module.Pixels.start(problem, problem.rng("sre2l", "init"), init=init).images.detach()
    found, noted = losses(method, problem)
    wanted, values = start.clone(), []
    for m in range(2):
        batch = start[m::2].clone().requires_grad_()  # image m of each class
        logits, distance = batch_norm_statistics(net, batch, 1)
        loss = nn.functional.cross_entropy(logits, torch.arange(3)) + 0.5 * distance.sum()
        loss.backward()
        values.append(float(loss.detach()))
        optimiser = torch.optim.Adam([batch], lr=0.1, betas=(0.5, 0.9))
        optimiser.step()
        wanted[m::2] = batch.detach()
    pixels = problem.preprocess.invert(wanted).clamp(0, 1)
    assert noted == [pytest.approx(sum(values) / 2, rel=1e-5)]
    close = (found.images - problem.preprocess(pixels)).abs() < 1e-4
    assert close.float().mean() > 0.99  # where a gradient is nearly 0, the sign of Adam's step is not sure


def test_how_many_batches_go_together_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    method = sre2l(steps=3, roll=0)
    problem = problem_of(method, ipc=4)
    together, alone = [], []
    for most, kept in ((500, together), (3, alone)):
        monkeypatch.setattr(module, "TOGETHER", most)
        kept += losses(method, problem)[1]
    assert together == pytest.approx(alone, rel=1e-4)


def test_images_stay_within_the_range_of_pixels() -> None:
    method = sre2l(steps=3, lr=5.0)
    problem = problem_of(method)
    pixels = problem.preprocess.invert(method.distill(problem).images.detach())
    assert -1e-6 < float(pixels.min()) < 1e-6
    assert 1 - 1e-6 < float(pixels.max()) < 1 + 1e-6


@pytest.mark.parametrize("init", ["noise", "real"])
def test_the_loss_falls(init: str) -> None:
    method = sre2l(steps=40, init=init, lr=0.1, roll=0, teacher_epochs=5)
    noted = losses(method, problem_of(method))[1]
    assert sum(noted[-5:]) < 0.8 * sum(noted[:5])


@pytest.mark.parametrize("step", [0, 5, 9])
@pytest.mark.parametrize("crop", ["none", "random", "curriculum"])
def test_a_view_is_a_crop_then_a_flip_then_a_roll(crop: str, step: int) -> None:
    method = sre2l(steps=10, crop=crop, smallest=0.1, flip=True, roll=3)
    images = noise(6, 2, 8, 8)
    found = method._view(images, 3, step, random.generator(4))
    lower = {"none": 1.0, "random": 0.1, "curriculum": 0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2}
    draws = random.generator(4)
    spans = draw_crops(3, 8, lower[crop], draws, 1.0 if crop == "none" else 4 / 3)
    flips, shifts = torch.rand(3, generator=draws) < 0.5, torch.randint(-3, 4, (2, 3), generator=draws)
    for b, batch in enumerate(images.split(2)):
        view = cut_crops(batch, spans[b : b + 1].expand(2, -1, -1), 8)
        view = view.flip(-1) if flips[b] else view
        view = torch.roll(view, tuple(shifts[:, b].tolist()), (-2, -1))
        torch.testing.assert_close(found[2 * b : 2 * b + 2], view, rtol=0, atol=1e-12)


def test_rows_are_rolled_as_torch_does_it() -> None:
    matrices, shifts = noise(3, 5, 4), torch.tensor([-2, 0, 3])
    for found, one, shift in zip(rolled(matrices, shifts), matrices, shifts.tolist(), strict=True):
        assert torch.equal(found, torch.roll(one, shift, 0))


@pytest.mark.parametrize("teacher", ["convnet-d1-w4", "mlp"])
def test_a_teacher_without_batch_norm_is_refused(teacher: str) -> None:
    with pytest.raises(UserError, match=rf"^teacher: {teacher} has no batch norm: take one with"):
        sre2l(teacher=teacher).check(problem_for())

"""IDC against the authors' code: decoding, initial images, a matching step, and the networks' training."""

import pytest
import torch
from helpers.method import Exact
from helpers.parity import (
    Compare,
    Recorded,
    drawn,
    first_step,
    golden,
    golden_net,
    load,
    matching_problem,
    problem_of,
    weights_of,
)

from bench.core import training
from bench.core.augment import dsa
from bench.core.augment.cutmix import CutMix
from bench.core.preprocess import Preprocess
from bench.core.training import Recipe
from methods.blocks.parameterise import multi_formation
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.students import InnerStudent

DECODER = {"single": "uniform", "multi": "multi_scale", "bound": "bounded"}
METRIC = {"mse": "squared", "l1": "l1"}


@pytest.mark.parametrize(
    "name",
    [
        "decode_single_h32_f2_n2",
        "decode_single_h28_f3_n1",
        "decode_multi_h9_f2_n2",
        "decode_bound_h6_f2_n10",
    ],
)
def test_decoding(name: str, compare: Compare) -> None:
    held = load(name)
    c = held["images"].shape[1]
    pixels = Preprocess((0.0,) * c, (1.0,) * c)
    stored = MultiFormation(held["images"], held["K"], held["factor"], DECODER[held["decoder"]], pixels)
    images, labels = stored.decode()
    (gradient,) = torch.autograd.grad((images * golden(images.shape, 3)).sum(), stored.images)
    compare("idc", "decoded images", images, held["out"])
    compare("idc", "decoded labels", labels, held["labels"], 0)
    compare("idc", "gradient of decoding", gradient, held["grad"])


def test_the_first_images(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of real images that are constant where a tile has one pixel: there nearest (theirs) is area (ours).

    Ours are made in float32.
    """
    held = load("init_h32_f2")
    real = held["real"].flatten(0, 1)
    labels = torch.arange(held["K"]).repeat_interleave(len(real) // held["K"])
    problem = problem_of(real, labels, held["n"], (0,) * 3, (1,) * 3)
    monkeypatch.setattr(multi_formation, "random_members", lambda *_: torch.arange(len(real)))
    stored = MultiFormation.start(problem, torch.Generator(), factor=held["factor"], init="mix")
    compare("idc", "initial images", stored.images, held["out"], 1e-7)


@pytest.mark.parametrize("name", ["idc_step_mse", "idc_step_l1"])
def test_a_matching_step(name: str, compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """From real bytes and stored pixels to the loss and its gradient, by the method itself.

    The classes' losses are independent, so that one backward pass gives what the authors' loop over classes
    does.
    """
    held = load(name)
    problem, uniforms = matching_problem(held), held["uniforms"].transpose(0, 1)
    start = MultiFormation(held["stored"], 3, held["factor"], "uniform", problem.preprocess)
    monkeypatch.setattr(MultiFormation, "clamp", lambda _: None)  # what was recorded is not clamped
    values = {
        "factor": held["factor"],
        "distance": METRIC[held["metric"]],
        "augment": held["strategy"],
        "batch_synthetic": held["most"],
        "iterations": 1,
        "inner_steps": 1,
    }
    found = first_step("idc", values, held, start, drawn(held["strategy"], 0, uniforms))
    compare("idc", "loss of a step", found.loss, held["loss"].sum())
    compare("idc", "gradient of the pixels", found.gradient["images"], held["grad"])


def test_a_gradient_moves_its_pixels_as_far_in_one_step_a_sweep_as_in_one_step_a_class() -> None:
    """The authors step after each class, and momentum carries its pixels on through the others' steps."""
    held = load("idc_step_mse")
    gradient, k, lr = held["grad"].unflatten(0, (3, -1)), 3, 0.01
    moved = {}
    for each_class in (False, True):
        pixels = torch.nn.Parameter(torch.zeros_like(gradient))
        optimiser = torch.optim.SGD([pixels], lr=lr, momentum=0.5)
        own = [torch.arange(k) == c for c in range(k)] if each_class else [torch.ones(k, dtype=torch.bool)]
        for mask in own:
            pixels.grad = gradient * mask.view(k, 1, 1, 1, 1)
            optimiser.step()
        pixels.grad = torch.zeros_like(gradient)
        for _ in range(60):
            optimiser.step()
        moved[each_class] = pixels.detach()
    for found in moved.values():
        torch.testing.assert_close(found, -2 * lr * gradient, rtol=1e-12, atol=0)


def test_training_a_network_between_matchings(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps with augmentation and CutMix of the recorded draws."""
    held, side = load("idc_net_update"), 16

    def mixed(partner: torch.Tensor, box: torch.Tensor) -> CutMix | None:
        if partner[0] < 0:
            return None
        x1, y1, x2, y2 = box.tolist()
        return CutMix(partner, slice(x1, x2), slice(y1, y2), 1 - (x2 - x1) * (y2 - y1) / side**2)

    recipe = Recipe(
        batch_size=3, lr=0.01, momentum=0.9, weight_decay=5e-4, steps=1, augment="color+crop", cutmix=0.5
    )
    steps = len(held["uniforms"])
    draws = Recorded(drawn("color+crop", 0, u) for u in held["uniforms"])
    boxes = Recorded(map(mixed, held["perm"], held["box"]))
    monkeypatch.setattr(dsa, "draw", draws.next)
    monkeypatch.setattr(training, "maybe_cutmix", boxes.next)
    student = InnerStudent(golden_net(8, (3, side, side), 3), recipe, torch.Generator())
    see = Exact(tuple(held["mean"].tolist()), tuple(held["std"].tolist()))
    images, labels = held["images"][: 3 * steps].split(3), held["labels"].long()[: 3 * steps].split(3)
    for x, y in zip(images, labels, strict=True):
        student.step(see(x), y)
    compare("idc", "a network's weights after training", weights_of(student.net), held["weights"])

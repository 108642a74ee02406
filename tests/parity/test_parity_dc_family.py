"""DC, DSA and DM against the authors' code: a matching step, and the network that it runs under."""

from typing import Any

import pytest
import torch
from helpers.parity import Compare, drawn, first_step, golden, golden_net, load, matching_problem

from bench.core.augment.dsa import Draw
from bench.planning.presets import preset
from methods.blocks.objectives import EPS, gradient_distance
from methods.blocks.parameterise.pixels import Pixels

ALL = "color_crop_cutout_flip_scale_rotate"


@pytest.mark.parametrize("name", ["convnet_3x32"])
def test_the_convnet(name: str, compare: Compare) -> None:
    held, net = load(name), golden_net(128, (3, 32, 32), 10)
    x = golden((4, 3, 32, 32), 9) * 4
    compare("idc", "logits of the ConvNet-3", net(x), held["logits_idc"])
    compare("dc", "logits of the ConvNet-3", net(x), held["logits_dc"])
    compare("dm", "features of the ConvNet-3", net.embed(x), held["embed_dc"])
    compare("dc", "parameters of the ConvNet-3", sum(p.numel() for p in net.parameters()), held["params"], 0)


@pytest.mark.parametrize(
    ("method", "name", "values"),
    [
        ("dc", "dc_step_exact", {"iterations": 1}),
        ("dsa", "dsa_step_exact_10", {"iterations": 1, "augment": ALL}),
        ("dm", "dm_step", {"steps": 1, "augment": "none"}),
    ],
)
def test_a_matching_step(method: str, name: str, values: dict[str, Any], compare: Compare) -> None:
    """From real bytes and stored pixels to the loss and its gradient, by the method itself.

    Recorded without the guard of the cosine, which no unit here is small enough for.
    """
    held = load(name)
    problem = matching_problem(held)
    start = Pixels(held["stored"], [problem.ipc] * problem.n_classes, problem.preprocess)
    draw = drawn(ALL, held["choice"], held["uniforms"][None]) if held["dsa"] else Draw(problem.n_classes, ())
    found = first_step(method, values, held, start, draw)
    compare(method, "loss of a step", found.loss, held["loss"].sum())
    compare(method, "gradient of the pixels", found.gradient["images"], held["grad"])


@pytest.mark.parametrize("n", [100.0, 1e-3, 1e-9])
def test_the_guard_of_the_cosine_is_a_maximum_here_and_a_sum_there(n: float) -> None:
    """Of units whose norms multiply to n: the authors' 1 - a.b / (n + 1e-6), ours 1 - a.b / max(n, 1e-6)."""
    a, b = golden((1, 1, 3), 1), golden((1, 1, 3), 2)
    a = a / a.norm() * n / b.norm()
    theirs = 1 - (a * b).sum() / (n + EPS)
    ours = gradient_distance(a, b, "cosine")
    torch.testing.assert_close((1 - ours) * max(n, EPS), (1 - theirs) * (n + EPS), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("method", "ipcs"), [("dc", (1, 10, 20, 30, 40, 50)), ("dsa", (1, 10, 50))])
def test_the_loops_of_the_presets(method: str, ipcs: tuple[int, ...], compare: Compare) -> None:
    """Matchings under a network, and epochs of its training after each, by images per class."""
    theirs = {ipc: loops for ipc, *loops in load("dc_loops")["loops"].tolist()}
    for ipc in ipcs:
        values = preset(method, "cifar10", ipc)
        compare(method, "loops of the presets", [values["inner_steps"], values["net_epochs"]], theirs[ipc], 0)

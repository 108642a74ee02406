"""Every method's numbers, pinned: they move only with a new version of the method.

After a version was raised on purpose, write the file again:
`PYTHONPATH=.:tests python tests/contract/test_golden_numbers.py`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.method import problem_for, small

from bench.core import random
from bench.core.registry import method_class, method_names
from bench.core.training import Recipe, train

FILE = Path(__file__).with_name("golden_numbers.json")
METHODS = sorted(method_names())
RECIPE = Recipe(batch_size=20, lr=0.03, steps=10)
SAME, OTHER = 1e-5, 1e-2  # tolerances: on the platform that wrote the file, and on another


def platform() -> dict[str, str]:
    """What moves the last digits of a result."""
    return {"torch": torch.__version__.split("+")[0], "cpu": torch.backends.cpu.get_cpu_capability()}


def numbers(name: str) -> dict[str, Any]:
    """A tiny distillation in a few numbers: its images, and what a student of them answers to a real one."""
    method = small(name)
    problem = problem_for(method)
    distilled = method.distill(problem)
    images, targets = (tensor.detach() for tensor in distilled.decode())
    net = problem.make_net(random.generator(0, "golden", "init"))
    train(net, images, targets, RECIPE, random.generator(0, "golden", "order"))
    with torch.no_grad():
        logits = net(problem.preprocess(problem.images[:1]))[0]
    some = images.flatten()[:: max(1, images.numel() // 8)][:8]
    return {
        "version": method_class(name).version,
        "images": [images.mean().item(), images.std().item(), *some.tolist()],
        "logits": logits.tolist(),
    }


def write() -> None:
    found = {name: numbers(name) for name in METHODS}
    FILE.write_text(json.dumps({"platform": platform(), "methods": found}, indent=1) + "\n")


@pytest.mark.parametrize("name", METHODS)
def test_numbers_move_only_with_the_version(name: str) -> None:
    pinned = json.loads(FILE.read_text())
    assert name in pinned["methods"], "a new method: write the file again"
    wanted, found = pinned["methods"][name], numbers(name)
    assert found["version"] == wanted["version"], "a new version: write the file again"
    tolerance = SAME if platform() == pinned["platform"] else OTHER
    for what in ("images", "logits"):
        assert found[what] == pytest.approx(wanted[what], rel=tolerance, abs=tolerance), (
            f"the {what} of {name} moved, and its version did not"
        )


def test_what_is_pinned_is_there() -> None:
    assert sorted(json.loads(FILE.read_text())["methods"]) == METHODS


if __name__ == "__main__":
    write()

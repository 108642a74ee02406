"""Every method's numbers, pinned: they move only with a new version of it, or of a block that it requires.

After a version was raised on purpose, pin its numbers anew:
`PYTHONPATH=.:tests python tests/contract/test_golden_numbers.py`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.method import problem_for, small

from bench.core import random
from bench.core.registry import method_class, method_names
from bench.core.training import Recipe, train

FILE = Path(__file__).with_name("golden_numbers.json")
PIN = "`PYTHONPATH=.:tests python tests/contract/test_golden_numbers.py`"
METHODS = sorted(method_names())
RECIPE = Recipe(batch_size=20, lr=0.03, steps=10)
SAME, OTHER = 1e-5, 1e-2  # tolerances: on the platform that pinned the numbers, and on another
TAME = {"haba": {"lr": 0.1}}  # at its default its images grow to 1e9 here, and no digit of them is sure
Numbers = dict[str, Any]


def platform() -> dict[str, str]:
    """What moves the last digits of a result."""
    return {"torch": torch.__version__.split("+")[0], "cpu": torch.backends.cpu.get_cpu_capability()}


def block_versions(user: Any) -> dict[str, int]:
    """{block: version} of what a method requires, and what that requires in turn."""
    found = {}
    for block in user.requires().values():
        found |= {type(block).__name__: block.version, **block_versions(block)}
    return found


def numbers(name: str) -> Numbers:
    """A tiny distillation in a few numbers: its images, and what a student of them answers to a real one."""
    method = small(name, **TAME.get(name, {}))
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
        "blocks": block_versions(method),
        "images": [images.mean().item(), images.std().item(), *some.tolist()],
        "logits": logits.tolist(),
    }


def same_versions(pinned: Numbers, found: Numbers) -> bool:
    return all(pinned[what] == found[what] for what in ("version", "blocks"))


def moved(pinned: Numbers, found: Numbers, tolerance: float) -> str:
    """What of the numbers moved; empty if nothing."""
    near = {
        what: found[what] == pytest.approx(pinned[what], rel=tolerance, abs=tolerance)
        for what in ("images", "logits")
    }
    return " and ".join(what for what, same in near.items() if not same)


def fault(name: str, pinned: Numbers | None, found: Numbers, tolerance: float) -> str | None:
    """What is wrong, in a line that says what to do; None if nothing."""
    if pinned is None:
        return f"{name} is new: run {PIN} to pin its numbers"
    if not same_versions(pinned, found):
        versions = [{name: one["version"], **one["blocks"]} for one in (found, pinned)]
        return f"{name}: the versions are {versions[0]}, and {versions[1]} are pinned: run {PIN} to pin anew"
    if what := moved(pinned, found, tolerance):
        return (
            f"{name} moved (its {what}): bump its version, or that of the block that was changed, and run "
            f"{PIN} to pin anew"
        )
    return None


def pin() -> None:
    """Write the numbers of new methods and new versions; refuse numbers that moved without a new version."""
    old = json.loads(FILE.read_text())
    here, found = platform() == old["platform"], {name: numbers(name) for name in METHODS}
    pinned: dict[str, Numbers] = old["methods"]
    kept = {
        name: pinned[name] for name in METHODS if name in pinned and same_versions(pinned[name], found[name])
    }
    faults = [fault(name, one, found[name], SAME if here else OTHER) for name, one in kept.items()]
    if lines := [line for line in faults if line]:
        sys.exit("\n".join(lines))
    methods = {**found, **kept} if here else found
    FILE.write_text(json.dumps({"platform": platform(), "methods": methods}, indent=1) + "\n")


@pytest.mark.parametrize("name", METHODS)
def test_numbers_move_only_with_the_version(name: str) -> None:
    pinned = json.loads(FILE.read_text())
    tolerance = SAME if platform() == pinned["platform"] else OTHER
    why = fault(name, pinned["methods"].get(name), numbers(name), tolerance)
    assert why is None, why


def test_what_is_pinned_is_there() -> None:
    assert sorted(json.loads(FILE.read_text())["methods"]) == METHODS


ONE: Numbers = {"version": 1, "blocks": {"ExpertEpoch": 1}, "images": [1.0, 2.0], "logits": [0.5]}
BUMP = "bump its version, or that of the block that was changed, and run"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"images": [1.0, 2.0 + 1e-6]}, None),
        ({"images": [1.0, 2.1]}, f"dm moved (its images): {BUMP}"),
        ({"images": [1.0, float("nan")]}, f"dm moved (its images): {BUMP}"),
        ({"images": [2.0], "logits": [1.0]}, f"dm moved (its images and logits): {BUMP}"),
        # a new version with the old numbers pinned, whether they moved or not
        ({"version": 2}, "dm: the versions are {'dm': 2, 'ExpertEpoch': 1}, and {'dm': 1, 'ExpertEpoch': 1}"),
        ({"version": 2, "logits": [1.0]}, "dm: the versions are {'dm': 2"),
        ({"blocks": {"ExpertEpoch": 2}}, "dm: the versions are {'dm': 1, 'ExpertEpoch': 2}"),
    ],
)
def test_what_is_told(changes: Numbers, told: str | None) -> None:
    why = fault("dm", ONE, ONE | changes, SAME)
    assert (why is None) if told is None else (why is not None and why.startswith(told) and PIN in why)


def test_a_new_method_is_told() -> None:
    assert fault("mine", None, ONE, SAME) == f"mine is new: run {PIN} to pin its numbers"


def test_numbers_that_moved_without_a_new_version_are_not_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "golden.json"
    file.write_text(json.dumps({"platform": platform(), "methods": {"dm": ONE, "dc": ONE, "gone": ONE}}))
    found = {"dm": ONE | {"version": 2, "logits": [1.0]}, "dc": ONE | {"logits": [1.0]}}
    for name, value in {"FILE": file, "METHODS": ["dc", "dm"], "numbers": found.__getitem__}.items():
        monkeypatch.setattr(sys.modules[__name__], name, value)
    with pytest.raises(SystemExit, match=r"dc moved \(its logits\): bump its version"):
        pin()
    found["dc"] = ONE | {"images": [1.0, 2.0 + 1e-6]}
    pin()
    assert json.loads(file.read_text())["methods"] == {"dc": ONE, "dm": found["dm"]}


if __name__ == "__main__":
    pin()

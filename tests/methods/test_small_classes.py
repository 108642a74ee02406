"""Classes of fewer images than the budget; and what a method refuses before and while it distills."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.method import problem_for, small
from torch import Tensor

from bench.core.errors import UserError
from bench.core.method import ARCHITECTURE, IPC, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.registry import own_method_names
from bench.testing.contract import own_classes

MEMBERS, LEAST, IPC_ASKED = 12, 2, 5
DYNAMICS = (
    "aum",
    "ccs",
    "el2n",
    "facility_location",
    "forgetting",
    "grad_match",
    "grad_norm",
    "label_only",
    "uncertainty",
)
DISTINCT = ("class_mean", "herding", "k_center", "k_means", "random_real", *DYNAMICS)


def tail(method: Any, architecture: str = "convnet-d1-w4", ipc: int = IPC_ASKED) -> Problem:
    """Three classes, of which the last has two images."""
    bare = problem_for(architecture=architecture, members=MEMBERS, ipc=ipc)
    last = (bare.labels == 2).nonzero().flatten()[LEAST:]
    kept = torch.ones(len(bare.labels), dtype=torch.bool)
    kept[last] = False
    few = dataclasses.replace(
        bare, images=bare.images[kept], labels=bare.labels[kept], classes=("a", "b", "c")
    )

    def build(user: Any) -> dict[str, dict[str, Tensor]]:
        return {
            role: block.build(dataclasses.replace(few, prepared=build(block)))
            for role, block in user.requires().items()
        }

    return dataclasses.replace(few, prepared=build(method))


@pytest.mark.parametrize("name", own_method_names())
def test_small_classes_do_where_images_need_not_differ(name: str) -> None:
    method = small(name, **({"repeat": True} if name in DISTINCT else {}))
    problem = tail(method)
    distilled = method.distill(problem)
    assert distilled.decode()[0].isfinite().all()
    counts = own_classes(distilled).bincount(minlength=3)
    if IPC in method.depends_on:
        assert counts.min() == counts.max() >= IPC_ASKED
    else:
        assert counts.tolist() == [MEMBERS, MEMBERS, LEAST]


@pytest.mark.parametrize("name", DISTINCT)
def test_a_class_repeats_its_images_only_where_it_is_asked_to(name: str) -> None:
    method = small(name)
    with pytest.raises(UserError, match="ipc: 5 is more than class 'c' has; use 1 to 2, or `repeat: true`"):
        method.distill(tail(method))
    repeating = small(name, repeat=True)
    images = repeating.distill(tail(repeating)).decode()[0].detach().unflatten(0, (3, IPC_ASKED)).flatten(2)
    assert [len(own.unique(dim=0)) for own in images] == [IPC_ASKED, IPC_ASKED, LEAST]
    assert torch.equal(images[2, :2], images[2, 2:4])


@pytest.mark.parametrize("name", DISTINCT)
def test_repeating_changes_nothing_where_every_class_is_large_enough(name: str) -> None:
    one, two = (small(name, repeat=repeat) for repeat in (False, True))
    images = [method.distill(tail(method, ipc=LEAST)).decode()[0] for method in (one, two)]
    assert torch.equal(*images)


def outcome(does: Callable[[], object]) -> str:
    """What is refused, or nothing."""
    try:
        does()
    except UserError as error:
        return str(error)
    return ""


ARCHITECTURES = ("convnet-d1-w4", "convnet-d1-w4-batch", "mlp-w4", "vit-d1-w64-p2")
OBJECTIVES = ("gradient_matching", "distribution_matching", "trajectory_matching", "unrolled")
SETTINGS = [
    *((name, {}) for name in own_method_names() if name not in ("compose", "haba")),
    ("haba", {"lr": 0.1}),
    *(("compose", {"objective": objective}) for objective in OBJECTIVES),
    ("compose", {"pool": "experts"}),
    ("idc", {"pool": 1, "pool_from": 1}),
    ("idc", {"decoder": "learnable"}),
    ("idc", {"factor": 7}),
    ("rtp", {"bases": 500}),
    ("rtp", {"init": "pca", "bases": 30, "downsample": 1}),
    ("rtp", {"memory": False, "labels": "image"}),
    ("rat_bptt", {"window": 4}),
    ("haba", {"kernel": 9}),
]
CASES = [
    (name, values, architecture)
    for name, values in SETTINGS
    for architecture in (ARCHITECTURES if ARCHITECTURE in small(name).depends_on else ARCHITECTURES[:1])
]


@pytest.mark.parametrize(("name", "values", "architecture"), CASES)
def test_a_check_refuses_what_the_distillation_refuses(
    name: str, values: dict[str, Any], architecture: str
) -> None:
    """Without looking at a number of a network, and nothing else."""
    method = small(name, **values)
    bare = tail(small("noise"), architecture)
    outline = parse_architecture(architecture).outline(bare.image_shape, bare.n_classes)
    outlined = dataclasses.replace(bare, make_net=lambda _: outline)
    early = outcome(lambda: method.check(outlined)) if hasattr(method, "check") else ""
    late = outcome(lambda: method.distill(tail(method, architecture)))
    assert bool(early) == bool(late), (early, late)
    if "experts" not in late + early and not method.requires():
        assert early == late

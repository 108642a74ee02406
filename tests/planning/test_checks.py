"""What only the data can tell: refused before anything runs, each fault once."""

import dataclasses
from typing import Any

import pytest
import torch
from helpers.plan import dataset, sweep

from bench.core.errors import UserError
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.registry import own_method_names
from bench.data.dataset import Dataset, Split
from bench.planning.checks import check_data, check_distillation
from bench.planning.sweep import build_method

BATCH_NORM = "convnet-d1-w4-batch"
GRADIENTS = ("dc", "dsa", "idc")
UNROLLED = ("bptt", "haba", "mtt", "rat_bptt", "rtp", "tesla")


def refused(chosen: Any, **datasets: Dataset) -> list[str]:
    """The faults; the first line of several says how many."""
    with pytest.raises(UserError) as caught:
        check_data(chosen, datasets or {"digits": dataset()})
    first, *rest = str(caught.value).splitlines()
    return [line.strip() for line in rest] or [first]


def tail(counts: tuple[int, ...] = (4, 4, 2), label: str = "digits") -> Dataset:
    """Classes of different sizes."""
    whole = dataset()
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    split = Split(whole.train.images[: len(labels)], labels)
    return dataclasses.replace(whole, train=split, classes=tuple("abcdefghij"[: len(counts)]), label=label)


def test_the_same_images_under_two_names_are_refused() -> None:
    small = dataset(n=39)
    (fault,) = refused(sweep(), digits=small, figures=small)
    assert "digits and figures hold the same images" in fault


def test_depths_are_checked_against_the_images() -> None:
    check_data(sweep(), {"digits": dataset()})
    for wrong, words in (
        (sweep(architectures=["convnet-d4"]), ["distill.architectures", "8-pixel", "1 to 3", "digits"]),
        (sweep(students_on=["mlp", "lenet"]), ["evaluate.architectures", "16 pixels", "digits"]),
    ):
        (fault,) = refused(wrong)
        assert all(word in fault for word in words)


def test_a_class_without_images_is_refused_by_name() -> None:
    (fault,) = refused(sweep(methods=["noise"]), digits=tail((4, 0, 2)))
    assert "class 'b' of digits has no training images" in fault


# --- classes smaller than the budget ------------------------------------------------------------------------

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


@pytest.mark.parametrize("method", own_method_names())
def test_only_methods_of_different_images_are_bound_by_the_smallest_class(method: str) -> None:
    if method in DISTINCT:
        (fault,) = refused(sweep(methods=[method], ipc=[2, 3]), digits=tail())
        assert fault.startswith(f"methods: {method} ")
        assert "on digits: ipc: 3 is more than class 'c' has; use 1 to 2, or `repeat: true`" in fault
        check_data(sweep(methods=[method], ipc=[2]), {"digits": tail()})
        check_data(sweep(methods=[{"name": method, "repeat": True}], ipc=[30]), {"digits": tail()})
    else:
        check_data(sweep(methods=[method], ipc=[30]), {"digits": tail()})


def test_a_fault_that_several_methods_share_is_told_once() -> None:
    (fault,) = refused(sweep(methods=["herding", "dm", "random_real"], ipc=[3]), digits=tail())
    assert fault.startswith("methods: herding, random_real with convnet-d2-w8 on digits: ipc: 3")


# --- networks that a method cannot take ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "architecture", "words"),
    [
        *((method, BATCH_NORM, "BatchNorm2d") for method in GRADIENTS),
        *((method, BATCH_NORM, "running statistics") for method in UNROLLED),
        ({"name": "compose", "objective": "gradient_matching"}, BATCH_NORM, "BatchNorm2d"),
        ({"name": "compose", "objective": "unrolled"}, BATCH_NORM, "running statistics"),
        ({"name": "compose", "objective": "trajectory_matching"}, BATCH_NORM, "running statistics"),
        ({"name": "compose", "pool": "experts"}, BATCH_NORM, "running statistics"),
        ("idc", "mlp-w4", "no kernels to match"),
        ("dc", "vit-d1-w64-p2", "ViT"),
        ("dsa", "resnet10-w4", "BatchNorm2d"),  # by default
    ],
)  # fmt: skip
def test_a_network_that_a_method_cannot_take_is_refused_once(
    method: Any, architecture: str, words: str
) -> None:
    chosen = sweep(methods=[method], ipc=[4, 10], architectures=[architecture], seeds=[0, 1, 2])
    name = method if isinstance(method, str) else method["name"]
    (fault,) = refused(chosen)
    assert fault.startswith(f"methods: {name} with {architecture} on digits: ")
    assert words in fault


@pytest.mark.parametrize(
    ("architecture", "words"),
    [("torchvision:resnet18", "BatchNorm2d"), ("torchvision:vgg11", "in-place operation")],
)
def test_networks_of_libraries_are_looked_at(architecture: str, words: str) -> None:
    large = dataset(side=32)
    (fault,) = refused(sweep(methods=["dsa", "dm"], architectures=[architecture]), digits=large)
    assert fault.startswith(f"methods: dsa with {architecture} on digits: gradient matching cannot take ")
    assert words in fault


@pytest.mark.parametrize(
    ("method", "architecture"),
    [
        *(("dm", name) for name in (BATCH_NORM, "mlp-w4", "vit-d1-w64-p2")),
        *((m, BATCH_NORM) for m in ("random_real", "herding", "full", "noise")),
        *((m, "mlp-w4") for m in ("dc", "mtt")),
        ({"name": "compose", "pool": "trained_on_real"}, BATCH_NORM),
        ("mtt", "vit-d1-w64-p2"),
    ],
)
def test_a_network_that_a_method_takes_is_planned(method: Any, architecture: str) -> None:
    check_data(sweep(methods=[method], architectures=[architecture]), {"digits": dataset()})


def test_all_methods_and_networks_of_a_fault_stand_in_its_line() -> None:
    two = [BATCH_NORM, "convnet-d2-w8-batch"]
    (fault,) = refused(sweep(methods=["dc", "dm", "dsa"], architectures=[*two, "convnet-d1-w4"]))
    assert fault.startswith(f"methods: dc, dsa with {', '.join(two)} on digits: ")


def test_a_network_that_does_not_fit_the_images_is_one_fault() -> None:
    (fault,) = refused(sweep(methods=["dc"], architectures=["convnet-d4-batch"]))
    assert fault.startswith("distill.architectures: ")
    faults = refused(sweep(methods=["random_real"], ipc=[3], architectures=["convnet-d4"]), digits=tail())
    assert [fault.partition(":")[0] for fault in faults] == ["methods", "distill.architectures"]


def test_no_network_is_built_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise AssertionError("a plan built a network")

    monkeypatch.setattr(Architecture, "build", build)
    wide = "convnet-w4096"  # 300 million weights
    check_data(sweep(methods=["dc", "mtt"], architectures=[wide]), {"digits": dataset()})


# --- sizes that do not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "rtp", "bases": 1000}, "1000 bases at downsample"),
        ({"name": "rtp", "downsample": 3}, "downsample 3"),
        ({"name": "rtp", "memory": False, "labels": "image"}, "image labels leave no room"),
        (
            {"name": "rtp", "bases": 4, "window": "end", "window_length": 9, "unroll": 8},
            "9 steps does not fit an unroll of 8",
        ),
        ({"name": "rat_bptt", "window": 9, "unroll": 8}, "9 steps does not fit an unroll of 8"),
        ({"name": "bptt", "labels": "class"}, "class labels leave no room"),
        ({"name": "mtt", "labels": "class"}, "class labels leave no room"),
        ({"name": "idc", "factor": 9}, "factor 9 cuts no 8 x 8 image"),
        ({"name": "idc", "decoder": "learnable"}, "no room"),
        ({"name": "haba", "fit_budget": True, "hallucinators": 100}, "100 hallucinators"),
        ({"name": "haba", "hallucinator_init": "identity"}, "no identity with kernel 3 and padding 0"),
        ({"name": "compose", "parameterisation": "linear_bases", "bases": 100}, "100 bases"),
        ({"name": "compose", "parameterisation": "hallucinators", "hallucinators": 100}, "100 hallucinators"),
        ({"name": "compose", "parameterisation": "multi_formation", "factor": 9}, "factor 9"),
    ],
)
def test_a_set_that_cannot_be_stored_is_refused_by_the_plan(method: dict[str, Any], words: str) -> None:
    (fault,) = refused(sweep(methods=[method], seeds=[0, 1]))
    assert fault.startswith(f"methods: {method['name']} with convnet-d2-w8 on digits: ")
    assert words in fault


def test_a_budget_is_too_small_where_no_ipc_of_the_sweep_is_large_enough() -> None:
    """A grid may have a corner that nothing fits; its jobs fail, and the others run."""
    memory = {"name": "rtp", "bases": 32, "downsample": 1}
    check_data(sweep(methods=[memory], ipc=[1, 10]), {"digits": dataset()})
    (fault,) = refused(sweep(methods=[memory], ipc=[2, 1]))
    assert "of 1,280 floats" in fault  # of the larger one


def test_more_principal_directions_than_images_are_refused() -> None:
    method = build_method("rtp", {"bases": 12, "init": "pca"})
    network = parse_architecture("convnet-d2-w8")
    with pytest.raises(UserError, match="no 12 principal directions of 10 images"):
        check_distillation(method, tail(), 30, network)
    check_distillation(build_method("rtp", {"bases": 10, "init": "pca"}), tail(), 30, network)


# --- batches of one image -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["recipe", "teacher"])
def test_batch_norm_on_batches_of_one_is_refused(part: str, write_protocol: Any) -> None:
    one, two = ({"batch_size": n, "lr": 0.1, "steps": 3} for n in (1, 2))
    teacher = {"labels": "teacher", "teacher": {"recipe": one}}
    write_protocol("mine", **({"recipe": one} if part == "recipe" else {"recipe": two, **teacher}))
    names = ["mlp-w4", BATCH_NORM, "resnet10-w4"]
    faults = refused(sweep(protocol="mine", students_on=names))
    assert [fault.partition(": batch norm")[0] for fault in faults] == [
        f"evaluate: protocol mine with {name} on digits" for name in names[1:]
    ]
    check_data(sweep(protocol="mine", students_on=["mlp-w4", "convnet-d1-w4"]), {"digits": dataset()})

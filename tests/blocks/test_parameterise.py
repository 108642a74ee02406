"""What every parameterisation keeps: its budget, its file, its targets, its dtype, its gradients."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.parameterise import decoded, make, noise, some_items, stir, stored_again
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from bench.core import random
from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.evaluation.storage import measure_storage
from methods.blocks.parameterise.base import Balanced, most_within
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.parameterise.tiles import Tiles

SMALL: dict[str, tuple[type[Balanced], dict[str, Any]]] = {
    "pixels": (Pixels, {}),
    "uniform": (MultiFormation, {}),
    "multi_scale": (MultiFormation, {"factor": 3, "decoder": "multi_scale"}),
    "bounded": (MultiFormation, {"factor": 3, "decoder": "bounded"}),
    "learnable": (MultiFormation, {"decoder": "learnable"}),
    "memory": (LinearBases, {"bases": 3}),
    "learned queries": (LinearBases, {"bases": 3, "queries": "learned", "query_dim": 2}),
    "centroid queries": (LinearBases, {"bases": 3, "queries": "centroid", "query_dim": 2, "init": "pca"}),
    "hallucinators": (Hallucinators, {"hallucinators": 2}),
    "tiles": (Tiles, {"factor": 2}),
    "enlarged tiles": (Tiles, {"factor": 3, "decoder": "enlarged"}),
    "grey": (Hallucinators, {"hallucinators": 2, "basis_channels": 1, "kernel": 1}),
}
LABELS = [(name, labels) for name in SMALL for labels in ("hard", "class", "image")]
LABELS += [(name, "joint") for name in SMALL if SMALL[name][0] is LinearBases]


def start(name: str, problem: Problem, labels: str = "hard", seed: int = 0) -> Any:
    cls, options = SMALL[name]
    return cls.start(problem, random.generator(seed), labels=labels, **options)


def problem_of(ipc: int = 4) -> Problem:
    return make(side=8, channels=3, n_classes=4, ipc=ipc)


@pytest.mark.parametrize(("name", "labels"), LABELS)
def test_everything_is_counted_and_within_the_budget(name: str, labels: str, tmp_path: Path) -> None:
    problem = problem_of()
    distilled = start(name, problem, labels)
    distilled.save(tmp_path / "x")
    in_file = sum(t.numel() for t in load_file(tmp_path / "x").values())
    assert in_file == distilled.n_stored <= problem.budget
    assert in_file >= sum(p.numel() for p in distilled.parameters())


@pytest.mark.parametrize(("name", "labels"), LABELS)
def test_saved_and_loaded_decodes_to_the_same_bits(name: str, labels: str, tmp_path: Path) -> None:
    before = start(name, problem_of(), labels)
    before.inner_lr = nn.Parameter(torch.tensor(0.03))
    after: Any = stored_again(before, tmp_path)
    assert type(after) is type(before)
    assert after.config() == before.config()
    assert (after.n_classes, after.per_class) == (before.n_classes, before.per_class)
    assert (after.n_stored, after.bytes_uint8) == (before.n_stored, before.bytes_uint8)
    assert torch.equal(after.inner_lr, before.inner_lr)
    assert {n for n, _ in after.named_parameters()} == {n for n, _ in before.named_parameters()}
    for one, two in zip(before.decode(), after.decode(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("name", "labels"), LABELS)
def test_classes_stand_one_after_the_other_and_targets_say_so(name: str, labels: str) -> None:
    distilled = start(name, problem_of(), labels)
    images, targets = distilled.decode()
    assert images.shape == (4 * distilled.per_class, 3, 8, 8)
    assert torch.isfinite(images).all()
    own = torch.arange(4).repeat_interleave(distilled.per_class)
    if labels == "hard":
        assert targets.dtype == torch.int64
        assert torch.equal(targets, own)
    else:
        confident = torch.full((len(own), 4), 0.1 / 3).scatter(1, own[:, None], 0.9)
        torch.testing.assert_close(targets, confident, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "labels"), LABELS)
def test_some_items_are_those_of_the_whole(name: str, labels: str) -> None:
    distilled = stir(start(name, problem_of(), labels))
    items = some_items(distilled)
    for whole, some in zip(distilled.decode(), distilled.decode(items), strict=True):
        torch.testing.assert_close(some, whole[items], rtol=0, atol=1e-12)
        assert some.dtype == (torch.int64 if labels == "hard" and some.dim() == 1 else torch.float64)


@pytest.mark.parametrize(("name", "labels"), LABELS)
def test_every_parameter_has_a_gradient(name: str, labels: str) -> None:
    distilled = stir(start(name, problem_of(), labels))
    images, targets = distilled.decode()
    weight = noise(*targets.shape, seed=1) if targets.is_floating_point() else torch.zeros_like(targets)
    ((images * noise(*images.shape)).sum() + (targets * weight).sum()).backward()
    for parameter_name, p in distilled.named_parameters():
        assert p.grad is not None, parameter_name
        assert (p.grad != 0).any(), parameter_name


@pytest.mark.parametrize("name", SMALL)
def test_the_start_depends_on_its_generator_alone(name: str) -> None:
    torch.manual_seed(987_654_321)
    state = torch.get_rng_state()
    one, again, other = (decoded(start(name, problem_of(), seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", SMALL)
def test_words_that_are_not_known(name: str) -> None:
    cls, options = SMALL[name]
    with pytest.raises(UserError, match="no kind of labels named 'soft'"):
        cls.start(problem_of(), random.generator(0), labels="soft", **options)
    with pytest.raises(UserError, match="no init named 'kmeans'"):
        cls.start(problem_of(), random.generator(0), **(options | {"init": "kmeans"}))


@pytest.mark.parametrize("name", ["pixels", "uniform", "learnable", "hallucinators", "grey", "tiles"])
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        start(name, make(side=4, n_classes=30, ipc=1, members=1), "image")
    assert "\n" not in str(caught.value)
    assert "ipc" in str(caught.value)


# --- labels and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "rows"), [("class", 4), ("image", 12)])
def test_labels_are_counted_and_taken_off_the_budget(labels: str, rows: int) -> None:
    distilled = start("pixels", problem_of(ipc=4), labels)
    assert distilled.per_class == 3  # one image per class makes room for the labels
    assert distilled.label_logits.shape == (rows, 4)
    assert distilled.n_stored == 12 * 3 * 8 * 8 + rows * 4


def test_one_learned_row_serves_a_class_or_an_image() -> None:
    for labels in ("class", "image"):
        distilled = stir(start("pixels", problem_of(), labels))
        targets = distilled.decode()[1].detach()
        torch.testing.assert_close(targets.sum(1), torch.ones(12, dtype=torch.float64))
        rows = distilled.label_logits.softmax(1)
        expected = rows.repeat_interleave(3, 0) if labels == "class" else rows
        torch.testing.assert_close(targets, expected.detach(), rtol=0, atol=0)


def test_single_numbers_count_but_do_not_break_the_budget() -> None:
    problem = problem_of(ipc=2)
    data: Any = types.SimpleNamespace(image_shape=(3, 8, 8), n_classes=4)
    distilled = start("pixels", problem)
    assert distilled.n_stored == problem.budget
    distilled.inner_lr = nn.Parameter(torch.tensor(0.01))
    distilled.inner_momentum = nn.Parameter(torch.tensor(0.9))
    took = measure_storage(distilled, data, 2)
    assert took.floats == problem.budget + 2
    assert took.within_budget
    distilled.register_buffer("one", torch.zeros(1))
    assert not measure_storage(distilled, data, 2).within_budget


def test_tensors_of_another_shape_are_refused() -> None:
    images, preprocess = torch.zeros(4, 1, 2, 2), Preprocess((0.0,), (1.0,))
    for rows in (torch.zeros(3, 2), torch.zeros(2)):
        with pytest.raises(ValueError, match="label_logits"):
            Pixels(images, [2, 2], preprocess, label_logits=rows)
    with pytest.raises(ValueError, match="0-dim"):
        Pixels(images, [2, 2], preprocess, inner_lr=torch.zeros(1))
    with pytest.raises(ValueError, match="equal size"):
        Pixels(torch.zeros(6, 1, 2, 2), [2, 1, 3], preprocess, label_logits=torch.zeros(6, 3))


@given(fixed=st.integers(0, 50), each=st.integers(1, 9), budget=st.integers(0, 200))
@settings(max_examples=100)
def test_the_most_that_fits(fixed: int, each: int, budget: int) -> None:
    n = most_within(budget, lambda n: fixed + each * n)
    assert n == max(0, (budget - fixed) // each)


# --- pixels ---------------------------------------------------------------------------------------


def test_pixels_start_from_different_real_images() -> None:
    problem = problem_of()
    distilled = Pixels.start(problem, problem.rng("dm", "init"))
    real = problem.preprocess(problem.images).flatten(1)
    same = (distilled.images.detach().flatten(1)[:, None] == real).all(2)
    assert torch.equal(same.sum(1), torch.ones(16, dtype=torch.int64))
    chosen = same.long().argmax(1)
    assert len(set(chosen.tolist())) == 16
    assert torch.equal(problem.labels[chosen], distilled.decode()[1])


def test_pixels_start_from_noise_or_from_unit_vectors() -> None:
    problem = dataclasses.replace(problem_of(), ipc=20)
    noisy = Pixels.start(problem, problem.rng("dm", "init"), init="noise").images.detach()
    assert abs(float(noisy.mean())) < 4 / noisy.numel() ** 0.5
    assert abs(float(noisy.var()) - 1) < 4 * (2 / noisy.numel()) ** 0.5
    unit = Pixels.start(problem, problem.rng("dm", "init"), init="unit").images.detach()
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(80))
    torch.testing.assert_close(unit * noisy.flatten(1).norm(dim=1).view(-1, 1, 1, 1), noisy)


def test_a_coreset_may_have_classes_of_any_size() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    coreset = Pixels(images, [1, 0, 5], Preprocess((0.0,), (1.0,)))
    assert coreset.decode()[1].tolist() == [0, 2, 2, 2, 2, 2]
    assert list(coreset.parameters()) == []

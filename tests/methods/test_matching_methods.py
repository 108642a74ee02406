"""IDC, DC and DSA: pairs of real and synthetic images, and the networks whose gradients are compared."""

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import losses, problem_for, small
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core import random
from bench.core.method import Problem
from bench.planning.presets import preset
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.network_pools import TrainedOnReal
from methods.blocks.objectives import gradient_matching
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels

DSA_OPS = "color_crop_cutout_flip_scale_rotate"
MATCHING = ("idc", "dc", "dsa")


def one_image(problem: Problem) -> Problem:
    """Every image of the training set is the same one."""
    return dataclasses.replace(problem, images=problem.images[:1].repeat(len(problem.images), 1, 1, 1))


# --- pairs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [DSA_OPS, "color+crop+cutout", "flip+color_rotate", "augmix"])
def test_equal_images_stay_equal_under_a_siamese_augmentation(strategy: str) -> None:
    """Real and synthetic images of a class share one draw; another class, or step, has another."""
    problem = one_image(problem_for(ipc=2))
    pixels = Pixels.start(problem, random.generator(0))
    pairs = MatchingBatches(problem, "any", 4, strategy)
    seen = []
    for _ in range(4):
        pair = pairs.next(pixels)
        together = torch.cat([pair.real.unflatten(0, (3, 4)), pair.synthetic.unflatten(0, (3, 2))], 1)
        assert torch.equal(together, together[:, :1].expand_as(together))
        seen += list(together[:, 0])
    assert len({tuple(x.flatten().tolist()) for x in seen}) > len(seen) / 2


@given(asked=st.integers(1, 9), members=st.integers(1, 5))
@settings(max_examples=15)
def test_a_real_batch_is_of_its_classes_and_never_larger_than_the_smallest(asked: int, members: int) -> None:
    problem = problem_for(members=members, ipc=1)
    problem = dataclasses.replace(problem, images=problem.images[1:], labels=problem.labels[1:])
    if members == 1:  # class 0 has lost its only image
        problem = problem_for(members=1, ipc=1)
    size = min(asked, int(problem.labels.bincount().min()))
    pair = MatchingBatches(problem, "any", asked, "none").next(Pixels.start(problem, random.generator(0)))
    assert torch.equal(pair.real_targets, torch.arange(3).repeat_interleave(size))
    everything = problem.preprocess(problem.images).flatten(1)
    distance = (pair.real.flatten(1)[:, None] - everything).abs().amax(2)
    assert torch.equal(problem.labels[distance.argmin(1)], pair.real_targets)
    assert float(distance.amin(1).max()) < 1e-5
    assert len(set(distance.argmin(1).tolist())) == len(pair.real), "without replacement"


def numbered(per_class: int) -> Pixels:
    """Image i is filled with i."""
    images = torch.arange(3.0 * per_class).view(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    return Pixels(images, [per_class] * 3, problem_for().preprocess)


@given(per_class=st.integers(1, 8), most=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_decoded_images_take_part_without_replacement_and_balanced(
    per_class: int, most: int, seed: int
) -> None:
    problem = dataclasses.replace(problem_for(side=4, channels=1), seed=seed)
    pairs, pixels = MatchingBatches(problem, "any", 2, "none", most), numbered(per_class)
    for _ in range(3):
        pair = pairs.next(pixels)
        items = pair.synthetic[:, 0, 0, 0].long().unflatten(0, (3, -1))
        assert items.shape[1] == min(per_class, most)
        assert torch.equal(items // per_class, torch.arange(3)[:, None].expand_as(items))
        assert all(len(set(row)) == len(row) for row in items.tolist())
        assert torch.equal(pair.targets, torch.arange(3).repeat_interleave(items.shape[1]))


def test_every_decoded_image_takes_part_as_often_as_any_other() -> None:
    problem = problem_for(side=4, channels=1)
    pairs, pixels, n = MatchingBatches(problem, "any", 2, "none", 2), numbered(5), 400
    counts = Counter(i for _ in range(n) for i in pairs.next(pixels).synthetic[:, 0, 0, 0].int().tolist())
    expected, sigma = n * 2 / 5, math.sqrt(n * 2 / 5 * 3 / 5)
    assert len(counts) == 15
    assert all(abs(count - expected) < 4 * sigma for count in counts.values())


def test_pairs_go_on_where_they_were_saved() -> None:
    problem, pixels = problem_for(ipc=4), Pixels.start(problem_for(ipc=4), random.generator(0))
    one, two = (MatchingBatches(problem, "any", 4, DSA_OPS, 2) for _ in range(2))
    one.next(pixels)
    two.load_state_dict(one.state_dict())
    for ours, theirs in zip(one.next(pixels), two.next(pixels), strict=True):
        assert torch.equal(ours, theirs)


# --- IDC: what is stored ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "ipc"), [(1, 3), (2, 2), (4, 1)])
def test_idc_begins_with_shrunk_real_images(factor: int, ipc: int) -> None:
    """A step too small to move a number leaves what it began with: real images of the right class."""
    problem = problem_for(ipc=ipc, members=20)
    method = small("idc", factor=factor, lr=1e-30, iterations=1)
    images, labels = (t.detach() for t in method.distill(problem).decode())
    assert torch.equal(labels, torch.arange(3).repeat_interleave(ipc * factor**2))
    shrunk = F.avg_pool2d(problem.images.float() / 255, factor)
    grown = F.interpolate(shrunk, size=8, mode="bilinear", align_corners=False)
    distance = (images.flatten(1)[:, None] - problem.preprocess(grown).flatten(1)).abs().amax(2)
    nearest = distance.argmin(1)
    assert float(distance.amin(1).max()) < 1e-5
    assert torch.equal(problem.labels[nearest], labels)
    assert len(set(nearest.tolist())) == len(labels), "each tile shows another image"


@pytest.mark.parametrize("name", MATCHING)
def test_a_class_does_not_see_the_images_of_another(name: str) -> None:
    """The first matching, under a network that has not learned yet."""
    one = problem_for(ipc=2, n_classes=4)
    changed = dataclasses.replace(one, images=one.images.clone())
    changed.images[changed.labels == 2] = 255 - changed.images[changed.labels == 2]
    method = small(name, iterations=1, inner_steps=1)
    first, second = (method.distill(p).decode()[0].detach().unflatten(0, (4, -1)) for p in (one, changed))
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, True, False, True]


def test_factor_one_is_plain_pixels() -> None:
    """The same loss; and the gradient of a raw pixel is that of the normalised one over std."""
    problem = problem_for(exact=True, ipc=2)
    raw = MultiFormation.start(problem, random.generator(0), factor=1).double()
    plain = Pixels(raw.decode()[0].detach(), [2] * 3, problem.preprocess)
    net = problem.make_net(random.generator(1))
    found = []
    for synthetic in (raw, plain):
        pair = MatchingBatches(problem, "any", 4, "color+crop+cutout").next(synthetic)
        loss = gradient_matching(net, *pair, 3)
        found.append((loss.detach(), torch.autograd.grad(loss, synthetic.images)[0]))
    std = torch.tensor(problem.preprocess.std, dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1] / std, rtol=1e-9, atol=1e-12)


# --- the loops ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["class", "image"])
def test_idc_learns_labels(labels: str) -> None:
    problem = problem_for(ipc=2)
    method = small("idc", labels=labels)
    before = small("idc", labels=labels, lr=1e-30).distill(problem).label_logits
    assert not torch.equal(method.distill(problem).label_logits, before)


@pytest.mark.parametrize(
    ("name", "values"),
    [("idc", {"lr": 0.05, "net_images": 32}), ("dc", {"lr": 0.1}), ("dsa", {"lr": 0.1, "augment": "flip"})],
)
def test_matching_lowers_the_loss(name: str, values: dict[str, Any]) -> None:
    """Of the same matching under networks and batches that the method has not seen."""
    problem = problem_for(ipc=2, members=20)
    loss = []
    for iterations, lr in ((1, 1e-30), (15, values["lr"])):
        method = small(name, **values | {"iterations": iterations, "inner_steps": 5, "lr": lr})
        distilled = method.distill(problem)
        pairs, nets = MatchingBatches(problem, "held out", 20, "none"), random.generator(9, "held out")
        distance = "squared" if name == "idc" else "cosine"
        matched = "kernels" if name == "idc" else "weights"
        found = [
            gradient_matching(
                problem.make_net(nets), *pairs.next(distilled), 3, distance=distance, matched=matched
            )
            for _ in range(5)
        ]
        loss.append(float(torch.stack(found).mean().detach()))
    assert loss[1] < 0.9 * loss[0]


@pytest.mark.parametrize("distance", ["squared", "l1", "cosine"])
def test_a_step_of_idc_is_gradient_descent_on_the_matching_loss(distance: str) -> None:
    """Built anew from the parts: the same pair under the same network."""
    problem = problem_for(ipc=2, members=20)
    method = small("idc", iterations=1, inner_steps=1, distance=distance, lr=0.02)
    stepped, noted = losses(method, problem)
    synthetic = MultiFormation.start(problem, problem.rng("idc", "init"), factor=2)
    pool = TrainedOnReal(problem, "idc", lr=0.01, batch_size=64, steps=1)
    pool.restart()
    pair = MatchingBatches(problem, "idc", 16, "color+crop+cutout").next(synthetic)
    loss = gradient_matching(pool.net, *pair, 3, distance=distance, matched="kernels")
    (gradient,) = torch.autograd.grad(loss, synthetic.images)
    assert noted == [float(loss.detach())]
    torch.testing.assert_close(stepped.images, synthetic.images - 0.02 * gradient, rtol=0, atol=1e-6)
    assert (stepped.images - synthetic.images).abs().max() > 1e-4


# --- presets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datasets", "distance", "rates"),
    [
        (("cifar10", "cifar100", "svhn"), "squared", (5e-4, 5e-3, 2.5e-2)),
        (("mnist",), "l1", (1e-5, 1e-4, 5e-4)),
        (("fashion_mnist",), "l1", (7.656e-6, 7.656e-5, 3.828e-4)),
    ],
)
def test_idc_steps_grow_with_ipc_as_the_authors_do(
    datasets: tuple[str, ...], distance: str, rates: tuple[float, ...]
) -> None:
    for dataset in datasets:
        for ipc, rate in zip((1, 10, 50), rates, strict=True):
            values = preset("idc", dataset, ipc)
            assert values["lr"] == rate
            assert values["lr"] == pytest.approx(rates[1] * ipc / 10, rel=1e-12)
            assert values["distance"] == distance
            assert values["net_images"] == (2000 if dataset.startswith("cifar") else 500)

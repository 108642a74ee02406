"""Weights of images in the loss of students, against the direct formula, one by one and together."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.parameterise import make, noise
from torch import Tensor

from bench.core import random
from bench.core.augment.cutmix import apply_cutmix
from bench.core.networks.architecture import parse_architecture
from bench.core.training import Recipe, draw_augmentation
from bench.evaluation.students import TrainingSet, train_students
from methods.blocks.parameterise.weighted_pixels import WeightedPixels

WEIGHTS = torch.tensor([0.5, 1.5, 1.9, 0.1, 1.0, 1.0], dtype=torch.float64)


def weighted(weights: Tensor = WEIGHTS) -> WeightedPixels:
    return WeightedPixels(noise(6, 3, 8, 8), weights, [2, 2, 2], make().preprocess)


def test_the_targets_are_the_classes_times_the_weights() -> None:
    distilled = weighted()
    _, targets = distilled.decode()
    assert targets.argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(targets.sum(1), WEIGHTS)
    items = torch.tensor([3, 0])
    assert torch.equal(distilled.decode(items)[1], targets[items])


def test_the_loss_is_the_mean_of_weight_times_cross_entropy() -> None:
    logits, (_, targets) = noise(6, 3), weighted().decode()
    each = F.cross_entropy(logits, targets.argmax(1), reduction="none")
    torch.testing.assert_close(F.cross_entropy(logits, targets), (WEIGHTS * each).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("together", [False, True])
def test_students_descend_the_weighted_loss(together: bool) -> None:
    images, targets = (tensor.detach() for tensor in weighted().decode())
    network = parse_architecture("convnet-d1-w4")
    lr, steps = 0.05, 3

    def build(i: int):
        return network.build((3, 8, 8), 3, random.generator(i, "net")).double()

    recipe = Recipe(batch_size=6, lr=lr, momentum=0, weight_decay=0, steps=steps)
    draws = [random.generator(i, "draws") for i in range(2)]
    training_set = TrainingSet(images, targets, recipe, make().preprocess)
    found = train_students(build, training_set, draws, together=together)[steps].nets
    for i, student in enumerate(found):
        net = build(i)
        for _ in range(steps):
            each = F.cross_entropy(net(images), targets.argmax(1), reduction="none")
            gradients = torch.autograd.grad((WEIGHTS * each).mean(), list(net.parameters()))
            with torch.no_grad():
                for p, g in zip(net.parameters(), gradients, strict=True):
                    p -= lr * g
        for p, expected in zip(student.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(p, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_weights_count_under_a_teacher_who_labels_every_batch(cutmix: float, together: bool) -> None:
    """A step against the direct formula, with a box of CutMix and without."""
    images, targets = (tensor.detach() for tensor in weighted().decode())
    teacher, net = (
        parse_architecture("convnet-d1-w4").build((3, 8, 8), 3, random.generator(i)).double() for i in (0, 1)
    )
    recipe = Recipe(batch_size=6, lr=0.05, momentum=0, weight_decay=0, steps=1, cutmix=cutmix)
    training_set = TrainingSet(images, targets, recipe, make().preprocess, teacher.eval(), 2.0)
    start = copy.deepcopy(net)
    draws = [random.generator(i, "draws") for i in range(2)]
    found = train_students(lambda _: copy.deepcopy(start), training_set, draws, together=together)[1].nets
    generator = random.generator(0, "draws")
    order = torch.randperm(6, generator=generator)
    _, box = draw_augmentation((6, 3, 8, 8), "none", cutmix, generator)
    x, weights = images[order], WEIGHTS[order]
    if box is not None:
        x, partner = apply_cutmix(x, box), box.partner
        weights = box.weight * weights + (1 - box.weight) * weights[partner]
    each = -4 * ((teacher(x) / 2).softmax(1).detach() * (net(x) / 2).log_softmax(1)).sum(1)
    gradients = torch.autograd.grad((weights * each).mean(), list(net.parameters()))
    for student, p, g in zip(found[0].parameters(), start.parameters(), gradients, strict=True):
        torch.testing.assert_close(student, p - 0.05 * g, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("weights", "words"),
    [(torch.ones(5), r"weights \[5\] for 6 images"), (torch.tensor([1.0] * 5 + [0.0]), "above 0")],
)
def test_weights_that_do_not_fit_are_refused(weights: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        weighted(weights)

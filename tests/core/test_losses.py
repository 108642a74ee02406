"""Squared error to labels: values by hand, weights of images, gradients, and who may not have it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core import random
from bench.core.losses import centred, label_loss, regression_values
from bench.core.training import RECIPE, Recipe
from bench.planning.protocols import Protocol, load_protocol


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random.generator(seed, "losses"))


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_values_of_a_class(n_classes: int) -> None:
    """0.9 and -0.1 for ten classes; the mean of a row is 0; a hundred classes have a third of the spread."""
    values = regression_values(torch.tensor([1, 0]), n_classes, torch.float64)
    scale = (n_classes / 10) ** 0.5
    assert values[0, 1] == pytest.approx((1 - 1 / n_classes) / scale, rel=1e-15)
    assert values[1, 1] == pytest.approx(-1 / n_classes / scale, rel=1e-15)
    torch.testing.assert_close(values.sum(1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["cross_entropy", "squared_error"])
def test_a_class_is_the_probability_one(kind: Any) -> None:
    logits, classes = noise(4, 5), torch.tensor([0, 3, 3, 4])
    soft = F.one_hot(classes, 5).double()
    for reduction in ("mean", "none"):
        one, two = (label_loss(logits, targets, kind, reduction) for targets in (classes, soft))
        torch.testing.assert_close(one, two, rtol=1e-14, atol=0)


def test_squared_error_by_hand() -> None:
    logits, soft = noise(3, 4), noise(3, 4, seed=1).softmax(1)
    by_hand = [
        sum((float(logits[i, k]) - (float(soft[i, k]) - 0.25) / 0.4**0.5) ** 2 / 2 for k in range(4))
        for i in range(3)
    ]
    assert label_loss(logits, soft, "squared_error", "none").tolist() == pytest.approx(by_hand, rel=1e-14)
    assert float(label_loss(logits, soft, "squared_error")) == pytest.approx(sum(by_hand) / 3, rel=1e-14)
    assert float(label_loss(centred(soft), soft, "squared_error")) == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("kind", ["cross_entropy", "squared_error"])
def test_an_image_of_weight_two_counts_twice_and_one_of_weight_zero_not(kind: Any) -> None:
    logits, soft = noise(3, 4), noise(3, 4, seed=1).softmax(1)
    weights = torch.tensor([[2.0], [0.0], [1.0]], dtype=torch.float64)
    each = label_loss(logits, soft, kind, "none")
    weighted = label_loss(logits, soft * weights, kind, "none")
    torch.testing.assert_close(weighted, weights[:, 0] * each, rtol=1e-14, atol=0)


def test_cross_entropy_is_to_the_bit_what_it_was() -> None:
    logits = noise(50, 10).float()
    for targets in (torch.arange(50) % 10, noise(50, 10, seed=1).float().softmax(1)):
        assert torch.equal(label_loss(logits, targets), F.cross_entropy(logits, targets))


def test_the_gradient_of_squared_error_against_finite_differences() -> None:
    logits, free = noise(3, 4).requires_grad_(), noise(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: label_loss(x, y.softmax(1), "squared_error"), (logits, free))


def test_recipes_without_it_are_written_as_before() -> None:
    recipe = Recipe(batch_size=1, lr=1.0, steps=1)
    assert "loss" not in RECIPE.dump_python(recipe)
    told = RECIPE.dump_python(load_protocol("frepo").recipe)
    assert told["loss"] == "squared_error"


def test_a_teacher_learns_probabilities() -> None:
    taught = load_protocol("quick.soft").model_dump()
    taught["teacher"]["recipe"]["loss"] = "squared_error"
    with pytest.raises(ValueError, match=r"teacher\.recipe\.loss: its answers are taken for log"):
        Protocol.model_validate(taught)


def test_students_may_learn_soft_labels_by_squared_error() -> None:
    taught = load_protocol("quick.soft").model_dump()
    taught["recipe"]["loss"] = "squared_error"
    assert Protocol.model_validate(taught).recipe.loss == "squared_error"


def test_an_online_teacher_has_a_loss_of_its_own() -> None:
    taught = load_protocol("quick.teacher").model_dump()
    taught["recipe"]["loss"] = "squared_error"
    with pytest.raises(
        ValueError, match=r"recipe\.loss: students of an online teacher learn by its distillation"
    ):
        Protocol.model_validate(taught)

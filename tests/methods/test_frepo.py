"""FRePo as a whole: what its labels take, where they do not fit, and how its students learn them."""

import dataclasses
from typing import Any

import pytest
import torch
from helpers.method import losses, problem_for, small

from bench.core import random
from bench.core.errors import UserError
from bench.core.training import Recipe, train
from bench.planning.presets import preset
from bench.planning.sweep import build_method
from methods.blocks.kernel_regression import kernel_regression
from methods.frepo import FRePo


def test_learned_labels_are_stored_and_count() -> None:
    """Within 4 images a class there is room for 3 beside their labels."""
    method = small("frepo", labels="image", lr=0.01)
    problem = problem_for(method, ipc=4)
    distilled = method.distill(problem)
    n = distilled.per_class
    size = problem.images[0].numel()
    assert distilled.n_stored == 3 * n * (size + 3) <= problem.budget < 3 * (n + 1) * (size + 3)
    assert distilled.label_logits.shape == (3 * n, 3)
    start = dataclasses.replace(method, lr=1e-30).distill(problem)
    assert not torch.equal(distilled.label_logits, start.label_logits)
    _, targets = distilled.decode()
    torch.testing.assert_close(targets.sum(1), torch.ones(3 * n))


def test_labels_without_room_are_refused_before_anything_runs() -> None:
    method: Any = small("frepo", labels="image")
    with pytest.raises(UserError, match="image labels leave no room for one image per class"):
        method.check(problem_for(method, ipc=1))


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100", "another"])
@pytest.mark.parametrize(("ipc", "labels"), [(1, "hard"), (10, "image"), (50, "image")])
def test_presets_learn_labels_where_they_fit(dataset: str, ipc: int, labels: str) -> None:
    values = preset("frepo", dataset, ipc)
    assert values["labels"] == labels
    assert values["flip"] == (dataset not in ("digits", "mnist"))
    assert values.get("preprocess") == ("zca_frepo" if dataset.startswith("cifar") else None)
    own = {name: value for name, value in values.items() if name != "preprocess"}
    assert isinstance(build_method("frepo", own), FRePo)


@pytest.mark.parametrize("architecture", ["convnet-d1-w4", "convnet-d1-w4-batch"])
def test_its_loss_falls(architecture: str) -> None:
    method = small("frepo", steps=60, lr=0.02, networks=2, max_age=20, net_lr=0.01, flip=False)
    _, noted = losses(method, problem_for(method, architecture=architecture))
    assert sum(noted[-10:]) < sum(noted[:10])


def regression_error(images: torch.Tensor, targets: torch.Tensor, problem: Any) -> float:
    real = problem.preprocess(problem.images)
    with torch.no_grad():
        found = [
            float(kernel_regression(net.embed(real), problem.labels, net.embed(images), targets, 3))
            for net in (problem.make_net(random.generator(9, "unseen", i)) for i in range(5))
        ]
    return sum(found) / len(found)


def test_it_lowers_the_error_under_networks_that_it_has_not_seen() -> None:
    method = small("frepo", steps=80, lr=0.02, flip=False)
    problem = problem_for(method, ipc=2)
    end = method.distill(problem)
    start = dataclasses.replace(method, steps=1, lr=1e-30).distill(problem)
    errors = [regression_error(*(t.detach() for t in one.decode()), problem) for one in (start, end)]
    assert errors[1] < errors[0]


def test_students_of_squared_error_answer_with_centred_labels() -> None:
    """They can learn a few images by heart: the logits become (p - 1/K) / sqrt(K/10)."""
    problem = problem_for(architecture="mlp-w64")
    images = problem.preprocess(problem.images[:3])
    soft = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0]])
    net = problem.make_net(random.generator(0))
    recipe = Recipe(
        batch_size=3, lr=0.01, weight_decay=0.0, steps=300, optimiser="adamw", loss="squared_error"
    )
    train(net, images, soft, recipe, random.generator(1))
    with torch.no_grad():
        torch.testing.assert_close(net(images), (soft - 1 / 3) / 0.3**0.5, rtol=0, atol=1e-2)

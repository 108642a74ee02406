"""IDM: its loss against a class-by-class formula, and what each of its two parts does."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import losses, problem_for, small
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.networks.base import Network
from methods import idm as module
from methods.blocks.matching_batches import MatchingBatches, MatchingPair
from methods.blocks.network_queue import Queue
from methods.blocks.parameterise.multi_formation import MultiFormation


def idm(**values: Any) -> Any:
    return small("idm", **{"augment": "none"} | values)


def exact(norm: str = "instance") -> tuple[Problem, Network, MultiFormation, MatchingPair]:
    problem = problem_for(architecture=f"convnet-d1-w4-{norm}", exact=True, ipc=2)
    synthetic = MultiFormation.start(problem, random.generator(0)).double()
    pair = MatchingBatches(problem, "any", 5, "color+crop").next(synthetic)
    return problem, problem.make_net(random.generator(1)).eval(), synthetic, pair


def by_hand(net: Network, accuracy: float, weight: float, pair: MatchingPair, n_classes: int) -> Tensor:
    """Class by class, image by image."""
    total = torch.zeros((), dtype=torch.float64)
    for c in range(n_classes):
        real = [net.embed(x[None])[0] for x in pair.real[pair.real_targets == c]]
        found = [net.embed(x[None])[0] for x in pair.synthetic[pair.targets == c]]
        gap = sum(real) / len(real) - sum(found) / len(found)
        errors = [-F.log_softmax(net.classifier(feature), 0)[c] for feature in found]
        total = total + gap.pow(2).sum() + weight * accuracy * sum(errors) / len(errors)
    return total


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("weight", "accuracy"), [(50.0, 0.7), (0.0, 0.7), (50.0, 0.0)])
def test_the_loss_is_the_sum_over_classes(weight: float, accuracy: float, norm: str) -> None:
    problem, net, _, pair = exact(norm)
    found = idm(classification=weight).loss(
        net, torch.tensor(accuracy, dtype=torch.float64), pair, problem.n_classes
    )
    expected = by_hand(net, accuracy, weight, pair, problem.n_classes)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_its_gradient_is_that_of_finite_differences() -> None:
    problem, net, synthetic, _ = exact()
    method, accuracy, step = idm(), torch.tensor(0.7, dtype=torch.float64), 1e-6

    def loss() -> Tensor:
        pair = MatchingBatches(problem, "any", 5, "color+crop").next(synthetic)  # the same draws
        return method.loss(net, accuracy, pair, problem.n_classes)

    (gradient,) = torch.autograd.grad(loss(), synthetic.images)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        for place in torch.randperm(gradient.numel(), generator=random.generator(2))[:10].tolist():
            pixel = synthetic.images.view(-1)
            kept = pixel[place].clone()
            ends = []
            for shift in (step, -step):
                pixel[place] = kept + shift
                ends.append(loss())
            pixel[place] = kept
            numeric = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(gradient.view(-1)[place], numeric, rtol=1e-5, atol=1e-7)


def test_without_matching_the_networks_learn_to_classify_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "distribution_matching", lambda real, found, _: 0 * found.sum())
    method = idm(steps=30, lr=0.02, networks=1, every=1000, net_lr=0.1, net_steps=20)
    problem = problem_for(method)
    distilled, _ = losses(method, problem)
    start = MultiFormation.start(problem, problem.rng("idm", "init"), factor=2, init="mix")
    queue = Queue(problem, "other", lr=0.1, batch_size=32, networks=1, steps=100)
    queue.restart()
    queue.advance(start)
    with torch.no_grad():
        first, last = (F.cross_entropy(queue.net(x), y) for x, y in (start.decode(), distilled.decode()))
    assert last < 0.8 * first


def test_a_network_that_has_not_trained_says_nothing_about_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first step, all accuracies are 0: only mean features count."""
    seen: list[float] = []
    loss = module.IDM.loss

    def spy(self: Any, net: Network, accuracy: Tensor, *rest: Any) -> Tensor:
        seen.append(float(accuracy))
        return loss(self, net, accuracy, *rest)

    monkeypatch.setattr(module.IDM, "loss", spy)
    heavy, light = (idm(classification=weight, steps=1) for weight in (1e6, 0.0))
    problem = problem_for(heavy)
    one, two = heavy.distill(problem), light.distill(problem)
    assert seen == [0.0, 0.0]
    assert torch.equal(one.decode()[0], two.decode()[0])


def test_matching_alone_brings_mean_features_closer() -> None:
    method = idm(steps=60, lr=0.02, classification=0.0, batch_real=1000, networks=4, net_steps=1)
    _, noted = losses(method, problem_for(method))
    assert sum(noted[-10:]) < 0.9 * sum(noted[:10])


def test_networks_do_not_keep_gradients_of_a_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[bool] = []
    advance = Queue.advance

    def spy(self: Queue, *rest: Any) -> None:
        before.append(all(p.grad is None for p in self.net.parameters()))
        advance(self, *rest)

    monkeypatch.setattr(Queue, "advance", spy)
    idm().distill(problem_for())
    assert before == [True] * 3


def test_the_stored_images_are_within_the_budget_and_formed() -> None:
    method = idm()
    problem = problem_for(method, ipc=2)
    kept = copy.deepcopy(problem.images)
    distilled = method.distill(problem)
    assert distilled.n_stored <= problem.budget
    assert len(distilled.decode()[1]) == problem.n_classes * 2 * 4
    assert torch.equal(problem.images, kept)
    with pytest.raises(UserError, match="factor"):
        idm(factor=99).check(problem)

"""The real images of DREAM: k-means of all classes at once, and the images nearest to its centres."""

import dataclasses
from typing import Any

import pytest
import torch
from helpers.method import problem_for, small
from helpers.parameterise import noise
from sklearn.cluster import KMeans
from torch import Tensor

from bench.core import random
from bench.core.method import Problem
from methods import dream
from methods.blocks.cluster_centres import NearestToCentres, lloyd


def test_all_classes_at_once_are_lloyd_s_algorithm_for_each() -> None:
    features = noise(3, 20, 5)
    there = torch.ones(3, 20, dtype=torch.bool)
    there[1, 15:] = False  # a smaller class, filled up with others
    start = features[:, :4]
    found = lloyd(features, there, start, rounds=50)
    for c in range(3):
        members = features[c][there[c]].numpy()
        fit = KMeans(4, init=start[c].numpy(), n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit(members)
        torch.testing.assert_close(found[c], torch.from_numpy(fit.cluster_centers_))


def test_a_centre_without_images_stays() -> None:
    features = torch.tensor([[[0.0], [1.0]]])
    found = lloyd(features, torch.ones(1, 2, dtype=torch.bool), torch.tensor([[[0.5], [99.0]]]))
    assert found.flatten().tolist() == [0.5, 99.0]


def unequal() -> Problem:
    """Three classes of 9, 5 and 4 images."""
    problem = problem_for(members=6)
    labels = torch.tensor([0] * 9 + [1] * 5 + [2] * 4)
    return dataclasses.replace(problem, labels=labels)


def draws(problem: Problem, size: int = 3, every: int = 2) -> NearestToCentres:
    net = problem.make_net(random.generator(5))
    return NearestToCentres(problem, size, every, lambda: net, random.generator(6))


def test_images_are_of_their_class_and_nearest_to_a_centre() -> None:
    problem = unequal()
    chosen = draws(problem).next()
    assert chosen.shape == (3, 3)
    assert (problem.labels[chosen] == torch.arange(3)[:, None]).all()
    assert draws(problem, size=99).next().shape == (3, 4), "never more than the smallest class"
    whole = draws(problem, size=4).next()[2]
    assert sorted(whole.tolist()) == [14, 15, 16, 17], "as many centres as images: every image is one"


def test_images_are_kept_for_some_matchings_and_resumed() -> None:
    problem = unequal()
    one = draws(problem)
    first, second, third = one.next(), one.next(), one.next()
    assert torch.equal(first, second)
    other = draws(problem)
    other.next()
    again = draws(problem)
    again.load_state_dict(other.state_dict())
    assert torch.equal(again.next(), second)
    assert torch.equal(again.next(), third), "clusters start from the same draws"


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    problem = problem_for(architecture="convnet-d1-w4-batch")
    net = problem.make_net(random.generator(5)).train(training)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    NearestToCentres(problem, 2, 1, lambda: net, random.generator(6)).next()
    assert net.training is training
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_dream_matches_the_images_that_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, shown = problem_for(small("dream")), []
    call = dream.gradient_matching

    def spy(net: Any, real: Tensor, *rest: Any, **options: Any) -> Tensor:
        shown.append(real)
        return call(net, real, *rest, **options)

    monkeypatch.setattr(dream, "gradient_matching", spy)
    small("dream", augment="none", every=2, inner_steps=3, iterations=1, batch_real=2).distill(problem)
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[1], shown[2]), "the network has been trained, and clusters are others"

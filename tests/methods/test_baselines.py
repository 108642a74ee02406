"""The baselines that need no training: means of parts of a class, and noise."""

import torch
from conftest import MakeProblem

from bench.core.sampling import ClassIndex
from methods.class_mean import ClassMean
from methods.noise import Noise


def test_one_image_per_class_is_the_mean_of_the_class(make_problem: MakeProblem) -> None:
    problem = make_problem(ipc=1)
    images, labels = ClassMean().distill(problem).decode()
    index = ClassIndex.of(problem.labels, problem.n_classes)
    for image, label in zip(problem.preprocess.invert(images), labels, strict=True):
        mean = problem.images[index.members(int(label))].double().mean(0) / 255
        torch.testing.assert_close(image.double(), mean, rtol=0, atol=1e-6)


def test_parts_are_equal_and_cover_the_class(make_problem: MakeProblem) -> None:
    """The parts differ by one image at most, so the mean of their means is nearly that of the class."""
    problem = make_problem(ipc=3)
    images, _ = ClassMean().distill(problem).decode()
    means = problem.preprocess.invert(images).unflatten(0, (problem.n_classes, 3)).mean(1)
    one, _ = ClassMean().distill(make_problem(ipc=1)).decode()
    torch.testing.assert_close(means, problem.preprocess.invert(one), rtol=0, atol=0.01)
    assert not torch.equal(images[0], images[1])


def test_noise_is_standard_normal_as_networks_see_it(make_problem: MakeProblem) -> None:
    images, labels = Noise().distill(make_problem(ipc=50)).decode()
    assert torch.equal(labels.bincount(), torch.full((10,), 50))
    assert abs(float(images.detach().mean())) < 0.02
    assert abs(float(images.detach().std()) - 1) < 0.02

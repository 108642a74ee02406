"""Random images with the labels of a teacher that stops early."""

from dataclasses import replace

import torch
from helpers.method import problem_for, small

from methods.blocks.dynamics import Dynamics
from methods.label_only import LabelOnly


def test_the_labels_are_the_teachers_answers_to_the_images_that_are_stored() -> None:
    method = small("label_only")
    problem = problem_for(method, ipc=2)
    distilled = method.distill(problem)
    targets = distilled.decode()[1].detach()
    same = (distilled.images.flatten(1)[:, None] == problem.images.flatten(1)).all(2)
    assert same.sum(1).tolist() == [1] * 6
    position = same.long().argmax(1)
    assert problem.labels[position].tolist() == [0, 0, 1, 1, 2, 2]
    expected = problem.prepared["dynamics"]["probabilities"][position]
    torch.testing.assert_close(targets, expected, rtol=1e-5, atol=1e-6)


def test_a_teacher_that_is_certain_gives_finite_labels() -> None:
    answers = torch.zeros(18, 3)
    answers[torch.arange(18), torch.arange(18) % 3] = 1.0
    problem = replace(problem_for(), prepared={"dynamics": {"probabilities": answers}})
    distilled = LabelOnly().distill(problem)
    assert distilled.label_logits.isfinite().all()
    expected = answers[[0, 0, 1, 1, 2, 2]]
    torch.testing.assert_close(distilled.decode()[1].detach(), expected, rtol=0, atol=1e-30)


def test_labels_count_as_many_floats_as_images_times_classes() -> None:
    method = small("label_only")
    problem = problem_for(method, ipc=2)
    assert method.distill(problem).n_stored == problem.budget + 6 * 3


def test_the_teacher_stops_at_the_epoch() -> None:
    assert list(LabelOnly(epoch=7).requires().values()) == [Dynamics(7)]

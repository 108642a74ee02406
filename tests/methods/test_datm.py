"""DATM: its growing window, its first images and labels, and the steps that it leaves out."""

from typing import Any

import pytest
import torch
from helpers.method import problem_for, segments_read, small
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.method import Problem
from methods.blocks.experts import Experts
from methods.blocks.hypergradient import FlatNetwork
from methods.blocks.trajectory import TrajectoryMatching
from methods.datm import expert_answers


def datm(**values: Any) -> Any:
    return small("datm", **{"labels": "image", **values})


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problem_for(datm(), ipc=3, members=8)


def test_the_window_grows_in_a_line_and_stays() -> None:
    method = datm(start_epochs=10, last_start_epochs=20, growth=1000)
    assert [method.window(step) for step in (0, 500, 999, 1000, 5000)] == [10, 15, 20, 20, 20]
    assert datm(start_epochs=4, last_start_epochs=4).window(0) == 4


def test_segments_start_inside_the_window(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def segment(self: Experts, generator: torch.Generator, end: int, span: int, first: int = 0) -> Any:
        seen.append((first, end))
        return call(self, generator, end, span, first)

    call = Experts.segment
    monkeypatch.setattr(Experts, "segment", segment)
    method = datm(start_epochs=1, last_start_epochs=2, growth=4, steps=6)
    method.distill(problem)
    assert seen == [(0, method.window(step)) for step in range(6)]
    assert {end for _, end in seen} == {1, 2}


def test_a_later_first_start_is_kept(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = TrajectoryMatching(problem, "any", 2, 1)
    objective.start_between(1, 2)
    read = segments_read(monkeypatch)
    for _ in range(5):
        objective(problem.images.float(), problem.labels, torch.tensor(0.1), [])
    assert {epoch for _, epoch in read[::2]} == {1}


def by_hand(problem: Problem, n: int) -> tuple[Tensor, Tensor]:
    """Image by image, expert by expert."""
    experts, net = Experts(problem), FlatNetwork(problem.make_net(random.generator(0)))
    right, mean = [], []
    for image, label in zip(problem.images, problem.labels, strict=True):
        logits = [net(experts.weights(e, experts.last), problem.preprocess(image[None]))[0] for e in range(n)]
        hits = [one for one in logits if int(one.argmax()) == int(label)]
        right.append(float(len(hits)))
        mean.append(torch.stack(hits or logits).mean(0))
    return torch.tensor(right), torch.stack(mean)


def test_answers_are_the_mean_logits_of_the_experts_that_are_right(problem: Problem) -> None:
    for found, expected in zip(expert_answers(problem, 2), by_hand(problem, 2), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)


def test_first_images_are_those_that_most_experts_know(problem: Problem) -> None:
    method = datm()
    start = method._start(problem)
    right, logits = expert_answers(problem, 2)
    pixels = problem.preprocess(problem.images).flatten(1)
    for place, image in enumerate(start.images.detach().flatten(1)):
        (index,) = (pixels == image).all(1).nonzero().flatten().tolist()
        c = place // start.per_class
        assert problem.labels[index] == c
        rank = (right[problem.labels == c] > right[index]).sum()
        assert rank < start.per_class, "nobody better known is left out"
        assert torch.equal(start.label_logits[place], logits[index])
    assert datm(labels="hard")._start(problem).label_logits is None


@pytest.mark.parametrize(("largest", "moves"), [(1e-9, False), (100.0, True)])
def test_a_step_with_too_large_a_loss_is_left_out(largest: float, moves: bool, problem: Problem) -> None:
    method = datm(largest_loss=largest, steps=2)
    start, end = method._start(problem), method.distill(problem)
    for name in ("images", "label_logits"):
        assert torch.equal(getattr(start, name), getattr(end, name)) is not moves


def test_labels_learn_at_their_own_rate(problem: Problem) -> None:
    method = datm(lr=1e-30, steps=1, largest_loss=100.0)
    start, end = method._start(problem), method.distill(problem)
    torch.testing.assert_close(start.images, end.images, rtol=0, atol=1e-20)
    assert not torch.equal(start.label_logits, end.label_logits)


def test_a_window_that_cannot_be_is_refused() -> None:
    for values in ({"start_epochs": 3, "last_start_epochs": 2}, {"first_start": 2, "start_epochs": 2}):
        with pytest.raises(UserError, match="segments start between them"):
            datm(**values)

"""RTP, BPTT and RaT-BPTT: the real loss of a network, differentiated through its training."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import losses, nameless, problem_for, same, small, state
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.augment import dsa
from bench.core.errors import UserError
from bench.core.method import Problem
from methods.blocks import unrolled
from methods.blocks.hypergradient import SGD, Hypergradient, hypergradient
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.unroll_windows import Unroll
from methods.blocks.unrolled import Clip, Unrolled, fresh_states

UNROLLED = ("rtp", "bptt", "rat_bptt")


def objective(problem: Problem, steps: int = 3, **values: Any) -> Unrolled:
    """Full unrolls of SGD with momentum."""
    rule = SGD(0.9)
    windows = Unroll("full", steps, steps, 1, fresh_states(problem, rule), problem.rng("any", "windows"))
    settings = {"batch_per_class": 2, "batch_real": 4, "strategy": "flip_rotate", "siamese": True} | values
    return Unrolled(problem, "any", rule, windows, **settings)


def start(problem: Problem, labels: str = "hard") -> Pixels:
    return Pixels.start(problem, random.generator(0), labels=labels).double()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What each outer step differentiates."""
    found: list[dict[str, Any]] = []
    original = hypergradient

    def spy(*arguments: Any, **named: Any) -> Hypergradient:
        result = original(*arguments, **named)
        batches, begin = arguments[5:7]
        found.append({"batches": batches, "start": begin, "window": named["window"], "end": result.end})
        return result

    monkeypatch.setattr(unrolled, "hypergradient", spy)
    return found


# --- the objective ------------------------------------------------------------------------------------------


def test_without_a_step_the_loss_is_that_of_the_untrained_network(calls: list[dict[str, Any]]) -> None:
    """All real images at a rate of zero: the cross-entropy of the start."""
    problem = problem_for(exact=True, members=5)
    found = objective(problem, strategy="none", batch_real=99)(*start(problem).decode(), torch.tensor(0.0))
    net, weights = problem.make_net(random.generator(0)), calls[0]["start"].weights
    torch.nn.utils.vector_to_parameters(weights, net.parameters())
    real = problem.preprocess(problem.images)
    torch.testing.assert_close(found.loss, F.cross_entropy(net(real), problem.labels).detach())
    assert found.images.abs().max() == 0


@pytest.mark.parametrize("labels", ["hard", "image"])
@pytest.mark.parametrize("task", [1, 2, 5])
def test_only_the_classes_of_the_task_get_a_gradient(task: int, labels: str) -> None:
    problem = problem_for(exact=True, n_classes=5, ipc=4)
    seen: Counter[int] = Counter()
    unroll, eta = objective(problem, task_classes=task, batch_per_class=4), torch.tensor(0.05)
    pixels = start(problem, labels)
    for _ in range(30):
        found = unroll(*pixels.decode(), eta)
        moved = found.images.unflatten(0, (5, -1)).abs().amax((1, 2, 3, 4)) > 0
        assert int(moved.sum()) == task
        seen.update(moved.nonzero().flatten().tolist())
        if found.targets is not None:  # probabilities of absent classes do count
            rows = found.targets.unflatten(0, (5, -1)).abs().amax((1, 2)) > 0
            assert torch.equal(rows, moved)
    assert len(seen) == 5


def test_real_images_are_of_the_classes_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_for(exact=True, n_classes=5, ipc=2)
    shown: list[Tensor] = []
    monkeypatch.setattr(dsa, "apply", lambda images, _: shown.append(images.detach()) or images)
    everything = problem.preprocess(problem.images).flatten(1)
    found = objective(problem, steps=1, task_classes=2)(*start(problem).decode(), torch.tensor(0.05))
    real = next(x for x in shown if len(x) == 2 * 4)
    distance = (real.flatten(1)[:, None] - everything).abs().amax(2)
    classes = problem.labels[distance.argmin(1)]
    assert float(distance.amin(1).max()) < 1e-12
    moved = found.images.unflatten(0, (5, -1)).abs().amax((1, 2, 3, 4)) > 0
    assert classes.tolist() == moved.nonzero().flatten().repeat_interleave(4).tolist()


@pytest.mark.parametrize("siamese", [True, False])
def test_a_siamese_augmentation_is_one_for_all(siamese: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of all inner steps and the real ones; another for the next outer step."""
    draws: list[dsa.Draw] = []
    apply = dsa.apply

    def spy(images: Tensor, drawn: dsa.Draw) -> Tensor:
        draws.append(drawn)
        return apply(images, drawn)

    monkeypatch.setattr(dsa, "apply", spy)
    problem = problem_for(exact=True, ipc=2)
    unroll, pixels = objective(problem, siamese=siamese), start(problem)
    outer = []
    for _ in range(2):
        draws.clear()
        unroll(*pixels.decode(), torch.tensor(0.05))
        outer.append({id(d) for d in draws})
        assert len(outer[-1]) == (1 if siamese else 3 + 1)
        assert {d.groups for d in draws} == ({1} if siamese else {6, 12})


def test_the_gradient_is_that_of_the_whole_run(calls: list[dict[str, Any]]) -> None:
    """Central differences along a random direction, through the parts as they stand together."""
    problem = problem_for(exact=True, ipc=2)
    pixels = start(problem)
    images, targets = (t.detach() for t in pixels.decode())
    eta, eps = torch.tensor(0.05, dtype=torch.float64, requires_grad=True), 1e-6

    def run(x: Tensor, lr: Tensor) -> Hypergradient:
        return objective(problem)(x, targets, lr)

    found = run(images, eta)
    direction = torch.randn(images.shape, dtype=torch.float64, generator=random.generator(3))
    ahead, behind = (run(images + s * eps * direction, eta).loss for s in (1, -1))
    slope = float((found.images * direction).sum())
    assert float(ahead - behind) / (2 * eps) == pytest.approx(slope, rel=1e-4)
    ahead, behind = (run(images, (eta + s * eps).detach()).loss for s in (1, -1))
    assert float(ahead - behind) / (2 * eps) == pytest.approx(float(found.lr), rel=1e-4)
    assert len(calls) == 5


# --- windows of the methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNROLLED)
def test_each_outer_step_has_a_fresh_network(name: str, calls: list[dict[str, Any]]) -> None:
    small(name, steps=4).distill(problem_for())
    starts = {tuple(call["start"].weights.tolist()) for call in calls}
    assert len(starts) == 4
    assert {call["start"].step for call in calls} == {0}


@pytest.mark.parametrize(
    ("window", "before"), [("full", {0}), ("end", {3}), ("random", {0, 1, 2, 3}), ("online", {0, 2})]
)
def test_windows_of_rtp(window: str, before: set[int], calls: list[dict[str, Any]]) -> None:
    """Two of five steps are differentiated, or all; online the steps before the window are not repeated."""
    method = small("rtp", steps=16, window=window, unroll=5, window_length=2, networks=2)
    method.distill(problem_for())
    length = 5 if window == "full" else 2
    assert {call["window"] for call in calls} == {length}
    assert {len(call["batches"]) - length for call in calls} == before
    ages = {call["end"].step for call in calls}
    assert ages <= ({5} if window in ("full", "end") else set(range(2, 6)))
    if window == "online":
        assert sum(len(call["batches"]) > length for call in calls) == 1, "one member is staggered, once"
        assert ages == {2, 4}


def test_rat_bptt_differentiates_the_last_steps_of_runs_of_any_length(calls: list[dict[str, Any]]) -> None:
    small("rat_bptt", steps=24, unroll=5, window=2).distill(problem_for())
    assert {call["window"] for call in calls} == {2}
    assert {len(call["batches"]) for call in calls} == {2, 3, 4, 5}


# --- the methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["hard", "class", "image"])
def test_rtp_without_its_memory_is_bptt(labels: str) -> None:
    problem = nameless(problem_for(ipc=2))
    values = {"labels": labels, "batch_per_class": 2, "steps": 3}
    one, two = small("rtp", memory=False, **values), small("bptt", **values)
    assert same(state(one.distill(problem)), state(two.distill(problem)))


@pytest.mark.parametrize(
    ("queries", "labels", "learned"),
    [
        ("onehot", "hard", {"bases", "addresses"}),
        ("learned", "joint", {"bases", "addresses", "queries", "basis_labels"}),
        ("centroid", "image", {"bases", "addresses", "label_logits"}),
        ("onehot", "class", {"bases", "addresses", "label_logits"}),
    ],
)
def test_rtp_learns_all_that_its_memory_holds(queries: str, labels: str, learned: set[str]) -> None:
    values = {"queries": queries, "query_dim": 4, "labels": labels, "lr": 1.0, "inner_lr": 0.1}
    problem = problem_for(ipc=4)
    before = small("rtp", steps=1, **values | {"lr": 1e-30}).distill(problem)
    after = small("rtp", steps=2, **values).distill(problem)
    assert isinstance(after, LinearBases)
    old = state(before)
    moved = {name for name, tensor in state(after).items() if not torch.equal(tensor, old[name])}
    assert moved == learned


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_rtp_may_learn_its_inner_rate(inner: str) -> None:
    problem = problem_for(ipc=2)
    values = {"inner": inner, "inner_lr": 0.01}
    learned = small("rtp", lr_lr=1e-6, **values).distill(problem)
    assert learned.inner_lr > 0
    assert float(learned.inner_lr) != pytest.approx(0.01, rel=1e-6)
    assert small("rtp", **values).distill(problem).inner_lr is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rtp", {"init": "pca", "lr": 10.0, "bases": 6, "steps": 40}),
        ("rtp", {"memory": False, "window": "online", "window_length": 3, "networks": 3, "lr": 5.0}),
        ("bptt", {"init": "real", "lr": 5.0}),
        ("rat_bptt", {"init": "real", "lr": 0.05, "inner_lr": 0.02, "window": 4}),
    ],
)
def test_unrolling_lowers_the_loss_of_networks_that_train_on_the_set(
    name: str, values: dict[str, Any]
) -> None:
    """Networks that the method has not seen, trained as it trains them, on all real images."""
    problem = problem_for(ipc=2, members=20)
    values = {"unroll": 6, "inner_lr": 0.1, "augment": "none", "steps": 25} | values
    loss = []
    for change in ({"lr": 1e-30, "steps": 1}, {}):
        images, targets = (t.detach() for t in small(name, **values | change).distill(problem).decode())
        held_out = dataclasses.replace(problem, seed=99)
        judge = objective(held_out, 6, batch_real=20, strategy="none")
        loss.append(sum(float(judge(images, targets, torch.tensor(0.1)).loss) for _ in range(4)) / 4)
    assert loss[1] < 0.97 * loss[0]


@pytest.mark.parametrize("name", UNROLLED)
def test_the_loss_of_each_step_is_noted(name: str) -> None:
    _, noted = losses(small(name, steps=3), problem_for())
    assert len(noted) == 3
    assert all(0 < loss < 5 for loss in noted)


# --- clipping -----------------------------------------------------------------------------------------------


def with_gradient(*values: float) -> Pixels:
    """Two images of one pixel, with these gradients."""
    pixels = Pixels(torch.zeros(2, 1, 1, 1), [1, 1], problem_for().preprocess)
    pixels.images.grad = torch.tensor(values).view(2, 1, 1, 1)
    return pixels


@given(x=st.floats(-1e3, 1e3), y=st.floats(-1e3, 1e3), limit=st.floats(0.1, 100))
def test_the_norm_of_a_gradient_is_bounded(x: float, y: float, limit: float) -> None:
    pixels = with_gradient(x, y)
    before = pixels.images.grad.clone()
    Clip(limit)(pixels)
    after, norm = pixels.images.grad, float(before.norm())
    assert float(after.norm()) <= limit * (1 + 1e-5)
    torch.testing.assert_close(after, before * min(1.0, limit / max(norm, 1e-12)), rtol=1e-5, atol=1e-7)


def test_the_limit_follows_the_running_mean_of_the_norm() -> None:
    """By hand: norms 5, 10, 40, decay 0.9, limit 1: means 5, 5.5, 8.95."""
    clip, found = Clip(1.0, 0.9), []
    for scale in (1.0, 2.0, 8.0):
        pixels = with_gradient(3 * scale, 4 * scale)
        clip(pixels)
        found.append(float(pixels.images.grad.norm()))
    assert found == pytest.approx([5, 5.5, 8.95], rel=1e-5)
    resumed = Clip(1.0, 0.9)
    resumed.load_state_dict(clip.state_dict())
    pixels = with_gradient(30.0, 40.0)
    resumed(pixels)
    assert float(pixels.images.grad.norm()) == pytest.approx(0.9 * 8.95 + 0.1 * 50, rel=1e-5)


def test_clipping_takes_all_parameters_together() -> None:
    pixels = Pixels.start(problem_for(ipc=3), random.generator(0), labels="image")
    for p in pixels.parameters():
        p.grad = torch.ones_like(p)
    n = sum(p.numel() for p in pixels.parameters())
    Clip(1.0)(pixels)
    for p in pixels.parameters():
        torch.testing.assert_close(p.grad, torch.full_like(p, n**-0.5))


# --- what an outer step learns besides the images -----------------------------------------------------------


@given(start=st.floats(0.05, 0.95), slopes=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_a_learned_momentum_stays_a_momentum(start: float, slopes: list[float]) -> None:
    """Inside (0, 1) as far as float32 can tell, whatever the slopes; its first step is plain descent."""
    synthetic = Pixels(torch.zeros(2, 1, 2, 2), [1, 1], problem_for().preprocess)
    mu = LearnedScalars(synthetic, "inner_momentum", start, 1e-4, 0.5)
    mu.step(torch.tensor(1.0))
    assert float(mu.value.detach()) == pytest.approx(start - 1e-4, abs=1e-5)
    for slope in slopes:
        mu.step(torch.tensor(slope))
        assert 0 <= mu.value <= 1
        assert torch.equal(synthetic.inner_momentum, mu.value)


def test_rtp_learns_its_momentum_and_stores_it() -> None:
    problem = problem_for(small("rtp"))
    learned = small("rtp", momentum_lr=1e-2).distill(problem)
    fixed = small("rtp").distill(problem)
    assert fixed.inner_momentum is None
    assert 0 < learned.inner_momentum < 1
    assert learned.inner_momentum != 0.9
    assert learned.n_stored == fixed.n_stored + 1


@pytest.mark.parametrize("values", [{"inner": "adam"}, {"inner_momentum": 0.0}])
def test_no_momentum_is_learned_where_there_is_none(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="momentum_lr: no momentum to learn"):
        small("rtp", momentum_lr=1e-2, **values)


def test_segments_change_no_number() -> None:
    problem = problem_for(small("rtp"))
    whole, segmented = (small("rtp", unroll=5, segment=k).distill(problem) for k in (0, 2))
    assert same(state(whole), state(segmented))

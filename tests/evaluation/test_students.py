"""Students trained together are the students trained one by one: the same draws, steps and networks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.core import random
from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess
from bench.core.training import Recipe, build_optimiser, train
from bench.evaluation.students import (
    StackedStudents,
    Students,
    TrainingSet,
    multiply_adds,
    stackable,
    together_pays,
    train_students,
)

SHAPE, CLASSES = (3, 8, 8), 4
DSA = "color_crop_cutout_flip_scale_rotate"
RECIPE = Recipe(batch_size=4, lr=0.05, weight_decay=0.01, steps=7, milestones=(0.4, 0.8), gamma=0.3)
PREPROCESS = Preprocess((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random.generator(seed, "noise"))


def builder(name: str = "convnet-d2-w4") -> Callable[[int], Network]:
    def build(i: int) -> Network:
        return parse_architecture(name).build(SHAPE, CLASSES, random.generator(0, "student", i)).double()

    return build


def training_set(soft: bool = False, n: int = 6, **changes: Any) -> TrainingSet:
    """Six images in batches of four, so that every other batch is a small one."""
    targets = noise(n, CLASSES, seed=1).softmax(1) if soft else torch.arange(n) % CLASSES
    return TrainingSet(noise(n, *SHAPE), targets, replace(RECIPE, **changes), PREPROCESS)


def orders(count: int) -> list[torch.Generator]:
    return [random.generator(0, "order", i) for i in range(count)]


def weights(taught: Students) -> Tensor:
    """All tensors of each network, buffers too: [count, P]."""
    states = [net.state_dict().values() for net in taught.nets]
    return torch.stack([torch.cat([t.flatten().double() for t in state]) for state in states])


def last(
    what: TrainingSet,
    count: int = 3,
    name: str = "convnet-d2-w4",
    together: bool | None = False,
    **options: Any,
) -> Tensor:
    (taught,) = train_students(builder(name), what, orders(count), together=together, **options).values()
    return weights(taught)


def agree(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


# --- together is one by one -----------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "group", "layer", "none"])
def test_every_norm_that_vmap_holds(norm: str) -> None:
    what = training_set(augment=DSA, cutmix=0.5)
    name = f"convnet-d2-w4-{norm}"
    agree(last(what, name=name, together=True), last(what, name=name))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("cutmix", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("strategy", ["none", DSA, "color+flip+crop_scale_rotate", "augmix", "randaugment"])
def test_every_draw(strategy: str, cutmix: float, soft: bool) -> None:
    what = training_set(soft, augment=strategy, cutmix=cutmix)
    agree(last(what, name="mlp-w8", together=True), last(what, name="mlp-w8"))


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_a_teacher(cutmix: float) -> None:
    teacher = builder("mlp-w8")(99).eval()
    what = replace(training_set(augment=DSA, cutmix=cutmix), teacher=teacher, temperature=3.0)
    taught = last(what, together=True)
    agree(taught, last(what))
    other = replace(what, targets=what.targets.flip(0))
    assert torch.equal(taught, last(other, together=True))
    assert (taught - last(replace(what, temperature=1.0))).abs().max() > 1e-3


@settings(max_examples=12)
@given(
    rates=st.lists(st.floats(1e-4, 0.2), min_size=2, max_size=4),
    momentum=st.sampled_from([0.0, 0.9]),
    size=st.integers(1, 9),
    epochs=st.integers(1, 3),
)
def test_every_student_has_its_rate(rates: list[float], momentum: float, size: int, epochs: int) -> None:
    what = training_set(batch_size=size, momentum=momentum, steps=None, epochs=epochs, augment="flip")
    count = len(rates)
    together = last(what, count, "mlp-w4", True, rates=rates)
    agree(together, last(what, count, "mlp-w4", rates=rates))
    for i, rate in enumerate(rates):
        net = builder("mlp-w4")(i)
        train(net, what.images, what.targets, replace(what.recipe, lr=rate), orders(count)[i])
        agree(together[i], weights(Students((net,)))[0])


@pytest.mark.parametrize("together", [False, True])
def test_a_last_image_joins_the_batch_before_it(together: bool) -> None:
    """Five images in batches of four are one batch of five: two epochs are two steps."""
    what = training_set(n=5, batch_size=4, steps=None, epochs=2)
    found = train_students(builder("mlp-w4"), what, orders(2), marks=[1, 2], together=together)
    assert list(found) == [1, 2]
    whole = replace(what, recipe=replace(what.recipe, batch_size=5))
    agree(weights(found[2]), last(whole, 2, "mlp-w4", together))


def test_batches_that_a_network_cannot_take_are_refused() -> None:
    for what, words in ((training_set(batch_size=1), "batch norm"), (training_set(n=0), "no images")):
        with pytest.raises(UserError, match=words):
            train_students(builder("convnet-d2-w4-batch"), what, orders(2))


@pytest.mark.parametrize("together", [False, True])
def test_a_drop_may_begin_with_an_empty_momentum(together: bool) -> None:
    """As the codes of DC, DSA and HaBa, which make a new optimiser, in float64 and with two drops."""
    what = training_set(
        steps=9, milestones=(1 / 3, 2 / 3), augment="none", batch_size=100, fresh_at_drops=True, cutmix=0.0
    )
    what = replace(what, images=what.images.double())
    recipe = what.recipe

    def build(i: int) -> Any:
        return builder("mlp-w4")(i).double()

    found = train_students(build, what, orders(2), together=together)[9].nets
    for i, student in enumerate(found):
        net = build(i)
        for step in range(9):
            if step % 3 == 0:
                part = replace(recipe, lr=recipe.lr * recipe.gamma ** (step // 3))
                sgd = build_optimiser(net, part)
            sgd.zero_grad()
            F.cross_entropy(net(what.images), what.targets).backward()
            sgd.step()
        for p, expected in zip(student.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(p, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("schedule", ["steps", "cosine", "half_cosine"])
def test_adamw_with_any_schedule(schedule: Any) -> None:
    drops = {} if schedule == "steps" else {"milestones": ()}
    what = training_set(optimiser="adamw", schedule=schedule, augment="flip", **drops)
    rates = [0.01, 0.1, 0.3]
    # without a norm: a bias before one has no gradient, and AdamW would turn its rounding into steps
    for name in ("convnet-d2-w4-none", "mlp-w4"):
        agree(last(what, name=name, together=True, rates=rates), last(what, name=name, rates=rates))
    sgd = training_set(schedule=schedule, augment="flip", **drops)
    agree(last(sgd, name="mlp-w4", together=True, rates=rates), last(sgd, name="mlp-w4", rates=rates))


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
@pytest.mark.parametrize("soft", [False, True])
def test_squared_error(soft: bool, cutmix: float) -> None:
    what = training_set(soft, loss="squared_error", augment="flip", cutmix=cutmix)
    taught = last(what, name="mlp-w8", together=True)
    agree(taught, last(what, name="mlp-w8"))
    other = replace(what, recipe=replace(what.recipe, loss="cross_entropy"))
    assert (taught - last(other, name="mlp-w8")).abs().max() > 1e-3


def test_the_draws_leave_the_generators_alike() -> None:
    what, states = training_set(augment=DSA, cutmix=0.5), []
    for together in (False, True):
        generators = orders(3)
        train_students(builder(), what, generators, together=together)
        states.append(torch.stack([g.get_state() for g in generators]))
    assert torch.equal(*states)


def test_a_frozen_weight_stays() -> None:
    def build(i: int) -> Network:
        net = builder("mlp-w4")(i)
        net.classifier.requires_grad_(False)
        return net

    taught = [
        train_students(build, training_set(), orders(2), together=way)[RECIPE.steps or 0]
        for way in (True, False)
    ]
    agree(*map(weights, taught))
    for i, net in enumerate(taught[0].nets):
        assert torch.equal(net.classifier.weight, build(i).classifier.weight)
        assert not torch.equal(net.hidden[1].weight, build(i).hidden[1].weight)


# --- one by one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convnet-d2-w4", "convnet-d2-w4-batch", "mlp-w8"])
def test_one_by_one_is_train_bit_by_bit(name: str) -> None:
    """Batch norm cannot be stacked; its running statistics are the student's own."""
    what, generators = training_set(augment=DSA, cutmix=0.5), orders(2)
    nets = tuple(builder(name)(i) for i in range(2))
    for net, generator in zip(nets, generators, strict=True):
        train(net, what.images, what.targets, what.recipe, generator)
    assert torch.equal(last(what, 2, name), weights(Students(nets)))
    if name.endswith("batch"):
        assert torch.equal(last(what, 2, name, None), weights(Students(nets)))


@pytest.mark.parametrize("together", [False, True])
def test_no_student_depends_on_another(together: bool) -> None:
    """Nor on one that diverges: its weights are no numbers, and those of the others are untouched."""
    what = training_set(augment=DSA, cutmix=0.5)
    three = last(what, 3, together=together)
    two = last(what, 2, together=together)
    agree(three[:2], two)
    diverged = last(what, 3, together=together, rates=[RECIPE.lr, RECIPE.lr, 1e200])
    agree(diverged[:2], two)
    assert not diverged[2].isfinite().all()


def test_the_global_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    for together in (False, True):
        last(training_set(augment=DSA, cutmix=0.5), together=together)
    assert torch.equal(torch.get_rng_state(), before)


# --- marks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convnet-d2-w4", "convnet-d2-w4-batch"])
def test_marks_are_shorter_trainings(name: str) -> None:
    what = training_set(milestones=(), augment=DSA)
    for together in (False, name == "convnet-d2-w4"):
        taught = train_students(builder(name), what, orders(2), marks=[5, 2, 2], together=together)
        assert list(taught) == [2, 5, 7]
        for step, then in taught.items():
            shorter = last(training_set(milestones=(), augment=DSA, steps=step), 2, name, together)
            assert torch.equal(weights(then), shorter)


@pytest.mark.parametrize("mark", [0, -1, 8])
def test_a_mark_outside_is_refused(mark: int) -> None:
    with pytest.raises(UserError, match=f"no step {mark} in a training of 7 steps"):
        train_students(builder(), training_set(), orders(2), marks=[3, mark])


def test_logits_are_each_network_s_in_evaluation_mode() -> None:
    taught = train_students(builder("convnet-d2-w4-batch"), training_set(), orders(3), marks=[1])[1]
    x = noise(5, *SHAPE, seed=7)
    logits = taught.logits(x)
    assert taught.count == 3
    assert logits.shape == (3, 5, CLASSES)
    assert not logits.requires_grad
    for net, found in zip(taught.nets, logits, strict=True):
        assert not net.training
        torch.testing.assert_close(net(x[:2]).detach(), found[:2])  # so no statistics of the batch


# --- which way ------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Drops with a probability of its own, as the stochastic depth of other libraries does."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob


@pytest.mark.parametrize(
    ("module", "holds"),
    [
        (nn.GroupNorm(2, 4), True),
        (nn.BatchNorm2d(4), False),
        (nn.BatchNorm2d(4, track_running_stats=False), True),
        (nn.InstanceNorm2d(4), True),
        (nn.InstanceNorm2d(4, track_running_stats=True), False),
        (nn.Dropout(0.5), False),
        (nn.Dropout(0.0), True),
        (nn.Dropout(1), False),
        (nn.RReLU(), False),
        (nn.FractionalMaxPool2d(2, 2), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), False),
        (nn.MultiheadAttention(4, 2), True),
        (Odd(0.1), False),
        (Odd(0.0), True),
    ],
)
def test_what_can_be_stacked(module: nn.Module, holds: bool) -> None:
    assert stackable(nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), module))) is holds


def test_what_cannot_be_trained_together_says_so() -> None:
    with pytest.raises(UserError, match="one by one"):
        last(training_set(), name="convnet-d2-w4-batch", together=True)


def out_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """More than `most` students do not fit, as the second step finds out; the list is of how many began."""
    begun, batch = [], StackedStudents._batch

    def limited(self: StackedStudents) -> Any:
        count, drawn = len(self._nets), batch(self)
        fresh = not any(v.any() for v in self._velocity)
        begun.extend([count] if fresh else [])
        if count > most and not fresh:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return drawn

    monkeypatch.setattr(StackedStudents, "_batch", limited)
    return begun


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(8, 3, [8, 4, 2, 2, 2, 2]), (5, 3, [5, 3, 2]), (5, 2, [5, 3, 2, 2]), (3, 1, [3, 2])],
)
def test_what_does_not_fit_is_halved(
    monkeypatch: pytest.MonkeyPatch, count: int, most: int, expected: list[int]
) -> None:
    """No draw is lost, and all students are there, in their order; one alone needs no stack."""
    what = training_set(augment=DSA, cutmix=0.5)
    rates = [RECIPE.lr / (i + 1) for i in range(count)]
    alone = last(what, count, "mlp-w4", rates=rates)
    begun = out_of_memory(monkeypatch, most)
    agree(last(what, count, "mlp-w4", together=True, rates=rates), alone)
    assert begun == expected


def test_one_student_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("bench.core.training.augmented_loss", raising)
    out_of_memory(monkeypatch, 1)
    with pytest.raises(torch.OutOfMemoryError):
        last(training_set(), together=True)


def by_hand(name: str, size: int, side: int) -> int:
    """Multiply-adds of a batch's forward pass through an `mlp-w8` or a `convnet-d2-w4`."""
    if name == "mlp-w8":
        return size * (3 * side**2 * 8 + 8 * 8 + 8 * CLASSES)
    return size * (side**2 * 9 * 3 * 4 + (side // 2) ** 2 * 9 * 4 * 4 + 4 * (side // 4) ** 2 * CLASSES)


@given(name=st.sampled_from(["mlp-w8", "convnet-d2-w4"]), size=st.integers(1, 6))
def test_multiply_adds(name: str, size: int) -> None:
    assert multiply_adds(builder(name)(0), training_set(), size) == by_hand(name, size, 8)


@pytest.mark.parametrize(
    ("name", "n", "count", "pays"),
    [
        ("mlp", 10, 5, True),
        ("mlp", 10, 4, False),  # too few to save much
        ("mlp", 10, 1, False),
        ("convnet-d2-w16", 10, 5, True),
        ("convnet-d2-w16-batch", 10, 5, False),  # cannot be stacked
        ("convnet-d2-w16", 100, 5, False),  # too much work in a step
        ("mlp-w512", 5, 5, False),  # too many weights
    ],
)
def test_the_rule(name: str, n: int, count: int, pays: bool) -> None:
    """A whole batch is no larger than the set; and on a GPU whatever can be stacked is trained together."""
    what = training_set(n=n, batch_size=256)
    net = builder(name)(0)
    assert together_pays(net, what, count) is pays
    elsewhere = replace(what, images=what.images.to("meta"))
    assert together_pays(net, elsewhere, count) is (stackable(net) and count > 1)


@pytest.mark.parametrize("count", [2, 5])
def test_the_default_is_the_rule(count: int) -> None:
    """Bit by bit: one by one for two students, together for five."""
    what = training_set(augment="flip")
    together = together_pays(builder("mlp-w8")(0), what, count)
    assert together is (count == 5)
    assert torch.equal(last(what, count, "mlp-w8", None), last(what, count, "mlp-w8", together))

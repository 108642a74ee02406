"""MTT, TESLA and HaBa: trajectories of experts, the learned step size, and HaBa's extractor."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import losses, nameless, problem_for, same, segments_read, small, state
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.method import Problem
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.trajectory import TrajectoryMatching
from methods.haba import Extractor, likeness, supervised_contrastive

DSA_OPS = "color_crop_cutout_flip_scale_rotate"


@pytest.fixture(scope="module")
def problem() -> Problem:
    """In float64, with two experts of two epochs."""
    return problem_for(small("mtt"), exact=True, ipc=3)


def matching(problem: Problem, gradient: Any = "exact") -> TrajectoryMatching:
    return TrajectoryMatching(problem, "any", 2, 1, gradient)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


# --- matching trajectories --------------------------------------------------------------------------------


def test_a_student_that_does_not_move_has_the_loss_one(problem: Problem) -> None:
    pixels = Pixels.start(problem, random.generator(0), init="noise").double()
    for _ in range(3):
        objective = matching(problem)
        found = objective(*pixels.decode(), number(0.0), objective.shuffled(pixels.images, 2, 4, "none"))
        assert found.loss == 1
        assert found.images.abs().max() == 0
        assert found.lr != 0


def test_a_student_that_repeats_the_expert_has_the_loss_zero() -> None:
    """An expert of one batch an epoch, without augmentation, is followed by one step on the real images."""
    method = small("mtt", augment="none", expert_batch=100, expert_lr=0.05)
    problem = problem_for(method, exact=True, ipc=6)  # all real images
    pixels = Pixels.start(problem, random.generator(0)).double()
    objective = matching(problem)
    found = objective(*pixels.decode(), number(0.05), objective.shuffled(pixels.images, 0, 1, "none"))
    assert found.loss < 1e-20


@given(n=st.integers(1, 4), size=st.integers(0, 9), strategy=st.sampled_from(["none", DSA_OPS]))
def test_tesla_is_exact_for_one_step_and_for_no_more(
    n: int, size: int, strategy: str, problem: Problem
) -> None:
    pixels = Pixels.start(problem, random.generator(0)).double()
    found = []
    for gradient in ("exact", "tesla"):
        objective = matching(problem, gradient)
        batches = objective.shuffled(pixels.images, size, n, strategy)
        found.append(objective(*pixels.decode(), number(0.05), batches))
    exact, tesla = found
    assert exact.loss == tesla.loss
    gap = float((exact.images - tesla.images).norm() / exact.images.norm())
    assert gap < 1e-10 if n == 1 else 1e-4 < gap < 0.5


def test_mtt_and_tesla_differ_in_their_gradient_only() -> None:
    values = {"lr": 1.0, "inner_lr": 0.05, "steps": 2}
    one = nameless(problem_for(small("mtt")))
    mtt, tesla = (
        [state(small(name, inner_steps=n, **values).distill(one)) for n in (1, 3)]
        for name in ("mtt", "tesla")
    )
    for name, tensor in mtt[0].items():
        torch.testing.assert_close(tesla[0][name], tensor, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(tesla[1]["images"], mtt[1]["images"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mtt", "tesla", "haba"])
def test_segments_begin_and_end_where_they_should(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = small(name, start_epochs=3, expert_epochs=2, steps=20, inner_steps=1)
    assert len(method.requires()) == 5, "epochs 0 to 4: no more is trained than is read"
    read = segments_read(monkeypatch)
    method.distill(problem_for(method))
    segments = list(zip(read[::2], read[1::2], strict=True))
    assert len(segments) == 20
    assert all(one == other and end == begin + 2 for (one, begin), (other, end) in segments)
    assert {begin for (_, begin), _ in segments} == {0, 1, 2}
    assert {expert for expert, _ in read} == {0, 1}


@pytest.mark.parametrize("labels", ["hard", "class", "image"])
def test_a_step_of_mtt_is_gradient_descent(labels: str) -> None:
    """Built anew from the parts; the step size moves along its logarithm."""
    method = small("mtt", steps=1, lr=2.0, inner_lr=0.05, lr_lr=1e-7, labels=labels, batch_synthetic=2)
    problem = problem_for(method, ipc=3)
    stepped, noted = losses(method, problem)
    start = Pixels.start(problem, problem.rng("mtt", "init"), labels=labels)
    objective = TrajectoryMatching(problem, "mtt", 2, 1)
    images, targets = start.decode()
    alpha = torch.tensor(0.05).log().exp().requires_grad_()
    found = objective(images, targets, alpha, objective.shuffled(images, 2, 2, DSA_OPS))
    found.backward(images, targets)
    assert noted == [float(found.loss)]
    for name, p in start.named_parameters():
        torch.testing.assert_close(stepped.get_parameter(name), p - 2.0 * p.grad, rtol=1e-6, atol=1e-6)
    moved = 0.05 * math.exp(-1e-7 / 0.05 * float(found.lr))
    torch.testing.assert_close(stepped.inner_lr.item(), moved, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["mtt", "tesla", "haba"])
def test_matching_lowers_the_distance(name: str) -> None:
    """Of the same segments, which the method has not seen in this order."""
    values = {"inner_steps": 3, "inner_lr": 0.05, "augment": "none", "expert_lr": 0.05}
    if name == "haba":
        values["hallucinator_init"], values["padding"] = "identity", 1
    loss = []
    for steps, lr in ((1, 1e-30), (40, 20.0)):
        method = small(name, steps=steps, lr=lr, **values)
        problem = problem_for(method, ipc=2, members=20)
        images, targets = (t.detach() for t in method.distill(problem).decode())
        objective = TrajectoryMatching(problem, "held out", 2, 1)
        alpha = torch.tensor(0.05)
        batches = [objective.shuffled(images, 0, 3, "none") for _ in range(6)]
        loss.append(sum(float(objective(images, targets, alpha, b).loss) for b in batches) / 6)
    assert loss[1] < 0.9 * loss[0]


# --- the step size ------------------------------------------------------------------------------------------


def carrier() -> Pixels:
    return Pixels(torch.zeros(2, 1, 2, 2), [1, 1], problem_for().preprocess)


@given(start=st.floats(1e-3, 1.0), slope=st.floats(-1.0, 1.0), momentum=st.floats(0, 0.95))
def test_the_first_step_of_the_step_size_is_plain_descent_to_first_order(
    start: float, slope: float, momentum: float
) -> None:
    lr = 1e-3 * start  # a relative change of 1e-3 x slope
    alpha = LearnedScalars(carrier().double(), "inner_lr", start, lr, momentum)
    before = float(alpha.value.detach())
    alpha.step(torch.tensor(slope))
    change = -lr * slope / before
    assert float(alpha.value.detach()) / before == pytest.approx(1 + change, abs=change**2 + 1e-6)


@given(slopes=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_the_step_size_stays_positive(slopes: list[float]) -> None:
    """Where plain descent would go below zero it does not, nor to it, however wild the slopes."""
    synthetic = carrier()
    alpha = LearnedScalars(synthetic, "inner_lr", 0.1, 1e-5, 0.5)
    for slope in slopes:
        alpha.step(torch.tensor(slope))
        assert 0 < alpha.value < torch.inf
        assert torch.equal(synthetic.inner_lr, alpha.value)
    assert synthetic.inner_lr.dim() == 0
    assert alpha.value.requires_grad
    assert alpha.value.is_leaf


def test_a_fixed_step_size_is_not_stored() -> None:
    synthetic = carrier()
    alpha = LearnedScalars(synthetic, "inner_lr", 0.1, 0.0, 0.5)
    alpha.step(None)
    assert not alpha.value.requires_grad
    assert float(alpha.value) == pytest.approx(0.1, rel=1e-6)
    assert synthetic.inner_lr is None
    assert synthetic.n_stored == 8


@pytest.mark.parametrize("name", ["mtt", "tesla", "haba"])
def test_the_learned_step_size_is_part_of_the_artifact(name: str) -> None:
    method = small(name, lr=1.0, inner_lr=0.05, lr_lr=1e-8)
    problem = problem_for(method)
    learned = method.distill(problem)
    assert learned.state_dict()["inner_lr"] > 0
    assert float(learned.inner_lr) != pytest.approx(0.05, rel=1e-6)
    assert "inner_lr" not in small(name, lr_lr=0.0).distill(problem).state_dict()


# --- HaBa: the contrastive terms ----------------------------------------------------------------------------


def vectors(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=random.generator(seed, "vectors"))


@given(n=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_likeness_is_a_fraction(n: int, d: int, seed: int, scale: float) -> None:
    one, other = vectors(n, d, seed), vectors(n, d, seed + 1)
    assert -1e-12 <= likeness(one, other) <= 1 + 1e-12
    assert likeness(one, scale * one) == pytest.approx(1, abs=1e-12)
    assert likeness(one, -scale * one) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(likeness(one, other), likeness(other, one))


def brute_force(features: Tensor, labels: Tensor, tau: float) -> float:
    n, total = len(features), 0.0
    s = features @ features.T / tau
    for a in range(n):
        log_sum = math.log(sum(math.exp(float(s[a, q])) for q in range(n) if q != a))
        positives = [p for p in range(n) if p != a and labels[p] == labels[a]]
        total -= sum(float(s[a, p]) - log_sum for p in positives) / len(positives) / n
    return total


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_supcon_is_the_double_loop(labels: list[int], seed: int) -> None:
    """Also for one basis of a class, whose only positive is its other view; in any order."""
    both = torch.tensor(labels).repeat(2)
    features = F.normalize(vectors(len(both), 4, seed))
    found = supervised_contrastive(features, both, 0.3)
    assert float(found) == pytest.approx(brute_force(features, both, 0.3), rel=1e-10, abs=1e-12)
    order = torch.randperm(len(both), generator=random.generator(seed))
    torch.testing.assert_close(supervised_contrastive(features[order], both[order], 0.3), found)


def test_supcon_has_a_finite_gradient_for_one_basis_of_a_class() -> None:
    x = vectors(6, 4, 0).requires_grad_()
    loss = supervised_contrastive(F.normalize(x), torch.arange(3).repeat(2))
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


# --- HaBa: the extractor ------------------------------------------------------------------------------------


def players(**values: Any) -> tuple[Extractor, Hallucinators]:
    method = small("haba", **{"hallucinators": 3, "extractor_momentum": 0.0} | values)
    bare = problem_for(exact=True, ipc=2)
    synthetic = Hallucinators.start(bare, random.generator(0), hallucinators=3, bases_per_class=2).double()
    return Extractor(method, bare), synthetic


def look_alike(extractor: Extractor, synthetic: Hallucinators, chunk: Any, draws: Tensor) -> float:
    """L_cos of a chunk, with the draws that come from this state of the generator."""
    extractor.draws.set_state(draws)
    with torch.no_grad():
        views = extractor._views(synthetic, synthetic.decode()[0], chunk)
        return float(likeness(*extractor.net.embed(views).chunk(2)))


def test_the_likeness_gradient_moves_no_extractor_and_training_it_no_basis() -> None:
    extractor, synthetic = players()
    chunk = extractor.chunks(synthetic, 1)[0]
    stored, weights = state(synthetic), state(extractor.net)
    gradient = extractor.likeness_gradient(synthetic, synthetic.decode()[0].detach(), chunk)
    assert gradient.abs().sum() > 0
    assert same(state(extractor.net), weights)
    assert all(p.grad is None for p in extractor.net.parameters())
    extractor.train(synthetic, chunk)
    assert not same(state(extractor.net), weights)
    assert same(state(synthetic), stored)
    assert all(p.grad is None for p in synthetic.parameters())


@pytest.mark.parametrize("strategy", ["none", DSA_OPS])
def test_bases_push_apart_what_the_extractor_pulls_together(strategy: str) -> None:
    """One small step each, on the likeness alone, under the same draws."""
    extractor, synthetic = players(augment=strategy, extractor_task=0.0, extractor_contrast=0.0)
    chunk = extractor.chunks(synthetic, 1)[0]
    draws = extractor.draws.get_state()
    before = look_alike(extractor, synthetic, chunk, draws)
    extractor.draws.set_state(draws)
    images, _ = synthetic.decode()
    images.backward(extractor.likeness_gradient(synthetic, images.detach(), chunk))
    with torch.no_grad():
        for p in synthetic.parameters():
            p -= 1e-3 * p.grad
    apart = look_alike(extractor, synthetic, chunk, draws)
    assert apart < before
    extractor.draws.set_state(draws)
    extractor.train(synthetic, chunk)
    assert look_alike(extractor, synthetic, chunk, draws) > apart


def test_a_pair_has_two_hallucinators(monkeypatch: pytest.MonkeyPatch) -> None:
    styles: list[int] = []
    pair = Hallucinators.pair

    def spy(self: Hallucinators, basis: Tensor, hallucinator: Tensor) -> Tensor:
        styles.append(int(hallucinator))
        return pair(self, basis, hallucinator)

    extractor, synthetic = players()
    chunks = extractor.chunks(synthetic, 60)
    monkeypatch.setattr(Hallucinators, "pair", spy)
    for chunk in chunks:
        extractor.train(synthetic, chunk)
    assert set(zip(styles[::2], styles[1::2], strict=True)) == set(itertools.permutations(range(3), 2))


def test_equal_hallucinators_look_alike() -> None:
    extractor, synthetic = players(augment="none")
    with torch.no_grad():
        for name, p in synthetic.named_parameters():
            if name != "bases":
                p.copy_(p[:1].expand_as(p))
    chunk = extractor.chunks(synthetic, 1)[0]
    draws = extractor.draws.get_state()
    assert look_alike(extractor, synthetic, chunk, draws) == pytest.approx(1, abs=1e-12)


def test_a_step_of_haba_descends_the_distance_and_the_likeness() -> None:
    """Built anew from the parts, in the order in which they draw."""
    method = small("haba", steps=1, lr=0.5, weight_likeness=100.0, lr_lr=0.0)
    problem = problem_for(method, ipc=2)
    stepped = method.distill(problem)
    start = method._start(problem)
    objective, extractor = TrajectoryMatching(problem, "haba", 2, 1), Extractor(method, problem)
    chunks = extractor.chunks(start, 4)
    images, targets = start.decode()
    batches = [extractor.hallucinated(start, chunk) for chunk in chunks[:2]]
    found = objective(images, targets, torch.tensor(0.01).log().exp(), batches)
    leaf = images.detach().requires_grad_()
    alike = likeness(*extractor.net.embed(extractor._views(start, leaf, chunks[2])).chunk(2))
    (apart,) = torch.autograd.grad(100 * alike, leaf)
    assert apart.norm() > 0.1 * found.images.norm(), "both count here"
    images.backward(found.images + apart)
    for name, p in start.named_parameters():
        torch.testing.assert_close(stepped.get_parameter(name), p - 0.5 * p.grad, rtol=1e-4, atol=1e-4)


# --- HaBa: the whole ----------------------------------------------------------------------------------------


def test_one_identity_hallucinator_is_mtt(problem: Problem) -> None:
    """The same loss, and the same gradient of the bases as of the pixels."""
    pixels = Pixels.start(problem, random.generator(0)).double()
    haba = Hallucinators.start(
        problem,
        random.generator(0),
        hallucinators=1,
        bases_per_class=3,
        kernel=1,
        hallucinator_init="identity",
    ).double()
    assert torch.equal(haba.bases, pixels.images)
    found = []
    for synthetic in (pixels, haba):
        objective = matching(problem)
        images, targets = synthetic.decode()
        found.append(objective(images, targets, number(0.05), objective.shuffled(images, 4, 3, DSA_OPS)))
        found[-1].backward(images, targets)
    torch.testing.assert_close(found[0].loss, found[1].loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(haba.bases.grad, pixels.images.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("values", "bases"),
    [
        ({"hallucinators": 1}, (6, 3, 8, 8)),
        ({"basis_channels": 1}, (18, 1, 8, 8)),
        ({"init": "noise", "hallucinator_init": "identity", "padding": 1}, (6, 3, 8, 8)),
        ({"weight_likeness": 0.0}, (6, 3, 8, 8)),
    ],
)
def test_variants_of_haba_run(values: dict[str, Any], bases: tuple[int, ...]) -> None:
    method = small("haba", **values)
    found = method.distill(problem_for(method, ipc=2))
    assert found.bases.shape == bases
    assert found.decode()[0].shape == (len(found.bases) * found.hallucinators, 3, 8, 8)
    own = {"bases", "encoder_weight", "encoder_bias", "scale", "shift", "decoder_weight", "decoder_bias"}
    assert found.state_dict().keys() == own | {"inner_lr"}, "the extractor is not stored"


def test_the_extractor_matters_only_with_the_likeness() -> None:
    """lambda_cos 0: whatever F learns, the set is the same; else not."""
    problem = problem_for(small("haba"), ipc=2)
    for weight in (0.0, 0.5):
        one, two = (
            state(small("haba", weight_likeness=weight, extractor_lr=lr, lr=1.0).distill(problem))
            for lr in (1e-3, 0.5)
        )
        assert same(one, two) == (weight == 0)


def test_haba_within_its_budget_has_fewer_bases() -> None:
    method = small("haba", fit_budget=True, steps=1)
    problem = problem_for(method, ipc=10)
    found = method.distill(problem)
    assert found.n_stored - 1 <= problem.budget, "less the step size"
    assert found.n_stored - 1 > problem.budget - 3 * 3 * 64, "no room for one more basis of each class"

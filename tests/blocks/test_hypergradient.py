"""The adjoint of an inner training run equals differentiation through all of it."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.hypergradient import (
    AUGMENT,
    CLASSES,
    N_IMAGES,
    RULES,
    SHAPE,
    Case,
    adjoint,
    advance,
    assert_equal,
    gap,
    make_case,
    smooth_net,
    unroll,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import grad

from bench.core.augment import dsa
from bench.core.networks.architecture import parse_architecture
from bench.core.random import generator
from methods.blocks.hypergradient import SGD, Adam, FlatNetwork, Rule
from methods.blocks.inner_batches import InnerBatch

# --- it is the derivative -------------------------------------------------------------------------


@given(
    seed=st.integers(0, 100),
    rule=st.sampled_from(RULES),
    steps=st.integers(0, 7),
    soft=st.booleans(),
    per_step=st.booleans(),
    strategy=st.sampled_from(["none", AUGMENT]),
    data=st.data(),
)
def test_it_equals_autograd_through_the_window(
    seed: int, rule: Rule, steps: int, soft: bool, per_step: bool, strategy: str, data: st.DataObject
) -> None:
    case = make_case(seed, rule, steps, soft=soft, per_step=per_step, strategy=strategy)
    window = data.draw(st.none() | st.integers(0, steps))
    segment = data.draw(st.none() | st.integers(1, steps + 1))
    assert_equal(adjoint(case, window=window, segment=segment), unroll(case, window))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_long_run(rule: Rule) -> None:
    case = make_case(3, rule, 20, soft=True, per_step=True, strategy=AUGMENT)
    found = adjoint(case)
    assert found.images.norm() > 1e-6
    assert_equal(found, unroll(case))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_it_equals_central_differences(rule: Rule) -> None:
    case = make_case(1, rule, 8, soft=True)
    found = adjoint(case)
    g = generator(0, "direction")
    h = 1e-5

    def loss(**changes: Any) -> Tensor:
        moved = case.but(**changes)
        end = advance(
            moved.net,
            rule,
            moved.images,
            moved.targets,
            moved.lr,
            moved.batches,
            moved.start,
            momentum=moved.momentum,
        )
        return moved.outer(end.weights)

    for name in ("images", "targets", "lr"):
        value = getattr(case, name).detach()
        d = torch.randn(value.shape, generator=g, dtype=torch.float64) * (0.1 if name == "lr" else 1)
        if name == "lr" and isinstance(rule, Adam):
            d = d * 1e-2
        slope = (loss(**{name: value + h * d}) - loss(**{name: value - h * d})) / (2 * h)
        assert float((getattr(found, name) * d).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_rules_step_as_torch_does() -> None:
    def of_torch(rule: Rule, weights: Tensor) -> torch.optim.Optimizer:
        if isinstance(rule, Adam):
            return torch.optim.Adam([weights], lr=0.01)
        options = dataclasses.asdict(rule)
        return torch.optim.SGD([weights], lr=0.01, **options)

    for rule in RULES:
        case = make_case(rule=rule, steps=6)
        lr, start = torch.tensor(0.01), rule.start(case.net.weights())
        weights = start.weights.clone().requires_grad_()
        optimiser = of_torch(rule, weights)
        for batch in case.batches:
            optimiser.zero_grad()
            F.cross_entropy(case.net(weights, case.images[batch.items]), case.targets[batch.items]).backward()
            optimiser.step()
        end = advance(case.net, rule, case.images, case.targets, lr, case.batches, start)
        assert gap(end.weights, weights.detach()) < 1e-7  # lr is a float32 here
        assert end.step == 6


@pytest.mark.parametrize("rule", [SGD(momentum=0.9), Adam()], ids=str)
def test_the_fields_network_in_single_precision(rule: Rule) -> None:
    """ConvNet-2 with ReLU; Adam from zero moments, where biases before the norm never move."""
    net = FlatNetwork(parse_architecture("convnet-d2-w8").build((3, 8, 8), 10, generator(0, "net")))
    g = generator(0, "data")
    images = torch.randn(10, 3, 8, 8, generator=g).requires_grad_()
    batches = [InnerBatch(torch.randint(10, (8,), generator=g), dsa.draw(AUGMENT, 8, g)) for _ in range(5)]
    real, labels = torch.randn(20, 3, 8, 8, generator=g), torch.arange(20) % 10
    case = Case(
        net,
        rule,
        images,
        torch.arange(10),
        torch.tensor(0.01 if isinstance(rule, SGD) else 1e-3, requires_grad=True),
        None,
        batches,
        rule.start(net.weights()),
        lambda w: F.cross_entropy(net(w, real), labels),
    )
    found, wanted = adjoint(case), unroll(case)
    assert found.images.dtype == torch.float32
    assert gap(found.images, wanted.images) < 1e-3
    assert found.lr is not None
    assert wanted.lr is not None
    assert gap(found.lr, wanted.lr) < 1e-3


def test_adam_stays_finite_where_a_weight_never_had_a_gradient() -> None:
    case = make_case(rule=Adam(), steps=4)
    dark = case.images.detach() * torch.tensor([1.0, 0.0]).view(
        2, 1, 1
    )  # the second channel's weights are idle
    start = Adam().start(case.net.weights())
    found = adjoint(case.but(images=dark, start=start))
    assert (found.end.slots[1] == 0).any(), "no weight was idle"
    tensors = (found.images, found.lr, found.weights, *found.slots)
    assert all(torch.isfinite(x).all() for x in tensors)


@pytest.mark.filterwarnings("ignore:.*jit.script")
def test_the_curvature_is_that_of_forward_mode() -> None:
    """p_0 = p_1 + H n with n = -lr p_1, and dL/dq = -(1/b) D_n log p: one step of SGD."""
    case = make_case(rule=SGD(), steps=1, soft=True)
    found = adjoint(case)
    w, batch = case.start.weights, case.batches[0]
    p_1 = adjoint(case, window=0).weights
    n = -case.lr.detach() * p_1
    x, q = case.images.detach()[batch.items], case.targets.detach()[batch.items]

    def gradient(weights: Tensor) -> Tensor:
        return torch.func.grad(lambda u: F.cross_entropy(case.net(u, x), q))(weights)

    curved = torch.func.jvp(gradient, (w,), (n,))[1]
    assert gap(found.weights, p_1 + curved) < 1e-10
    slope = torch.func.jvp(lambda u: F.log_softmax(case.net(u, x), 1), (w,), (n,))[1]
    wanted = torch.zeros_like(case.targets).index_add(0, batch.items, -slope / len(batch.items))
    assert found.targets is not None
    assert gap(found.targets, wanted) < 1e-10


def test_closed_forms_of_heavy_ball() -> None:
    """n_0 = -lr sum_j mu^(j-1) p_j, dL/dv_0 = mu n_0, and dL/dlr_t = -<p_(t+1), v_(t+1)>."""
    case = make_case(2, SGD(momentum=0.9), 5, per_step=True).but(momentum=None)
    case = case.but(lr=torch.full((5,), 0.2, dtype=torch.float64, requires_grad=True))
    found = adjoint(case)
    p = [adjoint(case, window=5 - j).weights for j in range(6)]
    n_0 = -0.2 * sum(0.9 ** (j - 1) * p[j] for j in range(1, 6))
    assert gap(found.slots[0], 0.9 * n_0) < 1e-10
    ends = [adjoint(case.but(lr=case.lr[:t], batches=case.batches[:t])).end for t in range(1, 6)]
    rates = torch.stack([-(p[t + 1] * ends[t].slots[0]).sum() for t in range(5)])
    assert found.lr is not None
    assert gap(found.lr, rates) < 1e-10


def test_momentum_is_not_ignored() -> None:
    case = make_case(rule=SGD(momentum=0.9), steps=10)
    without = unroll(case.but(momentum=None), constant_slots=True)
    cosine = F.cosine_similarity(
        adjoint(case.but(momentum=None)).images.flatten(), without.images.flatten(), 0
    )
    assert cosine < 0.95


# --- what it does not depend on -------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_segments_change_no_bit(rule: Rule) -> None:
    case = make_case(rule=rule, steps=7, soft=True, strategy=AUGMENT)
    whole = adjoint(case, window=6)
    for segment in range(1, 8):
        part = adjoint(case, window=6, segment=segment)
        for field in ("loss", "images", "targets", "lr", "weights"):
            assert torch.equal(getattr(whole, field), getattr(part, field))


def test_a_window_is_a_run_from_where_it_starts() -> None:
    case = make_case(steps=6, strategy=AUGMENT)
    args = (case.net, case.rule, case.images, case.targets, case.lr)
    there = advance(*args, case.batches[:4], case.start, momentum=case.momentum)
    late = adjoint(case.but(start=there, batches=case.batches[4:]))
    assert torch.equal(adjoint(case, window=2).images, late.images)
    assert torch.equal(adjoint(case, window=2).end.weights, late.end.weights)
    assert late.end.step == 6


def test_no_step_and_no_rate() -> None:
    nothing = adjoint(make_case(steps=0, soft=True))
    assert not nothing.images.any()
    assert not nothing.targets.any()
    case = make_case(steps=0)
    assert torch.equal(nothing.loss, case.outer(case.start.weights))
    still = make_case(rule=SGD(), steps=4).but(lr=torch.tensor(0.0, dtype=torch.float64))
    assert not adjoint(still).images.any()
    assert torch.equal(adjoint(still).end.weights, still.start.weights)
    assert adjoint(still).lr is None


def test_rows() -> None:
    """A row of no batch has gradient 0; a repeated one collects; the order of the rows is no matter."""
    case = make_case(rule=SGD(momentum=0.9), steps=3).but(momentum=None)
    draw = case.batches[0].draw
    twice = [InnerBatch(torch.tensor([0, 0, 1, 2]), draw)] * 3
    found = adjoint(case.but(batches=twice))
    assert not found.images[3:].any()
    assert (found.images[:3].flatten(1).norm(dim=1) > 0).all()

    split = torch.cat([case.images[:1], case.images])[:N_IMAGES].detach()  # row 0 again, as rows 0 and 1
    labels = torch.cat([case.targets[:1], case.targets])[:N_IMAGES]
    apart = [InnerBatch(torch.tensor([0, 1, 2, 3]), draw)] * 3
    copies = adjoint(case.but(images=split, targets=labels, batches=apart)).images
    assert gap(copies[0] + copies[1], found.images[0]) < 1e-10

    order = torch.randperm(N_IMAGES, generator=generator(0, "order"))
    moved = [InnerBatch(order.argsort()[b.items], b.draw) for b in twice]
    permuted = case.but(images=case.images[order], targets=case.targets[order], batches=moved)
    assert torch.equal(adjoint(permuted).images, found.images[order])


# --- the way back to the parameters ---------------------------------------------------------------


def test_backward_reaches_what_everything_was_computed_from() -> None:
    case = make_case(rule=SGD(momentum=0.9), steps=4, strategy=AUGMENT)
    g = generator(0, "parameters")
    shapes = {"bases": (4, 72), "weights": (N_IMAGES, 4), "logits": (N_IMAGES, CLASSES), "rate": (), "mu": ()}
    leaves = {k: torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for k, s in shapes.items()}

    def decoded() -> Case:
        return case.but(
            images=(leaves["weights"] @ leaves["bases"]).view(N_IMAGES, *SHAPE),
            targets=leaves["logits"].softmax(1),
            lr=0.1 * F.softplus(leaves["rate"]),
            momentum=leaves["mu"].sigmoid(),
        )

    made = decoded()
    adjoint(made).backward(made.images, made.targets, made.lr, made.momentum)
    made = decoded()
    whole = unroll(made)
    wanted = grad(
        [made.images, made.targets, made.lr, made.momentum],
        list(leaves.values()),
        [whole.images, whole.targets, whole.lr, whole.momentum],
    )
    for x, d in zip(leaves.values(), wanted, strict=True):
        assert gap(x.grad, d) < 1e-10


def test_nothing_else_is_touched() -> None:
    net = smooth_net()
    case = make_case(soft=True).but(net=FlatNetwork(net))
    before = [x.detach().clone() for x in (case.images, case.targets, case.lr, *case.start.slots)]
    adjoint(case)
    after = (case.images, case.targets, case.lr, *case.start.slots)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert all(x.grad is None for x in (*after, *net.parameters()))

"""What the adjoint of an inner run keeps and replays, and the cheaper gradient of TESLA."""

import itertools
from collections.abc import Callable
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
from helpers.meter import MemoryCounter
from torch import Tensor, nn
from torch.autograd import grad

from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.random import generator
from methods.blocks.hypergradient import SGD, Adam, FlatNetwork, Hypergradient, Rule
from methods.blocks.objectives import trajectory_distance

# --- TESLA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES[:4], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_tesla_is_the_gradient_with_constant_iterates(rule: Rule, steps: int) -> None:
    case = make_case(rule=rule, steps=steps, soft=True, strategy=AUGMENT)
    found = adjoint(case, gradient="tesla")
    assert_equal(found, unroll(case, constant_iterates=True))
    exact = adjoint(case)
    assert (gap(found.images, exact.images) < 1e-10) == (steps == 1)
    assert steps == 1 or gap(found.images, exact.images) > 0.01


def test_teslas_formula() -> None:
    """(2/D) d<lr (target - start) + lr^2 G, g_i>/dx, its factor 2 included (Cui et al., equation 11)."""
    case = make_case(rule=SGD(), steps=4)
    start = case.start.weights
    target = start + 0.1 * torch.randn(len(start), generator=generator(0, "target"), dtype=torch.float64)
    case = case.but(outer=lambda w: trajectory_distance(w, start, target))
    state, iterates = case.start, []
    for batch in case.batches:
        iterates.append(state.weights)
        state = advance(case.net, SGD(), case.images, case.targets, case.lr, [batch], state)
    lr, far = case.lr.detach(), (start - target).square().sum()
    pull = 2 / far * (lr * (target - start) + lr * (start - state.weights))
    total = torch.zeros_like(case.images)
    for w, batch in zip(iterates, case.batches, strict=True):
        at = w.detach().requires_grad_()
        loss = F.cross_entropy(case.net(at, case.images[batch.items]), case.targets[batch.items])
        (g,) = grad(loss, at, create_graph=True)
        total += grad(g @ pull, case.images)[0]
    assert gap(adjoint(case, gradient="tesla").images, total) < 1e-10


def test_without_curvature_there_is_nothing_to_freeze() -> None:
    """Targets that sum to 0 leave the loss of a linear network linear in its weights: H = 0."""
    net = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES)).double())
    case = make_case(rule=SGD(), steps=5, soft=True)
    targets = case.targets.detach() - 1 / CLASSES
    real = case.images.detach().flip(0)
    linear = case.but(
        net=net,
        targets=targets,
        start=SGD().start(torch.linspace(-1, 1, net.size, dtype=torch.float64)),
        outer=lambda w: F.cross_entropy(net(w, real), torch.arange(N_IMAGES) % CLASSES),
    )
    exact, frozen = adjoint(linear), adjoint(linear, gradient="tesla")
    assert exact.images.any()
    assert gap(frozen.images, exact.images) < 1e-12


# --- trajectory matching --------------------------------------------------------------------------


def test_a_student_that_repeats_the_expert_arrives() -> None:
    case = make_case(rule=SGD(), steps=5)
    start = case.start.weights
    args = (case.net, SGD(), case.images, case.targets, case.lr, case.batches, case.start)
    target = advance(*args).weights
    found = adjoint(case.but(outer=lambda w: trajectory_distance(w, start, target)))
    assert found.loss < 1e-20
    assert found.images.abs().max() < 1e-9


def test_a_student_that_stands_still_has_distance_one() -> None:
    """And there dL/dlr = -(2/D) <start - target, sum g_i(start)>."""
    case = make_case(rule=SGD(), steps=4)
    start = case.start.weights
    target = start + torch.linspace(-1, 1, len(start), dtype=torch.float64)
    lr = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found = adjoint(case.but(lr=lr, outer=lambda w: trajectory_distance(w, start, target)))
    assert found.loss == 1
    at = start.clone().requires_grad_()
    losses = [
        F.cross_entropy(case.net(at, case.images[b.items]), case.targets[b.items]) for b in case.batches
    ]
    (total,) = grad(sum(losses), at)
    wanted = -2 / (start - target).square().sum() * ((start - target) @ total)
    assert gap(found.lr, wanted) < 1e-10


# --- cost -----------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Passes its images on, and keeps a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return x


def test_the_reverse_sweep_sees_the_same_images() -> None:
    """Bit for bit under random augmentation; N forward passes, and S more for the window."""
    recorder = Recorder()
    case = make_case(steps=6, strategy=AUGMENT)
    net = FlatNetwork(nn.Sequential(recorder, smooth_net()))
    adjoint(case.but(net=net, outer=lambda w: w.square().sum()), window=4)
    assert len(recorder.seen) == 6 + 4
    forward, reverse = recorder.seen[2:6], recorder.seen[6:]
    assert all(torch.equal(x, y) for x, y in zip(forward, reversed(reverse), strict=True))
    assert not any(torch.equal(x, y) for x, y in itertools.combinations(forward, 2))


def peak(function: Callable[..., Hypergradient], case: Case, **options: Any) -> int:
    with MemoryCounter() as watch:
        function(case, **options)
    return watch.peak


def test_memory_grows_by_the_weights_alone() -> None:
    """N more steps cost N more weight vectors, no velocities; the whole graph also costs the activations."""
    short, long = (make_case(steps=n).but(momentum=None) for n in (4, 8))
    weights = 4 * short.net.size * 8  # four vectors of float64
    fixed = [case.but(lr=case.lr.detach()) for case in (short, long)]
    growth = peak(adjoint, fixed[1]) - peak(adjoint, fixed[0])
    assert weights * 0.9 <= growth <= weights * 1.1
    assert peak(unroll, long) - peak(unroll, short) > 5 * weights


def test_segments_save_memory() -> None:
    case = make_case(rule=SGD(momentum=0.9), steps=16).but(momentum=None)
    whole, segmented = peak(adjoint, case), peak(adjoint, case, segment=4)
    assert whole - segmented > 14 * case.net.size * 8


def test_no_step_waits_for_the_device() -> None:
    """Nothing reads a value on the host: no item(), no bool(tensor), no nonzero."""
    for rule in (RULES[-2], RULES[-1]):
        case = make_case(rule=rule, steps=3, soft=True)
        with MemoryCounter() as watch:
            adjoint(case, window=2, segment=1)
        waits = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}
        assert not waits & watch.operations


# --- errors ---------------------------------------------------------------------------------------


def test_bad_input_is_named_in_one_line() -> None:
    batch_norm = parse_architecture("convnet-d2-w8-batch").build((3, 8, 8), 10, generator(0, "net"))
    with pytest.raises(UserError, match=r"batch norm.*instance, group, layer or none"):
        FlatNetwork(batch_norm)
    case = make_case(steps=3)
    for options, match in (
        ({"window": 4}, "window of 4 .* run of 3"),
        ({"window": -1}, "window of -1"),
        ({"segment": 0}, "segment of 0"),
    ):
        with pytest.raises(UserError, match=match):
            adjoint(case, **options)
    with pytest.raises(UserError, match=r"lr has shape \[2\].* 3 steps"):
        adjoint(case.but(lr=torch.ones(2)))
    for rule in (SGD(), Adam()):
        with pytest.raises(UserError, match="no momentum to learn"):
            adjoint(make_case(rule=rule, steps=3).but(momentum=torch.tensor(0.9)))


def test_flat_weights_stand_in_the_order_of_the_parameters() -> None:
    net = smooth_net()
    flat = FlatNetwork(net)
    assert torch.equal(flat.weights(), nn.utils.parameters_to_vector(net.parameters()))
    assert flat.size == sum(p.numel() for p in net.parameters())
    x = torch.ones(2, *SHAPE, dtype=torch.float64)
    assert torch.equal(flat(flat.weights(), x), net(x))
    assert not torch.equal(flat(2 * flat.weights(), x), net(x))

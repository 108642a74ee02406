"""Inner problems drawn from a seed, their adjoint, and autograd through the whole run as its oracle."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad

from bench.core.augment import dsa
from bench.core.random import generator
from methods.blocks.hypergradient import SGD, Adam, FlatNetwork, Hypergradient, Rule, State, hypergradient
from methods.blocks.inner_batches import InnerBatch

N_IMAGES, CLASSES, SHAPE = 6, 3, (2, 6, 6)
RULES = (
    SGD(),
    SGD(weight_decay=0.1),
    SGD(momentum=0.9),
    SGD(momentum=0.9, weight_decay=0.1),
    SGD(momentum=0.9, nesterov=True),
    SGD(momentum=0.8, nesterov=True, weight_decay=0.1),
    Adam(),
)
AUGMENT = "color_crop_cutout_flip_scale_rotate"


def smooth_net(seed: int = 0) -> nn.Module:
    """Twice differentiable, with the layers that matter: a convolution's bias before an instance norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = [nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(4, 4), nn.Softplus(), nn.AvgPool2d(2)]
        return nn.Sequential(*body, nn.Flatten(), nn.Linear(36, CLASSES)).double()


@dataclasses.dataclass(frozen=True)
class Case:
    """One inner problem, every number of it drawn from a seed."""

    net: FlatNetwork
    rule: Rule
    images: Tensor
    targets: Tensor
    lr: Tensor
    momentum: Tensor | None
    batches: list[InnerBatch]
    start: State
    outer: Callable[[Tensor], Tensor]

    def but(self, **changes: Any) -> "Case":
        return dataclasses.replace(self, **changes)


def make_case(
    seed: int = 0,
    rule: Rule = RULES[2],
    steps: int = 5,
    *,
    soft: bool = False,
    per_step: bool = False,
    strategy: str = "none",
) -> Case:
    """Runs that do not begin at rest, whose batches of four repeat images and may leave some out."""
    g = generator(seed, "case")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    net = FlatNetwork(smooth_net(seed))
    size = (steps,) if per_step else ()
    rate = 1e-3 if isinstance(rule, Adam) else 0.3
    lr = (rate * (1 + torch.rand(size, generator=g).double())).requires_grad_()
    learns_momentum = isinstance(rule, SGD) and rule.momentum > 0
    momentum = (0.5 + 0.4 * torch.rand(size, generator=g).double()).requires_grad_()
    draws = [(torch.randint(N_IMAGES, (4,), generator=g), dsa.draw(strategy, 4, g)) for _ in range(steps)]
    labels = torch.randint(CLASSES, (N_IMAGES,), generator=g)
    real, real_labels = normal(5, *SHAPE), torch.randint(CLASSES, (5,), generator=g)
    rest = rule.start(net.weights())
    slots = tuple(0.01 * normal(net.size) for _ in rest.slots)
    age = 0
    if isinstance(rule, Adam):
        slots, age = (slots[0], slots[1].abs()), 3
    return Case(
        net,
        rule,
        normal(N_IMAGES, *SHAPE).requires_grad_(),
        normal(N_IMAGES, CLASSES).softmax(1).requires_grad_() if soft else labels,
        lr,
        momentum if learns_momentum else None,
        [InnerBatch(items, draw) for items, draw in draws],
        State(rest.weights, slots, age),
        lambda w: F.cross_entropy(net(w, real), real_labels),
    )


def adjoint(case: Case, **options: Any) -> Hypergradient:
    return hypergradient(
        case.net,
        case.rule,
        case.images,
        case.targets,
        case.lr,
        case.batches,
        case.start,
        case.outer,
        momentum=case.momentum,
        **options,
    )


def leaf(state: State) -> State:
    weights, *slots = (x.detach().clone().requires_grad_() for x in (state.weights, *state.slots))
    return State(weights, tuple(slots), state.step)


def unroll(
    case: Case, window: int | None = None, *, constant_iterates: bool = False, constant_slots: bool = False
) -> Hypergradient:
    """The oracle: autograd through every step of the window at once."""
    n = len(case.batches)
    first = n - (n if window is None else window)
    state = leaf(case.start)
    begin = state
    for t, batch in enumerate(case.batches):
        if t == first:
            begin = state = leaf(state)
        at = state.weights.detach().requires_grad_() if constant_iterates else state.weights
        x = dsa.apply(case.images[batch.items], batch.draw)
        loss = F.cross_entropy(case.net(at, x), case.targets[batch.items])
        (g,) = grad(loss, at, create_graph=True)
        lr, mu = (r[t] if r is not None and r.ndim else r for r in (case.lr, case.momentum))
        if constant_slots:
            state = State(state.weights, tuple(s.detach() for s in state.slots), state.step)
        state = case.rule.update(state, g, lr, mu)
    if first == n:
        begin = state = leaf(state)
    loss = case.outer(state.weights)
    wanted = [case.images, case.targets, case.lr, case.momentum, begin.weights, *begin.slots]
    asked = [x for x in wanted if x is not None and x.requires_grad]
    given = dict(zip(map(id, asked), grad(loss, asked, materialize_grads=True), strict=True))
    images, targets, lr, momentum, weights, *slots = (given.get(id(x)) for x in wanted)
    return Hypergradient(loss.detach(), images, targets, lr, momentum, weights, tuple(slots), state)


def gap(one: Tensor, two: Tensor) -> float:
    """Relative distance; 0 for two zeros."""
    one, two = one.detach(), two.detach()
    return float((one - two).norm() / two.norm().clamp(min=1e-300)) if one.any() or two.any() else 0.0


def assert_equal(one: Hypergradient, two: Hypergradient, bound: float = 1e-10) -> None:
    for field in ("loss", "images", "targets", "lr", "momentum", "weights"):
        x, y = getattr(one, field), getattr(two, field)
        assert (x is None) == (y is None), field
        assert x is None or gap(x, y) < bound, (field, gap(x, y))
    for x, y in zip(one.slots, two.slots, strict=True):
        assert gap(x, y) < bound
    assert gap(one.end.weights, two.end.weights) < bound


def advance(
    net: FlatNetwork,
    rule: Rule,
    images: Tensor,
    targets: Tensor,
    lr: Tensor,
    batches: list[InnerBatch],
    start: State,
    *,
    momentum: Tensor | None = None,
) -> State:
    """The inner steps alone: the end of a run of which none is differentiated."""
    args = (net, rule, images, targets, lr, batches, start, torch.sum)
    return hypergradient(*args, momentum=momentum, window=0).end

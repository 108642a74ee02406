"""The exact gradient of an outer loss through an inner training run, at a bounded memory.

With g_t = grad_w CE(w_t; batch t), an inner step is (w, v)_{t+1} = rule((w, v)_t, g_t, lr_t) for t < N, and
L(w_N) is the outer loss. The forward sweep stores the N weight vectors. The reverse sweep
(Maclaurin et al., ICML 2015, algorithm 2; Deng & Russakovsky, NeurIPS 2022) rebuilds the graph of one step at
a time: with a the adjoint of g_t, it adds H_t a to the adjoint of w_t and d<g_t, a>/dx to that of the images.
The result is that of backpropagation through the whole run, which would store the activations of all N steps.
To rebuild a step costs a third of what the step costs otherwise; so the forward sweep may keep the graphs of
the last steps, as many as fit in `room` bytes.

Both second derivatives come from one double backward pass. The other exact way, a backward pass through a
forward-mode derivative, was 1.1 to 1.7 times slower on a CPU (ConvNet-3 of width 32 to 128, 10 to 50 images).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad

from bench.core import timing
from bench.core.augment import dsa
from bench.core.errors import UserError
from bench.core.networks.second_order import laid_out
from methods.blocks.inner_batches import InnerBatch
from methods.blocks.step_graphs import GraphSize, StepGradient

# bytes of kept graphs: those of 34 of the 50 steps of MTT's student on 10 images with ConvNet-3 of width 128
ROOM = 2**30


def check_differentiable(net: nn.Module) -> None:
    """Check a network, which may be on the meta device, before it is unrolled.

    Raises:
        UserError: the network has buffers, such as the running statistics of batch norm, which are not a
            function of the weights.
    """
    if any(True for _ in net.buffers()):
        raise UserError(
            "training cannot be differentiated through batch norm's running statistics: "
            "take an architecture with norm instance, group, layer or none"
        )


class FlatNetwork:
    """A network as a function of one weight vector [P], in the order of `net.parameters()`.

    Args:
        net: the network.

    Raises:
        UserError: see `check_differentiable`.
    """

    def __init__(self, net: nn.Module) -> None:
        check_differentiable(net)
        self._net = net
        self._shapes = {name: p.shape for name, p in net.named_parameters()}
        self._sizes = [p.numel() for p in net.parameters()]
        self.size = sum(self._sizes)  # P

    def weights(self) -> Tensor:
        """A copy of the network's own weights [P]."""
        return torch.cat([p.detach().flatten() for p in self._net.parameters()])

    def __call__(self, weights: Tensor, images: Tensor) -> Tensor:
        """Weights [P] and images [n,C,H,W] -> logits [n,K]."""
        parts = zip(self._shapes.items(), weights.split(self._sizes), strict=True)
        views = {name: part.view(shape) for (name, shape), part in parts}
        return torch.func.functional_call(self._net, views, (images,))


@dataclass(frozen=True)
class State:
    """An inner training run between two steps.

    Args:
        weights: [P].
        slots: what the update rule remembers (momentum, or Adam's moments), [P] each.
        step: number of steps taken.
    """

    weights: Tensor
    slots: tuple[Tensor, ...]
    step: int


@dataclass(frozen=True)
class SGD:
    """v' = momentum v + g + weight_decay w; w' = w - lr v', or w - lr (g + momentum v') with Nesterov.

    As in torch.optim, without dampening. Without momentum, nothing is remembered.
    """

    adjoint_reads_slots: ClassVar[bool] = False  # the update is linear in everything but lr and momentum

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def start(self, weights: Tensor) -> State:
        """A run that starts from these weights [P], with velocity zero."""
        return State(weights, (torch.zeros_like(weights),) if self.momentum else (), 0)

    def update(self, state: State, gradient: Tensor, lr: Tensor, momentum: Tensor | None) -> State:
        """Take one step.

        Args:
            state: before the step.
            gradient: g, [P].
            lr: 0-dim.
            momentum: 0-dim, used instead of the rule's own where it is learned.

        Returns:
            The state after the step.
        """
        mu = self.momentum if momentum is None else momentum
        direction = gradient + self.weight_decay * state.weights if self.weight_decay else gradient
        slots: tuple[Tensor, ...] = ()
        if state.slots:
            velocity = mu * state.slots[0] + direction
            direction = direction + mu * velocity if self.nesterov else velocity
            slots = (velocity,)
        return State(state.weights - lr * direction, slots, state.step + 1)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, ICLR 2015); the bias correction uses the state's number of steps."""

    adjoint_reads_slots: ClassVar[bool] = True

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def start(self, weights: Tensor) -> State:
        """A run that starts from these weights [P], with both moments zero."""
        return State(weights, (torch.zeros_like(weights), torch.zeros_like(weights)), 0)

    def update(self, state: State, gradient: Tensor, lr: Tensor, momentum: Tensor | None) -> State:
        """Take one step, as `SGD.update` does; `momentum` is not used."""
        step = state.step + 1
        mean = self.beta1 * state.slots[0] + (1 - self.beta1) * gradient
        square = self.beta2 * state.slots[1] + (1 - self.beta2) * gradient.square()
        # the gradient of a bias before an instance norm is always 0: sqrt'(0) would make its adjoint inf x 0
        moved = square > 0
        root = torch.where(moved, torch.where(moved, square, 1.0).sqrt(), 0.0)
        denominator = root / (1 - self.beta2**step) ** 0.5 + self.eps
        return State(state.weights - lr / (1 - self.beta1**step) * mean / denominator, (mean, square), step)


Rule = SGD | Adam
Visited = tuple[State, StepGradient | None]  # the state before a step, and its graph if that is kept
Adjoint = tuple[Tensor, ...]  # of the weights, then of each slot, [P] each
Gradient = Literal["exact", "tesla"]


@dataclass
class Hypergradient:
    """The outer loss, and its derivatives in everything that the differentiated steps depend on."""

    loss: Tensor  # 0-dim
    images: Tensor  # [n,C,H,W]; rows of no batch are exactly 0
    targets: Tensor | None  # [n,K], for soft targets
    lr: Tensor | None  # like lr, when it requires a gradient
    momentum: Tensor | None  # like momentum, when it requires a gradient
    weights: Tensor  # [P], in the weights before the first differentiated step
    slots: tuple[Tensor, ...]  # [P] each, in what the rule remembers at that point
    end: State  # the run after its last step

    def backward(
        self,
        images: Tensor,
        targets: Tensor | None = None,
        lr: Tensor | None = None,
        momentum: Tensor | None = None,
    ) -> None:
        """Accumulate gradients in the tensors that the arguments were computed from, in one backward pass.

        Args:
            images: the decoded images [n,C,H,W].
            targets: the decoded soft targets [n,K].
            lr: the learning rate.
            momentum: the momentum.
        """
        found = ((images, self.images), (targets, self.targets), (lr, self.lr), (momentum, self.momentum))
        pairs = [(x, d) for x, d in found if x is not None and d is not None and x.requires_grad]
        torch.autograd.backward([x for x, _ in pairs], [d for _, d in pairs])


@timing.charged("hypergradient")
def hypergradient(
    net: FlatNetwork,
    rule: Rule,
    images: Tensor,
    targets: Tensor,
    lr: Tensor,
    batches: Sequence[InnerBatch],
    start: State,
    outer: Callable[[Tensor], Tensor],
    *,
    momentum: Tensor | None = None,
    window: int | None = None,
    segment: int | None = None,
    gradient: Gradient = "exact",
    room: int = 0,
) -> Hypergradient:
    """The gradient of outer(w_N) through N inner steps; nothing is accumulated in any tensor's `grad`.

    Args:
        net: the network that is trained.
        rule: the update rule.
        images: the synthetic images [n,C,H,W].
        targets: their classes int64 [n], or probabilities [n,K], which get a gradient too.
        lr: learning rate, 0-dim, or [N] for one per step.
        batches: which images each of the N steps takes, and their augmentation.
        start: where the run starts.
        outer: weights w_N [P] -> the outer loss, 0-dim.
        momentum: used instead of the rule's own, 0-dim or [N].
        window: S, differentiate only the last S steps (truncated unrolling); by default all.
        segment: k, store one state in k and recompute the others: N/k + k weight vectors instead of N.
        gradient: "exact", or "tesla": treat each g_t as a function of its images only, so that no H_t a
            reaches the adjoint. This is a little cheaper, and biased for N > 1.
        room: bytes of graphs that the forward sweep may keep: those of the last steps, as many as fit, which
            the reverse sweep need not rebuild.

    Returns:
        The loss and its derivatives.

    Raises:
        UserError: the window, the segment or the rates do not fit N, or the rule has no momentum.

    References:
        Maclaurin et al., ICML 2015, algorithm 2; Deng & Russakovsky, NeurIPS 2022; for "tesla", Cui et al.,
        ICML 2023.
    """
    first = _check(rule, len(batches), lr, momentum, window, segment)
    run = _Run(net, rule, images, targets, lr, momentum)
    state = start
    for t in range(first):
        state = run.step(state, t, batches[t])
    size = segment or max(len(batches) - first, 1)
    pieces = [range(t, min(t + size, len(batches))) for t in range(first, len(batches), size)]
    marks: list[State] = []
    trail: list[Visited] = []
    for piece in pieces:
        marks.append(state)
        trail, state = run.forward(state, piece, batches, room if piece == pieces[-1] else 0)
    weights = state.weights.detach().requires_grad_()
    with timing.part("real gradient"):
        loss = outer(weights)
        (d_weights,) = grad(loss, weights)
    adjoint: Adjoint = (d_weights, *(torch.zeros_like(slot) for slot in state.slots))
    for piece, mark in zip(reversed(pieces), reversed(marks), strict=True):
        trail = trail or run.forward(mark, piece, batches, room)[0]
        for t in reversed(piece):
            adjoint = run.back(*trail.pop(), t, batches[t], adjoint, gradient == "exact")
    return Hypergradient(
        loss=loss.detach(),
        images=run.d_images,
        targets=run.d_targets,
        lr=run.d_lr,
        momentum=run.d_momentum,
        weights=adjoint[0],
        slots=adjoint[1:],
        end=state,
    )


def _check(
    rule: Rule, n: int, lr: Tensor, momentum: Tensor | None, window: int | None, segment: int | None
) -> int:
    """Check the arguments; return the first step that is differentiated."""
    for name, rate in (("lr", lr), ("momentum", momentum)):
        if rate is not None and rate.ndim and rate.shape != (n,):
            raise UserError(
                f"{name} has shape {list(rate.shape)}: give one value, or one for each of {n} steps"
            )
    if momentum is not None and not (isinstance(rule, SGD) and rule.momentum):
        raise UserError(f"{rule} has no momentum to learn: take SGD with a momentum above 0 to start from")
    if window is not None and not 0 <= window <= n:
        raise UserError(f"a window of {window} steps does not fit a run of {n}: take 0 to {n}")
    if segment is not None and segment < 1:
        raise UserError(f"a segment of {segment} steps keeps nothing: take at least 1")
    return n - (n if window is None else window)


class _Run:
    """One inner run: its steps, and the way back through them, which sums the gradients."""

    def __init__(
        self,
        net: FlatNetwork,
        rule: Rule,
        images: Tensor,
        targets: Tensor,
        lr: Tensor,
        momentum: Tensor | None,
    ) -> None:
        self._net, self._rule = net, rule
        self._images, self._targets = images.detach(), targets.detach()
        self._lr, self._momentum = lr, momentum
        self.d_images = torch.zeros_like(self._images)
        self.d_targets = torch.zeros_like(self._targets) if targets.is_floating_point() else None
        self.d_lr = torch.zeros_like(lr) if lr.requires_grad else None
        learned = momentum is not None and momentum.requires_grad
        self.d_momentum = torch.zeros_like(momentum) if momentum is not None and learned else None
        self._keeps_slots = rule.adjoint_reads_slots or lr.requires_grad or learned

    def step(self, state: State, t: int, batch: InnerBatch) -> State:
        """The state after step t."""
        return self._update(state, t, self._gradient(state, batch, differentiable=False))

    def forward(
        self, state: State, piece: range, batches: Sequence[InnerBatch], room: int
    ) -> tuple[list[Visited], State]:
        """What the reverse sweep needs of each step, and the state after the last.

        That is the state before it, without slots that no adjoint needs, and of the last steps the graph.
        """
        trail: list[Visited] = []
        kept = 0
        for t in piece:
            graph = None
            if room and t == piece[0]:  # the graphs of all steps are taken to be as large as the first
                with (size := GraphSize()):
                    graph = self._gradient(state, batches[t], differentiable=True)
                kept = room // size.bytes
            elif t > piece[-1] - kept:
                graph = self._gradient(state, batches[t], differentiable=True)
            after = self._update(state, t, graph or self._gradient(state, batches[t], differentiable=False))
            before = state if self._keeps_slots else State(state.weights, (), state.step)
            trail.append((before, graph if t > piece[-1] - kept else None))
            state = after
        return trail, state

    def back(
        self,
        state: State,
        graph: StepGradient | None,
        t: int,
        batch: InnerBatch,
        adjoint: Adjoint,
        exact: bool,
    ) -> Adjoint:
        """The adjoint before step t, from the one after it."""
        g = graph or self._gradient(state, batch, differentiable=True)
        a, (p, *slots) = self._back_through_rule(state, t, g.value.detach(), adjoint)
        inputs = [g.images] if self.d_targets is None else [g.images, g.targets]
        found = grad(g.value, [*inputs, g.weights] if exact else inputs, a, materialize_grads=True)
        self.d_images.index_add_(0, batch.items, found[0])
        if self.d_targets is not None:
            self.d_targets.index_add_(0, batch.items, found[1])
        return (p + found[-1] if exact else p, *slots)

    def _back_through_rule(
        self, state: State, t: int, gradient: Tensor, adjoint: Adjoint
    ) -> tuple[Tensor, Adjoint]:
        """The adjoint of g_t, and the adjoints of the weights and slots before step t through the rule."""
        slots = state.slots or tuple(torch.zeros_like(slot) for slot in adjoint[1:])
        before = [x.detach().requires_grad_() for x in (state.weights, *slots)]
        g, (lr, momentum) = gradient.requires_grad_(), self._at(t)
        after = self._rule.update(State(before[0], tuple(before[1:]), state.step), g, lr, momentum)
        rates = [(lr, self.d_lr)] if momentum is None else [(lr, self.d_lr), (momentum, self.d_momentum)]
        learned = [(rate, total) for rate, total in rates if total is not None]
        inputs = [g, *before, *(rate for rate, _ in learned)]
        a, *found = grad((after.weights, *after.slots), inputs, adjoint, materialize_grads=True)
        for (_, total), d in zip(learned, found[len(before) :], strict=True):
            (total[t] if total.ndim else total).add_(d)
        return a, tuple(found[: len(before)])

    def _at(self, t: int) -> tuple[Tensor, Tensor | None]:
        """lr and momentum of step t, detached from what they were computed from."""
        return _one(self._lr, t), None if self._momentum is None else _one(self._momentum, t)

    def _update(self, state: State, t: int, g: StepGradient) -> State:
        with torch.no_grad():
            return self._rule.update(state, g.value.detach(), *self._at(t))

    def _gradient(self, state: State, batch: InnerBatch, differentiable: bool) -> StepGradient:
        """g, the gradient of the mean cross-entropy."""
        weights = state.weights.detach().requires_grad_()
        images, targets = self._images[batch.items], self._targets[batch.items]
        images.requires_grad_(differentiable)
        targets.requires_grad_(differentiable and self.d_targets is not None)
        logits = self._net(weights, laid_out(dsa.apply(images, batch.draw)))
        loss = F.cross_entropy(logits, targets)
        value = grad(loss, weights, create_graph=differentiable)[0]
        return StepGradient(value, weights, images, targets)


def _one(rate: Tensor, t: int) -> Tensor:
    return (rate[t] if rate.ndim else rate).detach().requires_grad_(rate.requires_grad)

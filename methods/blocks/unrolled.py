"""Unrolled training (BPTT): the real loss of a network that has trained on synthetic images."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core import timing
from bench.core.augment import dsa
from bench.core.method import Problem
from bench.core.networks.second_order import laid_out
from bench.core.sampling import ClassSampler
from bench.core.transfer import to_device
from methods.blocks.hypergradient import ROOM, FlatNetwork, Hypergradient, Rule, State, hypergradient
from methods.blocks.inner_batches import balanced_batches
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.base import Balanced
from methods.blocks.unroll_windows import Unroll


class Unrolled:
    """The real loss of a network after training on synthetic images, differentiated through that training.

    Args:
        problem: the training set.
        purpose: the name of the random draws.
        rule: the network's update rule.
        windows: which inner steps are taken and differentiated.
        batch_per_class: synthetic images per class and inner step.
        batch_real: real images per class in the loss; never more than the smallest class has.
        strategy: augmentation, see `dsa.parse_strategy`.
        siamese: draw one augmentation for all images of an outer step, real and synthetic, instead of one for
            each image.
        task_classes: number of classes drawn for each outer step; the network keeps outputs for all classes.
            0 for all.
        segment: store one inner state in so many and recompute the others; 0 to store all.

    Raises:
        UserError: the network has running statistics.

    References:
        Deng & Russakovsky, NeurIPS 2022, section 3.2.
    """

    def __init__(
        self,
        problem: Problem,
        purpose: str,
        rule: Rule,
        windows: Unroll,
        *,
        batch_per_class: int,
        batch_real: int,
        strategy: str,
        siamese: bool,
        task_classes: int = 0,
        segment: int = 0,
    ) -> None:
        index = problem.index
        self._problem, self._rule, self._windows = problem, rule, windows
        self._strategy, self._siamese, self._segment = strategy, siamese, segment or None
        self._per_class, self._n_task = batch_per_class, task_classes or problem.n_classes
        size = min(batch_real, int(index.counts.min()))
        self._real = ClassSampler(index, size, problem.rng(purpose, "real"))
        self._draws = problem.rng(purpose, "batches")
        self._net = FlatNetwork(problem.make_net(problem.rng(purpose, "template")))

    def __call__(
        self, images: Tensor, targets: Tensor, lr: Tensor, momentum: Tensor | None = None
    ) -> Hypergradient:
        """Draw a run and a real batch, and compute the loss.

        Args:
            images: the decoded images [n,C,H,W], class after class.
            targets: their classes int64 [n], or probabilities [n,K].
            lr: the network's learning rate, 0-dim.
            momentum: used instead of the rule's own, 0-dim.

        Returns:
            The loss and its derivatives in images, soft targets, lr and momentum.
        """
        n_classes = self._problem.n_classes
        start, before, length = self._windows.next()
        classes = torch.randperm(n_classes, generator=self._draws)[: self._n_task].sort().values
        batches = balanced_batches(
            n_classes,
            len(images) // n_classes,
            self._per_class,
            before + length,
            self._draws,
            self._strategy,
            classes=classes,
            siamese=self._siamese,
            device=images.device,
        )
        real, labels = self._batch(classes, batches[-1].draw if self._siamese else None)
        found = hypergradient(
            self._net,
            self._rule,
            images.detach(),
            targets.detach(),
            lr,
            batches,
            start,
            lambda weights: F.cross_entropy(self._net(weights, real), labels),
            momentum=momentum,
            window=length,
            segment=self._segment,
            room=ROOM,
        )
        self._windows.done(found.end, found.loss)
        return found

    @timing.charged("real gradient")
    def _batch(self, classes: Tensor, omega: dsa.Draw | None) -> tuple[Tensor, Tensor]:
        """Real images of these classes and their labels; `omega` is the augmentation, if it is shared."""
        problem = self._problem
        drawn, device = self._real.next()[classes], problem.device
        real = problem.preprocess(problem.images[to_device(drawn.flatten(), device)])
        if omega is None:
            omega = dsa.draw(self._strategy, len(real), self._draws)
        labels = to_device(classes.repeat_interleave(drawn.shape[1]), device)
        return laid_out(dsa.apply(real, omega)), labels

    def state_dict(self) -> dict[str, Any]:
        """The states of the windows, of the sampler of real images, and of the generator."""
        samplers = {"real": self._real.state_dict(), "draws": self._draws.get_state()}
        return {"windows": self._windows.state_dict(), **samplers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._real.load_state_dict(state["real"])
        self._draws.set_state(state["draws"])
        self._windows.load_state_dict(state["windows"])


def fresh_states(problem: Problem, rule: Rule) -> Callable[[torch.Generator], State]:
    """A function that draws a new network from a generator, as an inner run of no steps yet."""
    return lambda generator: rule.start(FlatNetwork(problem.make_net(generator)).weights())


class Clip:
    """Bounds the norm of the gradient of all stored tensors.

    Args:
        limit: the bound; with `decay`, a multiple of the running mean of the norm (RaT-BPTT).
        decay: of the running mean.
    """

    def __init__(self, limit: float, decay: float | None = None) -> None:
        self._limit, self._decay, self._mean = limit, decay, torch.tensor(torch.nan)

    def __call__(self, synthetic: Balanced) -> None:
        """Scale the gradients of the set's parameters in place, without waiting for the device."""
        gradients = [p.grad for p in synthetic.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        limit = torch.full_like(norm, self._limit)
        if self._decay is not None:
            mean = to_device(self._mean, norm.device).to(norm.dtype)
            self._mean = torch.where(mean.isnan(), norm, self._decay * mean + (1 - self._decay) * norm)
            limit = limit * self._mean
        torch._foreach_mul_(gradients, (limit / (norm + 1e-12)).clamp(max=1))

    def state_dict(self) -> dict[str, Any]:
        """The running mean of the norm, 0-dim."""
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._mean = state["mean"]


def learn_unrolled(
    problem: Problem,
    synthetic: Balanced,
    unrolled: Unrolled,
    optimiser: torch.optim.Optimizer,
    eta: LearnedScalars,
    *,
    outer_steps: int,
    clip: Clip,
    mu: LearnedScalars | None = None,
) -> None:
    """Learn a set by back-propagation through time.

    Args:
        problem: the training set and its loop of steps.
        synthetic: the set; learned in place.
        unrolled: the loss.
        optimiser: of the set's parameters.
        eta: the inner learning rate; learned in place.
        outer_steps: steps of the optimiser.
        clip: bounds the set's gradient.
        mu: the inner momentum, learned in place; by default the update rule's own is used.

    References:
        Deng & Russakovsky, NeurIPS 2022, section 3.2; Feng, Vedantam & Kempe, ICLR 2024, algorithm 1.
    """
    state: dict[str, Any] = {"eta": eta, "unrolled": unrolled, "clip": clip} | ({"mu": mu} if mu else {})
    steps = problem.loop.steps(outer_steps, synthetic, "lr or inner_lr", optimiser=optimiser, **state)
    for _ in steps:
        images, targets = synthetic.decode()
        found = unrolled(images, targets, eta.value, mu.value if mu else None)
        optimiser.zero_grad()
        found.backward(images, targets)
        clip(synthetic)
        optimiser.step()
        eta.step(found.lr)
        if mu:
            mu.step(found.momentum)
        steps.loss(found.loss)

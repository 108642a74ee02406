"""Unrolled training (BPTT): the real loss of a network that trains on synthetic images."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core import timing
from bench.core.augment import dsa
from bench.core.method import Problem
from bench.core.sampling import ClassIndex, ClassSampler
from methods.blocks.hypergradient import FlatNetwork, Hypergradient, Rule, State, hypergradient
from methods.blocks.inner_batches import balanced_batches
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.base import Balanced
from methods.blocks.unroll_windows import Unroll


class Unrolled:
    """The real loss after training on synthetic images (Deng & Russakovsky, NeurIPS 2022, section 3.2).

    A network trains on balanced batches of synthetic images, `batch_per_class` of each class a step; its loss
    on `batch_real` real images of each class is differentiated through the steps of `windows`. `siamese`: one
    augmentation for all images of an outer step, real and synthetic, instead of one an image. `task_classes`:
    an outer step sees that many classes, drawn anew; the network keeps its outputs for all. 0: all.
    `segment`: one inner state in so many is kept, the steps between are repeated. 0: all are kept.
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
        index = ClassIndex.of(problem.labels, problem.n_classes)
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
        """The loss, and its gradient to the decoded images [n,C,H,W], soft targets [n,K], rate, momentum."""
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
        )
        self._windows.done(found.end, found.loss)
        return found

    @timing.charged("real gradient")
    def _batch(self, classes: Tensor, omega: dsa.Draw | None) -> tuple[Tensor, Tensor]:
        """Real images of these classes, with the augmentation of the synthetic ones where it is shared."""
        problem = self._problem
        drawn = self._real.next()[classes.to(problem.device)]
        real = problem.preprocess(problem.images[drawn.flatten()])
        if omega is None:
            omega = dsa.draw(self._strategy, len(real), self._draws)
        return dsa.apply(real, omega), classes.to(problem.device).repeat_interleave(drawn.shape[1])

    def state_dict(self) -> dict[str, Any]:
        samplers = {"real": self._real.state_dict(), "draws": self._draws.get_state()}
        return {"windows": self._windows.state_dict(), **samplers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._real.load_state_dict(state["real"])
        self._draws.set_state(state["draws"])
        self._windows.load_state_dict(state["windows"])


def fresh_states(problem: Problem, rule: Rule) -> Callable[[torch.Generator], State]:
    """Freshly drawn networks as inner runs that have not begun."""
    return lambda generator: rule.start(FlatNetwork(problem.make_net(generator)).weights())


class Clip:
    """Bounds the gradient's norm by `limit`, or with `decay` by that times its running mean (RaT-BPTT)."""

    def __init__(self, limit: float, decay: float | None = None) -> None:
        self._limit, self._decay, self._mean = limit, decay, torch.tensor(torch.nan)

    def __call__(self, synthetic: Balanced) -> None:
        """Scale the gradients of the parameters in place; no wait for the device."""
        gradients = [p.grad for p in synthetic.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        limit = torch.as_tensor(self._limit).to(norm)
        if self._decay is not None:
            mean = self._mean.to(norm)
            self._mean = torch.where(mean.isnan(), norm, self._decay * mean + (1 - self._decay) * norm)
            limit = limit * self._mean
        torch._foreach_mul_(gradients, (limit / (norm + 1e-12)).clamp(max=1))

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean = state["mean"]


def learn_unrolled(
    problem: Problem,
    synthetic: Balanced,
    unrolled: Unrolled,
    optimiser: torch.optim.Optimizer,
    eta: LearnedScalars,
    *,
    steps: int,
    clip: Clip,
    mu: LearnedScalars | None = None,
) -> None:
    """The outer loop of back-propagation through time: learns the set, the inner rate and the momentum."""
    state: dict[str, Any] = {"eta": eta, "unrolled": unrolled, "clip": clip} | ({"mu": mu} if mu else {})
    run = problem.loop.steps(steps, synthetic, "lr or inner_lr", optimiser=optimiser, **state)
    for _ in run:
        images, targets = synthetic.decode()
        found = unrolled(images, targets, eta.value, mu.value if mu else None)
        optimiser.zero_grad()
        found.backward(images, targets)
        clip(synthetic)
        optimiser.step()
        eta.step(found.lr)
        if mu:
            mu.step(found.momentum)
        run.loss(found.loss)

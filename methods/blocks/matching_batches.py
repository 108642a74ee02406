"""The batches that are matched: real and synthetic images of each class, with the same augmentation."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bench.core import timing
from bench.core.augment import dsa
from bench.core.method import Problem
from bench.core.sampling import ClassSampler
from bench.core.transfer import to_device
from methods.blocks.parameterise.base import Balanced


class MatchingPair(NamedTuple):
    """Real and synthetic images, normalised and class after class, with their targets.

    Args:
        real: [K*B,C,H,W].
        real_targets: int64 [K*B].
        synthetic: [K*b,C,H,W].
        targets: of the synthetic images, classes int64 [K*b], or probabilities [K*b,K].
    """

    real: Tensor
    real_targets: Tensor
    synthetic: Tensor
    targets: Tensor


class RealDraws(Protocol):
    """What chooses real images, as `ClassSampler` does."""

    def next(self) -> Tensor:
        """The next indices, int64 [K,B]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        ...


class MatchingBatches:
    """Pairs of batches of all classes, with one augmentation per class for its real and synthetic images.

    Args:
        problem: the training set.
        purpose: the name of the random draws.
        batch_real: real images per class; never more than the smallest class has.
        strategy: augmentation, see `dsa.parse_strategy`.
        batch_synthetic: the most decoded images per class; if there are more, some are drawn without
            replacement for each pair. By default all.
        real: chooses the real images, as many as a class has or `batch_real` asks for; by default at random.

    References:
        Zhao & Bilen, ICML 2021, section 3.2; Kim et al., ICML 2022, section 4.
    """

    def __init__(
        self,
        problem: Problem,
        purpose: str,
        batch_real: int,
        strategy: str,
        batch_synthetic: int | None = None,
        real: RealDraws | None = None,
    ) -> None:
        index = problem.index
        size = min(batch_real, int(index.counts.min()))
        self._problem, self._strategy, self._most = problem, strategy, batch_synthetic
        draws = problem.rng(purpose, "real")
        self._real: RealDraws = real or ClassSampler(index, size, draws, problem.device)
        self._draws, self._chosen = problem.rng(purpose, "augment"), problem.rng(purpose, "chosen")
        self._labels = torch.arange(problem.n_classes, device=problem.device).repeat_interleave(size)

    def next(self, synthetic: Balanced) -> MatchingPair:
        """The next pair, differentiable in the synthetic set."""
        problem, omega = self._problem, dsa.draw(self._strategy, self._problem.n_classes, self._draws)
        with torch.no_grad(), timing.part("real gradient"):
            real = dsa.apply(problem.preprocess(problem.images[self._real.next().flatten()]), omega)
        images, targets = synthetic.decode(self._items(synthetic.per_class))
        return MatchingPair(real, self._labels, dsa.apply(images, omega), targets)

    def _items(self, per_class: int) -> Tensor | None:
        """The positions of the decoded images to use, [K*b]; None for all."""
        if self._most is None or per_class <= self._most:
            return None
        keys = torch.rand(self._problem.n_classes, per_class, generator=self._chosen)
        chosen = keys.argsort(1)[:, : self._most] + per_class * torch.arange(len(keys))[:, None]
        return to_device(chosen.flatten(), self._problem.device)

    def state_dict(self) -> dict[str, Any]:
        """The states of the sampler of real images and of the generators."""
        generators = {"draws": self._draws.get_state(), "chosen": self._chosen.get_state()}
        return {"real": self._real.state_dict(), **generators}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._real.load_state_dict(state["real"])
        self._draws.set_state(state["draws"])
        self._chosen.set_state(state["chosen"])

"""Networks that methods draw on: which one comes next, and those that are built once and shared."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.method import ARCHITECTURE, SEED, Problem
from bench.networks import Network
from bench.train import Recipe, train


@dataclass(frozen=True)
class TrainedNetwork:
    """A network of the distillation architecture, trained on the real training set.

    Whoever embeds real images with the same network and recipe shares it, and is charged for it.
    """

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE, SEED})

    steps: int
    lr: float = 0.01
    batch_size: int = 256

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train; the result is the network's state dict."""
        net = problem.make_net(problem.rng("trained network", "init"))
        recipe = Recipe(batch_size=self.batch_size, lr=self.lr, steps=self.steps, milestones=(0.5,))
        order = problem.rng("trained network", "order")
        train(net, problem.images, problem.labels, recipe, order, problem.preprocess)
        return net.state_dict()

    @staticmethod
    def restore(problem: Problem, role: str = "network") -> Network:
        """The prepared network of this problem, in evaluation mode."""
        net = problem.make_net(problem.rng("trained network", "init"))
        net.load_state_dict({k: v.to(problem.device) for k, v in problem.prepared[role].items()})
        return net.eval()

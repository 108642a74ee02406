"""Networks that methods draw on, and what is built from them once and shared."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.method import ARCHITECTURE, SEED, Problem
from bench.train import Recipe, in_pieces, train


@dataclass(frozen=True)
class Embedding:
    """Features of every training image under a network trained on the real training set.

    Whoever selects real images with the same network and recipe shares it, and is charged for it.
    """

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE, SEED})

    steps: int
    lr: float = 0.01
    batch_size: int = 256

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """{"features": [N,D]}, in the order of the training set."""
        net = problem.make_net(problem.rng("embedding", "init"))
        recipe = Recipe(batch_size=self.batch_size, lr=self.lr, steps=self.steps, milestones=(0.5,))
        order = problem.rng("embedding", "order")
        train(net, problem.images, problem.labels, recipe, order, problem.preprocess)
        net.eval()
        with torch.inference_mode():
            return {"features": in_pieces(lambda x: net.embed(problem.preprocess(x)), problem.images)}

"""FRePo: Dataset Distillation using Neural Feature Regression (Zhou, Nezhadarya & Ba, NeurIPS 2022).

Images and labels are learned so that kernel ridge regression on a network's features predicts real images
from them. Labels are stored as logits l, and Y = (softmax(l) - 1/K) / sqrt(K/10), so that students of any
protocol can take them: as probabilities, or, with the `loss: squared_error` of protocol `frepo`, as Y.

Deviations: so Y cannot leave the centred probabilities (the authors': any numbers), and starts with 0.9 on
the class, and not 1; with `labels: hard` it stays at 1, and nothing is stored for it. Labels count, so that
fewer images fit; where not even one per class would, hard ones are needed. The networks start untrained, and
their first lives are of different lengths.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core import timing
from bench.core.batches import BatchOrder
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.schedules import cosine
from bench.core.search import Search
from bench.core.training import has_batch_norm, in_pieces
from methods.blocks.kernel_regression import kernel_regression
from methods.blocks.lamb import Lamb
from methods.blocks.online_pool import Online
from methods.blocks.parameterise.pixels import Pixels

LAST = 0.1  # of the rate, at the end of its cosine


@dataclass(frozen=True)
class FRePo:
    """Predict real images by regression from synthetic ones, on the features of networks trained on these."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Zhou, Nezhadarya & Ba, Dataset Distillation using Neural Feature Regression, NeurIPS 2022"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    steps: Annotated[int, Gt(0)] = 500000
    lr: Annotated[float, Gt(0), Search(1e-5, 0.1)] = 3e-4  # of LAMB; falls to a tenth by a cosine
    labels: Literal["hard", "class", "image"] = "hard"  # the paper learns them; presets say where they fit
    batch_real: Annotated[int, Gt(0)] = 1024  # real images of all classes together
    ridge: Annotated[float, Gt(0), Search(1e-8, 1e-2)] = 1e-6
    networks: Annotated[int, Gt(0)] = 10  # of the pool
    max_age: Annotated[int, Gt(0)] = 100  # steps of a network's life
    net_lr: Annotated[float, Gt(0), Search(1e-5, 0.03)] = 3e-4  # of Adam
    batch_synthetic: Annotated[int, Gt(0)] = 500  # images of a network's step, at most
    flip: bool = True  # mirror images are regressed from, and trained on, too

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """Labels within the budget."""
        Pixels.count(problem, self.labels)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Neural feature regression with pooling: algorithm 1 of Zhou, Nezhadarya & Ba (NeurIPS 2022)."""
        synthetic = Pixels.start(problem, problem.rng("frepo", "init"), init="real", labels=self.labels)
        pool = Online(
            problem,
            "frepo",
            lr=self.net_lr,
            networks=self.networks,
            max_age=self.max_age,
            batch_size=self.batch_synthetic,
            flip=self.flip,
        )
        order = BatchOrder(
            len(problem.images), self.batch_real, problem.rng("frepo", "order"), problem.device
        )
        optimiser = Lamb(synthetic.parameters(), lr=self.lr)
        steps = problem.loop.steps(self.steps, synthetic, "lr", optimiser=optimiser, pool=pool, order=order)
        for step in steps:
            optimiser.param_groups[0]["lr"] = self.lr * cosine(step, self.steps, LAST)
            pool.restart()
            index = next(order)
            real = embedded(pool.net, problem.preprocess(problem.images[index]))
            images, targets = synthetic.decode()
            if self.flip:
                images, targets = torch.cat([images, images.flip(-1)]), torch.cat([targets, targets])
            with timing.part("synthetic gradient"):
                features = pool.net.embed(images)
            loss = kernel_regression(
                real, problem.labels[index], features, targets, problem.n_classes, ridge=self.ridge
            )
            optimiser.zero_grad()
            with timing.part("synthetic gradient"):
                loss.backward(inputs=list(synthetic.parameters()))
            optimiser.step()
            pool.advance(synthetic)
            steps.loss(loss)
        return synthetic


@timing.charged("real gradient")
@torch.no_grad()
def embedded(net: Network, images: Tensor) -> Tensor:
    """Features [n,D] without a graph: in pieces, unless batch norm needs the whole batch."""
    return net.embed(images) if has_batch_norm(net) else in_pieces(net.embed, images)


METHOD = FRePo

"""NCFM: Dataset Distillation with Neural Characteristic Function (Wang et al., CVPR 2025).

Multi-formation. The characteristic functions of each class's features are matched at random frequencies,
under networks between the start and the end of a training on the real set; and the network at the end shall
classify the images.

Deviations: frequencies are drawn from N(0, 1), as in the authors' settings for CIFAR-10, where the paper's
network that learns to sample them is off; all classes share those of a step. One step of the optimiser is for
all classes and both losses, which see the same augmented images (the authors: one after each class and loss).
AdamW divides by the root of a gradient's mean square, which steps without one lower: theirs move a pixel by
about sqrt(2K) lr an iteration, ours by lr. Of deep networks the last features are matched (the authors: those
of several layers, beyond a depth of five). A real batch is never larger than the smallest class.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Search
from bench.core.training import has_batch_norm, in_pieces
from bench.core.transfer import to_host
from methods.blocks.characteristic_functions import characteristic_function
from methods.blocks.interpolated import Interpolated, initial_and_trained
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.parameterise.multi_formation import MultiFormation


@dataclass(frozen=True)
class NCFM:
    """Multi-formation, learned by matching characteristic functions of features, and by a trained network."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Wang et al., Dataset Distillation with Neural Characteristic Function: A Minmax Perspective, "
        "CVPR 2025"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    factor: Annotated[int, Gt(0)] = 2
    steps: Annotated[int, Gt(0)] = 20000
    lr: Annotated[float, Gt(0), Search(1e-4, 0.3)] = 0.001  # of AdamW
    weight_decay: Annotated[float, Ge(0), Search(1e-4, 0.1)] = 0.01
    patience: Annotated[int, Ge(0)] = 500  # steps without a lower loss, after which lr is halved
    frequencies: Annotated[int, Gt(0)] = 4096
    # weight of the trained network's cross-entropy
    calibration: Annotated[float, Ge(0), Search(0.01, 10)] = 1.0
    batch_real: Annotated[int, Gt(0)] = 1024  # real images per class and step
    augment: str = "color+crop+cutout"  # siamese: one draw per class and step
    experts: Annotated[int, Gt(0)] = 20  # networks that are trained
    net_epochs: Annotated[int, Gt(0)] = 60
    net_lr: Annotated[float, Gt(0)] = 0.01  # a fifth of it after 2/3 of the training, and again after 5/6
    net_momentum: Annotated[float, Ge(0)] = 0.9
    net_weight_decay: Annotated[float, Ge(0)] = 0.01
    net_batch: Annotated[int, Gt(0)] = 256
    net_augment: str = "color+crop"
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.5  # probability per batch of the networks' training

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)
        dsa.parse_strategy(self.net_augment)

    def requires(self) -> dict[str, Prerequisite]:
        """The networks, before and after their training on the real set."""
        return initial_and_trained(
            self.experts,
            epochs=self.net_epochs,
            lr=self.net_lr,
            batch_size=self.net_batch,
            momentum=self.net_momentum,
            weight_decay=self.net_weight_decay,
            milestones=(2 / 3, 5 / 6),
            gamma=0.2,
            augment=self.net_augment,
            cutmix=self.cutmix,
        )

    def check(self, problem: Problem) -> None:
        """Images within the budget."""
        MultiFormation.count(problem, factor=self.factor)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Neural characteristic function matching: section 3 of Wang et al. (CVPR 2025)."""
        start, n = problem.rng("ncfm", "init"), problem.n_classes
        synthetic = MultiFormation.start(problem, start, factor=self.factor, init="mix")
        optimiser = torch.optim.AdamW(synthetic.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=self.patience)
        pairs = MatchingBatches(problem, "ncfm", self.batch_real, self.augment)
        pool, draws = (
            Interpolated(problem, problem.rng("ncfm", "networks")),
            problem.rng("ncfm", "frequencies"),
        )
        steps = problem.loop.steps(
            self.steps,
            synthetic,
            "lr",
            optimiser=optimiser,
            plateau=plateau,
            pairs=pairs,
            pool=pool,
            draws=draws,
        )
        for _ in steps:
            pool.restart()
            synthetic.clamp()
            net, pair = pool.net, pairs.next(synthetic)
            with torch.no_grad(), timing.part("real gradient"):
                real = net.embed(pair.real) if has_batch_norm(net) else in_pieces(net.embed, pair.real)
            with timing.part("synthetic gradient"):
                found = net.embed(pair.synthetic)
                matching = characteristic_function(real, found, n, draws, self.frequencies)
                calibration = F.cross_entropy(pool.trained(pair.synthetic), pair.targets)
                loss = matching + self.calibration * n * calibration  # both are summed over classes
            optimiser.zero_grad()
            loss.backward(inputs=list(synthetic.parameters()))
            optimiser.step()
            plateau.step(float(to_host(loss.detach())))
            steps.loss(loss)
        return synthetic


METHOD = NCFM

"""MTT: Dataset Distillation by Matching Training Trajectories (Cazenavette et al., CVPR 2022, algorithm 1).

Deviations: the gradient is the exact adjoint, which stores N weight vectors instead of N graphs; the step
size is learned as its logarithm (whose first step is the paper's), so that it stays positive, and is stored
in the artifact; an augmentation's operation is drawn for each image (the authors: for each batch), also in
the experts' training; experts are trained only for the epochs that are used. The presets whiten where the
paper does (`preprocess: zca`).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Choices, Search
from methods.blocks.experts import trajectories
from methods.blocks.hypergradient import check_differentiable
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.trajectory import TrajectoryMatching, match_trajectories


@dataclass(frozen=True)
class MTT:
    """Images whose training trajectories match those of experts trained on real images."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    exact_gradients: ClassVar[bool] = True

    steps: Annotated[int, Gt(0)] = 5000
    inner_steps: Annotated[int, Gt(0)] = 50  # N, on synthetic images
    expert_epochs: Annotated[int, Gt(0)] = 2  # M, that these steps should reach
    start_epochs: Annotated[int, Gt(0)] = 2  # T+: a segment starts at one of the epochs 0 .. T+ - 1
    batch_synthetic: Annotated[int, Ge(0)] = 0  # images per inner step; 0: all
    lr: Annotated[float, Gt(0), Search(1, 1e4)] = 100.0  # of the images
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    inner_lr: Annotated[float, Gt(0), Search(1e-3, 0.3)] = 0.01  # alpha_0
    lr_lr: Annotated[float, Ge(0), Search(1e-8, 1e-3)] = 1e-7  # of alpha
    augment: str = "color_crop_cutout_flip_scale_rotate"
    init: Annotated[Literal["real", "noise"], Choices(("real", "noise"))] = "real"
    labels: Literal["hard", "class", "image"] = "hard"
    experts: Annotated[int, Gt(0)] = 100
    expert_lr: Annotated[float, Gt(0)] = 0.01
    expert_batch: Annotated[int, Gt(0)] = 256

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        """Experts trained for every epoch that a segment can reach."""
        epochs = self.start_epochs - 1 + self.expert_epochs
        return trajectories(
            self.experts, epochs, lr=self.expert_lr, batch_size=self.expert_batch, augment=self.augment
        )

    def check(self, problem: Problem) -> None:
        """A network that can be differentiated through, and labels within the budget."""
        Pixels.count(problem, self.labels)
        check_differentiable(problem.make_net(problem.rng("check")))

    def distill(self, problem: Problem) -> DistilledDataset:
        """Trajectory matching: algorithm 1 of Cazenavette et al. (CVPR 2022)."""
        synthetic = Pixels.start(problem, problem.rng("mtt", "init"), init=self.init, labels=self.labels)
        matching = TrajectoryMatching(problem, "mtt", self.start_epochs, self.expert_epochs)
        match_trajectories(
            problem,
            synthetic,
            matching,
            LearnedScalars(synthetic, "inner_lr", self.inner_lr, self.lr_lr, self.momentum),
            outer_steps=self.steps,
            inner_steps=self.inner_steps,
            batch_synthetic=self.batch_synthetic,
            augment=self.augment,
            lr=self.lr,
            momentum=self.momentum,
        )
        return synthetic


METHOD = MTT

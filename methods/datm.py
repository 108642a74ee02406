"""DATM: Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching (Guo et al., ICLR
2024).

MTT whose segments start in a window of epochs that moves with the difficulty that a budget can hold: its
upper end grows while the set is learned. Images start as real ones that experts classify right, labels as
what these experts answer, and both are learned; a step whose loss is too large is left out.

Deviations: those of `mtt`. Of each class the images are taken that most of `label_experts` experts classify
right at the end of the epochs that are used (the authors: at an epoch of choice, in the order of the data),
and their labels are the mean logits of those that do. Labels count, so that fewer images fit; where not even
one per class would, hard ones are needed.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Search
from bench.core.training import in_pieces
from bench.core.transfer import to_device, to_host
from methods.blocks.experts import Experts, trajectories
from methods.blocks.hypergradient import FlatNetwork, check_differentiable
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.trajectory import TrajectoryMatching


@dataclass(frozen=True)
class DATM:
    """Images and soft labels that match expert trajectories from a growing window of start epochs."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, "
        "ICLR 2024"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    exact_gradients: ClassVar[bool] = True

    steps: Annotated[int, Gt(0)] = 10000
    inner_steps: Annotated[int, Gt(0)] = 80  # N, on synthetic images
    expert_epochs: Annotated[int, Gt(0)] = 2  # M, that these steps should reach
    first_start: Annotated[int, Ge(0)] = 0  # T-: segments start at this epoch or later,
    start_epochs: Annotated[int, Gt(0)] = 4  # and before this one at first,
    last_start_epochs: Annotated[int, Gt(0)] = 4  # T+: before this one
    growth: Annotated[int, Ge(0)] = 0  # after so many steps; linear until then
    batch_synthetic: Annotated[int, Ge(0)] = 0  # images per inner step; 0: all
    lr: Annotated[float, Gt(0), Search(1, 1e4)] = 100.0  # of the images
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    labels: Literal["hard", "image"] = "hard"  # the paper learns them; presets say where they fit
    label_lr: Annotated[float, Gt(0), Search(0.1, 100)] = 5.0
    label_momentum: Annotated[float, Ge(0)] = 0.9
    label_experts: Annotated[int, Gt(0)] = 10  # that choose and label the first images
    largest_loss: Annotated[float, Gt(0)] = 1.0  # of a step that is taken
    inner_lr: Annotated[float, Gt(0), Search(1e-3, 0.3)] = 0.01  # alpha_0
    lr_lr: Annotated[float, Ge(0), Search(1e-8, 1e-3)] = 1e-5  # of alpha
    augment: str = "color_crop_cutout_flip_scale_rotate"
    experts: Annotated[int, Gt(0)] = 100
    expert_lr: Annotated[float, Gt(0)] = 0.01
    expert_batch: Annotated[int, Gt(0)] = 256

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)
        if not self.first_start < self.start_epochs <= self.last_start_epochs:
            raise UserError("first_start < start_epochs <= last_start_epochs: segments start between them")

    def requires(self) -> dict[str, Prerequisite]:
        """Experts trained for every epoch that a segment can reach."""
        epochs = self.last_start_epochs - 1 + self.expert_epochs
        return trajectories(
            self.experts, epochs, lr=self.expert_lr, batch_size=self.expert_batch, augment=self.augment
        )

    def check(self, problem: Problem) -> None:
        """A network that can be differentiated through, and labels within the budget."""
        Pixels.count(problem, self.labels)
        check_differentiable(problem.make_net(problem.rng("check")))

    def distill(self, problem: Problem) -> DistilledDataset:
        """Difficulty-aligned trajectory matching: section 3 of Guo et al. (ICLR 2024)."""
        synthetic = self._start(problem)
        matching = TrajectoryMatching(problem, "datm", self.start_epochs, self.expert_epochs)
        alpha = LearnedScalars(synthetic, "inner_lr", self.inner_lr, self.lr_lr, self.momentum)
        groups: list[dict[str, Any]] = [{"params": [synthetic.images]}]
        if synthetic.label_logits is not None:
            of_labels = [synthetic.label_logits]
            groups.append({"params": of_labels, "lr": self.label_lr, "momentum": self.label_momentum})
        optimiser = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        steps = problem.loop.steps(
            self.steps,
            synthetic,
            "lr_lr, lr or label_lr",
            optimiser=optimiser,
            alpha=alpha,
            matching=matching,
        )
        for step in steps:
            matching.start_between(self.first_start, self.window(step))
            images, targets = synthetic.decode()
            batches = matching.shuffled(images, self.batch_synthetic, self.inner_steps, self.augment)
            found = matching(images, targets, alpha.value, batches)
            if to_host(found.loss) <= self.largest_loss:  # waits for the device, once in N inner steps
                optimiser.zero_grad()
                found.backward(images, targets)
                optimiser.step()
                alpha.step(found.lr)
            steps.loss(found.loss)
        return synthetic

    def window(self, step: int) -> int:
        """Before which epoch segments start, at a step of the set."""
        grown = min(1.0, step / self.growth) if self.growth else 1.0
        return self.start_epochs + round(grown * (self.last_start_epochs - self.start_epochs))

    def _start(self, problem: Problem) -> Pixels:
        """Real images that experts classify right, with their mean logits."""
        n, k = Pixels.count(problem, self.labels), problem.n_classes
        right, logits = expert_answers(problem, min(self.label_experts, self.experts))
        draws = to_device(torch.rand(len(right), generator=problem.rng("datm", "init")), right.device)
        of_class = problem.labels == torch.arange(k, device=right.device)[:, None]  # [K,N]
        order = (right + draws).masked_fill(~of_class, -1.0).argsort(dim=1, descending=True)
        place = torch.arange(n, device=right.device) % of_class.sum(1, keepdim=True)
        chosen = order.gather(1, place).flatten()  # a class of fewer than n images repeats them
        return Pixels(
            problem.preprocess(problem.images[chosen]),
            [n] * k,
            problem.preprocess,
            label_logits=None if self.labels == "hard" else logits[chosen],
        ).to(problem.device)


@torch.no_grad()
def expert_answers(problem: Problem, n: int) -> tuple[Tensor, Tensor]:
    """What the first n experts answer to all training images at their last epoch.

    Returns:
        How many classify each image right [N], and the mean logits of those that do, of all where nobody
        does, [N,K].
    """
    experts, net = Experts(problem), FlatNetwork(problem.make_net(problem.rng("datm", "network")))
    right = torch.zeros(len(problem.images), device=problem.device)
    among, everybody = (right.new_zeros(len(right), problem.n_classes) for _ in range(2))
    for expert in range(n):
        see = partial(_see, problem, net, experts.weights(expert, experts.last))
        logits = in_pieces(see, problem.images)
        hit = (logits.argmax(1) == problem.labels).to(right)
        right += hit
        among += hit[:, None] * logits
        everybody += logits
    mean = torch.where(right[:, None] > 0, among / right[:, None].clamp(min=1), everybody / n)
    return right, mean


def _see(problem: Problem, net: FlatNetwork, weights: Tensor, images: Tensor) -> Tensor:
    return net(weights, problem.preprocess(images))


METHOD = DATM

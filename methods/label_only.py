"""Random images with early soft labels: A Label is Worth a Thousand Images (Qin et al., NeurIPS 2024).

The control of every claim about soft labels. Deviations: the teacher has the architecture of the distillation
and is trained at a constant rate, without augmentation; labels are stored, and go over the budget by classes
floats an image, as published. Which epoch suits an ipc can be tuned on a hold-out of the training set.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.sampling import ClassSampler
from bench.core.transfer import to_device
from methods.blocks.coresets import check_enough
from methods.blocks.dynamics import Dynamics
from methods.blocks.parameterise.pixels import Pixels


@dataclass(frozen=True)
class LabelOnly:
    """`ipc` random real images of each class, labelled by a teacher that stops early."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Qin, Deng & Alvarez-Melis, A Label is Worth a Thousand Images, NeurIPS 2024"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    fit_budget: ClassVar[bool] = False
    labels: ClassVar[str] = "image"

    epoch: Annotated[int, Gt(0)] = 20  # after which the teacher labels; tune it for each ipc
    repeat: bool = False  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """The teacher's answers after `epoch`."""
        return {"dynamics": Dynamics(self.epoch)}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Draw `ipc` training images of each class without replacement, and store the teacher's answers."""
        check_enough(problem, self.repeat)
        draws = problem.rng("label_only")
        drawn = ClassSampler(problem.index, problem.ipc, draws, problem.device).next().flatten()
        answers = to_device(problem.prepared["dynamics"]["probabilities"], problem.device)[drawn]
        logits = answers.clamp(min=torch.finfo(answers.dtype).tiny).log()  # softmax gives the answers again
        counts = [problem.ipc] * problem.n_classes
        return Pixels(problem.images[drawn], counts, problem.preprocess, label_logits=logits)


METHOD = LabelOnly

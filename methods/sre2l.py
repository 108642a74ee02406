"""SRe2L: Squeeze, Recover and Relabel (Yin et al., NeurIPS 2023); CDA's curriculum and EDC's real start.

Squeeze: a teacher with batch norm is trained on the real set; its architecture is a hyper-parameter, so
that one set serves all architectures of the students. Recover: images that the teacher classifies as their
class, while the statistics of each batch, one image of every class, match those of its batch norms. `crop:
curriculum` is CDA (Yin & Shen, TMLR 2024), whose smallest crop falls from whole images by a cosine; `init:
real` is the start of EDC (Shao et al., NeurIPS 2024; on CIFAR with steps 75, lr 0.05). Relabel: the paper
stores the teacher's answer for every epoch, which is the regime of a protocol (`decoupled`).

Deviations: all batches take a step together (the authors: one after the other; no batch sees another, and
Adam works on each pixel alone, so both do the same). Of EDC, one teacher and its real start only.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import IPC, SEED, Problem
from bench.core.schedules import cosine
from bench.core.search import Search
from bench.core.training import has_batch_norm
from bench.core.transfer import to_device
from methods.blocks.crops import crop_matrices, draw_crops
from methods.blocks.objectives import batch_norm_statistics
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.teacher import Taught

TOGETHER = 500  # images that go through the teacher at once, at most, if a batch has no more
STRETCH = 4 / 3  # largest width / height of a crop


@dataclass(frozen=True)
class SRe2L(Taught):
    """Images that a teacher classifies as their class and that match its batch-norm statistics."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Yin, Xing & Shen, Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New "
        "Perspective, NeurIPS 2023"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    steps: Annotated[int, Gt(0)] = 1000
    lr: Annotated[float, Gt(0), Search(1e-3, 1)] = 0.25  # of Adam on the pixels; falls to 0 by a cosine
    r_bn: Annotated[float, Ge(0), Search(1e-4, 10)] = 0.01  # weight of the statistics
    first_bn: Annotated[float, Ge(0), Search(0.1, 100)] = 10.0  # weight of the first layer among them
    init: Literal["noise", "real"] = "noise"
    crop: Literal["none", "random", "curriculum"] = "none"  # one for each batch and step, as the roll
    smallest: Annotated[float, Gt(0), Le(1)] = 0.08  # least share of an image's area that a crop takes
    flip: bool = False
    roll: Annotated[int, Ge(0)] = 4  # pixels, at most, in either direction

    def check(self, problem: Problem) -> None:
        """A teacher with batch norm that takes the images, and images within the budget."""
        if not has_batch_norm(self.named_teacher.outline(problem)):
            raise UserError(f"teacher: {self.teacher} has no batch norm: take one with, as convnet-batch")

    def distill(self, problem: Problem) -> DistilledDataset:
        """Recover images by the teacher's statistics: Yin et al. (2023), section 3."""
        self.check(problem)
        net, n_classes = self.named_teacher.trained(problem), problem.n_classes
        n = Pixels.count(problem, "hard")
        start = Pixels.start(problem, problem.rng("sre2l", "init"), init=self.init)
        synthetic = Pixels(start.images.detach(), [n] * n_classes, problem.preprocess)
        batches = torch.arange(n * n_classes, device=problem.device).view(n_classes, n).T  # one of each class
        optimiser = torch.optim.Adam(synthetic.parameters(), lr=self.lr, betas=(0.5, 0.9))
        draws = problem.rng("sre2l", "views")
        steps = problem.loop.steps(self.steps, synthetic, "lr", optimiser=optimiser, draws=draws)
        for step in steps:
            optimiser.param_groups[0]["lr"] = self.lr * cosine(step, self.steps)
            optimiser.zero_grad()
            losses = []
            for some in batches.split(max(1, TOGETHER // n_classes)):
                images = self._view(synthetic.decode(some.flatten())[0], len(some), step, draws)
                logits, distance = batch_norm_statistics(net, images, len(some), self.first_bn)
                targets = torch.arange(n_classes, device=problem.device).repeat(len(some))
                own = F.cross_entropy(logits, targets, reduction="sum") / n_classes
                loss = own + self.r_bn * distance.sum()
                with timing.part("synthetic gradient"):
                    loss.backward()
                losses.append(loss.detach())
            optimiser.step()
            with torch.no_grad():
                seen = problem.preprocess.invert(synthetic.images).clamp_(0, 1)
                synthetic.images.copy_(problem.preprocess(seen))
            steps.loss(torch.stack(losses).sum() / n)
        return synthetic

    def _view(self, images: Tensor, batches: int, step: int, draws: torch.Generator) -> Tensor:
        """Crop, flip and roll each batch, with one draw for all of its images: [batches*B,C,H,H] -> same."""
        side = images.shape[-1]
        smallest = {"none": 1.0, "random": self.smallest}.get(self.crop)
        if smallest is None:
            smallest = self.smallest + (1 - self.smallest) * cosine(step, self.steps)
        stretch = 1.0 if self.crop == "none" else STRETCH
        crops = draw_crops(batches, side, smallest, draws, stretch)
        flips = torch.rand(batches, generator=draws) < (0.5 if self.flip else 0.0)
        shifts = torch.randint(-self.roll, self.roll + 1, (2, batches), generator=draws)
        rows, columns = (crop_matrices(crops[:, axis], side, side, images.dtype) for axis in (0, 1))
        columns = torch.where(flips[:, None, None], columns.flip(1), columns)
        rows, columns = (rolled(one, shift) for one, shift in zip((rows, columns), shifts, strict=True))
        left, right = (to_device(one, images.device)[:, None, None] for one in (rows, columns))
        return (left @ images.unflatten(0, (batches, -1)) @ right.mT).flatten(0, 1)


def rolled(matrices: Tensor, shifts: Tensor) -> Tensor:
    """Roll the rows of each matrix [n,to,side] down by its shift, int64 [n]."""
    to = matrices.shape[1]
    places = (torch.arange(to) - shifts[:, None]) % to
    return matrices.gather(1, places[:, :, None].expand_as(matrices))


METHOD = SRe2L

"""RDED: On the Diversity and Realism of Distilled Dataset (Sun et al., CVPR 2024, algorithm 1).

Crops of real images that a trained teacher finds easiest, tiled into the stored images; nothing is optimised.
The teacher's architecture is a hyper-parameter, so one set serves every architecture of the students. RDED's
students learn from the teacher's answer to each augmented batch, whose tiles are shuffled: that is the
protocol `decoupled`.

Deviations: the teacher sees a crop enlarged to the full side (the authors: padded with zeros; the same for
factor 1). Where a class needs more crops than it has images, further crops of the same images are taken,
after the best one of each (the authors: fewer images). Where the factor does not divide the side, the last
tiles lose their last pixels.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, Problem
from bench.core.networks.base import Network
from bench.core.sampling import ClassSampler
from bench.core.search import Search
from bench.core.training import in_pieces
from bench.core.transfer import to_device
from methods.blocks.crops import cut_crops, draw_crops
from methods.blocks.parameterise.multi_formation import tile_side
from methods.blocks.parameterise.resample import bilinear, resample
from methods.blocks.parameterise.tiles import Tiles, tiled
from methods.blocks.teacher import Taught


def easiest(losses: Tensor, rounds: Tensor, k: int) -> Tensor:
    """The k images of each class whose best crops have the smallest loss.

    Args:
        losses: of each image's best crop, [K,M].
        rounds: how often the image of this position occurs before it, int64 [K,M]: repeats come last.
        k: at most M.

    Returns:
        Positions int64 [K,k], the easiest first.
    """
    order = losses.argsort(dim=1, stable=True)
    return order.gather(1, rounds.gather(1, order).argsort(dim=1, stable=True))[:, :k]


@dataclass(frozen=True)
class RDED(Taught):
    """Real crops that a teacher classifies with the smallest loss, tiled into stored images."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Sun et al., On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation "
        "Paradigm, CVPR 2024"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    factor: Annotated[int, Gt(0)] = 1  # tiles per side of a stored image
    images: Annotated[int, Gt(0)] = 300  # real images of each class that are looked at; more if needed
    crops: Annotated[int, Gt(0)] = 5  # of each of them
    # least share of an image's area that a crop takes
    smallest: Annotated[float, Gt(0), Le(1), Search(0.08, 1, "linear")] = 0.08
    decoder: Literal["stored", "enlarged"] = "stored"

    def check(self, problem: Problem) -> None:
        """A teacher that takes the images, and stored images within the budget."""
        self.named_teacher.outline(problem)
        self._count(problem)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Crop, score, select, tile: algorithm 1 of Sun et al. (CVPR 2024)."""
        net, n = self.named_teacher.trained(problem), self._count(problem) * self.factor**2
        index, device = problem.index, problem.device
        m = max(n, min(self.images, int(index.counts.max())))
        members = ClassSampler(index, m, problem.rng("rded", "images"), device).next()
        drawn = members.numel() * self.crops
        crops = draw_crops(drawn, problem.image_shape[1], self.smallest, problem.rng("rded", "crops"))
        crops = to_device(crops, device)
        losses, crop = self._losses(problem, net, members, crops).min(-1)
        rounds = to_device(torch.arange(m) // index.counts[:, None], device)
        chosen = easiest(losses, rounds, n)
        places = torch.arange(members.numel(), device=device).view_as(members) * self.crops + crop
        where = places.gather(1, chosen).flatten()
        images = tiled(problem, members.gather(1, chosen).flatten(), crops[where], self.factor)
        stored = (images * 255).round().to(torch.uint8)
        tiles = Tiles(stored, problem.n_classes, self.factor, self.decoder, problem.preprocess)
        return tiles.to(problem.device)

    def _count(self, problem: Problem) -> int:
        return Tiles.count(problem, factor=self.factor, decoder=self.decoder)

    @torch.no_grad()
    def _losses(self, problem: Problem, net: Network, members: Tensor, crops: Tensor) -> Tensor:
        """The teacher's cross-entropy of every crop with its true class [K,M,crops]."""
        side = problem.image_shape[1]
        to = tile_side(side, self.factor)

        def losses(rows: Tensor) -> Tensor:
            at = members.flatten()[rows // self.crops]
            cut = cut_crops(problem.images[at].float().div_(255), crops[rows], to)
            full = cut if to == side else resample(cut, bilinear(to, side, cut))
            return F.cross_entropy(net(problem.preprocess(full)), problem.labels[at], reduction="none")

        rows = torch.arange(members.numel() * self.crops, device=problem.device)
        return in_pieces(losses, rows).view(*members.shape, self.crops)


METHOD = RDED

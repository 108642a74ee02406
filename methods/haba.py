"""HaBa: Dataset Distillation via Factorization (Liu et al., NeurIPS 2022).

Every image is a basis of its class run through one of a few hallucinators that all classes share; both are
learned by trajectory matching. An extractor F pulls the features of two hallucinations of one basis together,
bases and hallucinators push them apart (a min-max game), so that hallucinators differ.

Deviations: the gradient is the exact adjoint; the step size is learned as its logarithm and kept in the
artifact; no batch is standardised once more. The presets whiten CIFAR (`preprocess: zca`). As published the
hallucinators come on top of `ipc` bases per class, over the budget; with `fit_budget` fewer bases make room
for them.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from methods.blocks.experts import trajectories
from methods.blocks.inner_batches import InnerBatch, shuffled_batches
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.trajectory import TrajectoryMatching

TEMPERATURE = 0.07  # tau of the supervised contrastive term


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """SupCon (Khosla et al., NeurIPS 2020, eq. 2) of features [n,D] of unit length with labels [n].

    The positives of an anchor are all others of its class; each anchor has one at least (its other view).
    """
    n = len(features)
    itself = torch.eye(n, dtype=torch.bool, device=features.device)
    similarity = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    log_p = (similarity - similarity.logsumexp(1, keepdim=True)).masked_fill(itself, 0)
    positive = (labels[:, None] == labels) & ~itself
    return -((log_p * positive).sum(1) / positive.sum(1)).mean()


def likeness(features: Tensor, others: Tensor) -> Tensor:
    """Mean of (1 + cos)/2 over pairs of rows, in [0, 1]; 1: two hallucinations of a basis look the same."""
    return (1 + F.cosine_similarity(features, others)).mean() / 2


@dataclass(frozen=True)
class HaBa:
    """Bases and hallucinators; trajectory matching with an adversarial contrastive term."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Liu et al., Dataset Distillation via Factorization, NeurIPS 2022"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    steps: Annotated[int, Gt(0)] = 15000
    hallucinators: Annotated[int, Gt(0)] = 5  # |H|
    kernel: Annotated[int, Gt(0)] = 3
    padding: Annotated[int, Ge(0)] = 0
    # 0: the images'; 1: grey bases, three for the price of one of RGB
    basis_channels: Annotated[int, Ge(0)] = 0
    fit_budget: bool = False  # fewer bases, so that bases and hallucinators fit; false: as published
    hallucinator_init: Literal["official", "identity"] = "official"
    inner_steps: Annotated[int, Gt(0)] = 50  # N, on hallucinated images
    expert_epochs: Annotated[int, Gt(0)] = 2  # M, that these steps should reach
    start_epochs: Annotated[int, Gt(0)] = 2  # T+: a segment starts at one of the epochs 0 .. T+ - 1
    batch_synthetic: Annotated[int, Ge(0)] = 0  # bases per inner step; 0: all
    lr: Annotated[float, Gt(0)] = 100.0  # of bases and hallucinators
    momentum: Annotated[float, Ge(0)] = 0.95
    inner_lr: Annotated[float, Gt(0)] = 0.01  # alpha_0
    lr_lr: Annotated[float, Ge(0)] = 1e-7  # of alpha
    lr_momentum: Annotated[float, Ge(0)] = 0.9
    weight_likeness: Annotated[float, Ge(0)] = 0.1  # lambda_cos: bases and hallucinators push apart
    extractor_lr: Annotated[float, Gt(0)] = 1e-3
    extractor_momentum: Annotated[float, Ge(0)] = 0.9
    extractor_task: Annotated[float, Ge(0)] = 1.0  # lambda_task: F classifies
    extractor_likeness: Annotated[float, Ge(0)] = 0.1  # lambda_lik: F pulls a basis's images together
    extractor_contrast: Annotated[float, Ge(0)] = 0.1  # lambda_con: and those of a class
    augment: str = "color_crop_cutout_flip_scale_rotate"
    init: Literal["real", "noise"] = "real"
    labels: Literal["hard", "class", "image"] = "hard"
    experts: Annotated[int, Gt(0)] = 100
    expert_lr: Annotated[float, Gt(0)] = 0.01
    expert_batch: Annotated[int, Gt(0)] = 256

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        return trajectories(
            self.experts,
            self.start_epochs - 1 + self.expert_epochs,
            lr=self.expert_lr,
            batch_size=self.expert_batch,
            augment=self.augment,
        )

    def distill(self, problem: Problem) -> DistilledDataset:
        synthetic = self._start(problem)
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        alpha = LearnedScalars(synthetic, "inner_lr", self.inner_lr, self.lr_lr, self.lr_momentum)
        matching = TrajectoryMatching(problem, "haba", self.start_epochs, self.expert_epochs)
        game = Extractor(self, problem)
        run = problem.loop.steps(
            self.steps,
            synthetic,
            "lr_lr, lr or start_epochs",
            optimiser=optimiser,
            alpha=alpha,
            matching=matching,
            game=game,
        )
        for _ in run:
            chunks = game.chunks(synthetic, self.inner_steps + 2)
            images, targets = synthetic.decode()
            batches = [game.one_style(synthetic, chunk) for chunk in chunks[:-2]]
            found = matching(images, targets, alpha.value, batches)
            optimiser.zero_grad()
            found.images += game.push(synthetic, images.detach(), chunks[-2])
            found.backward(images, targets)
            optimiser.step()
            alpha.step(found.lr)
            game.pull(synthetic, chunks[-1])
            run.loss(found.loss)
        return synthetic

    def _start(self, problem: Problem) -> Hallucinators:
        channels = self.basis_channels or problem.image_shape[0]
        as_published = problem.ipc * problem.image_shape[0] // channels
        return Hallucinators.start(
            problem,
            problem.rng("haba", "init"),
            hallucinators=self.hallucinators,
            kernel=self.kernel,
            padding=self.padding,
            basis_channels=channels,
            bases_per_class=None if self.fit_budget else as_published,
            init=self.init,
            hallucinator_init=self.hallucinator_init,
            labels=self.labels,
        )


def _paired(drawn: dsa.Draw) -> dsa.Draw:
    """The operations of the first half on the second half too, with parameters of its own."""
    stages = [
        replace(stage, choice=stage.choice[: drawn.groups // 2].repeat(2))
        if isinstance(stage, dsa.Pick)
        else stage
        for stage in drawn.stages
    ]
    return replace(drawn, stages=tuple(stages))


class Extractor:
    """The other player: F, its optimiser, and the draws of bases and pairs of hallucinators."""

    def __init__(self, method: HaBa, problem: Problem) -> None:
        self._method, self._rng = method, problem.rng("haba", "game")
        self._net: Network = problem.make_net(problem.rng("haba", "extractor"))
        self._optimiser = torch.optim.SGD(
            self._net.parameters(), lr=method.extractor_lr, momentum=method.extractor_momentum
        )

    def chunks(self, synthetic: Hallucinators, n: int) -> list[InnerBatch]:
        """The next n chunks of a shuffled list of bases, with an augmentation draw an image."""
        bases, device = len(synthetic.bases), synthetic.bases.device
        size = self._method.batch_synthetic or bases
        return shuffled_batches(bases, size, n, self._rng, self._method.augment, device=device)

    def one_style(self, synthetic: Hallucinators, chunk: InnerBatch) -> InnerBatch:
        """The chunk through one random hallucinator."""
        style = torch.randint(self._method.hallucinators, (1,), generator=self._rng)
        return InnerBatch(synthetic.pair(chunk.items, style.to(chunk.items.device)), chunk.draw)

    @timing.charged("synthetic gradient")
    def push(self, synthetic: Hallucinators, images: Tensor, chunk: InnerBatch) -> Tensor | float:
        """lambda_cos dL_cos/d(decoded images): away from looking alike. F stays as it is."""
        if self._method.hallucinators < 2 or not self._method.weight_likeness:
            return 0.0
        images.requires_grad_()
        features = self._net.embed(self._views(synthetic, images, chunk))
        loss = self._method.weight_likeness * likeness(*features.chunk(2))
        return torch.autograd.grad(loss, images)[0]

    @timing.charged("network update")
    def pull(self, synthetic: Hallucinators, chunk: InnerBatch) -> None:
        """One step of F: classify, and pull the views of a basis, and of a class, together."""
        if self._method.hallucinators < 2 or not self._method.weight_likeness:
            return  # nothing reads F
        with torch.no_grad():
            images, _ = synthetic.decode()
            views = self._views(synthetic, images, chunk)
        labels = (chunk.items // synthetic.bases_per_class).repeat(2)
        features = self._net.embed(views)
        m, unit = self._method, F.normalize(features)
        loss = (
            m.extractor_task * F.cross_entropy(self._net.classifier(features), labels)
            + m.extractor_likeness * (1 - likeness(*features.chunk(2)))
            + m.extractor_contrast * supervised_contrastive(unit, labels)
        )
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()

    def _views(self, synthetic: Hallucinators, images: Tensor, chunk: InnerBatch) -> Tensor:
        """Two hallucinations of each basis [2n,C,H,W]; one operation for both, each its own parameters."""
        styles = torch.randperm(self._method.hallucinators, generator=self._rng)[:2].to(chunk.items.device)
        items = torch.cat([synthetic.pair(chunk.items, style[None]) for style in styles])
        n = len(chunk.items)
        return dsa.apply(images[items], _paired(dsa.draw(self._method.augment, 2 * n, self._rng)))

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self._net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "rng": self._rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._rng.set_state(state["rng"])


METHOD = HaBa

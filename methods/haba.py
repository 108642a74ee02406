"""HaBa: Dataset Distillation via Factorization (Liu et al., NeurIPS 2022).

Each image is a basis of its class, passed through one of a few hallucinators that all classes share. Both are
learned by trajectory matching. So that the hallucinators differ, an extractor F learns similar features for
two hallucinations of one basis, while bases and hallucinators learn to make these features dissimilar (the
adversarial contrastive constraint).

Deviations: the gradient is the exact adjoint; the step size is learned as its logarithm and stored in the
artifact; an augmentation's operation is drawn for each image, and for each basis in the contrastive term (the
authors: for each batch), also in the experts' training; batches are not standardised a second time. The
presets whiten CIFAR (`preprocess: zca`). As published, the hallucinators are stored in addition to `ipc`
bases per class and exceed the budget; with `fit_budget` there are fewer bases instead.
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
from bench.core.search import Search
from bench.core.transfer import to_device
from methods.blocks.experts import trajectories
from methods.blocks.hypergradient import check_differentiable
from methods.blocks.inner_batches import InnerBatch, shuffled_batches
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.trajectory import TrajectoryMatching

TEMPERATURE = 0.07  # tau of the supervised contrastive term


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Supervised contrastive loss: the positives of a row are all other rows with its label.

    Args:
        features: of unit length, [n,D].
        labels: int64 [n]; each occurs at least twice.
        temperature: tau.

    Returns:
        The loss, 0-dim.

    References:
        Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, eq. 2.
    """
    n = len(features)
    itself = torch.eye(n, dtype=torch.bool, device=features.device)
    similarity = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    log_p = (similarity - similarity.logsumexp(1, keepdim=True)).masked_fill(itself, 0)
    positive = (labels[:, None] == labels) & ~itself
    return -((log_p * positive).sum(1) / positive.sum(1)).mean()


def likeness(features: Tensor, others: Tensor) -> Tensor:
    """Mean of (1 + cos) / 2 over pairs of rows of features [n,D], in [0, 1]; 1 if they are parallel."""
    return (1 + F.cosine_similarity(features, others)).mean() / 2


@dataclass(frozen=True)
class HaBa:
    """Bases and hallucinators, learned by trajectory matching with an adversarial contrastive term."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Liu et al., Dataset Distillation via Factorization, NeurIPS 2022"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    exact_gradients: ClassVar[bool] = True

    steps: Annotated[int, Gt(0)] = 15000
    hallucinators: Annotated[int, Gt(0)] = 5  # |H|
    kernel: Annotated[int, Gt(0)] = 3
    padding: Annotated[int, Ge(0)] = 0
    # 0: as many as the images have; 1: grey bases, three of which take the storage of one in RGB
    basis_channels: Annotated[int, Ge(0)] = 0
    fit_budget: bool = False  # store fewer bases, so that the set fits its budget; false: as published
    hallucinator_init: Literal["official", "identity"] = "official"
    inner_steps: Annotated[int, Gt(0)] = 50  # N, on hallucinated images
    expert_epochs: Annotated[int, Gt(0)] = 2  # M, that these steps should reach
    start_epochs: Annotated[int, Gt(0)] = 2  # T+: a segment starts at one of the epochs 0 .. T+ - 1
    batch_synthetic: Annotated[int, Ge(0)] = 0  # bases per inner step; 0: all
    lr: Annotated[float, Gt(0), Search(0.03, 1e3)] = 100.0  # of bases and hallucinators
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.95
    inner_lr: Annotated[float, Gt(0), Search(1e-3, 0.3)] = 0.01  # alpha_0
    lr_lr: Annotated[float, Ge(0), Search(1e-8, 1e-3)] = 1e-7  # of alpha
    lr_momentum: Annotated[float, Ge(0)] = 0.9
    weight_likeness: Annotated[float, Ge(0)] = 0.1  # lambda_cos, of bases and hallucinators
    extractor_lr: Annotated[float, Gt(0), Search(1e-5, 0.1)] = 1e-3
    extractor_momentum: Annotated[float, Ge(0)] = 0.9
    extractor_task: Annotated[float, Ge(0)] = 1.0  # lambda_task, of F: cross-entropy
    extractor_likeness: Annotated[float, Ge(0)] = 0.1  # lambda_lik, of F: similar images of one basis
    extractor_contrast: Annotated[float, Ge(0)] = 0.1  # lambda_con, of F: similar images of one class
    augment: str = "color_crop_cutout_flip_scale_rotate"
    init: Literal["real", "noise"] = "real"
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
        """A network that can be differentiated through, and hallucinators that fit images and budget."""
        Hallucinators.count(problem, **self._storage(problem))
        check_differentiable(problem.make_net(problem.rng("check")))

    def distill(self, problem: Problem) -> DistilledDataset:
        """Factorisation with the adversarial contrastive constraint (Liu et al., NeurIPS 2022, section 3)."""
        synthetic = self._start(problem)
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        alpha = LearnedScalars(synthetic, "inner_lr", self.inner_lr, self.lr_lr, self.lr_momentum)
        matching = TrajectoryMatching(problem, "haba", self.start_epochs, self.expert_epochs)
        extractor = Extractor(self, problem)
        steps = problem.loop.steps(
            self.steps,
            synthetic,
            "lr_lr, lr or start_epochs",
            optimiser=optimiser,
            alpha=alpha,
            matching=matching,
            extractor=extractor.net,
            extractor_optimiser=extractor.optimiser,
            draws=extractor.draws,
        )
        for _ in steps:
            *chunks, compared, learned = extractor.chunks(synthetic, self.inner_steps + 2)
            images, targets = synthetic.decode()
            batches = [extractor.hallucinated(synthetic, chunk) for chunk in chunks]
            found = matching(images, targets, alpha.value, batches)
            optimiser.zero_grad()
            found.images += extractor.likeness_gradient(synthetic, images.detach(), compared)
            found.backward(images, targets)
            optimiser.step()
            alpha.step(found.lr)
            extractor.train(synthetic, learned)
            steps.loss(found.loss)
        return synthetic

    def _start(self, problem: Problem) -> Hallucinators:
        return Hallucinators.start(
            problem, problem.rng("haba", "init"), init=self.init, **self._storage(problem)
        )

    def _storage(self, problem: Problem) -> dict[str, Any]:
        channels = self.basis_channels or problem.image_shape[0]
        as_published = problem.ipc * problem.image_shape[0] // channels
        return {
            "hallucinators": self.hallucinators,
            "kernel": self.kernel,
            "padding": self.padding,
            "basis_channels": channels,
            "bases_per_class": None if self.fit_budget else as_published,
            "hallucinator_init": self.hallucinator_init,
            "labels": self.labels,
        }


def _paired(drawn: dsa.Draw) -> dsa.Draw:
    """Give the second half of the groups the operations of the first half, with parameters of its own."""
    half = drawn.groups // 2
    stages = [
        replace(stage, choice=stage.choice[:half].repeat(2)) if isinstance(stage, dsa.Pick) else stage
        for stage in drawn.stages
    ]
    return replace(drawn, stages=tuple(stages))


class Extractor:
    """The adversary: the network F, its optimiser, and the draws of bases and hallucinators.

    With one hallucinator, or a weight of 0 for the likeness, nothing depends on F, and it is not trained.
    """

    def __init__(self, method: HaBa, problem: Problem) -> None:
        self._method, self.draws = method, problem.rng("haba", "game")
        self.net: Network = problem.make_net(problem.rng("haba", "extractor"))
        self.optimiser = torch.optim.SGD(
            self.net.parameters(), lr=method.extractor_lr, momentum=method.extractor_momentum
        )
        self._used = method.hallucinators > 1 and method.weight_likeness > 0

    def chunks(self, synthetic: Hallucinators, n: int) -> list[InnerBatch]:
        """n chunks of a shuffled list of all bases, with an augmentation drawn for each image."""
        bases, device = len(synthetic.bases), synthetic.bases.device
        size = self._method.batch_synthetic or bases
        return shuffled_batches(bases, size, n, self.draws, self._method.augment, device=device)

    def hallucinated(self, synthetic: Hallucinators, chunk: InnerBatch) -> InnerBatch:
        """The images of a chunk of bases under one random hallucinator."""
        drawn = torch.randint(self._method.hallucinators, (1,), generator=self.draws)
        return InnerBatch(synthetic.pair(chunk.items, to_device(drawn, chunk.items.device)), chunk.draw)

    @timing.charged("synthetic gradient")
    def likeness_gradient(
        self, synthetic: Hallucinators, images: Tensor, chunk: InnerBatch
    ) -> Tensor | float:
        """The gradient of lambda_cos L_cos in all decoded images [n,C,H,W], for the bases of a chunk."""
        if not self._used:
            return 0.0
        images.requires_grad_()
        features = self.net.embed(self._views(synthetic, images, chunk))
        loss = self._method.weight_likeness * likeness(*features.chunk(2))
        return torch.autograd.grad(loss, images)[0]

    @timing.charged("network update")
    def train(self, synthetic: Hallucinators, chunk: InnerBatch) -> None:
        """One step of F: classify the images, and make those of a basis and of a class similar."""
        if not self._used:
            return
        with torch.no_grad():
            images, _ = synthetic.decode()
            views = self._views(synthetic, images, chunk)
        labels = (chunk.items // synthetic.bases_per_class).repeat(2)
        features = self.net.embed(views)
        m, unit = self._method, F.normalize(features)
        loss = (
            m.extractor_task * F.cross_entropy(self.net.classifier(features), labels)
            + m.extractor_likeness * (1 - likeness(*features.chunk(2)))
            + m.extractor_contrast * supervised_contrastive(unit, labels)
        )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _views(self, synthetic: Hallucinators, images: Tensor, chunk: InnerBatch) -> Tensor:
        """Two hallucinations of each basis [2n,C,H,W], augmented by one operation with two parameters."""
        two = torch.randperm(self._method.hallucinators, generator=self.draws)[:2]
        there = to_device(two, chunk.items.device)
        items = torch.cat([synthetic.pair(chunk.items, drawn[None]) for drawn in there])
        n = len(chunk.items)
        return dsa.apply(images[items], _paired(dsa.draw(self._method.augment, 2 * n, self.draws)))


METHOD = HaBa

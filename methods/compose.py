"""Any parameterisation with any objective, at equal storage and under one optimiser.

The papers propose whole methods; here their parts are chosen separately: how a set is stored
(`parameterisation`), what is matched (`objective`), and under which networks (`pool`). Everything else is the
same for all combinations: Adam on the stored tensors, the number of steps, the budget, and a start from real
images where the parameterisation has one. We know of no publication that compares these combinations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.loop import Stateful
from bench.core.method import ARCHITECTURE, IPC, SEED, YOUNG, Prerequisite, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.search import Search
from bench.core.training import has_batch_norm
from methods.blocks.attention import attention_matching, check_attention, class_means
from methods.blocks.characteristic_functions import characteristic_function
from methods.blocks.class_gradients import check_matchable
from methods.blocks.experts import Experts, trajectories
from methods.blocks.hypergradient import SGD, Hypergradient, State, check_differentiable
from methods.blocks.interpolated import Interpolated, initial_and_trained
from methods.blocks.kernel_regression import kernel_regression
from methods.blocks.matching_batches import MatchingBatches, MatchingPair
from methods.blocks.network_pools import Fixed, Fresh, Pool, PoolRecipe, TrainedOnReal, TrainedOnSynthetic
from methods.blocks.network_queue import Queue
from methods.blocks.objectives import batch_norm_statistics, distribution_matching, gradient_matching
from methods.blocks.online_pool import Online
from methods.blocks.parameterise.base import Balanced
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.parameterise.tiles import Tiles
from methods.blocks.teacher import NamedTeacher
from methods.blocks.trajectory import TrajectoryMatching
from methods.blocks.unroll_windows import Unroll
from methods.blocks.unrolled import Unrolled

OWN_POOL = {  # the pool of the paper that an objective comes from
    "gradient_matching": "trained_on_real",
    "distribution_matching": "fresh",
    "trajectory_matching": "experts",
    "unrolled": "fresh",
    "batch_norm_statistics": "teacher",
    "kernel_regression": "online",
    "attention": "fresh",
    "characteristic_function": "interpolated",
}
OF_FEATURES = ("distribution_matching", "attention", "characteristic_function")  # no labels enter them
R_BN = 0.01  # weight of the statistics beside the teacher's cross-entropy, as in SRe2L
POWER, ATTENTION = 1.0, 100.0  # of the attention, and its weight beside the embeddings, as in DataDAM


@dataclass(frozen=True)
class Compose:
    """One parameterisation, one objective and one pool of networks, within the budget."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "ddbench: a parameterisation and an objective of different papers"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    parameterisation: Literal["pixels", "multi_formation", "linear_bases", "hallucinators", "tiles"] = (
        "pixels"
    )
    objective: Literal[
        "gradient_matching",
        "distribution_matching",
        "trajectory_matching",
        "unrolled",
        "batch_norm_statistics",
        "kernel_regression",
        "attention",
        "characteristic_function",
    ] = "distribution_matching"
    pool: Literal[
        "own",
        "fresh",
        "trained_on_real",
        "trained_on_synthetic",
        "experts",
        "teacher",
        "online",
        "interpolated",
        "queue",
    ] = "own"
    steps: Annotated[int, Gt(0)] = 1000
    lr: Annotated[float, Gt(0), Search(1e-3, 1)] = 0.01  # of Adam
    labels: Literal["hard", "class", "image"] = "hard"
    factor: Annotated[int, Gt(0)] = 2  # multi_formation and tiles
    bases: Annotated[int, Gt(0)] = 16  # linear_bases
    downsample: Annotated[int, Gt(0)] = 2
    hallucinators: Annotated[int, Gt(0)] = 5
    kernel: Annotated[int, Gt(0)] = 3
    augment: str = "color_crop_cutout_flip_scale_rotate"  # of all objectives
    batch_real: Annotated[int, Gt(0)] = 64  # real images per class
    batch_synthetic: Annotated[int, Gt(0)] = 64  # decoded images per class, at most
    stretch: Annotated[int, Gt(0)] = 10  # matchings under each network of a trained pool
    net_lr: Annotated[float, Gt(0), Search(1e-3, 0.1)] = 0.01
    net_steps: Annotated[int, Gt(0)] = 5  # of a trained pool's network between two matchings
    inner_steps: Annotated[int, Gt(0)] = 10  # of trajectory matching and of the unroll
    inner_lr: Annotated[float, Gt(0), Search(1e-3, 0.3)] = 0.01
    inner_momentum: Annotated[float, Ge(0), Lt(1)] = 0.9  # of the unroll
    start_epochs: Annotated[int, Gt(0)] = 2  # of trajectory matching
    expert_epochs: Annotated[int, Gt(0)] = 1
    experts: Annotated[int, Gt(0)] = 10
    # of batch_norm_statistics; it trains with net_lr and the augmentation, as interpolated networks do
    teacher: str = field(default="convnet-batch", metadata=YOUNG)
    teacher_epochs: Annotated[int, Gt(0)] = field(default=30, metadata=YOUNG)  # and of those networks
    frequencies: Annotated[int, Gt(0)] = field(default=4096, metadata=YOUNG)  # of characteristic_function

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)
        if self.objective == "trajectory_matching" and self._pool_name != "experts":
            raise UserError(
                f"pool: trajectory_matching follows experts; {self.pool} has none: leave pool out"
            )
        if (self.objective == "batch_norm_statistics") != (self._pool_name == "teacher"):
            raise UserError(
                "pool: batch_norm_statistics needs the teacher's, and no other objective takes it: leave "
                "pool out"
            )
        parse_architecture(self.teacher)
        if self.objective in OF_FEATURES and self.labels != "hard":
            raise UserError(f"labels: {self.objective} never looks at them: take hard ones")

    @property
    def _pool_name(self) -> str:
        return OWN_POOL[self.objective] if self.pool == "own" else self.pool

    def requires(self) -> dict[str, Prerequisite]:
        """A teacher, networks to interpolate, or experts for every epoch that a segment can reach."""
        if self._pool_name == "teacher":
            return {"teacher": self._teacher}
        if self._pool_name == "interpolated":
            return initial_and_trained(
                self.experts, epochs=self.teacher_epochs, lr=self.net_lr, batch_size=64, augment=self.augment
            )
        if self._pool_name != "experts":
            return {}
        epochs = self.start_epochs - 1 + self.expert_epochs
        return trajectories(self.experts, epochs, lr=self.net_lr, batch_size=256, augment=self.augment)

    @property
    def _teacher(self) -> NamedTeacher:
        return NamedTeacher(
            architecture=self.teacher,
            epochs=self.teacher_epochs,
            lr=self.net_lr,
            batch_size=64,
            augment=self.augment,
        )

    @property
    def exact_gradients(self) -> bool:
        """Whether the objective differentiates a training."""
        return self.objective in ("trajectory_matching", "unrolled")

    def check(self, problem: Problem) -> None:
        """A network that the objective takes, and a parameterisation within the budget."""
        net = problem.make_net(problem.rng("check"))
        if self.objective == "gradient_matching":
            check_matchable(net, problem.image_shape, "kernels")
        if self.objective == "attention":
            check_attention(net, problem.image_shape)
        if self.exact_gradients or self._pool_name == "experts":
            check_differentiable(net)
        if self._pool_name == "teacher" and not has_batch_norm(self._teacher.outline(problem)):
            raise UserError(f"teacher: {self.teacher} has no batch norm: take one with, as convnet-batch")
        storage, sizes, _ = self._storage
        storage.count(problem, labels=self.labels, **sizes)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Take `steps` steps of Adam along the gradient of the objective under the networks of the pool."""
        synthetic, pool = self._start(problem), self._pool(problem)
        optimiser = torch.optim.Adam(synthetic.parameters(), lr=self.lr)
        frequencies = problem.rng("compose", "frequencies")
        objective, draws = self._objective(problem, pool, frequencies)
        stretch = self.stretch if isinstance(pool, TrainedOnReal | TrainedOnSynthetic) else 1
        steps = problem.loop.steps(
            self.steps,
            synthetic,
            "lr or inner_lr",
            optimiser=optimiser,
            pool=pool,
            draws=draws,
            frequencies=frequencies,
        )
        for step in steps:
            if step % stretch == 0:
                pool.restart()
            optimiser.zero_grad()
            loss = objective(synthetic)  # accumulates the gradients of the stored tensors
            optimiser.step()
            pool.advance(synthetic, followed=(step + 1) % stretch > 0 and step + 1 < self.steps)
            steps.loss(loss)
        return synthetic

    def _start(self, problem: Problem) -> Balanced:
        storage, sizes, real = self._storage
        generator = problem.rng("compose", "init")
        synthetic: Balanced = storage.start(problem, generator, labels=self.labels, **sizes, **real)
        return synthetic

    @property
    def _storage(self) -> tuple[Any, dict[str, Any], dict[str, str]]:
        """The parameterisation, what its size depends on, and how it starts from real images."""
        memory = {"bases": self.bases, "downsample": self.downsample, "init": "pca"}
        maps = {"hallucinators": self.hallucinators, "kernel": self.kernel}
        return {
            "pixels": (Pixels, dict[str, Any](), {"init": "real"}),
            "multi_formation": (MultiFormation, {"factor": self.factor}, {"init": "mix"}),
            "linear_bases": (LinearBases, memory, dict[str, str]()),
            "hallucinators": (Hallucinators, maps, {"init": "real"}),
            "tiles": (Tiles, {"factor": self.factor}, {"init": "real"}),
        }[self.parameterisation]

    def _pool(self, problem: Problem) -> Pool:
        recipe: PoolRecipe = {"lr": self.net_lr, "batch_size": 64, "momentum": 0.9, "augment": self.augment}
        if self._pool_name == "teacher":
            return Fixed(self._teacher.trained(problem))
        if self._pool_name == "trained_on_real":
            return TrainedOnReal(problem, "compose", steps=self.net_steps, **recipe)
        if self._pool_name == "trained_on_synthetic":
            return TrainedOnSynthetic(problem, "compose", steps=self.net_steps, **recipe)
        if self._pool_name == "online":
            return Online(problem, "compose", lr=self.net_lr)
        if self._pool_name == "queue":
            return Queue(
                problem, "compose", lr=self.net_lr, batch_size=64, momentum=0.9, steps=self.net_steps
            )
        if self._pool_name == "interpolated":
            return Interpolated(problem, problem.rng("compose", "networks"))
        start = Experts(problem) if self._pool_name == "experts" else None
        return Fresh(problem, problem.rng("compose", "networks"), start)

    def _objective(
        self, problem: Problem, pool: Pool, frequencies: torch.Generator
    ) -> tuple[Callable[[Balanced], Tensor], Stateful]:
        """The loss of a step, which accumulates gradients in the set, and the state of its draws."""
        if self.objective == "trajectory_matching":
            return self._trajectories(problem)
        if self.objective == "unrolled":
            return self._unrolled(problem, pool)
        pairs = MatchingBatches(problem, "compose", self.batch_real, self.augment, self.batch_synthetic)

        def matching(synthetic: Balanced) -> Tensor:
            pair, n = pairs.next(synthetic), problem.n_classes
            if self.objective == "gradient_matching":
                loss = gradient_matching(pool.net, *pair, n, distance="squared", matched="kernels")
            elif self.objective == "batch_norm_statistics":
                logits, distance = batch_norm_statistics(pool.net, pair.synthetic, 1)
                loss = F.cross_entropy(logits, pair.targets) + R_BN * distance.sum()
            elif self.objective == "kernel_regression":
                with torch.no_grad(), timing.part("real gradient"):
                    real = pool.net.embed(pair.real)
                with timing.part("synthetic gradient"):
                    features = pool.net.embed(pair.synthetic)
                loss = kernel_regression(real, pair.real_targets, features, pair.targets, n)
            else:
                loss = self._of_features(pool.net, pair, n, frequencies)
            loss.backward(inputs=list(synthetic.parameters()))
            return loss.detach()

        return matching, pairs

    def _of_features(self, net: Network, pair: MatchingPair, n: int, frequencies: torch.Generator) -> Tensor:
        """The loss of an objective that compares features of real and synthetic images."""

        if self.objective == "attention":
            with torch.no_grad(), timing.part("real gradient"):
                means = class_means(net, pair.real, n, POWER)
            with timing.part("synthetic gradient"):
                return attention_matching(means, class_means(net, pair.synthetic, n, POWER), ATTENTION)
        with torch.no_grad(), timing.part("real gradient"):
            real = net.embed(pair.real)
        with timing.part("synthetic gradient"):
            found = net.embed(pair.synthetic)
            if self.objective == "characteristic_function":
                return characteristic_function(real, found, n, frequencies, self.frequencies)
            return distribution_matching(real, found, n)

    def _trajectories(self, problem: Problem) -> tuple[Callable[[Balanced], Tensor], Stateful]:
        objective = TrajectoryMatching(problem, "compose", self.start_epochs, self.expert_epochs)
        alpha, most = torch.tensor(self.inner_lr, device=problem.device), self.batch_synthetic

        def matching(images: Tensor, targets: Tensor) -> Hypergradient:
            size = min(len(images), most * problem.n_classes)
            batches = objective.shuffled(images, size, self.inner_steps, self.augment)
            return objective(images, targets, alpha, batches)

        return _with_decoding(matching), objective

    def _unrolled(self, problem: Problem, pool: Pool) -> tuple[Callable[[Balanced], Tensor], Stateful]:
        rule, steps = SGD(self.inner_momentum), self.inner_steps

        def start(_: torch.Generator) -> State:
            return rule.start(parameters_to_vector(pool.net.parameters()).detach())

        objective = Unrolled(
            problem,
            "compose",
            rule,
            Unroll("full", steps, steps, 1, start, problem.rng("compose", "windows")),
            batch_per_class=self.batch_synthetic,
            batch_real=self.batch_real,
            strategy=self.augment,
            siamese=False,
        )
        eta = torch.tensor(self.inner_lr, device=problem.device)
        return _with_decoding(lambda images, targets: objective(images, targets, eta)), objective


def _with_decoding(outer: Callable[[Tensor, Tensor], Hypergradient]) -> Callable[[Balanced], Tensor]:
    """The loss of a set, from an objective that computes gradients in decoded images and targets."""

    def loss(synthetic: Balanced) -> Tensor:
        images, targets = synthetic.decode()
        found = outer(images, targets)
        found.backward(images, targets)
        return found.loss

    return loss


METHOD = Compose

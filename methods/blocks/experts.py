"""Expert trajectories: the weights of networks trained on the real set, after every epoch.

They form a chain of small prerequisites, one for each epoch of each block of experts. So only the epochs that
a method reads are trained, all distillations of a sweep share them, more epochs or experts add to those that
exist, and a killed run loses one epoch of one block.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from bench.core import counting, random, timing
from bench.core.batches import BatchOrder, batch_share
from bench.core.errors import UserError
from bench.core.method import ARCHITECTURE, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.training import Recipe
from bench.core.transfer import to_device
from methods.blocks.students import InnerStudent

MOST_EPOCHS = 20_000  # of all blocks of a method; each is a job
BLOCK = 10  # experts of a job; with multiples of it, a larger number of experts reuses all of a smaller one


@dataclass(frozen=True)
class ExpertEpoch:
    """A block of experts after an epoch of SGD on the real set, at a constant learning rate.

    An expert is drawn from its bank, its place (block, row) and the epoch alone: all seeds of a sweep share
    bank 0, as in the papers, unless it asks for one per seed, and a block's first rows are the same whatever
    its size.

    Args:
        block: number of the block.
        size: experts in it, at most BLOCK.
        epoch: passes over the training set; 0 is the initialisation.
        lr: learning rate.
        batch_size: images per step.
        momentum: of SGD.
        weight_decay: of SGD.
        augment: augmentation, drawn for each image.
        cutmix: probability that a batch is mixed by CutMix.
        bank: number of the bank.

    References:
        Cazenavette et al., Matching Training Trajectories, CVPR 2022, section 3.1.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE})

    block: int
    size: int
    epoch: int
    lr: float
    batch_size: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    augment: str = "none"
    cutmix: float = 0.0
    bank: int = 0

    def __str__(self) -> str:
        first = self.block * BLOCK
        bank = f"bank {self.bank} " if self.bank else ""
        return f"{bank}experts {first}-{first + self.size - 1} epoch {self.epoch}"

    def requires(self) -> dict[str, Prerequisite]:
        """The same experts one epoch earlier, under the role "before"; nothing for epoch 0."""
        return {"before": dataclasses.replace(self, epoch=self.epoch - 1)} if self.epoch else {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the block for one more epoch, or initialise it.

        Returns:
            {"weights": [size,P]}, each row ordered as by `parameters_to_vector`; with momentum also
            {"velocity": [size,P]}.

        Raises:
            UserError: the network keeps running statistics, which a weight vector does not contain.
        """
        row = self._go_on if self.epoch else self._begin
        n = len(problem.images)
        if self.epoch:
            counting.announce(self.size * self._recipe.n_steps(n), self.batch_size, n)
        rows = [row(problem, expert) for expert in range(self.size)]
        return {name: torch.stack([r[name] for r in rows]) for name in rows[0]}

    def _begin(self, problem: Problem, expert: int) -> dict[str, Tensor]:
        net = problem.make_net(random.generator(self.bank, "expert", self.block, expert, "init"))
        if any(True for _ in net.buffers()):
            raise UserError(
                "expert trajectories hold weights only, and this network keeps running statistics too: "
                "choose another norm for it than batch norm"
            )
        weights = parameters_to_vector(net.parameters()).detach()
        return {"weights": weights} | ({"velocity": torch.zeros_like(weights)} if self.momentum else {})

    def _go_on(self, problem: Problem, expert: int) -> dict[str, Tensor]:
        """Weights [P] and velocity [P] of an expert after one more pass over the training set."""
        purpose = ("expert", self.block, expert, self.epoch)
        before = {name: t[expert] for name, t in problem.prepared["before"].items()}
        net = _network(problem, before["weights"], random.generator(self.bank, *purpose, "net"))
        student = InnerStudent(net, self._recipe, random.generator(self.bank, *purpose, "draws"))
        if self.momentum:
            student.set_velocity(to_device(before["velocity"], problem.device).clone())
        n = len(problem.images)
        order = BatchOrder(n, self.batch_size, random.generator(self.bank, *purpose, "order"), problem.device)
        steps = self._recipe.n_steps(n)
        paced = timing.paced(steps, batch_share(n, self.batch_size, steps))
        for _, index in zip(paced, order, strict=False):
            student.step(problem.preprocess(problem.images[index]), problem.labels[index])
            counting.count_steps()
        weights = parameters_to_vector(net.parameters()).detach()
        return {"weights": weights} | ({"velocity": student.velocity()} if self.momentum else {})

    @property
    def _recipe(self) -> Recipe:
        return Recipe(
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            epochs=1,
            augment=self.augment,
            cutmix=self.cutmix,
        )


def trajectories(
    experts: int,
    epochs: int,
    *,
    lr: float,
    batch_size: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    augment: str = "none",
    cutmix: float = 0.0,
) -> dict[str, Prerequisite]:
    """The prerequisites of a method that reads expert trajectories.

    Every epoch is listed, even if only some are read, so that each is charged to the method once.

    Args:
        experts: number of experts.
        epochs: the last epoch that is read; the first is 0, the initialisation.
        lr: learning rate.
        batch_size: images per step.
        momentum: of SGD.
        weight_decay: of SGD.
        augment: augmentation, drawn for each image.
        cutmix: probability that a batch is mixed by CutMix.

    Returns:
        {"experts/BLOCK/EPOCH": prerequisite}, as `Experts` expects them.

    Raises:
        UserError: they would be too many jobs to plan.
    """
    blocks = -(-experts // BLOCK)
    if blocks * (epochs + 1) > MOST_EPOCHS:
        raise UserError(
            f"{experts:,} experts of {epochs:,} epochs would be more than {MOST_EPOCHS:,} jobs: take fewer "
            "experts or epochs"
        )
    return {
        f"experts/{block}/{epoch}": ExpertEpoch(
            block=block,
            size=min(BLOCK, experts - block * BLOCK),
            epoch=epoch,
            lr=lr,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
            augment=augment,
            cutmix=cutmix,
        )
        for block in range(blocks)
        for epoch in range(epochs + 1)
    }


class Experts:
    """Networks trained on the real set, at each epoch of their training.

    The tensors stay mapped from their files; only the rows that are read are copied to the device.

    Args:
        problem: with the prerequisites of `trajectories`.
        first: the earliest epoch that `network` draws.

    Raises:
        UserError: the problem has no expert trajectories, or none from epoch `first` on.
    """

    def __init__(self, problem: Problem, first: int = 0) -> None:
        places = [role.split("/") for role in problem.prepared if role.startswith("experts/")]
        if not places:
            raise UserError(
                "no expert trajectories here: return trajectories(...) from the method's requires()"
            )
        self._problem, self._first = problem, first
        self._last = max(int(epoch) for _, _, epoch in places)
        if not 0 <= first <= self._last:
            raise UserError(f"no networks from epoch {first} on: these experts have epochs 0 to {self._last}")
        blocks = sorted({int(block) for _, block, _ in places})
        sizes = {b: len(problem.prepared[f"experts/{b}/0"]["weights"]) for b in blocks}
        self._rows = [(block, row) for block, size in sizes.items() for row in range(size)]

    @property
    def last(self) -> int:
        """The last epoch of their training."""
        return self._last

    def weights(self, expert: int, epoch: int) -> Tensor:
        """A copy of one expert's weights [P] after an epoch, on the problem's device."""
        block, row = self._rows[expert]
        bank = self._problem.prepared[f"experts/{block}/{epoch}"]["weights"]
        return to_device(bank[row], self._problem.device).clone()

    def segment(
        self, generator: torch.Generator, start_epochs: int, span: int, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Draw a segment of a random expert's trajectory.

        Args:
            generator: a CPU generator.
            start_epochs: the segment starts at an epoch t, uniform over first .. start_epochs - 1.
            span: its length in epochs.
            first: the earliest start.

        Returns:
            The weights theta_t and theta_{t + span}, [P] each.

        Raises:
            UserError: a segment could end after the experts' last epoch.
        """
        if start_epochs - 1 + span > self._last:
            raise UserError(
                f"segments of {span} epochs from epochs 0 to {start_epochs - 1} need experts of "
                f"{start_epochs - 1 + span} epochs, and these have {self._last}: ask trajectories() for more"
            )
        expert = self._draw(generator, len(self._rows))
        t = first + self._draw(generator, start_epochs - first)
        return self.weights(expert, t), self.weights(expert, t + span)

    def network(self, generator: torch.Generator) -> Network:
        """A network with the weights of a random expert at a random epoch, from `first` to the last one."""
        expert = self._draw(generator, len(self._rows))
        epoch = self._first + self._draw(generator, self._last + 1 - self._first)
        return _network(self._problem, self.weights(expert, epoch), generator)

    @staticmethod
    def _draw(generator: torch.Generator, n: int) -> int:
        return int(torch.randint(n, (), generator=generator))


def _network(problem: Problem, weights: Tensor, generator: torch.Generator) -> Network:
    """A network with a copy of these weights [P]; the weights drawn from `generator` are overwritten."""
    net = problem.make_net(generator)
    vector_to_parameters(to_device(weights, problem.device).clone(), net.parameters())
    return net

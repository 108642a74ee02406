"""A network trained on the real training set: it labels what students train on, or guides a distillation."""

import dataclasses
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from bench.core import counting
from bench.core.augment import dsa
from bench.core.errors import UserError
from bench.core.method import ARCHITECTURE, Prerequisite, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.teachers import stop_prefix
from bench.core.training import Recipe, training
from bench.core.transfer import to_device


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Teacher(Recipe):
    """A teacher with its own recipe, shared by all methods and seeds; its weights at `stops` are kept too."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE})

    # fractions of its training; left out of a key where there are none
    stops: Annotated[tuple[float, ...], Field(exclude_if=lambda value: not value)] = ()

    def __str__(self) -> str:
        length = f"{self.steps} steps" if self.steps is not None else f"{self.epochs} epochs"
        return f"teacher of {length}"

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def network(self, problem: Problem, generator: torch.Generator) -> Network:
        """A fresh network for the teacher."""
        return problem.make_net(generator)

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the teacher; return the tensors of its `state_dict`, and of those at its stops."""
        problem = dataclasses.replace(problem, seed=0)  # one teacher for all seeds
        net = self.network(problem, problem.rng("teacher", "network"))
        draws = problem.rng("teacher", "training")
        n = len(problem.images)
        steps = self.n_steps(n)
        counting.announce(steps, self.batch_size, n)
        at = {stop: max(1, round(stop * steps)) for stop in self.stops if stop < 1}
        kept: dict[str, Tensor] = {}
        for step in training(net, problem.images, problem.labels, self, draws, problem.preprocess):
            for stop in (stop for stop, then in at.items() if then == step):
                kept |= {f"{stop_prefix(stop)}{name}": t.clone() for name, t in net.state_dict().items()}
        # a watcher may leave steps out (see `timing.paced`), and with them a stop
        final = net.state_dict()
        missing = {f"{stop_prefix(stop)}{name}": t for stop in at for name, t in final.items()}
        return dict(final) | missing | kept


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class NamedTeacher(Teacher):
    """A teacher whose architecture is the method's own hyper-parameter, whatever students are.

    Args:
        architecture: its name, as sweeps write it.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset()

    architecture: str = "resnet18-batch"

    def __str__(self) -> str:
        return f"{self.architecture}, {super().__str__()}"

    def network(self, problem: Problem, generator: torch.Generator) -> Network:
        """A fresh network of the named architecture."""
        parsed = parse_architecture(self.architecture)
        return parsed.build_on(problem.device, problem.image_shape, problem.n_classes, generator)

    def outline(self, problem: Problem) -> Network:
        """The network, knowing shapes only. Raises UserError if it cannot take the problem's images."""
        architecture = parse_architecture(self.architecture)
        architecture.check(problem.image_shape)
        return architecture.outline(problem.image_shape, problem.n_classes)

    def trained(self, problem: Problem) -> Network:
        """The trained network from `problem.prepared["teacher"]`: frozen, in evaluation mode."""
        net = self.network(problem, problem.rng("teacher", "network"))
        weights = problem.prepared["teacher"]
        net.load_state_dict({name: to_device(tensor, problem.device) for name, tensor in weights.items()})
        return net.eval().requires_grad_(False)


@dataclasses.dataclass(frozen=True)
class ImportedTeacher:
    """A teacher that was trained elsewhere: a sweep names its file (`evaluate.teacher`).

    Args:
        weights: digest of its weights.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE})

    weights: str

    def __str__(self) -> str:
        return f"given teacher {self.weights[:8]}"

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Nobody can: its weights come with a file. Raises UserError."""
        raise UserError(f"weights {self.weights} are not here: name the teacher's file in evaluate.teacher")


@dataclasses.dataclass(frozen=True)
class Taught:
    """Hyper-parameters of a method that a trained teacher guides, which it requires as "teacher"."""

    teacher: str = "resnet18-batch"  # its architecture
    teacher_epochs: Annotated[int, Gt(0)] = 200
    teacher_lr: Annotated[float, Gt(0)] = 0.1  # at first: a cosine ends at 0
    teacher_batch: Annotated[int, Gt(0)] = 128
    teacher_augment: str = "crop_flip"

    def __post_init__(self) -> None:
        parse_architecture(self.teacher)
        dsa.parse_strategy(self.teacher_augment, policies=True)

    @property
    def named_teacher(self) -> NamedTeacher:
        """The teacher as a prerequisite."""
        return NamedTeacher(
            architecture=self.teacher,
            epochs=self.teacher_epochs,
            lr=self.teacher_lr,
            batch_size=self.teacher_batch,
            schedule="cosine",
            augment=self.teacher_augment,
        )

    def requires(self) -> dict[str, Prerequisite]:
        """The teacher, trained on the training set."""
        return {"teacher": self.named_teacher}

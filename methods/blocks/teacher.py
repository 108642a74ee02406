"""A network trained on the real training set, whose outputs label what students are trained on."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from bench.core import counting
from bench.core.method import ARCHITECTURE, Prerequisite, Problem
from bench.core.teachers import stop_prefix
from bench.core.training import Recipe, training


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

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the teacher; return the tensors of its `state_dict`, and of those at its stops."""
        net = problem.make_net(problem.rng("teacher", "network"))
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

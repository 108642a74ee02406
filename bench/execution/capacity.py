"""How many jobs fit at once, where kinds of jobs get different resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.core.errors import UserError
from bench.core.words import count
from bench.planning.resources import Needs

SLACK = 1e-9  # of sums of fractions


class Limit(NamedTuple):
    """Something of which there is only so much."""

    takes: Mapping[str, float]  # by kind, what a job has of it while it runs
    there: float


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    cpus: float
    gpus: int = 0
    accelerators: frozenset[str] = frozenset()  # of which make its GPUs are

    def slots(self, needs: Needs) -> int:
        """How many such jobs fit; several share a GPU, and none has parts of two."""
        if needs.accelerator and needs.accelerator not in self.accelerators:
            return 0
        n = int(self.cpus // needs.cpus)
        return min(n, self.gpus * int(1 / needs.gpus + SLACK)) if needs.gpus else n


@dataclass(frozen=True)
class Capacity:
    """What there is, and what the kinds of jobs that are to run get of it."""

    nodes: tuple[Node, ...]
    kinds: Mapping[str, Needs]

    def slots(self, needs: Needs) -> int:
        """How many such jobs fit if there are no others."""
        return sum(node.slots(needs) for node in self.nodes)

    def check(self) -> None:
        """Raises UserError when there is a kind of which no job fits."""
        for kind, needs in self.kinds.items():
            if not self.slots(needs):
                where = "resources" if self.alike else f"resources.{kind}"
                raise UserError(f"{where}: a job of {needs} does not fit: there are {self._there()}")

    def _there(self) -> str:
        cpus, gpus = self.size
        makes = ", ".join(sorted({make for node in self.nodes for make in node.accelerators}))
        return f"{cpus:g} CPUs and {gpus:g} GPUs" + (f" ({makes})" if makes else "")

    @property
    def most(self) -> int:
        """How many jobs fit at once, of the kind of which most do."""
        return max((self.slots(needs) for needs in self.kinds.values()), default=0)

    @property
    def alike(self) -> bool:
        """Whether all kinds get the same."""
        return len(set(self.kinds.values())) < 2

    def fits(self, jobs: Sequence[Needs]) -> bool:
        """Whether these jobs fit at once, the largest placed first."""
        free = [[node.cpus, *[1.0] * node.gpus] for node in self.nodes]
        return all(self._place(needs, free) for needs in sorted(jobs, key=_size, reverse=True))

    def _place(self, needs: Needs, free: list[list[float]]) -> bool:
        """Take what a job gets from the first node that has it, of its GPUs from the fullest."""
        for node, left in zip(self.nodes, free, strict=True):
            if left[0] < needs.cpus or not node.slots(needs):
                continue
            if needs.gpus:
                enough = [(left[i], i) for i in range(1, len(left)) if left[i] >= needs.gpus - SLACK]
                if not enough:
                    continue
                left[min(enough)[1]] -= needs.gpus
            left[0] -= needs.cpus
            return True
        return False

    def alone(self, needs: Needs) -> bool:
        """Whether such a job has its device to itself: a GPU, or else nothing fits beside it."""
        others = self.kinds.values()
        return needs.gpus == 1 or not any(self.fits([needs, other]) for other in others)

    @property
    def limits(self) -> list[Limit]:
        """What bounds the work: the slots of jobs that get the same, cores and GPUs.

        Empty where all jobs get the same: then the number of workers says it.
        """
        if self.alike:
            return []
        same: dict[Needs, dict[str, float]] = {}
        for kind, needs in self.kinds.items():
            same.setdefault(needs, {})[kind] = 1.0
        found = [Limit(takes, max(1, self.slots(needs))) for needs, takes in same.items()]
        takes_cpus = {kind: float(needs.cpus) for kind, needs in self.kinds.items()}
        takes_gpus = {kind: needs.gpus for kind, needs in self.kinds.items()}
        cpus, gpus = self.size
        return [*found, Limit(takes_cpus, max(1.0, cpus)), Limit(takes_gpus, max(1, gpus))]

    @property
    def size(self) -> tuple[float, int]:
        """All CPUs and GPUs."""
        return sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)

    def __str__(self) -> str:
        """`2 workers`, or `workers: 1 for distill, 8 for evaluate`."""
        if self.alike:
            return count(self.most, "worker")
        each = [f"{self.slots(needs)} for {kind}" for kind, needs in self.kinds.items()]
        return f"workers: {', '.join(each)}"


def _size(needs: Needs) -> tuple[float, int]:
    return needs.gpus, needs.cpus


def least_seconds(limits: Sequence[Limit], work: Mapping[str, float]) -> float:
    """In how many seconds this work can be done at best.

    Args:
        limits: of what there is.
        work: seconds of jobs by kind.
    """
    taken = [
        sum(limit.takes.get(kind, 0.0) * s for kind, s in work.items()) / limit.there for limit in limits
    ]
    return max(taken, default=0.0)

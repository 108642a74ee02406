"""A plan split into shards that run without a scheduler of their own, as the tasks of a SLURM array do."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.core.errors import UserError
from bench.planning.graph import Job

MOST_SHARDS = 10_000


@dataclass(frozen=True)
class Shard:
    """One of `number` shards of a plan, counted from 1."""

    index: int
    number: int

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"


def parse_shard(text: str) -> Shard:
    """Read `2/8`, the second of eight shards. Raises UserError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    index, number = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= number <= MOST_SHARDS:
        most = f"{MOST_SHARDS:,}"
        raise UserError(
            f"--shard {text}: give I/N, I from 1 to N and N up to {most}, as 2/8 is the second of 8"
        )
    return Shard(index, number)


@dataclass(frozen=True)
class _Atom:
    """Jobs that stay together, and the prerequisites that they need."""

    jobs: tuple[str, ...]  # distillations, choices of a rate and evaluations
    needs: tuple[str, ...]


def plan_digest(jobs: Iterable[str]) -> str:
    """Which plan this is, by the keys of its jobs."""
    return hashlib.sha256(" ".join(jobs).encode()).hexdigest()[:16]


def split_plan(
    jobs: Mapping[str, Job], number: int, seconds: Callable[[str], float | None] = lambda key: None
) -> list[list[str]]:
    """Split a plan into shards of like cost that need nothing of each other.

    A distillation stays with its evaluations, with the choice of their learning rate and with all sets that
    share that choice. A prerequisite is made by every shard that needs it: those who share one stay together
    while they are less than a shard, and are spread only where that saves more than it is made again.

    Args:
        jobs: the plan, inputs first.
        number: of shards.
        seconds: what a job will cost, where that is known; the others cost as much as the mean of the known.

    Returns:
        The keys of each shard, in the order of the plan. Every job is in one, and none but prerequisites in
        several. The same for the same plan and costs.
    """
    known = {key: cost for key in jobs if (cost := seconds(key)) is not None}
    mean = sum(known.values()) / len(known) if known else 1.0
    costs = {key: known.get(key, mean or 1.0) for key in jobs}
    shards = _Shards(number, costs)
    groups = [(_sum(costs, _keys(group)), group) for group in _sharing(_atoms(jobs))]
    fair = _sum(costs, jobs) / number
    for cost, group in sorted(groups, key=lambda pair: -pair[0]):
        if cost <= fair:
            shards.add(_keys(group))
        else:
            for atom in sorted(group, key=lambda atom: -_sum(costs, atom.jobs)):
                shards.add(atom.jobs, atom.needs)
    places = {key: place for place, key in enumerate(jobs)}
    return [sorted(keys, key=places.__getitem__) for keys in shards.keys]


def _sum(costs: Mapping[str, float], keys: Iterable[str]) -> float:
    return sum(costs[key] for key in keys)


def _keys(group: Sequence[_Atom]) -> list[str]:
    """All jobs of a group, each once."""
    return list(dict.fromkeys(key for atom in group for key in (*atom.needs, *atom.jobs)))


class _Shards:
    """The shards as they fill."""

    def __init__(self, number: int, costs: Mapping[str, float]) -> None:
        self.keys: list[set[str]] = [set() for _ in range(number)]
        self._loads, self._costs = [0.0] * number, costs
        self._holders: dict[str, set[int]] = defaultdict(set)

    def add(self, jobs: Sequence[str], needs: Sequence[str] = ()) -> None:
        """Put jobs where least is then to do; what a shard makes again of `needs` counts twice."""
        held = [0.0] * len(self.keys)
        for key in needs:
            for place in self._holders[key]:
                held[place] += self._costs[key]
        place = min(range(len(held)), key=lambda i: (self._loads[i] - 2 * held[i], i))
        self._loads[place] += _sum(self._costs, (*jobs, *needs)) - held[place]
        self.keys[place].update(jobs, needs)
        for key in (*jobs, *needs):
            self._holders[key].add(place)


class _Groups:
    """Which keys belong together, as they are joined."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._above = {key: key for key in keys}

    def root(self, key: str) -> str:
        while self._above[key] != key:
            self._above[key] = key = self._above[self._above[key]]
        return key

    def join(self, one: str, other: str) -> None:
        self._above[self.root(other)] = self.root(one)


def _atoms(jobs: Mapping[str, Job]) -> list[_Atom]:
    """Everything but the prerequisites, in groups that share no other input; each with its prerequisites."""
    first = {key: job for key, job in jobs.items() if job.kind == "prepare"}
    groups = _Groups(key for key in jobs if key not in first)
    for key, job in jobs.items():
        if key not in first:
            for needed in job.inputs.values():
                if needed not in first:
                    groups.join(needed, key)
    members: dict[str, list[str]] = defaultdict(list)
    for key in jobs:
        if key not in first:
            members[groups.root(key)].append(key)
    found = [_Atom(tuple(keys), _prerequisites(keys, jobs, first)) for keys in members.values()]
    alone = first.keys() - {key for atom in found for key in atom.needs}  # that nobody asks for
    return [*found, *(_Atom((key,), ()) for key in first if key in alone)]


def _prerequisites(keys: Iterable[str], jobs: Mapping[str, Job], first: Mapping[str, Job]) -> tuple[str, ...]:
    """Of these jobs, and those that they need in turn."""
    found: dict[str, None] = {}
    rest = [key for key in keys]
    while rest:
        for needed in jobs[rest.pop()].inputs.values():
            if needed in first and needed not in found:
                found[needed] = None
                rest.append(needed)
    return tuple(found)


def _sharing(atoms: Sequence[_Atom]) -> list[list[_Atom]]:
    """The atoms in groups that share a prerequisite, in the order of the plan."""
    groups = _Groups(key for atom in atoms for key in (atom.jobs[0], *atom.needs))
    for atom in atoms:
        for key in atom.needs:
            groups.join(atom.jobs[0], key)
    found: dict[str, list[_Atom]] = defaultdict(list)
    for atom in atoms:
        found[groups.root(atom.jobs[0])].append(atom)
    return list(found.values())

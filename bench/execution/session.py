"""One result folder and one sweep: what is planned, what is done, what is missing."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.core.errors import UserError
from bench.core.signals import stop_on_signals
from bench.core.teacher_file import read_teacher
from bench.core.words import count, duration
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.execution.budget import ComputeBudget
from bench.execution.capacity import Capacity
from bench.execution.folder_lock import ShardPlace, locked
from bench.execution.inline import run_inline
from bench.execution.jobs import JobContext, publish_teacher
from bench.execution.machine import check_resources
from bench.execution.past_costs import devices_of, learn_costs
from bench.execution.progress import Progress
from bench.execution.provenance import planned_sources, same_sources, source_commit
from bench.execution.queue import Outcome, ReadyQueue
from bench.execution.store import Store
from bench.planning.checks import check_data
from bench.planning.estimate import Estimator
from bench.planning.graph import JOB_KINDS, Job, plan_sweep
from bench.planning.resources import Resources
from bench.planning.size import LONG_S, paper_sized, smaller_setting, without_presets
from bench.planning.sweep import Sweep, load_sweep

OTHER_SOURCES = "made by other sources"  # the state of a finished job that is made again


@dataclass
class Session:
    """One sweep and its result folder: plans, runs what is missing, says what is left."""

    resources: Resources
    jobs: dict[str, Job]
    store: Store
    lenders: list[Store]
    datasets: dict[str, dict[str, str]]  # as in job.Context
    sweep: Sweep | None = None  # None: sets from elsewhere
    fresh: bool = False  # make again what other sources made
    budget: ComputeBudget | None = None
    part: ShardPlace | None = None  # the jobs are those of a shard

    @classmethod
    def open(
        cls,
        path: Path,
        overrides: list[str],
        out: Path | None,
        on_cluster: bool,
        fresh: bool = False,
        tell: Callable[[str], None] = lambda label: None,
    ) -> "Session":
        """Read and check everything before anything starts. Raises UserError.

        `tell` hears the label of what a budget counts.
        """
        sweep = load_sweep(path, overrides)
        chosen = sweep.protocols
        try:
            check_resources(sweep.resources, on_cluster)
            paths = {spec.label: prepare_dataset(spec) for spec in sweep.datasets}
            loaded = {label: read_dataset(p) for label, p in paths.items()}
            check_data(sweep, loaded)
            budget = compute_budget(sweep, loaded, tell)
            jobs = plan_sweep(sweep, loaded, chosen, budget.fit if budget else None)
            if not jobs:  # of a budget
                raise UserError("; ".join(budget.summary() if budget else []))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        root = (out or Path("results") / sweep.name).resolve()
        # folders under results/ lend each other what is finished; a folder of one's own starts from nothing
        siblings = root.parent.glob("*/records") if out is None else []
        return cls(
            resources=sweep.resources,
            jobs=jobs,
            store=Store(root),
            lenders=[Store(p.parent) for p in sorted(siblings) if p.parent != root],
            datasets={loaded[s.label].fingerprint: dataset_place(s, paths[s.label]) for s in sweep.datasets},
            sweep=sweep,
            fresh=fresh,
            budget=budget,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of this folder, and sweep up what killed ones left."""
        with locked(self.store.root, self.part):
            mine = self.jobs if self.part else None  # others may be at work
            self.store.sweep_up(mine)
            try:
                yield
            finally:
                self.store.sweep_up(mine)

    @cached_property
    def states(self) -> dict[str, str | None]:
        """{key: None when done, "" when missing, else what is wrong}."""
        found = {key: self.store.state(job.kind, key) for key, job in self.jobs.items()}
        if self.fresh:
            for key, job in self.jobs.items():  # inputs first: what stands on them is made again too
                redone = any(found[needed] == OTHER_SOURCES for needed in job.inputs.values())
                if found[key] is None and (redone or self._same_sources(key, self.store) is False):
                    found[key] = OTHER_SOURCES
        return found

    def _same_sources(self, key: str, store: Store) -> bool | None:
        """Whether a finished job was made by the sources of today; None where it does not say."""
        job = self.jobs[key]
        return same_sources(planned_sources(job, self.jobs), store.versions(job.kind, key))

    @cached_property
    def sources(self) -> dict[str, bool | None]:
        """{key of a finished job: whether the sources of today made it; None where it does not say}."""
        done = [key for key, state in self.states.items() if state in (None, OTHER_SOURCES)]
        return {key: self._same_sources(key, self.store) for key in done}

    def sources_summary(self) -> list[str]:
        """A line on finished jobs that other sources made, and one on those that do not say."""
        other = [self.jobs[key] for key, same in self.sources.items() if same is False]
        unknown = sum(same is None for same in self.sources.values())
        lines = []
        if other:
            names = sorted({self._made_by(job) for job in other})
            what = "they are made again" if self.fresh else "they count as done; --fresh makes them again"
            made = f"{count(len(other), 'finished job')} made by other sources than today's"
            lines.append(f"{made} ({', '.join(names)}): {what}")
        if unknown:
            made = f"{count(unknown, 'finished job')} without a record of the sources"
            lines.append(f"{made}: they count as done here, and are not lent to other folders")
        return lines

    def _made_by(self, job: Job) -> str:
        """The method, or the block of a prerequisite."""
        made = self.jobs[job.inputs["artifact"]] if "artifact" in job.inputs else job
        name: str = made.identity.get("method") or made.identity["block"]
        return name

    @cached_property
    def todo(self) -> dict[str, Job]:
        """What is damaged, and the jobs without which some cell lacks its record; inputs first."""
        needed: set[str] = set()
        for key, job in reversed(self.jobs.items()):
            state = self.states[key]  # a finished job's artifact may be deleted, but a damaged one is redone
            if state or (state is not None and (job.kind == "evaluate" or key in needed)):
                needed |= {key, *job.inputs.values()}
        return {k: j for k, j in self.jobs.items() if k in needed and self.states[k] is not None}

    @cached_property
    def _holders(self) -> dict[str, list[Store]]:
        """The neighbouring folders that hold something by a key: one look into each, not one for each job."""
        found: dict[str, list[Store]] = {}
        for store in self.lenders:
            for key in store.held_keys():
                found.setdefault(key, []).append(store)
        return found

    def lender(self, key: str) -> Store | None:
        """A neighbouring result folder where this job is finished, and was made by the sources of today."""
        job = self.jobs[key]
        label = self.datasets[job.identity["dataset"]]["label"]
        for store in self._holders.get(key, ()):
            finished = store.state(job.kind, key) is None
            # the same data under another name would stand in the table as another data set
            same_label = finished and (job.kind != "evaluate" or store.load_record(key).dataset == label)
            if same_label and self._same_sources(key, store):
                return store
        return None

    def state(self, key: str) -> str:
        """In words: done (here or in a neighbouring folder), missing, damaged, or not needed."""
        if self.states[key] is None:
            return "done by other sources" if self.sources.get(key) is False else "done"
        if self.states[key] == OTHER_SOURCES:
            return OTHER_SOURCES
        if self.states[key]:
            return f"damaged: {self.states[key]}"
        if key not in self.todo:
            return "not needed"
        lender = self.lender(key)
        return f"done in {lender.root.name}" if lender else "missing"

    @cached_property
    def costs(self) -> Estimator:
        """What the jobs will cost, from what this and neighbouring folders have finished on such a device."""
        found = Estimator(self.jobs)
        labels = {fingerprint: place["label"] for fingerprint, place in self.datasets.items()}
        stores, profiles = [self.store, *self.lenders], self.store.root.parent / "profile"
        learn_costs(found, stores, profiles, labels, devices_of(self.resources))
        return found

    def plan_summary(self) -> list[str]:
        """Counts, and the sum of the estimates."""
        todo = Counter(job.kind for job in self.todo.values())
        counts = ", ".join(f"{n} {kind}" for kind, n in todo.items()) or "nothing"
        lines = [f"{count(len(self.jobs), 'job')} in {self.store.root}; to run: {counts}"]
        lines += [*self.sources_summary(), *self._within()]
        return [*lines, *self._work(), *self._paper_sized()] if self.todo else lines

    def _within(self) -> list[str]:
        """What the budget pays for, and what it does not."""
        return self.budget.summary() if self.budget else []

    def _work(self) -> list[str]:
        """The sum of the estimates, and the longest job."""
        known = {key: seconds for key in self.todo if (seconds := self.costs.seconds(key)) is not None}
        if not known:
            return ["nothing like these jobs has finished here, so there is no estimate: --measure makes one"]
        rest = len(self.todo) - len(known)
        note = f", without {count(rest, 'job')} like none that has finished here" if rest else ""
        longest = max(known, key=lambda key: known[key])
        return [
            f"{self.costs.sum(self.todo)} of work, shared by the workers{note}",
            f"the longest job: {self.jobs[longest].label}, about {duration(known[longest])}",
        ]

    def _paper_sized(self) -> list[str]:
        methods = {job.identity["method"] for job in self.todo.values() if job.kind == "distill"}
        if self.sweep is None:
            return []
        line = None if self.budget else paper_sized(self.sweep, methods)
        return [*([line] if line else []), *without_presets(self.sweep, methods)]

    def warnings(self) -> list[str]:
        """Before a run: work of more than an hour and what would make it less; sizes that are a paper's."""
        work = self.costs.sum(self.todo)
        if work.seconds <= LONG_S:
            return self._paper_sized()
        setting = smaller_setting(self.jobs, self.todo, self.costs)
        fewer = f"; for less of it --set {setting}" if setting else ""
        return [f"{work} of work, shared by the workers{fewer}", *self._paper_sized()]

    def has_records(self) -> bool:
        """Whether the folder has any record, of this sweep or another."""
        return any(self.store.records.glob("*.json"))

    def run(self, executor: str, address: str | None, limit: int | None, console: Console) -> Outcome:
        """Run what is missing; Ctrl-C, whenever it comes, is noted in the outcome."""
        if address:
            from bench.execution.ray_cluster import check_address

            check_address(address)  # before a folder is made
        try:
            with stop_on_signals(), self.locked():
                return self._run(executor, address, limit, console)
        except KeyboardInterrupt:  # before the first job, or after the last one
            return Outcome(interrupted=True)

    def _run(self, executor: str, address: str | None, limit: int | None, console: Console) -> Outcome:
        for line in [*self.sources_summary(), *self._within()]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._mend(console)
        self._keep_given_teacher()
        chosen = dict(list(self.todo.items())[:limit])
        done = {key for key in self.jobs if key not in self.todo}
        if not chosen:
            cells = "Every cell of the shard" if self.part else "Every cell"
            console.print(f"{cells} has its record in {self.store.root}.", highlight=False, soft_wrap=True)
            return Outcome()
        first = f"{count(len(chosen), 'job')} to run in {self.store.root}"
        console.print(first, highlight=False, soft_wrap=True)
        for line in self.warnings() if limit is None else []:
            console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
        if executor == "inline":
            queue = ReadyQueue(self.jobs, done, set(chosen))
            with Progress(self.costs, done, 1, console, self.store) as progress:
                return run_inline(queue, self._context(), progress)
        from bench.execution.ray_cluster import cluster  # a second to import, not installed everywhere
        from bench.execution.ray_tune import run_ray

        kinds = {kind: self.resources.of(kind) for kind in JOB_KINDS if self._has(kind, chosen)}
        queue = ReadyQueue(self.jobs, done, set(chosen), kinds)
        with cluster(address, kinds) as there:
            told = f"{there.capacity}, started in {there.start_s:.1f} s"
            console.print(told, highlight=False)
            with Progress(
                self.costs, done, there.slots, console, self.store, there.capacity.limits
            ) as progress:
                outcome = run_ray(queue, self._context(there.capacity), progress, there)
        for key in chosen.keys() - queue.open - outcome.failed.keys():
            if self.store.state(self.jobs[key].kind, key) is not None:
                outcome.failed[key] = "finished, but its result is not here: was it removed?"
        return outcome

    def _mend(self, console: Console) -> None:
        """Remove what is damaged, and say so; copy what a neighbouring folder has finished."""
        damaged = {key: why for key, why in self.states.items() if why}
        for key, why in damaged.items():
            if why != OTHER_SOURCES:
                text = f"made again: {why}"
                console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
            self.store.discard(self.jobs[key].kind, key)
        before = len(self.todo)
        for key, job in self.todo.items():
            if lender := self.lender(key):
                self.store.adopt(job.kind, key, lender)
                self.states[key] = None
        del self.__dict__["todo"]
        if len(self.todo) < before:
            taken = count(before - len(self.todo), "finished job")
            console.print(f"{taken} taken over from neighbouring folders", highlight=False)

    def _keep_given_teacher(self) -> None:
        """Put the teacher that the sweep names by file where jobs look for it."""
        given = None if self.sweep is None else self.sweep.evaluate.teacher
        if given is None or given.file is None:
            return
        context, teacher = self._context(), read_teacher(Path(given.file))
        for key in [key for key, job in self.todo.items() if job.identity.get("block") == "ImportedTeacher"]:
            publish_teacher(self.jobs[key], self.store, context, teacher)
            self.states[key] = None
        self.__dict__.pop("todo", None)

    def _context(self, capacity: Capacity | None = None) -> JobContext:
        """`capacity`: of a cluster; None: one job at a time."""
        kinds: dict[str, dict[str, Any]] = {}
        for kind in JOB_KINDS:
            needs = self.resources.of(kind)
            alone = capacity is None or capacity.alone(needs)
            kinds[kind] = {"cpus": needs.cpus, "gpus": needs.gpus, "exclusive": alone}
        return JobContext(
            root=str(self.store.root),
            datasets=self.datasets,
            **kinds["distill"],
            commit=source_commit(),
            operations=self.budget.operations(self.jobs) if self.budget else {},
            budget=self.budget.limit if self.budget else None,
            kinds=kinds,
        )

    @staticmethod
    def _has(kind: str, jobs: Mapping[str, Job]) -> bool:
        return any(job.kind == kind for job in jobs.values())

    def summary(self, outcome: Outcome, limit: int | None) -> list[str]:
        """What failed and why, what is left, and the overhead of the sweep over its jobs."""
        lines = []
        for key, reason in outcome.failed.items():
            lines.append(f"failed: {self.jobs[key].label}: {reason}")
            if self.store.log(key).exists():
                lines.append(f"  log: {self.store.log(key)}")
        left = len(self.todo) - outcome.finished - len(outcome.failed)
        if left > 0:
            lines.append(f"{count(left, 'job')} left (--limit {limit}); run again without it")
        if outcome.busy:
            mean = outcome.mean_workers
            same = abs(mean - outcome.workers) < 0.005
            workers = count(outcome.workers, "worker") if same else f"{mean:.1f} workers on average"
            workers = "workers that kinds of jobs share" if outcome.limits else workers
            start = f" (and {outcome.start:.1f} s for Ray to start)" if outcome.start else ""
            lines.append(
                f"{count(outcome.finished, 'job')} in {outcome.seconds:.1f} s; their own seconds: "
                f"{outcome.busy:.1f}, on {workers} {outcome.least:.1f} each: "
                f"overhead {outcome.overhead:.1%}{start}"
            )
        return lines


def dataset_place(spec: DatasetSpec, path: Path) -> dict[str, str]:
    """Where jobs find a data set, or how they make it again: an entry of `Session.datasets`."""
    return {"label": spec.label, "path": str(path), "spec": spec.model_dump_json()}


def compute_budget(
    sweep: Sweep, datasets: Mapping[str, Dataset], tell: Callable[[str], None]
) -> ComputeBudget | None:
    """What a sweep lets each distillation spend, counted where its jobs run, as far as this machine can."""
    if sweep.budget is None:
        return None
    on_gpu = sweep.resources.gpus and torch.cuda.is_available()
    device = torch.device("cuda:0" if on_gpu else "cpu")
    return ComputeBudget(sweep.budget.compute, datasets, device, tell)

"""What a row costs: every second of every job that it needs stands in its record, and none twice."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.core import loop, timing
from bench.core.augment import policies
from bench.core.loop import Steps
from bench.core.preprocess import Preprocess
from bench.core.timing import Measured
from bench.core.training import Recipe
from bench.data.cache import prepare_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.execution import evaluate_job, jobs, provenance, warm_up
from bench.execution.jobs import JobContext, run_job
from bench.execution.store import Store
from bench.planning.graph import Job, plan_sweep
from bench.planning.protocols import Protocol, TeacherConfig
from bench.planning.sweep import Sweep
from bench.records.schema import Record
from methods.blocks.parameterise.pixels import Pixels
from methods.random_real import METHOD as RandomReal

RECIPE = Recipe(batch_size=20, lr=0.03, steps=3)
PLAIN = Protocol(name="quick", version=1, about="of this file", recipe=RECIPE)
K_MEANS = {"name": "k_means", "network_steps": 2}


@pytest.fixture
def context(digits: Dataset, tmp_path: Path) -> JobContext:
    spec = DatasetSpec(name="digits")
    entry = {"label": "digits", "path": str(prepare_dataset(spec)), "spec": spec.model_dump_json()}
    return JobContext(str(tmp_path), {digits.fingerprint: entry}, cpus=1, gpus=0, exclusive=True, commit="")


@pytest.fixture
def planned(digits: Dataset) -> Callable[..., list[Job]]:
    """The jobs of a sweep of one method, inputs first."""

    def plan(
        method: Any = "random_real", protocol: Protocol = PLAIN, seeds: int = 2, **extra: Any
    ) -> list[Job]:
        content = {
            "name": "tiny",
            "datasets": ["digits"],
            "methods": [method],
            "ipc": [1],
            "distill": {"architectures": ["convnet-d1-w4"], "seeds": list(range(seeds))},
            "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick", **extra},
        }
        return list(plan_sweep(Sweep.model_validate(content), {"digits": digits}, [protocol]).values())

    return plan


def run(plan: list[Job], context: JobContext) -> list[Record]:
    """Run all jobs; the records by seed."""
    for job in plan:
        ended = run_job(job, context)
        assert ended["ok"], ended["error"]
    found = [Store(Path(context.root)).load_record(job.key) for job in plan if job.kind == "evaluate"]
    return sorted(found, key=lambda record: record.seed)


def cost(plan: list[Job], context: JobContext, kind: str) -> list[dict[str, Any]]:
    store = Store(Path(context.root))
    return [store.meta(job.key)["cost"] for job in plan if job.kind == kind]


# --- who pays for what ------------------------------------------------------------------------------------


@pytest.fixture
def powers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The phases that are timed take 1, 2, 4, ... seconds, so that a sum tells what it is of."""
    taken: list[float] = []

    @contextmanager
    def measure(device: torch.device) -> Iterator[Measured]:
        measured = Measured()
        yield measured
        taken.append(2.0 ** len(taken))
        measured.seconds, measured.peak_bytes = taken[-1], len(taken)

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(jobs, "_jobs_run", 0)
    return taken


def test_every_second_of_a_row_is_in_its_record(
    planned: Callable[..., list[Job]], context: JobContext, powers: list[float]
) -> None:
    changes = {"labels": "teacher", "teacher": TeacherConfig(recipe=RECIPE), "rates": (0.03, 0.1)}
    plan = planned(K_MEANS, PLAIN.model_copy(update=changes))
    first, second = run(plan, context)
    for record in (first, second):
        assert record.cost.prerequisites_s == {"embedding": record.cost.prepare_s}
    assert first.cost.teacher_s == second.cost.teacher_s
    assert first.cost.tune_s == second.cost.tune_s, "by both in full"
    own = [
        getattr(r.cost, f"{name}_s") for r in (first, second) for name in ("prepare", "distill", "evaluate")
    ]
    assert sorted([*own, first.cost.teacher_s, first.cost.tune_s]) == powers, "each of eight jobs, none twice"
    assert [c["tune_s"] for c in cost(plan, context, "tune")] == [first.cost.tune_s]
    assert first.cost.peak_memory.keys() == {"prepare", "teacher", "distill", "tune", "evaluate"}
    assert first.storage.teacher_bytes == second.storage.teacher_bytes
    assert (first.storage.teacher_bytes or 0) > 4 * 64 * 10


def test_what_a_protocol_does_not_have_costs_nothing(
    planned: Callable[..., list[Job]], context: JobContext, powers: list[float]
) -> None:
    first, _ = run(planned(), context)
    assert (first.cost.teacher_s, first.cost.tune_s, first.cost.prepare_s) == (0, 0, 0)
    assert first.cost.prerequisites_s == {}
    assert first.storage.teacher_bytes == 0
    assert first.storage.bytes_uint8 == first.storage.floats, "real images, kept as bytes"


@pytest.mark.usefixtures("powers")
def test_the_phases_of_the_first_job_of_a_process_are_cold(
    planned: Callable[..., list[Job]], context: JobContext
) -> None:
    first, second, third = run(planned(seeds=3), context)
    assert [r.cost.cold for r in (first, second, third)] == [["distill"], [], []]
    assert all(r.cost.warm for r in (first, second, third)), "the evaluations"


@pytest.mark.usefixtures("powers")
def test_a_cold_prerequisite_makes_the_phase_a_cold_one(
    planned: Callable[..., list[Job]], context: JobContext
) -> None:
    first, second = run(planned(K_MEANS), context)
    assert (first.cost.cold, second.cost.cold) == (["prepare"], [])


def test_experts_are_one_prerequisite(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spent = {"experts/0/1": 1.0, "experts/0/2": 2.0, "whitening": 8.0}
    inputs = dict(zip(spent, ("a", "b", "c"), strict=True))
    for key, seconds in zip(inputs.values(), spent.values(), strict=True):
        took = {"prepare_s": seconds, "peak_memory": {"prepare": int(seconds)}, "warm": True}
        store.publish(key, {"kind": "prepare", "cost": took}, lambda folder: None)
    job = Job("distill", "k", "x", {}, inputs)
    found = jobs._prerequisites(job, store)
    assert found["prerequisites_s"] == {"experts": 3.0, "whitening": 8.0}
    assert (found["prepare_s"], found["peak_memory"], found["cold"]) == (11.0, {"prepare": 8}, [])


def test_the_device_of_each_phase_is_told(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kinds of jobs may get different resources; here a device is known by its threads."""
    provenance.versions()  # which keeps the name of the processor
    monkeypatch.setattr(timing, "device_name", lambda device: f"{torch.get_num_threads()} threads")
    kinds = {"prepare": {"cpus": 2}, "evaluate": {"cpus": 2, "exclusive": False}}
    first, *_ = run(planned(K_MEANS), dataclasses.replace(context, kinds=kinds))
    assert (first.cost.device, first.cost.cpus, first.cost.exclusive) == ("1 threads", 2, False)
    assert first.cost.devices == {"prepare": "2 threads", "evaluate": "2 threads"}
    torch.set_num_threads(1)


# --- bookkeeping ------------------------------------------------------------------------------------------


def test_a_slow_disk_is_no_part_of_the_method(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves only while something is written: half a second each time."""
    writes = itertools.count()
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(timing, "time", clock)

    def slow(write: Callable[..., object]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            write(*args)
            clock.now = 0.5 * (next(writes) + 1)

        return call

    monkeypatch.setattr(Steps, "_report", slow(lambda *_: None))
    monkeypatch.setattr(Steps, "_snapshot", slow(Steps._snapshot))
    method = {"name": "dm", "steps": 10, "batch_real": 8}
    (record,) = run(planned(method, seeds=1, snapshots=True), context)
    assert record.cost.distill_s == 0
    assert record.cost.bookkeeping_s == clock.now >= 2
    assert [taken.seconds for taken in record.metrics.snapshots or ()] == [0, 0, 0, 0]


def test_bookkeeping_of_a_killed_process_is_in_the_record(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step takes a second, every checkpoint another; the machine then stands still for a day."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(Steps, "_report", lambda *_: None)
    monkeypatch.setattr(Steps, "_snapshot", lambda *_: None)
    monkeypatch.setattr(jobs, "Loop", lambda folder, **named: loop.Loop(folder, every_s=0, **named))
    keep, note = Steps._keep, Steps.loss
    kill = iter([False] * 4 + [True] + [False] * 6)

    def slow(self: Steps, folder: Path) -> None:
        keep(self, folder)
        clock.now += 1

    def step(self: Steps, value: torch.Tensor) -> None:
        note(self, value)
        if next(kill):
            raise KeyboardInterrupt
        clock.now += 1

    monkeypatch.setattr(Steps, "_keep", slow)
    monkeypatch.setattr(Steps, "loss", step)
    plan = planned({"name": "dm", "steps": 10, "batch_real": 8}, seeds=1)
    with pytest.raises(KeyboardInterrupt):
        run(plan, context)
    clock.now += 86_400
    (record,) = run(plan, context)
    assert record.cost.distill_s == 10
    assert record.cost.bookkeeping_s == 10 - 1, "less the checkpoint that the killed process wrote last"


# --- before the clock starts ------------------------------------------------------------------------------


def test_policies_are_imported_before_students_are_timed(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(batch_size=20, lr=0.03, steps=3, augment="randaugment")
    seen = _events(monkeypatch, policies, "import_torchvision")
    monkeypatch.setattr(evaluate_job, "_rehearsed", set())
    run(planned(protocol=PLAIN.model_copy(update={"recipe": recipe})), context)
    one, two, three, four = (i for i, event in enumerate(seen) if event == "timed")
    assert seen[one:two] == ["timed"], "a distillation"
    assert two < seen.index("import_torchvision") < three, "before the first evaluation"
    assert three < four - 1, "and while it trains"


def test_nothing_is_rehearsed_twice(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _events(monkeypatch, evaluate_job, "rehearse")
    monkeypatch.setattr(evaluate_job, "_rehearsed", set())
    rates = PLAIN.model_copy(update={"rates": (0.03, 0.1)})
    run(planned(protocol=rates, seeds=3), context)
    assert seen.count("rehearse") == 2, "two students to choose a rate, one to be scored"
    assert seen.count("timed") == 3 + 1 + 3


def test_a_method_s_imports_and_network_come_before_it_is_timed(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = SimpleNamespace(import_module=lambda name: None)
    monkeypatch.setattr(warm_up, "importlib", imports)
    monkeypatch.setattr(warm_up, "_warm", set())
    seen = _events(monkeypatch, imports, "import_module")
    run(planned(K_MEANS, seeds=1), context)
    assert seen == ["timed", "import_module", "timed", "timed"], "the embedding, the coreset, the students"
    (key,) = warm_up._warm
    assert "convnet-d1-w4" in key


def _events(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """A list of calls of this function and of phases that are timed, as they come."""
    seen: list[str] = []
    measure, wanted = timing.measure, getattr(module, name)

    @contextmanager
    def timed(device: torch.device) -> Iterator[Measured]:
        seen.append("timed")
        with measure(device) as measured:
            yield measured

    def called(*args: Any) -> Any:
        seen.append(name)
        return wanted(*args)

    monkeypatch.setattr(timing, "measure", timed)
    monkeypatch.setattr(module, name, called)
    return seen


def test_a_rehearsal_changes_neither_results_nor_global_generators(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state, plan = torch.get_rng_state(), planned({"name": "dm", "steps": 2, "batch_real": 8})
    for module, name in ((evaluate_job, "_rehearsed"), (warm_up, "_warm")):
        monkeypatch.setattr(module, name, set())
    one = run(plan, context)
    assert torch.equal(torch.get_rng_state(), state)
    assert evaluate_job._rehearsed
    assert warm_up._warm
    monkeypatch.setattr(evaluate_job, "_rehearse_once", lambda *_: None)
    monkeypatch.setattr(jobs, "warm_up_for", lambda *_: None)
    two = run(plan, JobContext(**{**vars(context), "root": str(tmp_path / "without")}))
    assert [r.accuracies for r in one] == [r.accuracies for r in two]


# --- what is refused --------------------------------------------------------------------------------------


def refused(plan: list[Job], context: JobContext) -> str:
    ended = run_job(plan[0], context)
    assert not ended["ok"]
    assert not list(Path(context.root).glob("artifacts/*"))
    return str(ended["error"])


def test_a_set_with_another_preprocess_is_refused(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers are not counted, so they have to be the data set's."""
    distill = RandomReal.distill

    def changed(self: Any, problem: Any) -> Any:
        found = distill(self, problem)
        found.preprocess = Preprocess((0.5,), (0.5,))
        return found

    monkeypatch.setattr(RandomReal, "distill", changed)
    assert "the set must keep the problem's preprocess" in refused(planned(), context)


def test_a_set_with_pixels_in_its_config_is_not_published(
    planned: Callable[..., list[Job]], context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Pixels.config
    monkeypatch.setattr(Pixels, "config", lambda self: {**config(self), "pixels": [7] * 32_000})
    assert refused(planned(), context).startswith("the header of data.safetensors takes ")


def test_operations_of_a_method_and_of_its_prerequisites_are_in_the_record(
    planned: Callable[..., list[Job]], context: JobContext, digits: Dataset
) -> None:
    """By the formula: an expert's epoch on all images, whose last batch is smaller."""
    method = {
        "name": "mtt",
        "steps": 3,
        "inner_steps": 2,
        "experts": 1,
        "expert_epochs": 1,
        "start_epochs": 1,
    }
    (record,) = run(planned({**method, "expert_batch": 100, "augment": "none"}, seeds=1), context)
    first, last = 2 * 9 * 4 * 8 * 8, 2 * 4 * 4 * 4 * 10  # of an image: a convolution, the classifier
    assert record.cost.operations is not None
    # backward twice of forward; the first layer passes nothing on to the images
    assert record.cost.operations.prepare == len(digits.train.labels) * (3 * (first + last) - first)
    # an inner step and the gradient through it: three times as much each, of ten images, once for each step
    assert record.cost.operations.distill > 3 * 2 * 10 * 3 * (first + last)


def test_sets_without_networks_take_no_operations(
    planned: Callable[..., list[Job]], context: JobContext
) -> None:
    (record,) = run(planned(seeds=1), context)
    assert record.cost.operations is not None
    assert (record.cost.operations.prepare, record.cost.operations.distill) == (0, 0)


def test_the_plans_count_is_the_records(planned: Callable[..., list[Job]], context: JobContext) -> None:
    """So that a budget is one number, wherever a job runs."""
    plan = planned({"name": "dm", "steps": 1, "batch_real": 8}, seeds=1)
    told = dataclasses.replace(context, operations={job.key: 7.0 for job in plan})
    (record,) = run(plan, told)
    assert record.cost.operations is not None
    assert record.cost.operations.distill == 7

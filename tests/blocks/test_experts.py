"""Expert trajectories: one chain of epochs, however it is cut, shared by all, read from its files."""

import dataclasses
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from conftest import MakeProblem
from torch import Tensor
from torch.func import functional_call

from bench.core import random, registry
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.data.cache import prepare_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.execution.jobs import JobContext, _problem, run_job
from bench.execution.store import Store
from bench.planning.graph import Job, plan_sweep, recorded_hyperparameters
from bench.planning.protocols import load_protocol
from bench.planning.sweep import Sweep
from methods.blocks.experts import BLOCK, ExpertEpoch, Experts, trajectories
from methods.random_real import RandomReal

Banks = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Reads:
    """A method that reads trajectories, and distills nothing worth having."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none: for these tests"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    experts: int = 2
    epochs: int = 2
    lr: float = 0.05
    momentum: float = 0.0
    augment: str = "none"
    cutmix: float = 0.0

    def requires(self) -> dict[str, Prerequisite]:
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in ("experts", "epochs")}
        return trajectories(self.experts, self.epochs, batch_size=256, **values)

    def distill(self, problem: Problem) -> DistilledDataset:
        return RandomReal().distill(problem)


METHOD = Reads


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method can be named in a sweep."""
    names = {**registry.method_names(), "reads": "test_experts"}
    monkeypatch.setattr(registry, "method_names", lambda: names)
    monkeypatch.setattr("bench.planning.sweep.method_names", lambda: names)


def banks(make_problem: MakeProblem, method: Reads, **problem: Any) -> Banks:
    return {**make_problem(method, **{"architecture": "mlp", **problem}).prepared}


def same(one: Banks, two: Banks) -> bool:
    return one.keys() == two.keys() and all(
        one[role].keys() == two[role].keys()
        and all(torch.equal(t, two[role][n]) for n, t in one[role].items())
        for role in one
    )


def chi_square(counts: Counter[Any], cells: int) -> float:
    """In standard deviations above its mean, were the cells equally likely."""
    expected = sum(counts.values()) / cells
    seen = [*counts.values(), *[0] * (cells - len(counts))]
    statistic = sum((n - expected) ** 2 / expected for n in seen)
    return (statistic - (cells - 1)) / (2 * (cells - 1)) ** 0.5


# --- the chain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_epochs_are_those_of_one_training_run(make_problem: MakeProblem, momentum: float) -> None:
    """Weights and momentum pass from job to job, as if one optimiser had run through all epochs."""
    method, problem = Reads(epochs=3, momentum=momentum), make_problem(architecture="mlp")
    found, x = banks(make_problem, method), problem.preprocess(problem.images)
    for expert in range(2):
        net = problem.make_net(random.generator(0, "expert", 0, expert, "init"))
        optimiser = torch.optim.SGD(net.parameters(), lr=method.lr, momentum=momentum)
        for epoch in range(4):
            weights = torch.cat([p.detach().flatten() for p in net.parameters()])
            assert torch.equal(found[f"experts/0/{epoch}"]["weights"][expert], weights)
            order = random.generator(0, "expert", 0, expert, epoch + 1, "order")
            for index in torch.randperm(len(x), generator=order).split(256):  # every image once
                optimiser.zero_grad()
                F.cross_entropy(net(x[index]), problem.labels[index]).backward()
                optimiser.step()
    assert all(("velocity" in tensors) == bool(momentum) for tensors in found.values())


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "augment": "color_crop", "cutmix": 0.5}])
def test_a_shorter_bank_is_a_prefix_of_a_longer_one(
    make_problem: MakeProblem, changes: dict[str, Any]
) -> None:
    short = banks(make_problem, Reads(experts=2, epochs=1, **changes))
    longer = banks(make_problem, Reads(experts=2, epochs=3, **changes))
    assert same(short, {role: longer[role] for role in short})
    larger = banks(make_problem, Reads(experts=3, epochs=1, **changes))
    assert same(short, {r: {n: t[:2] for n, t in tensors.items()} for r, tensors in larger.items()})


def test_extending_a_stored_bank_gives_the_longer_one(make_problem: MakeProblem) -> None:
    """An epoch is a function of the tensors of the one before: nothing else is handed on."""
    method = Reads(epochs=3, momentum=0.9, augment="crop")
    whole, block = banks(make_problem, method), method.requires()["experts/0/3"]
    before = {name: t.clone() for name, t in whole["experts/0/2"].items()}
    problem = dataclasses.replace(make_problem(architecture="mlp"), prepared={"before": before})
    again = block.build(problem)
    assert same({"it": again}, {"it": whole["experts/0/3"]})
    assert same({"it": before}, {"it": whole["experts/0/2"]}), "what it reads stays as it was"


def test_checkpoints_do_not_alias(make_problem: MakeProblem) -> None:
    found = banks(make_problem, Reads(epochs=3))
    weights = [found[f"experts/0/{epoch}"]["weights"] for epoch in range(4)]
    assert len({w.untyped_storage().data_ptr() for w in weights}) == 4
    for before, after in itertools.pairwise(weights):
        assert torch.all((after - before).norm(dim=1) > 0)
    assert not torch.equal(weights[0][0], weights[0][1])
    assert all(not w.requires_grad for w in weights)


def test_all_seeds_and_budgets_share_a_bank(make_problem: MakeProblem) -> None:
    method = Reads(epochs=1, augment="flip")
    one = banks(make_problem, method)
    assert same(one, banks(make_problem, method, seed=7, ipc=3))
    for change in ({"lr": 0.01}, {"augment": "none"}, {"cutmix": 1.0}, {"momentum": 0.5}):
        other = banks(make_problem, dataclasses.replace(method, **change))
        first, last = (torch.equal(one[r]["weights"], other[r]["weights"]) for r in one)
        assert first
        assert not last


def test_building_leaves_the_global_generator_alone(make_problem: MakeProblem) -> None:
    torch.manual_seed(987_654_321)
    before = torch.get_rng_state()
    banks(make_problem, Reads(epochs=1, augment="color_crop", cutmix=0.5))
    assert torch.equal(torch.get_rng_state(), before)


def test_experts_learn(make_problem: MakeProblem) -> None:
    method = Reads(experts=1, epochs=4, lr=0.2)
    problem = make_problem(method, architecture="mlp")
    x, losses = problem.preprocess(problem.images), []
    for epoch in range(5):
        net = problem.make_net(random.generator(0))
        torch.nn.utils.vector_to_parameters(Experts(problem).weights(0, epoch), net.parameters())
        losses.append(F.cross_entropy(net(x), problem.labels).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_running_statistics_are_refused(make_problem: MakeProblem) -> None:
    problem = make_problem(architecture="convnet-d1-w4-batch")
    with pytest.raises(UserError, match="batch norm") as caught:
        ExpertEpoch(block=0, size=1, epoch=0, lr=0.1, batch_size=8).build(problem)
    assert "\n" not in str(caught.value)


def test_blocks_cover_the_experts() -> None:
    for experts in (1, 10, 11, 25):
        wanted = trajectories(experts, 2, lr=0.1, batch_size=8)
        sizes = [p.size for role, p in wanted.items() if role.endswith("/0")]
        assert sum(sizes) == experts
        assert max(sizes) <= BLOCK
        assert {(p.block, p.epoch) for p in wanted.values()} == {
            (b, e) for b in range(len(sizes)) for e in range(3)
        }
        for prepare_ in wanted.values():  # every prerequisite of one is required by name, and charged once
            assert set(prepare_.requires().values()) <= set(wanted.values())
        assert len(set(wanted.values())) == len(wanted)


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bank(make_problem: MakeProblem) -> Problem:
    """Twelve experts in two blocks, epochs 0 to 3."""
    return make_problem(Reads(experts=BLOCK + 2, epochs=3), architecture="mlp")


def place(problem: Problem, weights: Tensor) -> tuple[int, int]:
    """(expert, epoch) of a checkpoint."""
    for role, tensors in problem.prepared.items():
        _, block, epoch = role.split("/")
        for row, own in enumerate(tensors["weights"]):
            if torch.equal(own, weights):
                return int(block) * BLOCK + row, int(epoch)
    raise AssertionError("no checkpoint has these weights")


@pytest.mark.parametrize(("experts", "epochs"), [(10**30, 1), (1, 10**30), (1000, 1000)])
def test_more_experts_than_can_be_planned_are_refused(experts: int, epochs: int) -> None:
    with pytest.raises(UserError, match="more than 20,000 jobs: take fewer experts or epochs"):
        trajectories(experts, epochs, lr=0.1, batch_size=8)


def test_segments_are_uniform_over_experts_and_start_epochs(bank: Problem) -> None:
    experts, generator, counts = Experts(bank), random.generator(0, "segments"), Counter()
    for _ in range(720):
        start, end = (place(bank, weights) for weights in experts.segment(generator, 2, 2))
        assert start[0] == end[0]
        assert end[1] == start[1] + 2
        counts[start] += 1
    assert {epoch for _, epoch in counts} == {0, 1}
    assert chi_square(counts, 12 * 2) < 5


def test_a_segment_must_end_where_there_are_experts(bank: Problem) -> None:
    experts = Experts(bank)
    experts.segment(random.generator(0), 2, 2)
    with pytest.raises(UserError, match="need experts of 4 epochs, and these have 3") as caught:
        experts.segment(random.generator(0), 3, 2)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="epochs 0 to 3"):
        Experts(bank, first=4)
    with pytest.raises(UserError, match="no expert trajectories"):
        Experts(dataclasses.replace(bank, prepared={}))


def test_networks_are_uniform_over_experts_and_epochs(bank: Problem) -> None:
    experts, generator, counts = Experts(bank, first=2), random.generator(0, "networks"), Counter()
    for _ in range(480):
        net = experts.network(generator)
        assert all(p.requires_grad for p in net.parameters())
        counts[place(bank, torch.cat([p.detach().flatten() for p in net.parameters()]))] += 1
    assert {epoch for _, epoch in counts} == {2, 3}
    assert chi_square(counts, 12 * 2) < 5


def test_vectors_are_in_the_order_of_the_named_parameters(bank: Problem) -> None:
    net = Experts(bank).network(random.generator(0))
    expert, epoch = place(bank, torch.cat([p.detach().flatten() for p in net.parameters()]))
    parts = Experts(bank).weights(expert, epoch).split([p.numel() for p in net.parameters()])
    named = {n: v.view_as(p) for (n, p), v in zip(net.named_parameters(), parts, strict=True)}
    x = bank.preprocess(bank.images[:4])
    assert torch.equal(functional_call(net, named, x), net(x))


def test_what_is_read_is_a_copy(bank: Problem) -> None:
    experts = Experts(bank)
    before = {role: tensors["weights"].clone() for role, tensors in bank.prepared.items()}
    start, end = experts.segment(random.generator(0), 2, 2)
    start.zero_(), end.zero_()
    with torch.no_grad():
        for p in experts.network(random.generator(0)).parameters():
            p.fill_(float("nan"))
    assert all(torch.equal(t["weights"], before[role]) for role, t in bank.prepared.items())


# --- as jobs --------------------------------------------------------------------------------------


def swept(digits: Dataset, *methods: Any, **changes: Any) -> dict[str, Job]:
    content = {
        "name": "tiny",
        "datasets": ["digits"],
        "methods": list(methods) or ["reads"],
        "ipc": [1],
        "distill": {"architectures": ["mlp"], "seeds": [0]},
        "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
        **changes,
    }
    return plan_sweep(Sweep.model_validate(content), {"digits": digits}, [load_protocol("quick")])


def keys(jobs: dict[str, Job], kind: str) -> set[str]:
    return {key for key, job_ in jobs.items() if job_.kind == kind}


@pytest.mark.usefixtures("reads")
def test_a_sweep_may_ask_for_a_bank_per_seed(digits: Dataset) -> None:
    """Seed 0 has the bank that is shared otherwise; what follows no experts keeps its keys."""
    seeds = {"architectures": ["mlp"], "seeds": [0, 1]}
    shared = swept(digits, "reads", "random_real", distill=seeds)
    own = swept(digits, "reads", "random_real", distill=seeds | {"experts_per_seed": True})
    assert keys(shared, "prepare") < keys(own, "prepare")
    assert len(keys(own, "prepare")) == 2 * len(keys(shared, "prepare"))
    banks = {key: job_.identity["values"]["bank"] for key, job_ in own.items() if job_.kind == "prepare"}
    for job_ in own.values():
        if job_.kind == "distill":
            reads = job_.identity["method"] == "reads"
            assert {banks[key] for key in job_.inputs.values()} == (
                {job_.identity["seed"]} if reads else set()
            )
            assert (job_.key in shared) != reads
            assert recorded_hyperparameters(job_.identity).get("experts_per_seed", False) is reads
    assert len({job_.label for job_ in own.values()}) == len(own)


def test_banks_differ_and_each_is_drawn_from_its_number_alone(make_problem: MakeProblem) -> None:
    def built(bank: int, epoch: int) -> Tensor:
        expert = ExpertEpoch(block=0, size=1, epoch=epoch, lr=0.05, batch_size=256, bank=bank)
        return expert.build(make_problem(expert, architecture="mlp"))["weights"]

    for epoch in (0, 1):
        assert torch.equal(built(1, epoch), built(1, epoch))
        assert not torch.equal(built(0, epoch), built(1, epoch))


@pytest.mark.usefixtures("reads")
def test_every_distillation_shares_the_epochs(digits: Dataset) -> None:
    seeds = {"architectures": ["mlp"], "seeds": [0, 1, 2]}
    jobs = swept(digits, {"name": "reads", "experts": 12}, ipc=[1, 2], distill=seeds)
    assert len(keys(jobs, "distill")) == 6
    assert len(keys(jobs, "prepare")) == 2 * 3
    assert len({job_.label for job_ in jobs.values()}) == len(jobs)
    rank = {key: i for i, key in enumerate(jobs)}
    assert all(rank[needed] < rank[key] for key, job_ in jobs.items() for needed in job_.inputs.values())
    for key in keys(jobs, "distill"):  # what is charged is the closure: no input stands on another job
        inputs = set(jobs[key].inputs.values())
        assert inputs == keys(jobs, "prepare")
        assert all(set(jobs[needed].inputs.values()) <= inputs for needed in inputs)


@pytest.mark.usefixtures("reads")
def test_more_epochs_or_experts_only_add_jobs(digits: Dataset) -> None:
    few = keys(swept(digits, {"name": "reads", "experts": 10, "epochs": 2}), "prepare")
    longer = keys(swept(digits, {"name": "reads", "experts": 10, "epochs": 3}), "prepare")
    larger = keys(swept(digits, {"name": "reads", "experts": 20, "epochs": 2}), "prepare")
    assert few < longer
    assert len(longer - few) == 1
    assert few < larger
    assert len(larger - few) == 3
    other = keys(swept(digits, {"name": "reads", "experts": 10, "lr": 0.1}), "prepare")
    assert not few & other


@pytest.fixture
def context(digits: Dataset, tmp_path: Path) -> JobContext:
    spec = DatasetSpec(name="digits")
    entry = {"label": "digits", "path": str(prepare_dataset(spec)), "spec": spec.model_dump_json()}
    return JobContext(str(tmp_path), {digits.fingerprint: entry}, cpus=1, gpus=0, exclusive=True, commit="")


@pytest.mark.usefixtures("reads")
def test_jobs_build_the_bank_once_and_charge_all_of_it(
    digits: Dataset, context: JobContext, make_problem: MakeProblem
) -> None:
    jobs, store = swept(digits, {"name": "reads", "momentum": 0.9}, ipc=[1, 2]), Store(Path(context.root))
    for job_ in jobs.values():
        if job_.kind != "evaluate":
            assert run_job(job_, context)["ok"]
    costs = {key: store.meta(key)["cost"] for key in keys(jobs, "prepare") | keys(jobs, "distill")}
    for key in keys(jobs, "distill"):
        whole = sum(costs[needed]["prepare_s"] for needed in keys(jobs, "prepare"))
        assert costs[key]["prepare_s"] == pytest.approx(whole, rel=1e-12)
        problem = _problem(jobs[key], store, context, torch.device("cpu"))
        wanted = banks(make_problem, Reads(momentum=0.9))
        assert same(wanted, {**problem.prepared})


@pytest.mark.usefixtures("reads")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_job_maps_the_bank_and_cannot_change_it(digits: Dataset, context: JobContext) -> None:
    """Private pages of the files: no memory until a row is read, and no way back to the disk."""
    jobs, store = swept(digits), Store(Path(context.root))
    order = [jobs[key] for key in jobs if jobs[key].kind == "prepare"]
    assert all(run_job(job_, context)["ok"] for job_ in order)
    (distill,) = (jobs[key] for key in keys(jobs, "distill"))
    prepared = _problem(distill, store, context, torch.device("cpu")).prepared
    for role, tensors in prepared.items():
        folder = str(store.artifact(distill.inputs[role]))
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if folder in line]
        ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
        weights = tensors["weights"]
        assert any(start <= weights.data_ptr() < end for start, end in ranges)
        assert all(line.split()[1].endswith("p") for line in lines)
        weights.fill_(7)
    for key in distill.inputs.values():
        store.verify(key)

"""On torch's meta device no step of a method or a training waits, and the operations are those of a run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.dry import StrictLoop, on_meta
from helpers.method import problem_for, small
from torch import Tensor

from bench.core import timing
from bench.core.dry import META, DryRun, Waits
from bench.core.operations import OperationCounter
from bench.core.preprocess import ZCA_KINDS, Zca
from bench.core.registry import method_names
from bench.core.training import Recipe
from bench.core.transfer import meta_as, net_to_device, to_device, to_host
from bench.evaluation.students import TrainingSet, train_students
from bench.testing.contract import tiny_problem
from methods.blocks.whitening import Whitening

# methods whose steps read a number of the device, by their nature
READS = {
    "datm": "leaves a step out when its loss is too large",
    "ncfm": "halves its learning rate when the loss stops falling",
}
PREREQUISITES = sorted({p for name in method_names() for p in small(name).requires().values()}, key=str)


@pytest.mark.parametrize("name", sorted(method_names()))
def test_no_step_of_a_method_waits_and_its_operations_are_those_of_a_run(name: str) -> None:
    method = small(name)
    problem = tiny_problem(method)
    with OperationCounter() as real:
        method.distill(problem)
    loop = StrictLoop(DryRun(), reads=name in READS)

    def run() -> None:
        distilled = method.distill(dataclasses.replace(on_meta(problem), loop=loop))
        assert all(tensor.is_meta for tensor in distilled.state_dict().values())

    dry, operations = loop.dry, OperationCounter()
    with dry, operations, timing.watching(dry), meta_as("cpu"):
        run()
    assert operations.flops == real.flops
    assert dry.peak > 0


@pytest.mark.parametrize("name", ["bptt", "mtt", "idc", "dc", "datadam", "frepo"])
def test_the_way_through_deeper_networks_is_that_of_a_cpu(name: str) -> None:
    """Where the channels stand last in memory, layers are differentiated in another way."""
    method = small(name)
    problem = problem_for(method, architecture="convnet-d2-w4", channels=3, side=8, ipc=4)
    operations = OperationCounter()
    with OperationCounter() as real:
        method.distill(problem)
    with DryRun(), operations, meta_as("cpu"):
        method.distill(on_meta(problem))
    assert operations.flops == real.flops


@pytest.mark.parametrize("prepare", PREREQUISITES, ids=str)
def test_no_step_of_a_prerequisite_waits_and_its_operations_are_those_of_a_run(prepare: Any) -> None:
    problem, dry, operations = tiny_problem(prepare), DryRun(), OperationCounter()
    with OperationCounter() as real:
        wanted = prepare.build(problem)
    with dry, operations, timing.watching(dry), meta_as("cpu"):
        found = prepare.build(on_meta(problem))
    assert operations.flops == real.flops
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in wanted.items()}


@pytest.mark.parametrize("kind", ZCA_KINDS)
def test_a_whitening_is_fitted_on_the_device(kind: str) -> None:
    problem = tiny_problem()
    with DryRun(), meta_as("cpu"):
        found = Whitening(kind).build(on_meta(problem))
    assert {name: t.shape for name, t in found.items()} == {
        name: t.shape for name, t in Whitening(kind).build(problem).items()
    }
    whitening, images = Zca.of(kind, found), problem.images.to(META)
    with DryRun() as dry, dry.step():
        whitening(whitening.invert(whitening(images)))


# of a training, beside the field's names whether a teacher labels its batches
STUDENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "taught": {"taught": True, "cutmix": 1.0},
    "augmented": {"augment": "color_crop_cutout_flip_scale_rotate", "cutmix": 1.0},
    "noisy": {"augment": "dc-crop_dc-scale_dc-rotate_dc-noise"},
    "noisy alone": {"augment": "dc-noise"},
    "mixed": {"augment": "augmix+tiles2"},
    "adaptive": {"optimiser": "adamw", "schedule": "cosine"},
    "dropped": {"milestones": (0.5,), "fresh_at_drops": True, "loss": "squared_error"},
    "policy": {"augment": "autoaugment"},
}
TORCHVISION = "policy"  # its rotations and shears make small matrices on the device, from numbers


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", STUDENTS)
def test_no_step_of_the_students_waits_and_their_operations_are_those_of_a_run(
    name: str, together: bool
) -> None:
    values = dict(STUDENTS[name])
    taught = values.pop("taught", False)
    problem, draws = tiny_problem(), torch.Generator().manual_seed(0)
    teacher = problem.make_net(draws).eval().requires_grad_(False)
    images, targets = problem.images[:24], problem.labels[:24]

    def trained(device: torch.device) -> None:
        x = to_device(images, device)
        train_students(
            lambda i: problem.make_net(torch.Generator().manual_seed(i)),
            TrainingSet(
                images=problem.preprocess(x),
                targets=to_device(targets, device),
                recipe=Recipe(batch_size=16, lr=0.01, epochs=2, **values),
                preprocess=problem.preprocess,
                teacher=net_to_device(teacher, device) if taught else None,
            ),
            [torch.Generator().manual_seed(i) for i in range(2)],
            together=together,
        )

    dry, operations = DryRun(), OperationCounter()
    with OperationCounter() as real:
        trained(problem.device)
    with dry, operations, timing.watching(None if name == TORCHVISION else dry), meta_as("cpu"):
        trained(META)
    assert operations.flops == real.flops


def _reads(x: Tensor) -> None:
    float(x.sum())


def _branches(x: Tensor) -> None:
    if x.sum() > 0:
        raise AssertionError


def _picks(x: Tensor) -> None:
    x[x > 0]


def _copies(x: Tensor) -> None:
    x + torch.ones(3, 3).to(x.device)


def _copies_a_number(x: Tensor) -> None:
    torch.tensor(1.0).to(x)


def _makes(x: Tensor) -> None:
    torch.tensor([1.0, 2.0], device=x.device)


def _mixes(x: Tensor) -> None:
    x[torch.tensor([0, 1])]


def _solves(x: Tensor) -> None:
    torch.linalg.solve(x, x)


def _loads(x: Tensor) -> None:
    x.copy_(torch.ones(3, 3))


def _asks(x: Tensor) -> None:
    to_host(x)


@pytest.mark.parametrize(
    "fault", [_reads, _branches, _picks, _copies, _copies_a_number, _makes, _mixes, _solves, _loads, _asks]
)
def test_what_waits_in_a_step_is_told_with_its_place(fault: Callable[[Tensor], None]) -> None:
    line = fault.__code__.co_firstlineno + 1
    with DryRun() as dry, dry.step(), pytest.raises(Waits, match=rf"^tests/contract/test_dry_run.py:{line} "):
        fault(torch.zeros(3, 3, device=META))


def test_a_step_of_operations_and_copies_that_do_not_wait_passes() -> None:
    x = torch.zeros(3, 3, device=META)
    with DryRun() as dry, dry.step():
        y = x[to_device(torch.tensor([0, 1]), META)] * 2 + torch.tensor(1.0)
        x[0] = 1.0
        assert y.shape == (2, 3)
    with DryRun():  # what comes before the steps may copy, and read what there is to read
        x[torch.tensor([0, 1])] += torch.ones(2, 3).to(META)
        assert to_host(x).shape == (3, 3)


def test_bytes_are_counted_while_something_holds_them() -> None:
    with DryRun() as dry:
        x = torch.zeros(1000, device=META)
        y = x.view(10, 100) * 2
        assert dry.alive == dry.peak == 8000
        del x
        assert (dry.alive, dry.peak) == (4000, 8000)
        y += 1
        z = y.sum()
        assert (dry.alive, dry.peak) == (4004, 8000)
        big = z.expand(5000).contiguous()
    assert (str(dry.largest), dry.largest.bytes, big.shape) == ("clone 5000", 20000, (5000,))


def test_views_of_what_was_there_before_are_not_counted_and_their_copies_are() -> None:
    before = torch.zeros(10, 100, device=META)
    with DryRun() as dry:
        for _ in range(2):
            before[0].view(50, 2).to(META)
        assert (dry.alive, dry.peak) == (0, 0)
        for _ in range(2):
            before[0].clone()
    assert (dry.alive, dry.peak) == (0, 400)

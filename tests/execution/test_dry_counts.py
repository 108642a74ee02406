"""What a dry run says of jobs: their operations are those of records, their memory is near to a process's."""

import ctypes
import gc
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers.cli import run_inline, sweep_file
from helpers.dry import on_meta
from helpers.method import small

from bench.core import timing
from bench.core.dry import META, DryRun
from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.transfer import meta_as
from bench.data.dataset import Dataset
from bench.data.shapes import outline_dataset, parse_shape
from bench.data.spec import DatasetSpec
from bench.execution.budget import JobCounter
from bench.execution.dry_run import DryCounter, DryPlan, GroupedCounter
from bench.planning.graph import Cell, plan_distillation
from bench.records.reader import load_frame
from bench.testing.contract import tiny_problem
from methods.blocks.matching_batches import MatchingBatches, MatchingPair

CPU = torch.device("cpu")
NETWORK = parse_architecture("convnet-d1-w4")
FACTOR = 2.5  # a process also holds what a convolution works with: 1.5 to 1.8 times as much was measured


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of this test alone."""
    monkeypatch.setattr("bench.execution.budget.cache_dir", lambda: tmp_path / "counts")


def planned(counter: JobCounter, digits: Dataset, name: str, **cell: Any) -> str:
    """The key of a distillation, planned with what it needs."""
    return plan_distillation(counter.jobs, name, small(name), Cell(digits, 1, NETWORK, 0, **cell)).key


@pytest.mark.parametrize("name", ["dc", "dm", "mtt", "datm", "herding", "sre2l", "label_only"])
def test_a_job_is_counted_on_the_meta_device_as_on_a_cpu(name: str, digits: Dataset) -> None:
    counter = JobCounter(digits, CPU)
    key = planned(counter, digits, name)
    assert counter.count_on(META, key) == counter.count_on(CPU, key) == counter.counted(key)


def test_whitened_images_are_counted_too(digits: Dataset) -> None:
    counter = JobCounter(digits, CPU)
    key = planned(counter, digits, "dm", preprocess="zca")
    assert counter.count_on(META, key) == counter.count_on(CPU, key)


def test_a_method_that_needs_numbers_is_counted_on_the_device(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, draw, seen = JobCounter(digits, CPU), MatchingBatches.next, list[float]()

    def reading(self: MatchingBatches, synthetic: Any) -> MatchingPair:
        pair = draw(self, synthetic)
        seen.append(float(pair.real.sum()))
        return pair

    key = planned(counter, digits, "dm")
    wanted = counter.count_on(META, key)
    monkeypatch.setattr(MatchingBatches, "next", reading)
    assert counter.counted(key) == wanted
    assert seen


def test_a_dry_run_of_a_sweep_says_the_operations_that_records_say(tmp_path: Path) -> None:
    methods = [
        {"name": "dm", "steps": 3, "batch_real": 16},
        {"name": "mtt", "steps": 2, "inner_steps": 2, "experts": 2, "start_epochs": 1, "expert_epochs": 1},
    ]
    sweep = sweep_file(tmp_path, methods=methods, ipc=[1])
    assert run_inline(sweep, tmp_path / "out").code == 0
    rows, problems = DryPlan.open(sweep, [], None).rows(lambda label: None)
    assert problems == []
    frame = load_frame(tmp_path / "out")[0].set_index("method")
    for name in ("dm", "mtt"):
        (row,) = [row for row in rows if row.kind == "distill" and row.label.startswith(name)]
        assert row.jobs == 2  # seeds
        assert row.operations == frame.loc[name, "distill_operations"].sum()
    experts = [row.operations for row in rows if row.kind == "prepare"]
    assert sum(experts) == frame.loc["mtt", "prepare_operations"].max()  # which the seeds share


def test_students_that_are_alike_are_counted_once_and_told_for_each_method(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, methods=["random_real", "class_mean", {"name": "random_real", "seeds": 3}])
    rows, _ = DryPlan.open(sweep, ["methods=[random_real,class_mean]"], None).rows(lambda label: None)
    scored = [row for row in rows if row.kind == "evaluate"]
    assert len(scored) == 4
    assert scored[0].operations == scored[2].operations > 0
    assert scored[1].operations > scored[0].operations  # of two images a class
    assert all(row.peak > row.largest.bytes > 0 for row in scored)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bptt", {"steps": 2, "batch_real": 64, "unroll": 3}),
        ("frepo", {"steps": 2, "batch_real": 512}),
        ("dsa", {"iterations": 1, "inner_steps": 1, "batch_real": 64}),
    ],
)
def test_memory_is_near_to_what_a_process_takes(name: str, values: dict[str, Any]) -> None:
    method = small(name, **values)
    problem, dry = tiny_problem(method, architecture="convnet-d2-w128", ipc=10), DryRun()
    with dry, meta_as("cpu"):
        method.distill(on_meta(problem))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = psutil.Process().memory_info().rss
    with timing.measure(problem.device) as measured:
        method.distill(problem)
    taken = measured.peak_bytes - before
    assert dry.peak / FACTOR < taken < dry.peak * FACTOR


def test_a_kernels_gradient_in_groups_counts_as_much_as_one_group_after_the_other() -> None:
    def operations(groups: int, times: int) -> int:
        with GroupedCounter() as counter:
            for _ in range(times):
                x = torch.ones(2, 3 * groups, 8, 8, requires_grad=True)
                w = torch.ones(4 * groups, 3, 3, 3, requires_grad=True)
                torch.conv2d(x, w, groups=groups).sum().backward()
        return counter.flops

    assert operations(5, 1) == operations(1, 5)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_pieces_are_those_of_the_device_that_a_dry_run_stands_for(kind: str, digits: Dataset) -> None:
    counter = DryCounter(digits, kind)
    key = planned(counter, digits, "rded")
    for needed in counter.jobs[key].inputs.values():
        counter.take(needed)
    _, taken = counter.take(key)
    assert taken.largest.shape[0] == {"cpu": 7300, "cuda": 2000}[kind]  # all crops' places; a piece of images


# --- data sets known by their shape -------------------------------------------------------------------------


def entry(folder: Path, **values: Any) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "cifar10", "data_dir": str(folder), **values})


def test_a_data_set_that_is_not_here_is_known_by_its_shape(tmp_path: Path) -> None:
    data = outline_dataset(entry(tmp_path, download=True))  # which it does not
    assert data.train.images.is_meta
    assert (data.image_shape, data.n_classes, data.n_test) == ((3, 32, 32), 10, 10_000)
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert list(tmp_path.iterdir()) == []


def test_classes_and_a_holdout_change_the_shape(tmp_path: Path) -> None:
    data = outline_dataset(entry(tmp_path, classes=[1, 5, 7], holdout=0.1))
    assert data.train.labels.bincount().tolist() == [4500] * 3
    assert data.n_test == 1500
    other = outline_dataset(entry(tmp_path, classes=[1, 5, 7]))
    assert (other.n_test, other.fingerprint != data.fingerprint) == (3000, True)


def test_what_is_here_is_read(digits: Dataset) -> None:
    data = outline_dataset(DatasetSpec(name="digits"))
    assert torch.equal(data.train.images, digits.train.images)


def test_a_folder_that_is_not_here_needs_a_shape(tmp_path: Path) -> None:
    spec = DatasetSpec.model_validate({"name": "image_folder", "path": str(tmp_path / "birds")})
    with pytest.raises(UserError, match="--shape 10x1300x3x128x128"):
        outline_dataset(spec)
    data = outline_dataset(spec, parse_shape("4x30x3x64x48"))
    assert (data.image_shape, data.n_classes, len(data.train.labels), data.n_test) == (
        (3, 64, 48),
        4,
        120,
        200,
    )


@pytest.mark.parametrize(
    "text", ["", "10", "10x3x32x32", "1x5x3x8x8", "10x0x3x8x8", "axbxcxdxe", "9" * 9 + "x1x1x1x1"]
)
def test_a_shape_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(
        UserError, match=r"^--shape: classes x images of each x channels x height x width, as "
    ):
        parse_shape(text)

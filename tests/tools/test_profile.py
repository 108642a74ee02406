"""A profile: its arithmetic by hand, its prerequisites, its other sizes, its tables."""

import dataclasses
import io
import itertools
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from bench.core import timing
from bench.core.errors import UserError
from bench.core.operations import OperationCounter
from bench.data.dataset import Dataset
from bench.execution.store import Store
from bench.reporting.tables.render import markdown, print_table
from bench.tools.profile import energy, scaling
from bench.tools.profile.prepare import STAND_INS, PreparedTensors, PrerequisiteMaker
from bench.tools.profile.profiled_loop import COUNTED, FEWEST_STEPS, TRACED, ProfiledLoop
from bench.tools.profile.result import Profile, ProfiledPhase, ProfiledStep
from bench.tools.profile.run import CheckedRequest, Profiler, ProfileRequest
from bench.tools.profile.scaling import (
    ScalingAxis,
    ScalingChoice,
    ScalingPoint,
    fit_exponent,
    measure_axis,
    scaling_points,
)
from bench.tools.profile.tables import profile_frame, profile_tables
from methods.dm import DM

CPU = torch.device("cpu")
MTT = {
    "steps": 4,
    "inner_steps": 2,
    "experts": 12,
    "start_epochs": 2,
    "expert_epochs": 2,
    "batch_synthetic": 5,
}


def request(method: str = "dm", **changes: Any) -> ProfileRequest:
    asked = ProfileRequest(method, {}, "digits", 1, "convnet-d1-w4", "quick", 1.0, 1, 0)
    return dataclasses.replace(asked, **changes)


def made(**changes: Any) -> Profile:
    """100 steps of 0.5 s, of which the mean is 0.6 s; 30 s of prerequisites and 10 of evaluation."""
    phases = (
        ProfiledPhase("prepare", 3.0, 30.0, 0, {"network update": 2 * 10**9}, "prerequisites: 1 built"),
        ProfiledPhase("distill", 6.0, 61.0, 2**20, {"augment": 10**9, "other": 3 * 10**9}, "some steps"),
        ProfiledPhase("evaluate", 1.0, 10.0, 2**21, {"evaluation": 10**9}, "one student"),
    )
    axes = (
        ScalingAxis("classes", (2, 5, 10), (0.1, 0.2, 0.5), 0.9, 0.99),
        ScalingAxis("image side", (8,), (0.5,), note="no"),
    )
    values: dict[str, Any] = {
        "method": "dm", "hyperparameters": {"steps": 100}, "dataset": "digits", "image_shape": (1, 8, 8),
        "n_classes": 10, "ipc": 1, "architecture": "convnet", "protocol": "quick", "device": "a chip",
        "cpus": 2, "gpus": 0.0, "versions": {}, "phases": phases, "matrix_rate": 1e10, "scaling": axes,
        "step": ProfiledStep(100, 8, 0.5, 0.6, 3e9, 0.61, 36.0),
    }  # fmt: skip
    return Profile(**values | changes)


# --- arithmetic ---------------------------------------------------------------------------------------------


def test_the_projection_by_hand() -> None:
    profile = made()
    assert profile.projected_s == 30 + 61 + 10
    assert profile.device_hours == 101 / 3600
    assert made(gpus=0.25).device_hours == 101 / 3600 / 4, "a quarter of a GPU"
    assert profile.projected_kwh == pytest.approx(100 * 36 / 3.6e6)
    assert profile.share_of_rate == pytest.approx(3e9 / 0.6 / 1e10)
    assert profile.step is not None
    assert profile.step.per_second == 2.0
    bare = made(step=None)
    assert (bare.share_of_rate, bare.projected_kwh) == (None, None)


def test_the_steps_are_projected_at_their_mean() -> None:
    walk = ProfiledLoop(CPU, 1)
    walk.total, walk.setup_s, walk.timed = 50, 2.0, [0.1, 0.1, 0.4]
    assert walk.step_s == 0.1
    assert walk.projected_s == pytest.approx(2.0 + 50 * 0.2)


def test_the_exponent_of_points_on_a_power_law() -> None:
    sizes = [3, 10, 40]
    assert fit_exponent(sizes, [0.7 * n**1.5 for n in sizes]) == pytest.approx((1.5, 1.0))
    exponent, r2 = fit_exponent(
        [1, 2, 4], [1.0, 4.0, 4.0]
    )  # log2: (0,0), (1,2), (2,2): slope 1, R2 = 1 - (2/3)/(8/3)
    assert (exponent, r2) == pytest.approx((1.0, 0.75))


def test_operations_of_a_convolution_by_hand() -> None:
    """A multiply-add is two: 2 images, 4 kernels of 3x3x3 at 8x8 places; backward to both is as much each."""
    x, kernel = torch.ones(2, 3, 8, 8, requires_grad=True), torch.ones(4, 3, 3, 3, requires_grad=True)
    once = 2 * 2 * 4 * (3 * 3 * 3) * (8 * 8)
    with OperationCounter() as watch:
        y = F.conv2d(x, kernel, padding=1)
        assert watch.flops == once
        y.sum().backward()
    assert watch.flops == 3 * once


# --- the walk -----------------------------------------------------------------------------------------------


def test_a_walk_warms_up_times_watches_counts_and_traces(tmp_path: Path) -> None:
    """Every step is one of the method's own, in their order; the operations of a step are those by hand."""
    walk = ProfiledLoop(CPU, 0.0, tmp_path / "trace.json")
    a, taken = torch.ones(16, 16), []
    for step in walk.steps(1000, None, "lr"):  # type: ignore[arg-type]
        taken.append(step)
        with timing.part("augment"):
            a @ a
    assert taken == list(range(1 + 2 * FEWEST_STEPS + 1 + 1)), "one to warm up, counted and traced"
    assert (len(walk.timed), len(walk.watched)) == (FEWEST_STEPS, FEWEST_STEPS)
    assert walk.flops == [2 * 16**3]
    assert walk.timer.spent["augment"] > 0
    assert walk.joules is None
    assert (tmp_path / "trace.json").exists()


def test_a_walk_takes_no_more_than_the_method_asks_for(tmp_path: Path) -> None:
    walk = ProfiledLoop(CPU, 60.0, tmp_path / "trace.json")
    taken = sum(1 for _ in walk.steps(20, None, "lr"))  # type: ignore[arg-type]
    assert taken == 1 + 10 + 10 + COUNTED + TRACED
    assert (len(walk.timed), len(walk.watched), len(walk.flops)) == (10, 10, COUNTED)


def test_a_method_that_breaks_off_leaves_nobody_watching(tmp_path: Path) -> None:
    walk = ProfiledLoop(CPU, 0.0, tmp_path / "trace.json")
    steps = iter(walk.steps(100, None, "lr"))  # type: ignore[arg-type]
    for _ in range(1 + FEWEST_STEPS + 1):
        next(steps)
    assert timing.part("decode") is not timing._IDLE
    walk.close()
    assert timing.part("decode") is timing._IDLE


# --- prerequisites ------------------------------------------------------------------------------------------


def test_prerequisites_are_built_once_a_sort_and_stood_in_for(digits: Dataset) -> None:
    """12 experts are two blocks of epochs 0 to 3: one start and one epoch are built, six stood in for."""
    profiler = Profiler(
        request("mtt", values=MTT), CheckedRequest.check(request("mtt", values=MTT)), [], print
    )
    prepared = profiler.maker.prepare(profiler.jobs, 0.0)
    assert (prepared.built, prepared.cut, prepared.stood_in, prepared.read) == (2, 1, 6, 0)
    jobs = [job for job in profiler.jobs.values() if job.kind == "prepare"]
    weights = [prepared.tensors[job.key]["weights"] for job in jobs]
    assert len({w.shape for w in weights}) == 1
    assert all(torch.isfinite(w).all() for w in weights)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(weights)), "experts move"
    assert prepared.projected_s > prepared.seconds, "most of the training was left out"
    assert STAND_INS > 3, "more than the epochs that a segment spans"


def test_prerequisites_of_a_store_are_read(digits: Dataset, tmp_path: Path) -> None:
    """With the seconds that they took there, if the device was one like this."""
    asked = request("herding", values={"network_steps": 5})
    profiler = Profiler(asked, CheckedRequest.check(asked), [], print)
    (job,) = (job for job in profiler.jobs.values() if job.kind == "prepare")
    store, tensors = Store(tmp_path), {"features": torch.ones(3, 2)}

    def save(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(tensors, folder / "data.safetensors")

    place = {"device": timing.device_name(CPU), "cpus": 1}
    store.publish(job.key, {"cost": {"prepare_s": 12.5, **place}}, save)
    read = PrerequisiteMaker(digits, CPU, 1, [store]).prepare(profiler.jobs, 1.0)
    assert (read.read, read.built, read.projected_s) == (1, 0, 12.5)
    assert torch.equal(read.tensors[job.key]["features"], tensors["features"])
    elsewhere = PrerequisiteMaker(digits, CPU, 2, [store]).prepare(profiler.jobs, 1.0)
    assert (elsewhere.read, elsewhere.built) == (0, 1), "two threads are another machine"


# --- other sizes --------------------------------------------------------------------------------------------


def test_three_sizes_of_each_axis(digits: Dataset) -> None:
    found = {choice.name: choice.sizes for choice in scaling_points(digits, 10, uses_ipc=True)}
    assert found == {"images per class": (10, 20, 40), "classes": (2, 5, 10), "image side": (8, 12, 16)}
    assert scaling.sizes_of_ipc(50, 139) == (25, 50, 100)
    assert scaling.sizes_of_ipc(100, 139) == (25, 50, 100)
    assert scaling.sizes_of_classes(2) == (2,)
    assert [choice.name for choice in scaling_points(digits, 10, uses_ipc=False)] == ["classes", "image side"]


def test_data_of_other_sizes(digits: Dataset) -> None:
    fewer, larger = scaling.fewer_classes(digits, 2), scaling.resized(digits, 12)
    assert (fewer.classes, fewer.train.labels.unique().tolist()) == (("0", "1"), [0, 1])
    assert larger.image_shape == (1, 12, 12)
    assert larger.train.images.dtype == torch.uint8
    assert torch.equal(larger.train.labels.bincount(), digits.train.labels.bincount())
    gap = larger.train.images.double().mean() - digits.train.images.double().mean()
    assert abs(float(gap)) < 1, "grey levels stay what they were"
    assert larger.fingerprint != digits.fingerprint


def test_what_would_do_does(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty steps' time: of 0.011 s each 0.44 s, and not 0."""
    monkeypatch.setattr(Profiler, "_cost", lambda *rest: 0.011)
    monkeypatch.setattr(Profiler, "_cost_at", lambda self, point: 0.011)
    asked = request(seconds=0.3)
    profiler = Profiler(asked, CheckedRequest.check(asked), [], lambda text: None)
    distilled: Any = types.SimpleNamespace(method=DM(steps=10))
    (note,) = {axis.note for axis in profiler._scale(PreparedTensors(), distilled)}
    told = float(note.removeprefix("not measured, for want of time: --seconds ").removesuffix(" would do"))
    profiler.request = request(seconds=told)
    assert all(axis.exponent == pytest.approx(0) for axis in profiler._scale(PreparedTensors(), distilled))


def test_a_size_that_cannot_be_is_left_out_and_no_exponent_claimed(digits: Dataset) -> None:
    def run(point: ScalingPoint) -> float:
        if point.ipc == 4:
            raise UserError("too many")
        return float(point.ipc)

    axis = ScalingChoice("images per class", 1, (1, 2, 4), lambda n: ScalingPoint(digits, n))
    found = measure_axis(axis, 7.0, run)
    assert (found.sizes, found.seconds, found.exponent, found.r2) == ((1, 2), (7.0, 2.0), None, None)
    assert found.note == "4: too many"
    whole = measure_axis(dataclasses.replace(axis, sizes=(1, 2, 3)), 1.0, run)
    assert (whole.exponent, whole.r2) == pytest.approx((1.0, 1.0))


# --- energy -------------------------------------------------------------------------------------------------


def test_energy_is_what_the_driver_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([5_000, 12_500])
    driver = types.ModuleType("pynvml")
    vars(driver).update(
        NVMLError=type("NVMLError", (Exception,), {}),
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counts),
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(timing, "synchronize", lambda device: None)
    properties = types.SimpleNamespace(uuid="ab-12")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    with energy.metered(torch.device("cuda:0")) as used:
        assert used.joules is None
    assert used.joules == 7.5
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with energy.metered(torch.device("cuda:0")) as unknown:
        pass
    assert unknown.joules is None
    with energy.metered(CPU) as none:
        pass
    assert none.joules is None


# --- tables -------------------------------------------------------------------------------------------------


def test_the_tables_hold_the_figures() -> None:
    text = markdown(profile_tables(made()))
    assert "| distill | **all** | **4.0** | **100** | **61 s** | **1.0** |" in text
    assert "| distill | augment | 1.0 | 25.0 |" in text
    assert "| a step | % of the matrix rate | 50.0 |" in text
    assert "| classes | 2 | 100 | 0.90 | 0.99 |" in text
    assert "| image side | 8 | 500 | — | — |" in text
    assert "image side: no." in text
    console = Console(file=io.StringIO(), width=100)
    for table in profile_tables(made(step=None, scaling=())):
        print_table(table, console)
    assert "not measured" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_frame_has_a_row_a_figure() -> None:
    rows = profile_frame(made())
    one = rows.set_index(["kind", "name", "item"])["value"]
    assert one["operation", "distill", "augment"] == 1.0
    assert one["phase", "prepare", "projected"] == 30.0
    assert math.isnan(one["phase", "prepare", "peak memory"]), "nobody watched it"
    assert one["scaling", "classes", "exponent"] == 0.9
    assert set(rows["method"]) == {"dm"}
    assert not rows.duplicated(["kind", "name", "item"]).any()

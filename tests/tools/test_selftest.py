"""`ddbench selftest`: every part runs on a CPU, tells a wrong device from a right one, and is written."""

import dataclasses
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.cli import ddbench

from bench.core.precision import computing, precision_now
from bench.tools.selftest import correctness, run, speed, variants
from bench.tools.selftest.items import DeviceLost, guarded
from bench.tools.selftest.loops import MeasuredLoop
from bench.tools.selftest.result import Item, Part, figures_frame, part_table
from bench.tools.selftest.setting import Clock, Setting, cpu_setting, drawn_cifar, forbidding_syncs
from methods.blocks import matching_batches

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def tiny(**changes: Any) -> Setting:
    """As the CPU's, with the fewest items."""
    few: dict[str, Any] = {"ipcs": (1,), "pieces": (5,), "methods": ("dm", "bptt", "random_real")}
    return dataclasses.replace(cpu_setting(1.0), **{**few, "compared": ("random_real",), **changes})


class Steady(Clock):
    """Always has a little left, so that every item is tried and none for long."""

    @property
    def left(self) -> float:
        return 0.1


@pytest.fixture
def clock() -> Clock:
    return Clock(600)


def failed(part: Part) -> dict[str, str]:
    return {item.name: item.note for item in part.items if item.passed is False}


# --- does it compute what a CPU does ------------------------------------------------------------------------


def test_gradients_of_a_cpu_are_those_of_float64(clock: Clock) -> None:
    part = correctness.gradients_part(tiny(), clock)
    assert [item.name for item in part.items] == ["dm", "bptt"], "random images have no gradient"
    for item in part.items:
        assert item.passed
        assert item.figures["fp32"] < 1e-5
        assert item.figures["bf16"] > correctness.MOST_ERROR, "coarse arithmetic is seen"
    assert precision_now() == "fp32"


def test_a_device_that_computes_coarsely_fails(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "computing", lambda _: computing("bf16"))
    part = correctness.gradients_part(tiny(methods=("dm",)), clock)
    assert failed(part).keys() == {"dm"}


@pytest.mark.parametrize(("there", "passed"), [([0.90, 0.92], True), ([0.60, 0.62], False)])
def test_accuracies_agree_within_their_spread(
    there: list[float], passed: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([[0.91, 0.93], there])
    monkeypatch.setattr(correctness, "_accuracies", lambda *_: next(found))
    (item,) = correctness.accuracies_part(tiny(), clock).items
    assert item.passed is passed
    assert item.figures["cpu %"] == pytest.approx(92)


def test_accuracies_of_a_cpu_are_its_own(clock: Clock) -> None:
    (item,) = correctness.accuracies_part(tiny(seeds=1, students=1), clock).items
    assert item.passed
    assert item.figures["cpu %"] == item.figures["device %"] > 30


# --- does anything wait for it ------------------------------------------------------------------------------


def test_steps_are_tried_of_methods_and_of_students(clock: Clock) -> None:
    part = correctness.syncs_part(tiny(), clock)
    names = [item.name for item in part.items]
    assert names == ["dm", "bptt", "students together", "students one by one", "training on real images"]
    assert all(item.figures == {"steps": 3} and item.passed is None for item in part.items)


def test_what_waits_fails_with_its_place(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU would have it: an error inside the strict steps, and in no other."""
    inside = False

    class Strict(AbstractContextManager[None]):
        def __enter__(self) -> None:
            nonlocal inside
            inside = True

        def __exit__(self, *_: object) -> None:
            nonlocal inside
            inside = False

    batch = matching_batches.MatchingBatches.next

    def next_batch(self: Any, synthetic: Any) -> Any:
        if inside:
            raise RuntimeError("called a synchronizing CUDA operation")
        return batch(self, synthetic)

    monkeypatch.setattr(matching_batches.MatchingBatches, "next", next_batch)
    monkeypatch.setattr("bench.tools.selftest.loops.forbidding_syncs", lambda _: Strict())
    part = correctness.syncs_part(tiny(methods=("dm", "bptt")), clock)
    assert failed(part).keys() == {"dm"}
    assert "synchronizing CUDA operation (test_selftest.py:" in failed(part)["dm"]
    assert not inside


def test_the_debug_mode_of_a_gpu_is_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with pytest.raises(KeyError), forbidding_syncs(GPU):
        raise KeyError
    with forbidding_syncs(CPU):
        assert modes == [0, "error", 0]


def test_a_loop_measures_some_steps_and_counts_one() -> None:
    seen: list[int] = []
    loop = MeasuredLoop(CPU, strict=2, seconds=1e-9, counted=True)
    steps = loop.steps(1000, torch.nn.Module(), "lr")  # type: ignore[arg-type]
    for step in steps:
        seen.append(step)
        torch.ones(2, 3) @ torch.ones(3, 4)
    assert seen == [0, 1, 2, 3, 4]  # warm-up, strict, timed, counted
    assert (loop.total, loop.timed, loop.flops) == (1000, 1, 2 * 2 * 3 * 4)
    assert loop.rate is not None
    assert loop.rate > 0


# --- how fast is it -----------------------------------------------------------------------------------------


def test_a_device_that_cannot_begin_fails_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(speed, "warm_up", refuses)
    part = speed.rates_part(tiny(), Clock(60))
    assert failed(part).keys() == {"first calls"}
    assert "no kernel image" in failed(part)["first calls"]
    assert [item.name for item in part.items if item.figures] == ["fp32", "tf32", "bf16"]


def test_students_are_timed_both_ways() -> None:
    (item,) = speed.students_part(tiny(), Steady(0)).items
    ours, theirs = item.figures["together, steps/s"], item.figures["one by one, steps/s"]
    assert item.figures["times"] == pytest.approx(ours / theirs)


def test_variants_are_measured_against_the_first_of_their_kind() -> None:
    part = variants.variants_part(tiny(deep="mlp"), Steady(0))
    names = [item.name for item in part.items]
    assert names[0] == "convnet-d1-w8: fp32"
    assert {"convnet-d1-w8: compiled", "students together: compiled", "mlp: bf16, channels last"} <= set(
        names
    )
    assert [item.note for item in part.items if item.note] == []
    assert [item.figures["times"] for item in part.items if item.name.endswith(": fp32")] == [1, 1]
    assert precision_now() == "fp32"


def test_what_cannot_be_compiled_is_no_fault_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuses)
    part = variants.variants_part(tiny(deep="mlp"), Steady(0))
    (item,) = (item for item in part.items if item.name == "students together: compiled")
    assert item.passed is None
    assert "no compiler here" in item.note


def test_methods_are_measured_at_their_papers_settings() -> None:
    part = speed.methods_part(tiny(methods=("dm", "idc")), Steady(0), rate=1e9)
    assert [item.name for item in part.items] == ["dm", "idc"]
    for item in part.items:
        assert item.passed is None, item.note
        assert item.figures["share %"] == pytest.approx(
            100 * item.figures["GFLOP a step"] * item.figures["steps/s"]
        )
        assert item.figures["peak MiB"] > 0
    assert part.items[0].note.endswith("of 20,000")  # DM's steps


def test_drawn_images_have_classes_that_can_be_told_apart() -> None:
    data = drawn_cifar(6, 3, 8)
    assert (data.image_shape, data.n_classes, data.n_test) == ((3, 8, 8), 10, 30)
    means = data.train.images.double().unflatten(0, (6, 10)).mean(0)
    nearest = torch.cdist(data.test.images.double().flatten(1), means.flatten(1)).argmin(1)
    assert torch.equal(nearest, data.test.labels)


# --- items, and what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(("judged", "passed"), [(True, False), (False, None)])
def test_an_item_that_fails_says_how_and_the_next_is_tried(judged: bool, passed: bool | None) -> None:
    def fails() -> Item:
        raise ValueError("one line\nand another")

    found = guarded("this", fails, CPU, Clock(60), judged=judged)
    assert (found.name, found.passed, found.figures) == ("this", passed, {})
    assert found.note.startswith("ValueError: one line (test_selftest.py:")


def test_without_time_an_item_is_not_tried() -> None:
    def make() -> Item:
        raise AssertionError("it was tried")

    found = guarded("this", make, CPU, Clock(0))
    assert (found.passed, found.figures) == (None, {})
    assert "want of time" in found.note


def test_a_device_that_fails_ends_the_test_and_what_is_done_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Part:
        raise DeviceLost("dm: CUDA error: an illegal memory access")

    monkeypatch.setattr(run, "PARTS", ((correctness.gradients_part, 0.5), (lost, 0.5)))
    told: list[Part] = []
    assert not run.run_selftest(tiny(methods=("dm",)), tmp_path / "out", told.append)
    assert [part.title for part in told][2:] == ["the device failed"]
    written = pd.read_csv(tmp_path / "out/selftest.csv")
    assert {"matrix products", "gradients against the CPU in float64", "the device failed"} == set(
        written["part"]
    )
    assert json.loads((tmp_path / "out/versions.json").read_text())["precision"] == "fp32"


def test_tables_have_a_row_an_item_and_a_column_a_figure() -> None:
    part = Part("this", [Item("a", {"x": 1e-7, "y": 2}, True), Item("b", {"x": 3}, False, "why")], ["Note."])
    table = part_table(part)
    assert [column.header for column in table.columns] == ["item", "x", "y", "verdict", "note"]
    assert [[cell.text for cell in row] for row in table.groups[0]] == [
        ["a", "1.0e-07", "2.0", "pass", ""],
        ["b", "3.0", "—", "FAIL", "why"],
    ]
    rows = figures_frame([part, Part("that", [Item("c", note="no time")], [])])
    assert list(rows["figure"]) == ["x", "y", "x", ""]


def test_a_machine_without_a_gpu_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended = ddbench("selftest", "--gpu", "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert "torch finds no GPU here" in ended.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("passed", [True, False])
def test_the_command_prints_and_writes_every_part(
    passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part("first", [Item("a", {"x": 1}, True)], []), Part("last", [Item("b", {}, passed)], ["Note."])]
    monkeypatch.setattr("bench.tools.selftest.run.selftest_parts", lambda _: iter(parts))
    ended = ddbench("selftest", "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0 if passed else 1, "")
    assert ("FAIL b: last" in ended.text) is not passed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "selftest.csv",
        "selftest.md",
        "versions.json",
    ]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.tools.selftest.run.selftest_parts", lambda _: iter([Part("first", [], [])]))
    (tmp_path / "file").write_text("")
    ended = ddbench("selftest", "--out", tmp_path / "file")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("device", [CPU, GPU])
def test_cuda_graphs_are_tried_on_a_gpu_only(device: torch.device) -> None:
    setting = tiny(device=device)
    tried = [how for _, how, *_ in (*variants._network_steps(setting), *variants._student_steps(setting))]
    assert tried.count("compiled") == 3
    assert tried.count("compiled, CUDA graphs") == (3 if device == GPU else 0)


def test_a_gpu_is_tried_at_the_papers_sizes_and_named_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Setting, Path]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("bench.core.timing.device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("bench.tools.selftest.setting.drawn_cifar", lambda *_: drawn_cifar(2, 1, 8))
    monkeypatch.setattr(
        "bench.tools.selftest.run.run_selftest",
        lambda setting, folder, _: not asked.append((setting, folder)),
    )
    assert ddbench("selftest", "--gpu").code == 0
    ((setting, folder),) = asked
    assert (setting.device, setting.ipcs, setting.architecture) == (GPU, (1, 10, 50), "convnet")
    assert setting.clock.seconds == 25 * 60
    assert folder == tmp_path / "results/gpu/NVIDIA-H100-80GB-HBM3"

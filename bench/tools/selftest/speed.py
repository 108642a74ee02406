"""How fast the device is at what ddbench does: students, and each method at its paper's setting."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from bench.core import timing
from bench.core.networks.architecture import parse_architecture
from bench.core.precision import PRECISIONS, Precision, computing
from bench.core.preprocess import Preprocess
from bench.core.random import generator
from bench.evaluation.students import TrainingSet, train_students
from bench.execution.warm_up import warm_up
from bench.planning.protocols import load_protocol
from bench.tools.profile.counters import matrix_rate
from bench.tools.selftest.items import guarded
from bench.tools.selftest.loops import MeasuredLoop
from bench.tools.selftest.result import Item, Part
from bench.tools.selftest.setting import Clock, Setting, prepared_distillation

MIB = 2**20
TIMED = ("bptt", "dc", "dm", "dsa", "frepo", "haba", "idc", "mtt", "rat_bptt", "rtp", "tesla")
LATER = ("datadam", "datm", "dream", "idm", "ncfm", "sre2l")
PROTOCOL = "dc_bench.dsa"  # whose augmentation and batches are those of the papers' students
WARM = 2  # calls before any is timed
Call = Callable[[], object]


def timed(call: Call, device: torch.device, seconds: float) -> float:
    """Seconds of a call, in the mean over about so many, at least one; first calls are left out."""
    for _ in range(WARM):
        call()
    timing.synchronize(device)
    begin, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - begin < seconds:
        call()
        calls += 1
        if calls % 8 == 0:  # the clock must not run ahead of the device
            timing.synchronize(device)
    timing.synchronize(device)
    return (time.perf_counter() - begin) / calls


# --- students -----------------------------------------------------------------------------------------------


def students_part(setting: Setting, clock: Clock) -> Part:
    """Students of a set trained together and one by one, at several sizes of the set."""
    ways = {"together": True, "one by one": False}
    seconds = clock.left / (len(setting.ipcs) * len(ways))
    items = []
    for ipc in setting.ipcs:
        name = f"ipc {ipc}"
        items.append(guarded(name, partial(_students, setting, ipc, ways, seconds), setting.device, clock))
    return Part(
        "students together against one by one",
        items,
        [
            f"{setting.students} students, {setting.architecture}, images of CIFAR-10's shape, the recipe of "
            f"{PROTOCOL} at fp32; optimiser steps a second of all students. `together_pays` in "
            "bench/evaluation/students.py decides without timing, and takes a GPU's together."
        ],
    )


def training_set(setting: Setting, ipc: int) -> TrainingSet:
    """Real images as if they were a distilled set."""
    data, recipe = setting.cifar, load_protocol(PROTOCOL).recipe
    preprocess = Preprocess(data.mean, data.std)
    chosen = torch.cat([(data.train.labels == c).nonzero()[:ipc, 0] for c in range(data.n_classes)])
    images = preprocess(data.train.images[chosen].to(setting.device))
    return TrainingSet(images, data.train.labels[chosen].to(setting.device), recipe, preprocess)


def _students(setting: Setting, ipc: int, ways: Mapping[str, bool], seconds: float) -> Item:
    figures = {}
    for way, together in ways.items():
        timing.reset_peak(setting.device)
        figures[f"{way}, steps/s"] = _student_rate(setting, ipc, together, seconds)
        if setting.on_gpu:
            figures[f"{way}, MiB"] = timing.peak_bytes(setting.device) / MIB
    figures["times"] = figures["together, steps/s"] / figures["one by one, steps/s"]
    return Item(f"ipc {ipc}", figures)


def _student_rate(setting: Setting, ipc: int, together: bool, seconds: float) -> float:
    """Steps a second, from a training as long as fits the seconds."""
    network, data = parse_architecture(setting.architecture), setting.cifar

    def run(steps: int) -> float:
        wanted = training_set(setting, ipc)
        wanted = replace(wanted, recipe=replace(wanted.recipe, steps=steps, epochs=None, milestones=()))
        timing.synchronize(setting.device)
        begin = time.perf_counter()
        train_students(
            lambda i: network.build(data.image_shape, data.n_classes, generator(i, "selftest")),
            wanted,
            [generator(i, "selftest", "order") for i in range(setting.students)],
            together=together,
        )
        timing.synchronize(setting.device)
        return time.perf_counter() - begin

    with computing("fp32"):
        run(WARM)
        few = run(4)
        steps = max(4, min(2000, math.floor(4 * seconds / few)))
        return setting.students * steps / run(steps)


# --- methods ------------------------------------------------------------------------------------------------


def rates_part(setting: Setting, clock: Clock) -> Part:
    """First calls, and large matrix products at each precision: what a share of the peak is a share of."""

    def first_calls() -> Item:
        warm_up(setting.device)
        return Item("first calls", passed=True)

    items = [guarded("first calls", first_calls, setting.device, clock)]
    items += [guarded(p, partial(_matrix_rate, setting, p), setting.device, clock) for p in PRECISIONS]
    return Part("matrix products", items, ["The best of ten, of 8192 rows on a GPU and 1024 on a CPU."])


def _matrix_rate(setting: Setting, precision: Precision) -> Item:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with computing(precision):
        return Item(precision, {"TFLOP/s": matrix_rate(setting.device, dtype=dtype) / 1e12})


def methods_part(setting: Setting, clock: Clock, rate: float) -> Part:
    """Each method at its paper's hyper-parameters for CIFAR-10, for the same time.

    Args:
        setting: device and sizes.
        clock: of the part.
        rate: of matrix products at fp32, in FLOP/s.
    """
    names, items = [name for name in (*TIMED, *LATER) if name in setting.methods], list[Item]()
    for i, name in enumerate(names):
        seconds = clock.left / (len(names) - i)
        items.append(guarded(name, partial(_method, setting, name, seconds, rate), setting.device, clock))
    return Part(
        "methods at their papers' settings",
        items,
        [
            f"Presets for CIFAR-10 at ipc {setting.ipc}, {setting.architecture}, images drawn in its shape, "
            "fp32. Prerequisites of which there is no time for all are cut short or stood in for, which "
            "changes no speed. Share: operations of a step, counted from shapes, over its seconds and "
            "the rate of fp32 matrix products. Hours: of all steps."
        ],
    )


def _method(setting: Setting, name: str, seconds: float, rate: float) -> Item:
    device, loop = setting.device, MeasuredLoop(setting.device, seconds=seconds / 2, counted=True)
    made = prepared_distillation(
        name, {}, setting.cifar, setting.ipc, setting.architecture, device, seconds / 4
    )
    timing.reset_peak(device)
    try:
        made.run(loop)
    finally:
        loop.close()
    per_second, flops, total = loop.rate or 0.0, loop.flops or 0, loop.total or 0
    return Item(
        name,
        {
            "steps/s": per_second,
            "GFLOP a step": flops / 1e9,
            "share %": 100 * flops * per_second / rate,
            "peak MiB": timing.peak_bytes(device) / MIB,
            "hours": total / per_second / 3600,
        },
        note=f"{loop.timed} steps timed of {total:,}",
    )

"""Does the device compute what the CPU does: accuracies, gradients, and steps in which nothing waits."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import fmean, variance
from typing import Any

import torch
from torch import Tensor

from bench.core.loop import Loop
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.precision import PRECISIONS, Precision, computing
from bench.core.preprocess import Preprocess
from bench.core.random import generator
from bench.core.registry import method_class
from bench.core.timing import synchronize
from bench.core.training import Recipe, training
from bench.evaluation.scoring import EvaluationSetting, resolve_protocol, train_and_score
from bench.evaluation.students import StackedStudents, TrainingSet
from bench.planning.protocols import load_protocol
from bench.tools.selftest.items import guarded
from bench.tools.selftest.loops import GradientLoop, MeasuredLoop
from bench.tools.selftest.result import Item, Part
from bench.tools.selftest.setting import (
    Clock,
    Distillation,
    Setting,
    forbidding_syncs,
    prepared_distillation,
)

CPU = torch.device("cpu")
LEAST, ERRORS = 0.02, 3  # two mean accuracies agree within this, or within so many standard errors
# fp32 left at most 1.5e-5 on a CPU; TF32 rounds what it multiplies by up to 4.9e-4
MOST_ERROR = 1e-4
STRICT_STEPS = 3
STRICT_RECIPE = Recipe(batch_size=16, lr=0.01, steps=2 + STRICT_STEPS, augment="rotate")
# a method's smallest useful run: whichever of these hyper-parameters it has
ONE_STEP: dict[str, Any] = {
    **{"steps": 1, "iterations": 1, "inner_steps": 1, "network_steps": 10, "network_epochs": 1},
    **{"members": 2, "batch_real": 16, "net_images": 64, "net_epochs": 1, "experts": 2, "start_epochs": 1},
    **{"expert_epochs": 1, "last_start_epochs": 1, "label_experts": 2, "unroll": 5, "window": 3, "bases": 8},
    **{"batch_per_class": 4, "hallucinators": 2, "teacher": "convnet-d1-w4-batch", "teacher_epochs": 1},
}
SOME_STEPS = {**ONE_STEP, "steps": 2 + STRICT_STEPS, "iterations": 2, "inner_steps": 3}
# what is drawn or chosen depends on the type of the numbers; networks that float64 does not reach
WITHOUT_GRADIENT = {"ncfm", "dream", "sre2l", "datm"}
START = {"rtp": {"init": "xavier"}}  # of principal components another sign is as good
# what is distilled to compare accuracies, by method
COMPARED: dict[str, dict[str, Any]] = {
    "random_real": {},
    "dm": {"steps": 50},
    "dc": {"iterations": 5, "inner_steps": 5},
    "bptt": {"steps": 20},
    "mtt": {"steps": 20, "experts": 3},
}


def small_values(name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these hyper-parameters that the method has, where its own value is of the same type."""
    takes = {field.name: type(field.default) for field in dataclasses.fields(method_class(name))}
    return {key: value for key, value in wanted.items() if takes.get(key) is type(value)}


# --- accuracies ---------------------------------------------------------------------------------------------


def accuracies_part(setting: Setting, clock: Clock) -> Part:
    """Distil and score on the CPU and on the device with the same seeds."""
    items = [
        guarded(name, partial(_compared, setting, name, COMPARED[name]), setting.device, clock)
        for name in setting.compared
    ]
    return Part(
        "accuracies against the CPU",
        items,
        [
            f"Digits, {setting.small}, ipc 1, protocol quick, {setting.seeds} seeds of {setting.students} "
            f"students, percent. Passed within {100 * LEAST:.0f} points, or {ERRORS} standard errors of the "
            "difference over seeds."
        ],
    )


def _compared(setting: Setting, name: str, values: Mapping[str, Any]) -> Item:
    ours, theirs = (_accuracies(setting, name, values, device) for device in (CPU, setting.device))
    gap, allowed = fmean(theirs) - fmean(ours), _allowed(ours, theirs)
    figures = {"cpu %": 100 * fmean(ours), "device %": 100 * fmean(theirs), "allowed": 100 * allowed}
    return Item(name, figures, abs(gap) <= allowed)


def _allowed(ours: list[float], theirs: list[float]) -> float:
    spread = sum(variance(one) / len(one) for one in (ours, theirs) if len(one) > 1)
    return max(LEAST, ERRORS * math.sqrt(spread))


def _accuracies(setting: Setting, name: str, values: Mapping[str, Any], device: torch.device) -> list[float]:
    """A mean over students for each seed."""
    data, student, found = setting.digits, parse_architecture(setting.small), []
    for seed in range(setting.seeds):
        made = prepared_distillation(name, values, data, 1, setting.small, device, math.inf, seed)
        distilled = made.run(Loop())
        protocol = resolve_protocol(load_protocol("quick"), data, student, distilled)
        scored = EvaluationSetting(data, student, protocol, setting.students, seed, device)
        found.append(fmean(train_and_score(distilled, scored).scores.accuracies))
    return found


# --- gradients ----------------------------------------------------------------------------------------------


class _Double(Preprocess):
    """In float64."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images.double() / 255 if images.dtype == torch.uint8 else images)


def gradients_part(setting: Setting, clock: Clock) -> Part:
    """The gradient of each method's first step on the device, against float64 on the CPU."""
    tried = [name for name in setting.methods if name not in WITHOUT_GRADIENT]
    items = [guarded(name, partial(_gradient, setting, name), setting.device, clock) for name in tried]
    return Part(
        "gradients against the CPU in float64",
        [item for item in items if item != Item(item.name)],
        [
            f"|g - g64| / |g64| of all that is learned, in the first step on digits with {setting.small}; "
            f"fp32 passes below {MOST_ERROR:g}, which TF32 exceeds. Random draws are the same."
        ],
    )


def _gradient(setting: Setting, name: str) -> Item:
    values = small_values(name, ONE_STEP) | START.get(name, {})
    here = prepared_distillation(name, values, setting.digits, 2, setting.small, CPU, math.inf)
    loop = GradientLoop(exact=True)
    here.method.distill(dataclasses.replace(_exact(here.problem), loop=loop))
    if (wanted := loop.gradient) is None:
        return Item(name)
    there = _moved(here, setting)
    errors: dict[str, float] = {precision: _error(there, precision, wanted) for precision in PRECISIONS}
    return Item(name, errors, errors["fp32"] <= MOST_ERROR)


def _error(made: Distillation, precision: Precision, wanted: Tensor) -> float:
    loop = GradientLoop(exact=False)
    with computing(precision):
        made.method.distill(dataclasses.replace(made.problem, loop=loop))
    assert loop.gradient is not None, "the same method has one in float64"
    return float((loop.gradient - wanted).norm() / wanted.norm())


def _moved(made: Distillation, setting: Setting) -> Distillation:
    """The same distillation, with the same prerequisites, on the device."""
    problem, train = made.problem, setting.digits.train.to(setting.device)
    build = problem.make_net

    def make_net(rng: torch.Generator) -> Network:
        return build(rng).to(setting.device)

    moved = dataclasses.replace(problem, images=train.images, labels=train.labels, make_net=make_net)
    return dataclasses.replace(made, problem=moved)


def _exact(problem: Problem) -> Problem:
    build, seen = problem.make_net, problem.preprocess

    def make_net(rng: torch.Generator) -> Network:
        return build(rng).double()

    def double(t: Tensor) -> Tensor:
        return t.double() if t.is_floating_point() else t

    return dataclasses.replace(
        problem,
        make_net=make_net,
        preprocess=_Double(seen.mean, seen.std),
        prepared={role: {k: double(t) for k, t in made.items()} for role, made in problem.prepared.items()},
    )


# --- nothing waits ------------------------------------------------------------------------------------------


def syncs_part(setting: Setting, clock: Clock) -> Part:
    """Steps of each method, and of students, in which waiting for the device is an error."""
    tried: dict[str, Callable[[], Item]] = {name: partial(_strict, setting, name) for name in setting.methods}
    for name, together in (("students together", True), ("students one by one", False)):
        tried[name] = partial(_strict_students, setting, name, together)
    tried["training on real images"] = partial(_strict_training, setting)
    items = [guarded(name, item, setting.device, clock) for name, item in tried.items()]
    told = 'inside torch.cuda.set_sync_debug_mode("error")' if setting.on_gpu else "not checked on a CPU"
    return Part(
        "steps without waiting for the device",
        [item for item in items if item != Item(item.name)],
        [f"{STRICT_STEPS} steps after the first, {told}; a copy that waits counts too."],
    )


def _verdict(setting: Setting) -> bool | None:
    return True if setting.on_gpu else None


def _strict(setting: Setting, name: str) -> Item:
    values = small_values(name, SOME_STEPS)
    made = prepared_distillation(name, values, setting.digits, 2, setting.small, setting.device, math.inf)
    loop = MeasuredLoop(setting.device, strict=STRICT_STEPS)
    try:
        made.run(loop)
    finally:
        loop.close()
    return Item(name, {"steps": STRICT_STEPS} if loop.total else {}, _verdict(setting))


def _strict_students(setting: Setting, name: str, together: bool) -> Item:
    data, network, preprocess = setting.digits, parse_architecture(setting.small), _plain(setting)
    few = data.train.images[:100].to(setting.device), data.train.labels[:100].to(setting.device)
    wanted = TrainingSet(preprocess(few[0]), few[1], STRICT_RECIPE, preprocess)
    nets = [
        network.build(data.image_shape, data.n_classes, generator(i, "selftest")).to(setting.device)
        for i in range(2)
    ]
    rngs = [generator(i, "selftest", "order") for i in range(2)]
    if together:
        steps = StackedStudents(nets, wanted, rngs, [STRICT_RECIPE.lr] * 2).training()
    else:
        steps = training(nets[0], wanted.images, wanted.targets, STRICT_RECIPE, rngs[0], preprocess)
    return _strict_steps(setting, name, steps)


def _strict_training(setting: Setting) -> Item:
    data, device = setting.digits, setting.device
    split, rng = data.train.to(device), generator(0, "selftest")
    net = parse_architecture(setting.small).build(data.image_shape, data.n_classes, rng).to(device)
    steps = training(net, split.images, split.labels, STRICT_RECIPE, rng, _plain(setting))
    return _strict_steps(setting, "training on real images", steps)


def _plain(setting: Setting) -> Preprocess:
    return Preprocess(setting.digits.mean, setting.digits.std)


def _strict_steps(setting: Setting, name: str, steps: Iterator[int]) -> Item:
    """The steps of a training; before them and in the first, networks and rates may be copied."""
    with computing("fp32"):
        next(steps)
        synchronize(setting.device)
        with forbidding_syncs(setting.device):
            for _ in range(STRICT_STEPS):
                next(steps)
    return Item(name, {"steps": STRICT_STEPS}, _verdict(setting))

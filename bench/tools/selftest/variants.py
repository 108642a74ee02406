"""Which layout, precision or compiler would make the device faster: measured, and no switch of a run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.networks.architecture import parse_architecture
from bench.core.precision import Precision, computing
from bench.core.preprocess import Preprocess
from bench.core.random import generator
from bench.core.training import Recipe, build_optimiser
from bench.evaluation.students import StackedStudents
from bench.tools.selftest.items import guarded
from bench.tools.selftest.result import Item, Part
from bench.tools.selftest.setting import Clock, Setting
from bench.tools.selftest.speed import Call, timed, training_set

Make = Callable[[], AbstractContextManager[Call]]
Tried = tuple[str, str, int, Make]  # what, how, images or steps of a call, and what makes the call


@contextmanager
def choosing() -> Iterator[None]:
    """fp32 as torch would have it: cuDNN times its algorithms, and takes any."""
    with computing("fp32"):
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
        yield


def variants_part(setting: Setting, clock: Clock) -> Part:
    """Training steps of networks, the students' step and the scoring, with one thing changed at a time."""
    tried = [*_network_steps(setting), *_student_steps(setting), *_scorings(setting)]
    tried.sort(key=lambda one: "compiled" in one[1])  # those take a minute each before they can be timed
    items, first = list[Item](), dict[str, float]()
    for i, (what, how, n, make) in enumerate(tried):
        seconds = clock.left / (2 * (len(tried) - i))
        item = partial(_variant, setting, f"{what}: {how}", n, make, seconds)
        found = guarded(f"{what}: {how}", item, setting.device, clock, judged=False)
        if rate := found.figures.get("a second"):
            found.figures["times"] = rate / first.setdefault(what, rate)
        items.append(found)
    items.sort(key=lambda one: [what for what, *_ in tried].index(one.name.partition(":")[0]))
    return Part(
        "what would be faster",
        items,
        [
            "Images a second (of students: steps), and as a multiple of the first of its kind. Networks: a "
            f"training step on {setting.batch} images of CIFAR-10's shape. ddbench computes at fp32 in "
            "torch's usual layout, with deterministic convolutions, without compiling or CUDA graphs."
        ],
    )


def _variant(setting: Setting, name: str, n: int, make: Make, seconds: float) -> Item:
    with make() as call:
        return Item(name, {"a second": n / timed(call, setting.device, seconds)})


def compiled(function: Callable[..., Any], setting: Setting, graphs: bool = False) -> Callable[..., Any]:
    """The function compiled, as a CUDA graph too."""
    torch.compiler.reset()
    mode = "reduce-overhead" if graphs else None
    found: Callable[..., Any] = torch.compile(function, backend=setting.compiler, mode=mode)
    return found


def _network_steps(setting: Setting) -> list[Tried]:
    ways: dict[str, dict[str, Any]] = {
        "fp32": {},
        "tf32": {"precision": "tf32"},
        "bf16": {"precision": "bf16"},
        "channels last": {"last": True},
        "bf16, channels last": {"precision": "bf16", "last": True},
        "convolutions chosen by timing": {"chosen": True},
        "compiled": {"compile": True},
    }
    if setting.on_gpu:
        ways["compiled, CUDA graphs"] = {"compile": True, "graphs": True}
    return [
        (name, how, setting.batch, partial(network_step, setting, name, **way))
        for name in (setting.architecture, setting.deep)
        for how, way in ways.items()
    ]


@contextmanager
def network_step(
    setting: Setting,
    name: str,
    precision: Precision = "fp32",
    last: bool = False,
    chosen: bool = False,
    compile: bool = False,
    graphs: bool = False,
) -> Iterator[Call]:
    """A training step of a network on one batch, as a call."""
    data, device = setting.cifar, setting.device
    net: nn.Module = parse_architecture(name).build(
        data.image_shape, data.n_classes, generator(0, "selftest")
    )
    net = net.to(device).train()
    images = Preprocess(data.mean, data.std)(data.train.images[: setting.batch].to(device))
    labels = data.train.labels[: setting.batch].to(device)
    if last:
        net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimiser = build_optimiser(net, Recipe(batch_size=setting.batch, lr=0.01, steps=1))
    forward = compiled(net, setting, graphs) if compile else net

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(forward(images), labels).backward()
        optimiser.step()

    with choosing() if chosen else computing(precision):
        yield step


def _student_steps(setting: Setting) -> list[Tried]:
    ways: dict[str, dict[str, Any]] = {"as it is": {}, "compiled": {"compile": True}}
    if setting.on_gpu:
        ways["compiled, CUDA graphs"] = {"compile": True, "graphs": True}
    return [
        ("students together", how, setting.students, partial(student_step, setting, **way))
        for how, way in ways.items()
    ]


@contextmanager
def student_step(setting: Setting, compile: bool = False, graphs: bool = False) -> Iterator[Call]:
    """A step of stacked students, as a call; what is compiled is their forward pass, and so its backward."""
    data, network = setting.cifar, parse_architecture(setting.architecture)
    nets = [
        network.build(data.image_shape, data.n_classes, generator(i, "selftest")).to(setting.device)
        for i in range(setting.students)
    ]
    wanted = training_set(setting, setting.ipcs[-1])
    wanted = replace(wanted, recipe=replace(wanted.recipe, steps=10**6, epochs=None, milestones=()))
    rngs = [generator(i, "selftest", "order") for i in range(len(nets))]
    stacked = StackedStudents(nets, wanted, rngs, [wanted.recipe.lr] * len(nets))
    if compile:
        stacked._logits = compiled(stacked._logits, setting, graphs)  # type: ignore[method-assign]
    steps = stacked.training()
    with computing("fp32"):
        yield lambda: next(steps)


def _scorings(setting: Setting) -> list[Tried]:
    return [
        (
            "scoring",
            f"{size} images at a time",
            size,
            partial(scoring, setting, size),
        )
        for size in setting.pieces
    ]


@contextmanager
def scoring(setting: Setting, size: int) -> Iterator[Call]:
    """One piece of so many images through a network in evaluation mode, as a call."""
    data, device = setting.cifar, setting.device
    rng, preprocess = generator(0, "selftest"), Preprocess(data.mean, data.std)
    net = (
        parse_architecture(setting.architecture)
        .build(data.image_shape, data.n_classes, rng)
        .to(device)
        .eval()
    )
    images = data.train.images[:size].to(device)

    @torch.inference_mode()
    def call() -> Tensor:
        return net(preprocess(images))

    with computing("fp32"):
        yield call

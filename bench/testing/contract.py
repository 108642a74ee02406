"""What every method promises, checked on the embedded digits with a tiny network.

Each check raises AssertionError with what is wrong.
"""

import dataclasses
import inspect
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.method import ARCHITECTURE, IPC, SEED, Method, Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.registry import method_class
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.evaluation.storage import check_header, measure_storage

TINY = "convnet-d1-w4"


def digits() -> Dataset:
    """scikit-learn's digits, from the cache."""
    return read_dataset(prepare_dataset(DatasetSpec(name="digits")))


def tiny_problem(
    user: Any = None, data: Dataset | None = None, *, ipc: int = 1, seed: int = 0, architecture: str = TINY
) -> Problem:
    """The problem of a method, or of a prerequisite, with all that it requires built.

    Args:
        user: what has `requires()`; None requires nothing.
        data: by default the digits.
        ipc: images per class.
        seed: of every random draw.
        architecture: of `make_net`.
    """
    data = data or digits()
    network = parse_architecture(architecture)
    built: dict[object, dict[str, Tensor]] = {}  # what several stand on is built once

    def problem(prepared: dict[str, dict[str, Tensor]]) -> Problem:
        return Problem(
            images=data.train.images.clone(),
            labels=data.train.labels.clone(),
            n_classes=data.n_classes,
            ipc=ipc,
            preprocess=Preprocess(data.mean, data.std),
            make_net=lambda generator: network.build(data.image_shape, data.n_classes, generator),
            seed=seed,
            prepared=prepared,
        )

    def prepare(user: Any) -> dict[str, dict[str, Tensor]]:
        required = user.requires()
        for block in required.values():
            if block not in built:
                built[block] = block.build(problem(prepare(block)))
        return {role: built[block] for role, block in required.items()}

    return problem({} if user is None else prepare(user))


def _state(distilled: DistilledDataset) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in distilled.state_dict().items()}


def _numpy_state() -> Any:
    return np.random.get_state(legacy=False)["state"]["key"].tolist()


def _same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def check_declaration(method: Method) -> None:
    """A frozen dataclass with defaults, a version, a paper, docstrings, and what its result depends on."""
    cls = type(method)
    assert dataclasses.is_dataclass(cls), "a method is a dataclass"
    frozen = inspect.getattr_static(cls, "__dataclass_params__").frozen
    assert frozen, "a method is frozen: @dataclass(frozen=True)"
    assert cls.version >= 1, "version: a whole number from 1, raised when the numbers may move"
    assert len(cls.paper) > 10, "paper: the citation"
    known = {IPC, ARCHITECTURE, SEED}
    assert isinstance(cls.depends_on, frozenset), "depends_on: a frozenset of IPC, ARCHITECTURE, SEED"
    assert cls.depends_on <= known, f"depends_on: not {sorted(cls.depends_on - known)}"
    assert not re.match(rf"{cls.__name__}\(", cls.__doc__ or ""), "the class needs a docstring of its own"
    assert inspect.getdoc(inspect.getmodule(cls)), "the module needs a docstring"
    without = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    assert not without, f"hyper-parameters without a default: {without}"
    required = list(method.requires().values())
    assert len(required) == len(set(required)), "a prerequisite of two roles would be charged twice"
    for prepare in required:
        assert prepare.depends_on <= cls.depends_on, f"depends_on lacks what {prepare} depends on"
        assert set(prepare.requires().values()) <= set(required), f"what {prepare} stands on is charged too"


def own_classes(distilled: DistilledDataset) -> Tensor:
    """The class that each decoded image belongs to, int64 [n], whatever its target says."""
    targets = distilled.decode()[1]
    if targets.ndim == 1:
        return targets
    labels = getattr(distilled, "labels", None)  # of sets that are ordered by class
    return labels if isinstance(labels, Tensor) else targets.argmax(1)


def check_budget(method: Method, ipc: int) -> None:
    """A set of finite float32 images, as many of each class, that fits `ipc` images per class."""
    data = digits()
    problem = tiny_problem(method, data, ipc=ipc)
    distilled = method.distill(problem)
    images, _ = distilled.decode()
    labels = own_classes(distilled)
    assert images.shape == (len(labels), *data.image_shape), f"decodes to {tuple(images.shape)}"
    assert images.dtype == torch.float32, f"decodes to {images.dtype}"
    assert torch.isfinite(images).all(), "decodes to values that are not finite"
    assert distilled.preprocess == problem.preprocess, "the set must keep the problem's preprocess"
    if IPC in method.depends_on:
        counts = labels.bincount(minlength=data.n_classes)
        assert counts.min() == counts.max(), f"images of each class: {counts.tolist()}"
        assert int(counts.min()) >= ipc, f"{int(counts.min())} images of each class, the budget is {ipc}"
        took = measure_storage(distilled, data, ipc)
        fits = getattr(method, "fit_budget", True)  # False: known to go over, as published
        assert took.within_budget == fits, (
            f"{took.floats} floats are {took.ipc_equivalent:.2f} images per class"
        )


def check_draws(method: Method) -> None:
    """Every draw comes from the problem's generators; the images and the global generators are left alone."""
    problem = tiny_problem(method, ipc=2, seed=1)
    images, labels = problem.images.clone(), problem.labels.clone()
    torch.manual_seed(987_654_321)
    np.random.seed(987_654_321)
    states = torch.get_rng_state(), _numpy_state()
    one = _state(method.distill(problem))
    assert torch.equal(torch.get_rng_state(), states[0]), "it draws from torch's global generator"
    assert _numpy_state() == states[1], "it draws from numpy's"
    assert torch.equal(problem.images, images), "it writes to problem.images"
    assert torch.equal(problem.labels, labels), "it writes to problem.labels"
    torch.rand(5), np.random.rand(5)  # another global state
    assert _same(one, _state(method.distill(tiny_problem(method, ipc=2, seed=1)))), "two runs differ"
    moved = not _same(one, _state(method.distill(tiny_problem(method, ipc=2, seed=2))))
    assert moved == (SEED in method.depends_on), "depends_on is wrong about SEED"


def check_dependence(method: Method) -> None:
    """What is not in `depends_on` may take any value: a key that leaves it out serves them all."""
    one = _state(method.distill(tiny_problem(method, ipc=2)))

    def no_net(_: torch.Generator) -> Any:
        raise AssertionError("it makes a network: add ARCHITECTURE to depends_on")

    if ARCHITECTURE not in method.depends_on:
        problem = dataclasses.replace(tiny_problem(method, ipc=2), make_net=no_net)
        assert _same(one, _state(method.distill(problem)))
    if IPC not in method.depends_on:
        problem = dataclasses.replace(tiny_problem(method), ipc=0)
        assert _same(one, _state(method.distill(problem))), "it depends on IPC"


def check_storage(method: Method) -> None:
    """What is saved and loaded again is the same set."""
    distilled = method.distill(tiny_problem(method, ipc=2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.safetensors"
        distilled.save(path)
        check_header(path, distilled, digits().n_classes)
        stored = load_distilled(path)
    assert (stored.n_stored, stored.bytes_uint8) == (distilled.n_stored, distilled.bytes_uint8)
    for before, after in zip(distilled.decode(), stored.decode(), strict=True):
        assert torch.equal(before, after), "a set that was saved and loaded decodes to something else"


def check_method(method: Any, **hyperparameters: Any) -> None:
    """Check that a method keeps the contract, in seconds to minutes on one core.

    Args:
        method: its class, an instance, or the name of an installed one.
        hyperparameters: of the class or the named method: few steps make it quick.

    Raises:
        AssertionError: what is wrong.

    Example:
        >>> dd.check_method(Mine, steps=2)
    """
    cls = method_class(method) if isinstance(method, str) else method
    built: Method = cls(**hyperparameters) if isinstance(cls, type) else cls
    check_declaration(built)
    for ipc in (1, 2):
        check_budget(built, ipc)
    check_draws(built)
    check_dependence(built)
    check_storage(built)

"""What only the data can tell: checks of a sweep before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch

from bench.core.errors import OverBudget, UserError
from bench.core.method import ARCHITECTURE, Method, Problem
from bench.core.networks.architecture import Architecture
from bench.core.networks.base import Network, Shape
from bench.core.preprocess import Preprocess
from bench.core.teacher_file import read_teacher
from bench.core.training import check_batches
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec, preset_name
from bench.planning.sweep import MethodEntry, Sweep
from bench.planning.yaml_schema import describe_faults


def check_data(sweep: Sweep, datasets: Mapping[str, Dataset]) -> None:
    """Check what depends on the data.

    Args:
        sweep: the checked sweep file.
        datasets: its data sets by label.

    Raises:
        UserError: for a data set given under two labels, a class without images, a network that the images or
            the protocol's batches do not fit, and what a method would refuse; all of them at once.
    """
    faults = list(_data_faults(datasets))
    if not faults:
        unfit = dict(_unfit(sweep, datasets))
        faults = [*_refusals(sweep, datasets, unfit), *unfit.values(), *_batch_faults(sweep, datasets, unfit)]
        faults += _given_teacher_faults(sweep, datasets)
    if faults:
        raise UserError(describe_faults(faults))


def check_distillation(method: Method, data: Dataset, ipc: int, architecture: Architecture) -> None:
    """Check what a method says of a data set, a budget and a network, without computing anything.

    Args:
        method: with its hyper-parameters.
        data: whose training set it would distill.
        ipc: images per class.
        architecture: that it would distill with; it takes the images.

    Raises:
        UserError: the method would refuse them.
    """
    check = getattr(method, "check", None)
    if check is None:
        return

    def make_net(_: torch.Generator) -> Network:
        return _outline(architecture, data.image_shape, data.n_classes)

    check(
        Problem(
            images=data.train.images,
            labels=data.train.labels,
            n_classes=data.n_classes,
            ipc=ipc,
            preprocess=Preprocess(data.mean, data.std),
            make_net=make_net,
            seed=0,
            prepared={},
            classes=data.classes,
        )
    )


@cache
def _outline(architecture: Architecture, image_shape: Shape, n_classes: int) -> Network:
    return architecture.outline(image_shape, n_classes)


def _data_faults(datasets: Mapping[str, Dataset]) -> Iterator[str]:
    labels: dict[str, str] = {}
    for label, data in datasets.items():
        if data.fingerprint in labels:
            yield f"datasets: {labels[data.fingerprint]} and {label} hold the same images: keep one"
        labels[data.fingerprint] = label
        counts = data.train.labels.bincount(minlength=data.n_classes)
        if not int(counts.min()):
            yield f"datasets: class {data.classes[int(counts.argmin())]!r} of {label} has no training images"


def _unfit(sweep: Sweep, datasets: Mapping[str, Dataset]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """The networks that cannot take the images: ((key, label of the data, of the network), what is wrong)."""
    for label, data in datasets.items():
        for key, wanted in (("distill", sweep.distill), ("evaluate", sweep.evaluate)):
            for architecture in wanted.architectures:
                try:
                    architecture.check(data.image_shape)
                except UserError as error:
                    place = key, label, architecture.label
                    yield place, f"{key}.architectures: {error} ({label})"


def _refusals(
    sweep: Sweep, datasets: Mapping[str, Dataset], unfit: Mapping[tuple[str, str, str], str]
) -> list[str]:
    """What methods refuse: a line each, however many methods, networks and data sets meet it."""
    found: dict[str, tuple[dict[str, None], ...]] = {}  # text -> methods, networks, data sets, in order
    for spec in sweep.datasets:
        for entry in sweep.methods:
            for architecture in sweep.distill.architectures:
                known = ("distill", spec.label, architecture.label) in unfit
                for uses_network, text in _refused(
                    entry, spec, sweep.ipc, datasets[spec.label], architecture, known
                ):
                    methods, networks, data = found.setdefault(text, ({}, {}, {}))
                    methods[entry.name] = data[spec.label] = None
                    if uses_network:
                        networks[architecture.label] = None
    return [
        f"methods: {', '.join(methods)}{' with ' if networks else ''}{', '.join(networks)} "
        f"on {', '.join(data)}: {text}"
        for text, (methods, networks, data) in found.items()
    ]


def _refused(
    entry: MethodEntry,
    spec: DatasetSpec,
    ipcs: Sequence[int],
    data: Dataset,
    architecture: Architecture,
    unfit: bool,
) -> Iterator[tuple[bool, str]]:
    """(whether it uses the network, what it refuses) of a method, at the ipcs of the sweep.

    A budget that is too small is a fault where no ipc is large enough: of a grid, the others can be run.
    """
    presets, over = preset_name(spec.name, spec.label), dict[int, OverBudget]()
    for ipc in ipcs:
        method = entry.resolve(presets, ipc)
        uses_network = ARCHITECTURE in method.depends_on
        if uses_network and unfit:  # which is a fault already
            continue
        try:
            check_distillation(method, data, ipc, architecture)
        except OverBudget as error:
            over[ipc] = error
        except UserError as error:
            yield uses_network, str(error)
    if len(over) == len(ipcs):
        yield uses_network, str(over[max(over)])


def _given_teacher_faults(sweep: Sweep, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """Data sets that the teacher which the sweep names by file was not trained for."""
    given = sweep.evaluate.teacher
    if given is None or given.file is None:
        return
    teacher = read_teacher(Path(given.file))
    for label, data in datasets.items():
        try:
            teacher.check(data.image_shape, data.n_classes)
        except UserError as error:
            yield f"evaluate.teacher: {error} ({label})"


def _batch_faults(
    sweep: Sweep, datasets: Mapping[str, Dataset], unfit: Mapping[tuple[str, str, str], str]
) -> Iterator[str]:
    """Students and teachers that a protocol's batches do not suit; only batches of one image do not."""
    protocols = sweep.protocols
    for label, data in datasets.items():
        for protocol in protocols:
            trained = [(protocol.recipe, min(sweep.ipc) * data.n_classes)]
            if protocol.teacher is not None and protocol.teacher.recipe is not None:
                trained.append((protocol.teacher.recipe, len(data.train.labels)))
            smallest = min(min(recipe.batch_size, n) for recipe, n in trained)
            for architecture in sweep.evaluate.architectures if smallest == 1 else ():
                if ("evaluate", label, architecture.label) in unfit:
                    continue
                try:
                    check_batches(
                        _outline(architecture, data.image_shape, data.n_classes), smallest, smallest
                    )
                except UserError as error:
                    yield f"evaluate: protocol {protocol.name} with {architecture.label} on {label}: {error}"

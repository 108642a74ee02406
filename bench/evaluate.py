"""Score what is stored: the only reader of the test split, once, after the last step."""

from typing import Any

import torch

from bench import artifact, networks, rng, timing
from bench.config import Protocol
from bench.data import Dataset
from bench.record import Cost, Record, Storage
from bench.store import Store
from bench.train import accuracy, train

WEIGHTS = "data.safetensors"


def scores(
    distilled: artifact.DistilledDataset,
    data: Dataset,
    architecture: networks.Architecture,
    protocol: Protocol,
    students: int,
    seed: int,
    device: torch.device,
) -> list[float]:
    """Train `students` networks on the decoded set; the test accuracy of each, as a fraction.

    Each student has its own initialisation, data order and augmentation draws.
    """
    with torch.no_grad():
        images, targets = (t.contiguous() for t in distilled.decode())
    test = data.test.to(device)
    found = []
    for i in range(students):
        init, order = (rng.generator(seed, "student", i, purpose) for purpose in ("init", "order"))
        net = architecture.build(data.image_shape, data.n_classes, init).to(device)
        train(net, images, targets, protocol.recipe, order)
        found.append(accuracy(net, test.images, test.labels, distilled.preprocess))
    return found


def evaluate(
    store: Store, key: str, artifact_key: str, identity: dict[str, Any], data: Dataset, where: dict[str, Any]
) -> Record:
    """The record of one artifact under one architecture and protocol. `where`: device, cpus, gpus, ..."""
    device = torch.device(where["device"])
    meta = store.meta(artifact_key)
    method, protocol = meta["identity"], Protocol(about="", **identity["protocol"])
    architecture = networks.parse(identity["architecture"])
    distilled = artifact.load(store.artifact(artifact_key) / WEIGHTS, device)
    with timing.measure(device) as measured:
        accuracies = scores(
            distilled, data, architecture, protocol, identity["students"], identity["seed"], device
        )
    peaks = {**meta["cost"]["peak_memory"], "evaluate": measured.peak_bytes}
    return Record(
        key=key,
        artifact=artifact_key,
        method=method["method"],
        method_version=method["version"],
        hyperparameters=method["hyperparameters"],
        dataset=where["dataset"],
        dataset_fingerprint=data.fingerprint,
        image_shape=data.image_shape,
        n_classes=data.n_classes,
        ipc=method["ipc"],
        distill_arch=method["architecture"],
        eval_arch=identity["architecture"],
        protocol=protocol.name,
        protocol_version=protocol.version,
        seed=identity["seed"],
        accuracies=accuracies,
        storage=storage(distilled, data, method["ipc"]),
        cost=Cost(
            prepare_s=meta["cost"]["prepare_s"],
            distill_s=meta["cost"]["distill_s"],
            evaluate_s=measured.seconds,
            peak_memory_bytes=max(peaks.values()),
            peak_memory=peaks,
            device=meta["cost"]["device"],
            cpus=where["cpus"],
            gpus=where["gpus"],
            exclusive=where["exclusive"] and meta["cost"]["exclusive"],
            warm=where["warm"],
        ),
        versions=where["versions"],
    )


def storage(distilled: artifact.DistilledDataset, data: Dataset, ipc: int | None) -> Storage:
    """What the artifact takes, in floats, bytes and images per class.

    Single numbers (0-dim: a learned step size, a momentum) count, but do not break the budget: pixels alone
    fill it, and a whole image per class would have to go for one number.
    """
    c, h, w = data.image_shape
    per_ipc = data.n_classes * c * h * w
    numbers = sum(t.dim() == 0 for t in distilled.state_dict().values())
    return Storage(
        floats=distilled.n_stored,
        bytes=4 * distilled.n_stored,
        bytes_uint8=distilled.bytes_uint8,
        ipc_equivalent=distilled.n_stored / per_ipc,
        within_budget=ipc is not None and distilled.n_stored - numbers <= ipc * per_ipc,
        exempt=ipc is None,
    )

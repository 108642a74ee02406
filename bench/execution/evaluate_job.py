"""Score what is stored: the only reader of the test split, once, after the last step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.core import timing
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.networks.architecture import parse_architecture
from bench.core.registry import method_package
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting, Tensors, rates_on_holdout, train_and_score
from bench.evaluation.storage import measure_storage
from bench.execution.store import WEIGHTS, Store
from bench.planning.graph import recorded_hyperparameters
from bench.planning.protocols import Protocol
from bench.records.schema import Cost, Metrics, Record, Snapshot


def evaluate_artifact(
    store: Store,
    key: str,
    inputs: Mapping[str, str],
    identity: dict[str, Any],
    data: Dataset,
    where: dict[str, Any],
) -> Record:
    """Score one artifact under one architecture and protocol.

    Args:
        store: where the artifact and what the evaluation needs are.
        key: of the evaluation.
        inputs: keys by role: artifact, and rate and teacher where the protocol has them.
        identity: what the key of the evaluation hashes.
        data: the data set.
        where: device, cpus, gpus, exclusive, warm, label of the data set, versions.
    """
    meta = store.meta(inputs["artifact"])
    method = meta["identity"]
    distilled, setting = _load_setting(store, inputs, identity, data, where)
    tuned = load_file(store.artifact(inputs["rate"]) / WEIGHTS) if "rate" in inputs else None
    with timing.measure(setting.device) as measured:
        result = train_and_score(distilled, setting, tuned, identity.get("curve", ()))
    scores = result.scores
    folder = store.artifact(inputs["artifact"])
    return Record(
        key=key,
        artifact=inputs["artifact"],
        method=method["method"],
        method_version=method["version"],
        hyperparameters=recorded_hyperparameters(method),
        dataset=where["dataset"],
        dataset_fingerprint=data.fingerprint,
        image_shape=data.image_shape,
        n_classes=data.n_classes,
        ipc=method["ipc"],
        distill_arch=method["architecture"],
        eval_arch=identity["architecture"],
        protocol=setting.protocol.name,
        protocol_version=setting.protocol.version,
        seed=identity["seed"],
        accuracies=scores.accuracies,
        metrics=Metrics(
            class_accuracies=scores.class_accuracies,
            calibration_errors=scores.calibration_errors,
            agreement=scores.agreement,
            curve=result.curve,
            snapshots=_progress(folder, meta.get("snapshots", []), setting, tuned, scores.accuracies)
            if identity.get("snapshots")
            else None,
        ),
        training=result.training,
        storage=measure_storage(distilled, data, method["ipc"]),
        cost=_cost(meta["cost"], measured, setting.device, where),
        versions=where["versions"] | method_package(method["method"]),
    )


def _cost(
    spent: Mapping[str, Any], measured: timing.Measured, device: torch.device, where: Mapping[str, Any]
) -> Cost:
    """What the artifact had cost, and the evaluation's own seconds and memory."""
    peaks = {**spent["peak_memory"], "evaluate": measured.peak_bytes}
    return Cost(
        prepare_s=spent["prepare_s"],
        distill_s=spent["distill_s"],
        evaluate_s=measured.seconds,
        peak_memory_bytes=max(peaks.values()),
        peak_memory=peaks,
        device=spent["device"] or timing.device_name(device),  # a set from elsewhere has no device of its own
        cpus=where["cpus"],
        gpus=where["gpus"],
        exclusive=where["exclusive"] and spent["exclusive"],
        warm=where["warm"],
    )


def _progress(
    folder: Path,
    taken: list[dict[str, Any]],
    setting: EvaluationSetting,
    tuned: Tensors | None,
    end: list[float],
) -> list[Snapshot]:
    """Each snapshot scored as the set was, with the same students and rate: outside of `evaluate_s`.

    `end`: what the set itself, the last of them, scored.
    """

    def score(file: str) -> list[float]:
        if file == WEIGHTS:
            return end
        return train_and_score(
            load_distilled(folder / file, setting.device), setting, tuned
        ).scores.accuracies

    return [
        Snapshot(accuracies=score(one["file"]), **{k: one[k] for k in ("fraction", "step", "seconds")})
        for one in taken
    ]


def tune_rate(
    store: Store, inputs: Mapping[str, str], identity: dict[str, Any], data: Dataset, where: dict[str, Any]
) -> dict[str, Tensor]:
    """What each learning rate of the protocol scores on a hold-out of the training set."""
    distilled, setting = _load_setting(store, inputs, identity, data, where)
    return rates_on_holdout(distilled, setting, identity["fraction"])


def _load_setting(
    store: Store, inputs: Mapping[str, str], identity: dict[str, Any], data: Dataset, where: dict[str, Any]
) -> tuple[DistilledDataset, EvaluationSetting]:
    """What is stored, read from its file, and how it is to be examined."""
    device = torch.device(where["device"])
    setting = EvaluationSetting(
        data=data,
        architecture=parse_architecture(identity["architecture"]),
        protocol=Protocol(about="", **identity["protocol"]),
        students=identity["students"],
        seed=identity["seed"],
        device=device,
        teacher=load_file(store.artifact(inputs["teacher"]) / WEIGHTS) if "teacher" in inputs else None,
    )
    return load_distilled(store.artifact(inputs["artifact"]) / WEIGHTS, device), setting

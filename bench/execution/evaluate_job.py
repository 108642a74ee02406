"""Score what is stored: the only reader of the test split, once, after the last step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.core import counting, timing
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.networks.architecture import parse_architecture
from bench.core.registry import method_package
from bench.data.dataset import Dataset
from bench.evaluation.labels import Tensors
from bench.evaluation.scoring import EvaluationSetting, rehearse, train_and_score, tune_on_holdout
from bench.evaluation.storage import check_header, measure_storage
from bench.execution.store import WEIGHTS, Store
from bench.planning.graph import recorded_hyperparameters
from bench.planning.protocols import Protocol
from bench.records.schema import Cost, Metrics, Operations, Phase, Record, Snapshot


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
        where: device, cpus, gpus, exclusive, warm, budget, label of the data set, versions.
    """
    meta = store.meta(inputs["artifact"])
    method = meta["identity"]
    distilled, setting = _load_setting(store, inputs, identity, data, where)
    if identity.get("snapshots"):  # of which the last is the set itself
        counting.announce_rounds(max(1, sum(one["fraction"] > 0 for one in meta.get("snapshots", []))))
    folder = store.artifact(inputs["artifact"])
    check_header(folder / WEIGHTS, distilled, data.n_classes)
    tuned = load_file(store.artifact(inputs["rate"]) / WEIGHTS) if "rate" in inputs else None
    _rehearse_once(distilled, setting, setting.students)
    with timing.measure(setting.device) as measured:
        result = train_and_score(distilled, setting, tuned, identity.get("curve", ()))
    scores = result.scores
    costs = {role: store.meta(needed)["cost"] for role, needed in inputs.items()}
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
            diverged=scores.diverged,
            curve=result.curve,
            snapshots=_progress(folder, meta.get("snapshots", []), setting, tuned, scores.accuracies)
            if identity.get("snapshots")
            else None,
        ),
        training=result.training,
        storage=measure_storage(distilled, data, method["ipc"], setting.teacher, result.training.soft_labels),
        cost=_cost(costs, measured, setting.device, where),
        versions=where["versions"] | method_package(method["method"]),
    )


def _cost(
    spent: Mapping[str, Mapping[str, Any]],
    measured: timing.Measured,
    device: torch.device,
    where: Mapping[str, Any],
) -> Cost:
    """What the inputs had cost, by role, and the evaluation's own seconds and memory."""
    made, teacher, rate = spent["artifact"], spent.get("teacher"), spent.get("rate")
    peaks = {**made["peak_memory"], "evaluate": measured.peak_bytes}
    here = timing.device_name(device)
    main = made["device"] or here  # a set from elsewhere has no device of its own
    devices: dict[Phase, str] = {"prepare": made.get("prepared_on") or main, "evaluate": here}
    cold = [*made["cold"]]
    if teacher is not None:
        peaks["teacher"] = teacher["peak_memory"]["prepare"]
        devices["teacher"] = teacher["device"]
        cold += [] if teacher["warm"] else ["teacher"]
    if rate is not None:
        peaks |= rate["peak_memory"]
        devices["tune"] = rate["device"]
        cold += [] if rate["warm"] else ["tune"]
    return Cost(
        prepare_s=made["prepare_s"],
        prerequisites_s=made["prerequisites_s"],
        teacher_s=0.0 if teacher is None else teacher["prepare_s"],
        distill_s=made["distill_s"],
        bookkeeping_s=made["bookkeeping_s"],
        tune_s=0.0 if rate is None else rate["tune_s"],
        evaluate_s=measured.seconds,
        peak_memory_bytes=max(peaks.values()),
        peak_memory=peaks,
        device=main,
        devices={phase: name for phase, name in devices.items() if name != main},
        cpus=where["cpus"],
        gpus=where["gpus"],
        exclusive=where["exclusive"] and all(cost["exclusive"] for cost in spent.values()),
        warm=where["warm"],
        cold=cold if where["warm"] else [*cold, "evaluate"],
        operations=_operations(made, where.get("budget")),
    )


def _operations(made: Mapping[str, Any], budget: float | None) -> Operations | None:
    """What a set took; None where not all of it was counted, as in sets from elsewhere."""
    prepare, distill = made.get("prepare_operations"), made.get("distill_operations")
    if prepare is None or distill is None:
        return None
    return Operations(prepare=prepare, distill=distill, budget=budget)


def _progress(
    folder: Path,
    taken: list[dict[str, Any]],
    setting: EvaluationSetting,
    tuned: Tensors | None,
    end: list[float],
) -> list[Snapshot]:
    """Each snapshot scored as the set was, with the same students and rate: outside of `evaluate_s`.

    The set that the distillation started from is left out. `end`: what the set itself, the last, scored.
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
        if one["step"]
    ]


def tune_rate(
    store: Store, inputs: Mapping[str, str], identity: dict[str, Any], data: Dataset, where: dict[str, Any]
) -> tuple[dict[str, Tensor], timing.Measured]:
    """What the rates and soft labels of the protocol score on a hold-out of the training set; the costs."""
    distilled, setting = _load_setting(store, inputs, identity, data, where)
    _rehearse_once(distilled, setting, setting.students * max(1, len(setting.protocol.rates)))
    with timing.measure(setting.device) as measured:
        tensors = tune_on_holdout(distilled, setting, identity["fraction"])
    return tensors, measured


_rehearsed: set[tuple[object, ...]] = set()  # in this process


def _rehearse_once(distilled: DistilledDataset, setting: EvaluationSetting, students: int) -> None:
    """`rehearse` what this process has not done yet: such students, so many, on such a set."""
    protocol = setting.protocol.model_dump_json(exclude={"name", "version", "about"})
    key = (type(distilled), setting.data.fingerprint, setting.architecture.label, protocol, students)
    if key not in _rehearsed:
        with counting.counting(counting.WorkCounter()):  # it is no part of the job's progress
            rehearse(distilled, setting, students)
        _rehearsed.add(key)


def _load_setting(
    store: Store, inputs: Mapping[str, str], identity: dict[str, Any], data: Dataset, where: dict[str, Any]
) -> tuple[DistilledDataset, EvaluationSetting]:
    """What is stored, read from its file, and how it is to be examined."""
    setting = load_setting(store, inputs, identity, data, torch.device(where["device"]))
    return load_distilled(store.artifact(inputs["artifact"]) / WEIGHTS, setting.device), setting


def load_setting(
    store: Store, inputs: Mapping[str, str], identity: dict[str, Any], data: Dataset, device: torch.device
) -> EvaluationSetting:
    """How a set is to be examined, with the teacher that the evaluation needs."""
    return EvaluationSetting(
        data=data,
        architecture=parse_architecture(identity["architecture"]),
        protocol=Protocol(about="", **identity["protocol"]),
        students=identity["students"],
        seed=identity["seed"],
        device=device,
        teacher=load_file(store.artifact(inputs["teacher"]) / WEIGHTS) if "teacher" in inputs else None,
    )

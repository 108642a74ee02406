"""Records made by hand, for the tests of analysis and report."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.schema import Cost, Metrics, Record, Storage, StudentTraining, dump_record

COST = {
    "prepare_s": 0.0, "prerequisites_s": {}, "teacher_s": 0.0, "distill_s": 2.0, "bookkeeping_s": 0.0,
    "tune_s": 0.0, "evaluate_s": 3.0, "peak_memory_bytes": 2**20, "device": "cpu", "cold": [],
}  # fmt: skip


def make(
    method: str = "dm",
    ipc: int | None = 1,
    accuracies: tuple[float, ...] = (0.5,),
    *,
    floats: int = 640,
    within_budget: bool = True,
    exclusive: bool = True,
    hyperparameters: dict[str, Any] | None = None,
    cost: dict[str, Any] | None = None,
    **fields: Any,
) -> Record:
    """Make one record of a digits-like data set; keyword arguments replace any field."""
    storage = Storage(
        floats=floats, bytes=4 * floats, bytes_uint8=floats, ipc_equivalent=floats / 640,
        within_budget=within_budget, exempt=ipc is None, teacher_bytes=0,
    )  # fmt: skip
    whole = {**COST, **(cost or {}), "peak_memory": {}, "cpus": 1, "gpus": 0.0, "warm": True}
    values: dict[str, Any] = {
        "artifact": "a", "method": method, "method_version": 1, "hyperparameters": hyperparameters or {},
        "dataset": "digits", "dataset_fingerprint": "ab12cd34", "image_shape": (1, 8, 8), "n_classes": 10,
        "ipc": ipc, "distill_arch": "any" if method in ANY else "convnet", "eval_arch": "convnet",
        "protocol": "quick", "protocol_version": 1, "seed": 0, "accuracies": list(accuracies),
        "metrics": measured(len(accuracies)), "training": trained(), "storage": storage,
        "cost": Cost(**whole, exclusive=exclusive), "versions": {},
    } | fields  # fmt: skip
    key = "-".join(str(values[k]) for k in ("method", "dataset", "protocol", "ipc", "distill_arch"))
    return Record(key=f"{key}-{values['eval_arch']}-{values['seed']}", **values)


ANY = ("full", "random_real", "herding")
LEVEL = {"full": 0.95, "random_real": 0.45, "herding": 0.52, "dm": 0.60, "haba": 0.70}
SPENT = {"full": 0.0, "random_real": 0.0, "herding": 0.3, "dm": 20.0, "haba": 90.0}


def sweep(
    methods: tuple[str, ...] = ("full", "random_real", "herding", "dm"),
    archs: tuple[str, ...] = ("convnet", "mlp"),
    ipcs: tuple[int, ...] = (1, 10),
    seeds: int = 3,
    **fields: Any,
) -> list[Record]:
    """The records of a small sweep: every method at every ipc on every architecture, with seeded noise."""
    rng = np.random.default_rng(0)
    records = []
    for method in methods:
        for ipc in (None,) if method == "full" else ipcs:
            for arch in archs:
                for seed in range(seeds):
                    gain = 0.12 * math.log10(ipc or 1) - 0.06 * archs.index(arch)
                    drawn = np.clip(LEVEL[method] + gain + rng.normal(0, 0.03, size=2), 0, 1)
                    spent = SPENT[method] * (ipc or 1) ** 0.5 * (1 + 0.05 * seed)
                    given: dict[str, Any] = {
                        "floats": (ipc or 140) * 640 * (2 if method == "haba" else 1),
                        "within_budget": method != "haba",
                        "cost": {"distill_s": spent, "evaluate_s": 4.2, "peak_memory_bytes": 87 * 2**20},
                    }
                    given |= {"eval_arch": arch, "seed": seed} | fields
                    records.append(make(method, ipc, tuple(drawn.tolist()), **given))
    return records


def regime_records(
    means: dict[str, float],
    regimes: tuple[str, ...] = ("hard", "soft", "teacher"),
    spread: float = 0.004,
    **fields: Any,
) -> list[Record]:
    """Four seeds of each method under each regime."""
    return [
        make(
            method,
            accuracies=(mean + spread * (seed - 1.5),),
            seed=seed,
            protocol=f"short.{labels}",
            training=trained(labels=labels),
            **fields,
        )
        for method, mean in means.items()
        for labels in regimes
        for seed in range(4)
    ]


def measured(students: int = 1, **changes: Any) -> Metrics:
    """The metrics of a record, as even as its numbers allow; keyword arguments replace any field."""
    values: dict[str, Any] = {"class_accuracies": [[0.5] * 10] * students, "agreement": None, "diverged": 0}
    values |= {"calibration_errors": [0.1] * students, "curve": [], "snapshots": None}
    return Metrics.model_validate(values | changes)


def trained(labels: str = "stored", augment: str = "none", **changes: Any) -> StudentTraining:
    """How the students of a record were trained; keyword arguments replace any field."""
    values = {"steps": 100, "lr": 0.1, "lr_from": "protocol", "holdout_scores": None, "soft": False}
    values |= {"labels": labels, "augment": augment, "cutmix": 0.0, "preprocess": "normalise"}
    return StudentTraining.model_validate(values | changes)


def write(directory: Path, records: list[Record]) -> Path:
    (directory / "records").mkdir(parents=True)
    for record in records:
        (directory / "records" / f"{record.key}.json").write_text(dump_record(record))
    return directory

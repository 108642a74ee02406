"""What an estimate learns from result folders: only what was made on such a device, and is whole."""

import json
from pathlib import Path

import pytest
from helpers.record import make

from bench.execution.past_costs import Device, learn_costs
from bench.execution.store import Store
from bench.planning.estimate import Estimator
from bench.planning.graph import JOB_KINDS, Job, make_job
from bench.records.schema import dump_record

HERE: Device = ("cpu", 1, 0.0)
IDENTITY = {"dataset": "ab12cd34", "architecture": "convnet", "ipc": 1, "seed": 1}
DISTILL = make_job("distill", "d", {"method": "dm", "hyperparameters": {}, **IDENTITY}, {})


def learned(folder: Path, device: Device = HERE) -> float | None:
    """What a distillation is expected to cost after all in the folder."""
    costs = Estimator({DISTILL.key: DISTILL})
    learn_costs(
        costs, [Store(folder)], folder / "profile", {"ab12cd34": "digits"}, dict.fromkeys(JOB_KINDS, device)
    )
    return costs.seconds(DISTILL.key)


def publish(store: Store, job: Job, seconds: float, device: str = "cpu") -> None:
    cost = {f"{job.kind}_s": seconds, "device": device, "cpus": 1, "gpus": 0.0}
    meta = {"kind": job.kind, "identity": job.identity, "inputs": job.inputs, "cost": cost}
    store.publish(job.key, meta, lambda folder: None)


@pytest.mark.parametrize(
    ("device", "seconds"),
    [
        (HERE, 2.0),
        ((None, 1, 0.0), 2.0),
        (("H100", 1, 0.0), None),
        (("cpu", 2, 0.0), None),
        ((None, 1, 1.0), None),
    ],
)
def test_another_device_says_nothing(device: Device, seconds: float | None, tmp_path: Path) -> None:
    record = make(cost={"distill_s": 2.0})
    Store(tmp_path).records.mkdir()
    Store(tmp_path).record(record.key).write_text(dump_record(record))
    assert learned(tmp_path, device) == seconds


def test_artifacts_count_without_their_records_and_damaged_files_do_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = make_job(DISTILL.kind, "seed 2", {**DISTILL.identity, "seed": 2}, {})
    elsewhere = make_job(DISTILL.kind, "seed 3", {**DISTILL.identity, "seed": 3}, {})
    publish(store, DISTILL, 4.0)
    publish(store, other, 8.0)
    publish(store, elsewhere, 1000.0, "H100")
    store.records.mkdir()
    (store.records / "bad.json").write_text("{}")
    for name, text in (("a", "{"), ("b", "[]"), ("c", json.dumps({"device": "cpu", "cpus": 1, "gpus": 0.0}))):
        (tmp_path / "profile" / name).mkdir(parents=True)
        (tmp_path / "profile" / name / "profile.json").write_text(text)
    assert learned(tmp_path) == 6.0
    (store.artifact(other.key) / "meta.json").write_text("{}")
    assert learned(tmp_path) == 4.0

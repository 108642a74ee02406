"""What finished jobs cost: read from result folders and profiles."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.core import timing
from bench.core.io import read_json
from bench.execution.store import Store
from bench.planning.estimate import Estimator
from bench.planning.sweep import Resources
from bench.records.artifact import META
from bench.records.schema import load_record

Device = tuple[str | None, int, float]  # name (None: not known), cpus, gpus of a job


def device_of(needs: Resources) -> Device:
    """What the jobs run on, as far as this machine tells."""
    if needs.gpus and not torch.cuda.is_available():  # a cluster has them
        return None, needs.cpus, needs.gpus
    device = torch.device("cuda:0" if needs.gpus else "cpu")
    return timing.device_name(device), needs.cpus, needs.gpus


def learn_costs(
    costs: Estimator, stores: Iterable[Store], profiles: Path, labels: Mapping[str, str], device: Device
) -> None:
    """Let `costs` learn from what was made on such a device.

    Args:
        costs: the estimator of a plan.
        stores: result folders.
        profiles: the folder of `ddbench profile`.
        labels: of the data sets, by fingerprint.
        device: what the jobs run on.
    """

    def alike(found: Mapping[str, Any]) -> bool:
        name, cpus, gpus = device
        return (found.get("cpus"), found.get("gpus")) == (cpus, gpus) and name in (None, found.get("device"))

    for store in stores:
        for path in sorted(store.artifacts.glob(f"[!.]*/{META}")):
            # damaged: `run` names it; an estimate can do without
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                if alike((meta := store.meta(path.parent.name))["cost"]):
                    costs.learn_artifact(path.parent.name, meta)
        for path in sorted(store.records.glob("*.json")):
            with contextlib.suppress(ValueError):
                if alike(vars((record := load_record(path)).cost)):
                    costs.learn_record(record)
    for path in sorted(profiles.glob("*/profile.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            if alike(profile := read_json(path)):
                costs.learn_profile(profile, labels)

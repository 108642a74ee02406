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
from bench.planning.resources import Needs, Resources
from bench.records.artifact import META
from bench.records.schema import load_record

Device = tuple[str | None, int, float]  # name (None: not known), cpus, gpus of a job


def devices_of(resources: Resources) -> dict[str, Device]:
    """What the jobs of each kind run on, as far as this machine tells."""
    return {kind: _device_of(resources.of(kind)) for kind in resources.kinds()}


def _device_of(needs: Needs) -> Device:
    if needs.gpus and not torch.cuda.is_available():  # a cluster has them
        return None, needs.cpus, needs.gpus
    device = torch.device("cuda:0" if needs.gpus else "cpu")
    return timing.device_name(device), needs.cpus, needs.gpus


def learn_costs(
    costs: Estimator,
    stores: Iterable[Store],
    profiles: Path,
    labels: Mapping[str, str],
    devices: Mapping[str, Device],
) -> None:
    """Let `costs` learn from what was made on such devices.

    Args:
        costs: the estimator of a plan.
        stores: result folders.
        profiles: the folder of `ddbench profile`.
        labels: of the data sets, by fingerprint.
        devices: what the jobs of each kind run on.
    """

    def alike(found: Mapping[str, Any], kind: str) -> bool:
        name, cpus, gpus = devices[kind]
        return (found.get("cpus"), found.get("gpus")) == (cpus, gpus) and name in (None, found.get("device"))

    for store in stores:
        for path in sorted(store.artifacts.glob(f"[!.]*/{META}")):
            # damaged: `run` names it; an estimate can do without
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                if alike((meta := store.meta(path.parent.name))["cost"], meta["kind"]):
                    costs.learn_artifact(path.parent.name, meta)
        for path in sorted(store.records.glob("*.json")):
            with contextlib.suppress(ValueError):
                cost = (record := load_record(path)).cost
                scored_on = cost.devices.get("evaluate", cost.device)
                if alike(vars(cost) | {"device": scored_on}, "evaluate"):
                    # a record does not say what its distillation got, but where it was the same
                    costs.learn_record(record, distilled=not cost.devices and alike(vars(cost), "distill"))
    for path in sorted(profiles.glob("*/profile.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            if alike(profile := read_json(path), "distill"):
                costs.learn_profile(profile, labels)

"""Whether this machine has what jobs get."""

import os
import re

import torch

from bench.core.errors import UserError
from bench.planning.graph import JOB_KINDS
from bench.planning.resources import Resources


def check_resources(resources: Resources, on_cluster: bool = False) -> None:
    """On this machine only: a cluster says what it has when it is joined. Raises UserError."""
    if on_cluster:
        return
    cores = os.cpu_count() or 1
    for kind in JOB_KINDS:
        needs, own = resources.of(kind), getattr(resources, kind)
        of_cpus = "resources" if own.cpus is None else f"resources.{kind}"
        of_gpus = "resources" if own.gpus is None else f"resources.{kind}"
        if needs.cpus > cores:
            raise UserError(f"{of_cpus}.cpus: {needs.cpus} a job, but this machine has {cores}")
        if needs.gpus and not torch.cuda.is_available():
            wanted = f"{needs.gpus:g} a job"
            raise UserError(f"{of_gpus}.gpus: {wanted}, but torch finds no GPU here; use gpus: 0")
        if needs.accelerator and not _is_a(needs.accelerator, have := torch.cuda.get_device_name(0)):
            raise UserError(f"resources.accelerator: {needs.accelerator}, but this machine has {have}")


def _is_a(accelerator: str, device: str) -> bool:
    """Whether a GPU with this name is of this make: `H100` of `NVIDIA H100 80GB HBM3`."""
    names = device.replace(" ", "-").lower()
    return re.search(rf"(^|-){re.escape(accelerator.lower())}($|-)", names) is not None

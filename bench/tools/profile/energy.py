"""The energy that a GPU used, from its driver's counter (NVML; `pip install ddbench[energy]`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from bench.core import timing


@dataclass
class Energy:
    """The energy of a block, filled in when it ends; None if it cannot be measured."""

    joules: float | None = None


@contextmanager
def metered(device: torch.device) -> Iterator[Energy]:
    """Joules that the device used inside the block, other processes on it included."""
    used, before = Energy(), _millijoules(device)
    yield used
    after = _millijoules(device)
    if before is not None and after is not None:
        used.joules = (after - before) / 1000


def _millijoules(device: torch.device) -> int | None:
    """Since the driver was loaded; None for a CPU, without the package, and where the GPU does not count."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    timing.synchronize(device)
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except pynvml.NVMLError:  # no driver, or a GPU before Volta
        return None

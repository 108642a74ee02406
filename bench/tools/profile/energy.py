"""The energy that a GPU used, from its driver's counter (NVML; `pip install ddbench[energy]`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bench.core import timing


@dataclass
class Energy:
    """The energy of a block, filled in when it ends; None if it cannot be measured."""

    joules: float | None = None


@contextmanager
def metered(device: torch.device) -> Iterator[Energy]:
    """Joules that the device used inside the block, other processes on it included."""
    used, handle = Energy(), _handle(device)
    before = _millijoules(handle, device)
    yield used
    after = _millijoules(handle, device)
    if before is not None and after is not None:
        used.joules = (after - before) / 1000


def _handle(device: torch.device) -> Any:
    """NVML's name for the device; None for a CPU, without the package, and without a driver."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None


def _millijoules(handle: Any, device: torch.device) -> int | None:
    """Since the driver was loaded; None where the GPU does not count (before Volta)."""
    if handle is None:
        return None
    import pynvml

    timing.synchronize(device)
    try:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except pynvml.NVMLError:
        return None

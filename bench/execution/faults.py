"""What a job's failure means for its process: a device that fails from then on, or memory that was short."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from bench.core.errors import UserError, first_line
from bench.planning.graph import Job

FAULT_EXIT = 70  # of a worker whose device has failed
FAULT_NOTE = "A fault of the device, which fails whatever its process runs next: the process ends."
# CUDA keeps these errors: every later call of the process returns them again
STICKY = (
    "device-side assert",
    "an illegal memory access",
    "an illegal instruction",
    "misaligned address",
    "invalid program counter",
    "unspecified launch failure",
    "launch timed out",
    "hardware stack error",
    "uncorrectable ecc error",
    "gpu is lost",
)
ASKED = re.compile(r"Tried to allocate ([\d.]+) ([KMG])iB")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from or while handling."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def is_device_fault(error: BaseException, device: torch.device) -> bool:
    """Whether the device fails from now on: its error says so, or it does not answer."""
    told = (str(one).lower() for one in _chain(error) if isinstance(one, RuntimeError))
    if any(sticky in text for text in told for sticky in STICKY):
        return True
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def told_failure(error: BaseException, job: Job, gpus: float, device: torch.device) -> str:
    """A failure in a line; of memory that was short also what to lower."""
    short = next((one for one in _chain(error) if isinstance(one, torch.OutOfMemoryError)), None)
    if short is not None:
        return out_of_memory(short, job, gpus, device)
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{error}".splitlines()[0]


def out_of_memory(error: torch.OutOfMemoryError, job: Job, gpus: float, device: torch.device) -> str:
    """How much a job would have needed, as far as it came, and which of its sizes to lower."""
    factor, needs = 1.0, first_line(error).partition(". ")[0]
    if device.type == "cuda" and (asked := ASKED.search(str(error))):
        limit = torch.cuda.get_device_properties(device).total_memory * (gpus or 1)
        needed = torch.cuda.max_memory_allocated(device) + float(asked[1]) * UNITS[asked[2]]
        factor = max(1.0, needed / limit)
        needs = f"it needs at least {needed / 2**30:.1f} GiB of the {limit / 2**30:.1f} that it may use"
    sizes = batch_sizes(job.identity)
    fits = {name: math.floor(size / factor) for name, size in sizes.items()}
    lower = [
        f"{name} ({size}{f', of which about {fits[name]} may fit' if fits[name] < size else ''})"
        for name, size in sizes.items()
    ]
    ways = [f"lower {' or '.join(lower)}" if lower else "take a smaller network"]
    ways += [f"raise resources.gpus ({gpus:g})"] if 0 < gpus < 1 else []
    return f"out of memory: {needs}: {', or '.join(ways)}"


def batch_sizes(identity: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of batches and unrolls among what a job was asked for, by name."""
    found: dict[str, int] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            found |= batch_sizes(value)
        elif ("batch" in name or name in ("unroll", "window")) and type(value) is int and value > 1:
            found[name] = value
    return found

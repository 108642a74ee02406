"""Items tried one after the other: one that fails says so, and the others are tried all the same."""

import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from bench.core.errors import first_line
from bench.execution.faults import is_device_fault
from bench.tools.selftest.result import Item
from bench.tools.selftest.setting import Clock


class DeviceLost(RuntimeError):
    """The device fails from now on, so that nothing more can be tried."""


def guarded(
    name: str, item: Callable[[], Item], device: torch.device, clock: Clock, judged: bool = True
) -> Item:
    """An item, or a note of how it failed, or that there was no time for it.

    Args:
        name: of the item.
        item: makes it.
        device: that is tested.
        clock: of the part.
        judged: a failure is one of the device; else it says that something cannot be done here.

    Raises:
        DeviceLost: the device fails from now on.
    """
    if not clock.left:
        return Item(name, note="not tried, for want of time: --minutes")
    try:
        return item()
    except Exception as error:  # whatever a method raises: the other items are worth something without it
        told = f"{type(error).__name__}: {first_line(error)}"
        if is_device_fault(error, device):
            raise DeviceLost(f"{name}: {told}") from error
        return Item(name, passed=False if judged else None, note=f"{told} ({_where(error)})")


def _where(error: Exception) -> str:
    """The last line of our own code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if not {"site-packages", "selftest"} & set(Path(f.filename).parts)]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "here"

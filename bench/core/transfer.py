"""Copies between the host and the device: draws go there without a wait, and values come back with one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


_meta_as = "cuda"  # what torch's meta device stands for
_reads = True  # whether stand-ins may be had


def device_kind(device: torch.device) -> str:
    """The type of a device, "cpu" or "cuda"; of torch's meta device that of what it stands for."""
    return _meta_as if device.type == "meta" else device.type


@contextmanager
def meta_as(kind: str) -> Iterator[None]:
    """Inside, torch's meta device stands for a device of this type; outside for a GPU."""
    global _meta_as
    before, _meta_as = _meta_as, kind
    try:
        yield
    finally:
        _meta_as = before


@contextmanager
def no_reads() -> Iterator[None]:
    """Inside, tensors of torch's meta device cannot be read: nothing may wait for the device here."""
    global _reads
    before, _reads = _reads, False
    try:
        yield
    finally:
        _reads = before


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, where it is itself if it is there already.

    Nothing waits: what goes to a GPU is copied from pinned memory, after the work that it was given before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def net_to_device(net: Module, device: torch.device) -> Module:
    """A network that was built on the host, on the device; nothing waits, see `to_device`."""
    return net._apply(lambda tensor: to_device(tensor, device))  # type: ignore[no-untyped-call]  # in torch


def to_host(tensor: Tensor) -> Tensor:
    """The tensor on the host, where it is itself if it is there already; it waits for the device.

    Of a tensor that knows shapes only (torch's meta device), a stand-in with some numbers: what is chosen by
    them has the right shape.
    """
    if not tensor.is_meta or not _reads:
        return tensor.cpu()
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor.dtype)

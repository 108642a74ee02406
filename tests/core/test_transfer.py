"""Copies between the host and the device."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench.core.transfer import net_to_device, no_reads, to_device, to_host

CPU, GPU, META = (torch.device(kind) for kind in ("cpu", "cuda", "meta"))


def test_what_goes_to_a_gpu_is_pinned_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: done.append("pinned") or self)
    monkeypatch.setattr(Tensor, "to", lambda self, *args, **kwargs: done.append((args, kwargs)) or self)
    to_device(torch.ones(2), GPU)
    assert done == ["pinned", ((GPU,), {"non_blocking": True})]


def test_on_its_own_device_a_tensor_is_itself() -> None:
    x, net = torch.ones(2), nn.BatchNorm1d(2)
    weight = net.weight
    assert to_device(x, CPU) is x
    assert to_host(x) is x
    assert net_to_device(net, CPU).weight is weight


def test_weights_and_statistics_of_a_network_go_along() -> None:
    net = net_to_device(nn.BatchNorm1d(2), META)
    assert all(t.is_meta for t in net.state_dict().values())
    assert [p.requires_grad for p in net.parameters()] == [True, True]


def test_what_has_no_numbers_is_read_as_a_stand_in_unless_nothing_may_be_read() -> None:
    floats, whole = (torch.zeros(2, 3, dtype=dtype, device=META) for dtype in (torch.float64, torch.int64))
    assert to_host(floats).shape == (2, 3)
    assert to_host(floats).dtype == torch.float64
    assert torch.equal(to_host(floats), to_host(floats))
    assert to_host(floats).unique().numel() == 6
    assert torch.equal(to_host(whole), torch.zeros(2, 3, dtype=torch.int64))
    with no_reads(), pytest.raises(NotImplementedError):
        to_host(floats)


def test_nothing_else_copies_without_a_wait() -> None:
    """A copy that does not wait needs pinned memory, which `to_device` sees to."""
    root = Path(bench.__file__).parents[1]
    files = [path for room in ("bench", "methods") for path in (root / room).rglob("*.py")]
    named = {str(path.relative_to(root)) for path in files if re.search("non_blocking=", path.read_text())}
    assert named == {"bench/core/transfer.py"}

"""What a piece of code makes PyTorch do: the operations that it runs, and the memory of their results."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.core import random, timing


class OperationCounter(TorchDispatchMode):
    """The most bytes of tensors alive at once, of those made while it watches; and the operations run.

    `flops` are those of convolutions and matrix products, a multiply-add is two, by PyTorch's own formulae.
    Its FlopCounterMode hooks modules too, and fails where `autograd.grad` asks for gradients inside of them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self.flops, self.operations = 0, 0, set[str]()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.add(func.name())
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                reference = StorageWeakRef(x.untyped_storage())
                self._alive[reference.cdata] = (reference, x.untyped_storage().nbytes())
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


@dataclass
class OperationCost:
    """Operations of convolutions and matrix products (a multiply-add is two), and the growth of memory."""

    flops: int = 0
    peak_bytes: int = 0


@contextmanager
def count_operations(cost: OperationCost, device: torch.device) -> Iterator[None]:
    """Fill in the cost of what runs inside, backward passes of any order included.

    Memory is that of the tensors made inside, at its highest; on a GPU what its allocator gave out.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with OperationCounter() as watch:
        yield
    cost.flops = watch.flops
    cost.peak_bytes = torch.cuda.max_memory_allocated(device) - before if on_gpu else watch.peak


class StepClock:
    """Runs only inside of `running()`: a benchmark that reads it sees a step, and not what leads up to it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds, self._device = 0.0, device

    @contextmanager
    def running(self) -> Iterator[None]:
        timing.synchronize(self._device)
        start = time.perf_counter()
        yield
        timing.synchronize(self._device)
        self.seconds += time.perf_counter() - start


def matrix_rate(device: torch.device, tries: int = 10) -> float:
    """FLOP/s of the best of `tries` large float32 matrix products, with the same device and threads."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, generator=random.generator(0, side)).to(device) for side in "ab")
    a @ b
    best = float("inf")
    for _ in range(tries):
        clock = StepClock(device)
        with clock.running():
            a @ b
        best = min(best, clock.seconds)
    return 2 * n**3 / best

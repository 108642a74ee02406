"""How much PyTorch computes in a piece of code, and how fast it multiplies matrices here."""

import time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.core import random, timing


class OperationCounter(TorchDispatchMode):
    """Floating-point operations of convolutions and matrix products, by PyTorch's own formulae.

    A multiply-add is two; backward passes of any order are counted. PyTorch's FlopCounterMode hooks modules
    too, and fails where `autograd.grad` asks for gradients inside of them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def matrix_rate(device: torch.device, tries: int = 10) -> float:
    """FLOP/s of the best of `tries` large float32 matrix products, with the same device and threads."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, generator=random.generator(0, side)).to(device) for side in "ab")

    def once() -> float:
        timing.synchronize(device)
        start = time.perf_counter()
        a @ b
        timing.synchronize(device)
        return time.perf_counter() - start

    once()  # to warm up
    return 2 * n**3 / min(once() for _ in range(tries))

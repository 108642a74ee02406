"""How fast PyTorch multiplies matrices here."""

import time

import torch

from bench.core import random, timing


def matrix_rate(device: torch.device, tries: int = 10, dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of the best of `tries` large products of such matrices, with the same device and threads."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, generator=random.generator(0, side)).to(device, dtype) for side in "ab")

    def once() -> float:
        timing.synchronize(device)
        start = time.perf_counter()
        a @ b
        timing.synchronize(device)
        return time.perf_counter() - start

    once()  # to warm up
    return 2 * n**3 / min(once() for _ in range(tries))

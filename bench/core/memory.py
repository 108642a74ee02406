"""How a process gets its memory from the system, which decides how fast a CPU makes large tensors."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 32 * 2**20  # bytes: the most that glibc takes for M_MMAP_THRESHOLD
KEPT = 256 * 2**20


def reuse_memory() -> None:
    """Let freed memory be used again instead of given back, and large tensors come in large pages.

    By default each tensor of some megabytes is mapped anew, and the first touch of every 4 KiB of it goes
    through the system, which took longer than the arithmetic on it: a training step on 256 images with
    ConvNet-3 of width 128 takes half the time with this. It changes no number. Only where glibc is.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first tensor
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)

"""A limit on the memory that a test may take beyond what it has: what takes more fails, and is seen."""

import contextlib
import resource
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def limited(more: int = 2**29) -> Iterator[None]:
    """At most so many bytes of address space more, inside."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

"""What the names in an identity stand for: part of keys."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.core.augment import cutmix, dsa
from bench.core.batches import leaves_one
from bench.core.errors import UserError
from bench.core.networks.architecture import Architecture
from bench.records.schema import ANY_ARCHITECTURE

# hyper-parameters that say how many images of a shuffled set a step takes; also those that end in "_batch"
BATCHES = ("batch_size", "batch_synthetic")


def resolved(
    identity: Mapping[str, Any], architecture: Architecture, sizes: Iterable[int] = ()
) -> dict[str, Any]:
    """`identity` with what its names stand for: a default or constant that changes in the code moves keys.

    These are the architecture's parameters, where the job has one, the constants of the augmentations and of
    CutMix, and how an epoch ends whose batches leave one image over.

    Args:
        identity: of a job.
        architecture: its network, if it has one.
        sizes: of the sets that it may train networks on, as far as a plan knows them.
    """
    found: dict[str, Any] = {}
    if identity["architecture"] != ANY_ARCHITECTURE:
        found["architecture"] = architecture.resolved()
    values = list(_values(identity))
    for strategy in sorted({v for name, v in values if name.endswith("augment") and isinstance(v, str)}):
        with contextlib.suppress(UserError):  # a method from elsewhere may name operations of its own
            found |= {"augment": found.get("augment", {}) | dsa.constants(strategy)}
    if any(v for name, v in values if name == "cutmix"):
        found["cutmix"] = cutmix.CONSTANTS
    batches = [v for name, v in values if name in BATCHES or name.endswith("_batch")]
    if any(leaves_one(n, batch) for n in sizes for batch in batches):
        found["leftover"] = "joins the batch before it"
    return {**identity, "resolved": found}


def _values(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Hyper-parameters and what recipes inside them hold, by name: `augment`, `net_batch` and the like."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _values(value)
        else:
            yield name, value

"""What every comparison uses: float64, and a note of what was found."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.parity import Compare, relative


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def compare(record_property: Callable[[str, Any], None]) -> Compare:
    """`compare(method, what, ours, theirs, allowed)`: fails above the largest relative difference allowed."""

    def check(method: str, what: str, ours: Any, theirs: Any, allowed: float = 1e-12) -> None:
        found = relative(ours, theirs)
        record_property("parity", (method, what, torch.as_tensor(theirs).numel(), found, allowed))
        assert found <= allowed, f"{method}: {what} is off by {found:.1e}, and {allowed:.0e} are allowed"

    return check

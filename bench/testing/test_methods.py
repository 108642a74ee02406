"""The contract of the methods that other packages and files bring: `pytest --pyargs bench.testing`.

DDBENCH_CHECK="mine yours" names others. Numbers of steps are cut to 2, so that it takes seconds.
"""

import dataclasses
import os

import pytest

from bench.core.registry import method_class, method_names, own_method_names
from bench.testing.contract import check_method

_NAMED = os.environ.get("DDBENCH_CHECK", "").split()
METHODS = _NAMED or sorted(set(method_names()) - set(own_method_names()))
_STEPS = ("steps", "iterations", "inner_steps")


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str) -> None:
    """See `bench.testing.contract.check_method`."""
    takes = {field.name for field in dataclasses.fields(method_class(name))}
    check_method(name, **{step: 2 for step in _STEPS if step in takes})

"""The operations of every method: what a few of its steps say is what all of them take."""

import dataclasses

import pytest
from helpers.method import small

from bench.core.loop import Loop
from bench.core.operations import JobOperations, OperationCounter
from bench.core.registry import method_names
from bench.planning.estimate import repetition
from bench.testing.contract import tiny_problem

# windows at random places, of which 16 steps give a mean only
LOOPS = {"rat_bptt": {"unroll": 2}}


@pytest.mark.parametrize("name", sorted(method_names()))
def test_a_few_steps_tell_the_operations_of_all(name: str) -> None:
    method = small(name, **LOOPS.get(name, {}))
    problem = tiny_problem(method)
    with OperationCounter() as whole:
        method.distill(problem)
    for cut in (False, True):
        found = JobOperations(*repetition(vars(method)), cut=cut)
        with found.running():
            method.distill(dataclasses.replace(problem, loop=Loop(operations=found)))
        assert found.sum == pytest.approx(whole.flops, rel=1e-9)

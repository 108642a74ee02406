"""Tables say where methods share one bank of experts."""

import dataclasses
from typing import Any

import pytest
from helpers.record import make

from bench.core.registry import method_class, method_names
from bench.records.columns import record_frame
from bench.reporting.sections import Section
from bench.reporting.tables.experts import SHARED_BANK, uses_experts, with_expert_note
from bench.reporting.tables.table import Comparison, TableCell, TableColumn
from methods.blocks.experts import ExpertEpoch

COMPOSITIONS: list[tuple[str, dict[str, Any]]] = [
    ("compose", {"objective": "trajectory_matching"}),
    ("compose", {"objective": "gradient_matching", "pool": "experts"}),
    ("compose", {"objective": "gradient_matching", "pool": "fresh"}),
    ("idc", {"pool": 20}),
]


@pytest.mark.parametrize(
    ("name", "values"), [*((name, {}) for name in sorted(method_names())), *COMPOSITIONS], ids=str
)
def test_the_names_are_those_of_the_methods_that_require_experts(name: str, values: dict[str, Any]) -> None:
    method = method_class(name)(**values)
    required = any(isinstance(block, ExpertEpoch) for block in method.requires().values())
    assert uses_experts(name, dataclasses.asdict(method)) == required


def noted(*methods: str, **hyperparameters: Any) -> list[list[str]]:
    """The notes of a table for each method."""
    records = [make(name, 1, (0.5,), hyperparameters=hyperparameters) for name in methods]
    tables = [
        Comparison(name, [TableColumn("method")], [[[TableCell(f"{name} ‡")]]], ["as before"])
        for name in methods
    ]
    section = with_expert_note(Section("x", comparisons=tables), record_frame(records))
    return [table.notes for table in section.comparisons]


def test_a_table_with_such_a_method_has_the_note() -> None:
    assert noted("mtt", "dm") == [["as before", SHARED_BANK.format(methods="mtt")], ["as before"]]


def test_a_bank_per_seed_needs_no_note() -> None:
    assert noted("mtt", experts_per_seed=True) == [["as before"]]

"""A budget as people write it, and operations as people read them."""

from pathlib import Path
from typing import Any

import pytest
from helpers.cli import sweep_file

from bench.core.errors import UserError
from bench.core.words import flop
from bench.planning.budget import parse_flop
from bench.planning.sweep import load_sweep


@pytest.mark.parametrize(
    ("written", "operations"),
    [
        ("200 TFLOP", 2e14),
        ("200TFLOP", 2e14),
        (" 1.5 PFLOPs ", 1.5e15),
        ("1e3 FLOP", 1000.0),
        ("1_000 KFLOP", 1e6),
        (5_000_000, 5e6),
        (2e12, 2e12),
    ],
)
def test_operations_are_numbers_with_a_unit(written: Any, operations: float) -> None:
    assert parse_flop(written) == operations


@pytest.mark.parametrize(
    "written",
    [
        "200",
        "200 TFLOPS",
        "200 TFLOP/s",
        "-1 TFLOP",
        "0 FLOP",
        "3 XFLOP",
        "nan FLOP",
        "1e999 FLOP",
        "TFLOP",
        "",
        "9" * 5000 + " FLOP",
        *(0, -5, 0.5, float("inf"), float("nan"), True, None, [1], {"seconds": 3}),
    ],
)
def test_what_is_no_number_of_operations_is_refused(written: Any) -> None:
    with pytest.raises(UserError, match=r"operations like 200 TFLOP") as error:
        parse_flop(written)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"compute": "fast"}, "budget.compute: operations like 200 TFLOP"),
        ({"compute": "1e31 FLOP"}, "budget.compute: "),
        ({"seconds": 5}, "seconds"),
        ({}, "budget.compute: is missing"),
        (5, "budget"),
    ],
)
def test_a_bad_budget_is_one_fault_of_the_file(budget: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_sweep(sweep_file(tmp_path, budget=budget))
    assert said in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        (0, "0 FLOP"),
        (1, "1 FLOP"),
        (999.4, "999 FLOP"),
        (999.6, "1 KFLOP"),
        (12_345_678_901, "12.3 GFLOP"),
        (2e14, "200 TFLOP"),
        (1e30, "1e+09 ZFLOP"),
    ],
)
def test_operations_have_three_digits(operations: float, text: str) -> None:
    assert flop(operations) == text

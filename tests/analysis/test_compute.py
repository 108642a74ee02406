"""Accuracy against operations: what a set took, what fits a budget, and performance profiles."""

import math
from typing import Any

import pandas as pd
import pytest
from helpers.record import make, measured

from bench.analysis.aggregate import summary_frame
from bench.analysis.compute import cell_operations, compute_course, profiles, within_compute
from bench.records.columns import record_frame
from bench.records.schema import Record, Snapshot


def took(method: str, prepare: float, distill: float, accuracy: float, **fields: Any) -> Record:
    """A set with its operations; `on the way`: accuracies at these fractions of its ten steps."""
    way = fields.pop("way", {})
    taken = [
        Snapshot(fraction=f, step=round(10 * f), seconds=0.0, accuracies=[a])
        for f, a in {**way, 1.0: accuracy}.items()
    ]
    cost = {"operations": {"prepare": prepare, "distill": distill, "budget": fields.pop("budget", None)}}
    metrics = measured(snapshots=taken if way else None)
    return make(method, accuracies=(accuracy,), cost=cost, metrics=metrics, **fields)


def frame(*records: Record) -> pd.DataFrame:
    return record_frame(list(records))


def test_operations_of_a_cell_are_means_over_its_seeds_and_none_where_one_is_missing() -> None:
    flat = frame(
        took("dm", 1e9, 2e9, 0.5),
        took("dm", 1e9, 4e9, 0.5, seed=1),
        took("mtt", 1e9, 2e9, 0.5),
        make("mtt", seed=1),
    )
    found = cell_operations(flat).set_index("method")
    assert found.loc["dm", ["operations", "prepare_operations"]].tolist() == [4e9, 1e9]
    assert math.isnan(found.loc["mtt", "operations"])


def test_what_takes_more_than_the_budget_does_not_compete() -> None:
    flat = frame(
        *(took("dm", 0, 10, 0.5 + s / 100, seed=s) for s in range(3)),
        *(took("mtt", 6, 5, 0.9 + s / 100, seed=s) for s in range(3)),
        *(took("haba", 0, 1, 0.9 + s / 100, seed=s, within_budget=False) for s in range(3)),
        *(make("rtp", accuracies=(0.9,), seed=s) for s in range(3)),
        *(took("random_real", 0, 0, 0.1 + s / 100, seed=s) for s in range(3)),
    )
    ranked = within_compute(summary_frame(flat), cell_operations(flat), 10).set_index("method")
    assert ranked["competes"].to_dict() == {
        "dm": True,
        "mtt": False,
        "haba": False,
        "rtp": False,
        "random_real": True,
    }
    assert ranked["rank"].dropna().to_dict() == {"dm": 1, "random_real": 2}
    assert not ranked.loc["haba", "within_budget"]
    assert ranked.loc["mtt", "within_budget"]


def test_a_snapshot_took_its_part_of_the_distillation_and_all_prerequisites() -> None:
    course = compute_course(
        frame(
            took("dm", 100, 50, 0.8, way={0.1: 0.5, 0.5: 0.7}),
            took("herding", 30, 2, 0.6),
            make("rtp"),  # not counted
        )
    )
    points = {
        name: list(zip(rows["operations"], rows["accuracy_mean"], strict=True))
        for name, rows in course.groupby("method")
    }
    assert points == {"dm": [(105, 0.5), (125, 0.7), (150, 0.8)], "herding": [(32, 0.6)]}
    assert compute_course(frame(make("rtp"))).empty


def share(profile: pd.DataFrame, method: str, operations: float) -> float:
    rows = profile[(profile["method"] == method) & (profile["operations"] <= operations)]
    return float(rows["share"].iloc[-1]) if len(rows) else 0.0


def test_a_profile_is_the_mean_share_of_cells_near_the_best() -> None:
    """Against the definition: for each x from 0 to 0.05, the share of cells within x of the best."""
    records = [
        took("dm", 0, 100, 0.80, way={0.1: 0.76, 0.5: 0.81}),
        took("dm", 0, 200, 0.90, ipc=10, way={0.5: 0.87}),
        took("herding", 20, 0, 0.79),
        took("herding", 20, 0, 0.84, ipc=10),
    ]
    profile = profiles(compute_course(frame(*records)))
    xs = [(i + 0.5) / 1000 * 0.05 for i in range(1000)]

    def direct(method: str, operations: float) -> float:
        near = 0.0
        for ipc, best in ((1, 0.81), (10, 0.90)):
            points = [
                (r.cost.operations.prepare + r.cost.operations.distill * one.fraction, one.accuracies[0])
                for r in records
                if (r.method, r.ipc) == (method, ipc) and r.cost.operations
                for one in r.metrics.snapshots
                or [Snapshot(fraction=1, step=1, seconds=0, accuracies=r.accuracies)]
            ]
            reached = [accuracy for spent, accuracy in points if spent <= operations]
            near += sum(best - reached[-1] <= x for x in xs) / len(xs) if reached else 0.0
        return near / 2

    for method in ("dm", "herding"):
        for operations in (5, 10, 20, 50, 99, 100, 150, 200, 1e6):
            assert share(profile, method, operations) == pytest.approx(direct(method, operations), abs=2e-3)


def test_profiles_leave_out_what_does_not_compete() -> None:
    whole = {"ipc": None, "floats": 1000}
    course = compute_course(frame(took("dm", 0, 9, 0.5), took("haba", 0, 9, 0.9, within_budget=False)))
    assert profiles(course).empty
    course = compute_course(
        frame(took("dm", 0, 9, 0.5), took("mtt", 0, 9, 0.4), took("full", 0, 0, 0.99, **whole))
    )
    found = profiles(course)
    assert set(found["method"]) == {"dm", "mtt"}
    assert share(found, "dm", 9) == 1.0


def test_a_method_of_two_distillation_architectures_counts_once() -> None:
    both = [took("dm", 0, 9, 0.5, distill_arch=arch) for arch in ("convnet", "mlp")]
    found = profiles(compute_course(frame(*both, took("mtt", 0, 9, 0.5))))
    assert found["share"].tolist() == [1.0, 1.0]

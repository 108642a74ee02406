"""The table of equal compute, and the plots of accuracy against operations."""

from pathlib import Path
from typing import Any

import pytest
from helpers.record import make, measured, write

from bench.records.columns import record_frame
from bench.records.schema import Record, Snapshot
from bench.reporting.build import build_report, make_sections
from bench.reporting.plots.compute import compute_section, profile_section
from bench.reporting.plots.pareto import RING
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.equal_compute import equal_compute_section

G = 1e9


def took(
    method: str, prepare: float, distill: float, level: float, budget: float | None = 10 * G, **fields: Any
) -> list[Record]:
    """Three seeds of a method that took so many operations; with `way` a snapshot at half of its steps."""
    cost = {"operations": {"prepare": prepare, "distill": distill, "budget": budget}}
    found, way = [], fields.pop("way", None)
    for seed, off in enumerate((-0.01, 0.0, 0.01)):
        half = [Snapshot(fraction=0.5, step=5, seconds=1, accuracies=[way + off])] if way else []
        last = Snapshot(fraction=1, step=10, seconds=1, accuracies=[level + off])
        metrics = measured(snapshots=[*half, last] if way else None)
        given: dict[str, Any] = {"seed": seed, "cost": cost, "metrics": metrics} | fields
        found.append(make(method, accuracies=(level + off,), **given))
    return found


def view(*records: list[Record]) -> RecordsView:
    return RecordsView(record_frame([one for some in records for one in some]), ())


def shown(section: Section | None) -> Section:
    assert section is not None
    return section


def cells(section: Section, table: int = 0) -> list[list[str]]:
    return [[cell.text for cell in row] for group in section.comparisons[table].groups for row in group]


def test_what_fits_is_ranked_and_the_rest_is_named() -> None:
    section = shown(
        equal_compute_section(
            view(
                took("dm", 0, 9.99 * G, 0.7),
                took("random_real", 0, 0, 0.5),
                took("herding", 12.5 * G, 0, 0.9),
                took("haba", 0, G, 0.9, within_budget=False),
                [make("rtp", accuracies=(0.9,), seed=s) for s in range(3)],
            )
        )
    )
    (table,) = section.comparisons
    assert table.title == "Equal compute, 10 GFLOP: digits, protocol quick, distilled on convnet"
    assert [column.header for column in table.columns][-3:] == [
        "operations",
        "of these, prepare",
        "stored ipc",
    ]
    assert [[row[1], row[2], *row[-3:]] for row in cells(section)] == [
        ["1", "dm", "9.99 GFLOP", "0 FLOP", "1"],
        ["2", "random_real", "0 FLOP", "0 FLOP", "1"],
    ]
    assert table.notes[-2:] == [
        "Left out, with its operations: herding (12.5 GFLOP at ipc 1).",
        "Left out, not counted: rtp.",
    ]
    assert section.frame is not None
    assert section.frame["compute_budget"].tolist() == [10 * G] * 2


def test_every_budget_has_its_table() -> None:
    section = shown(
        equal_compute_section(
            view(
                took("dm", 0, 9 * G, 0.7, hyperparameters={"steps": 9}),
                took("mtt", 0, 9 * G, 0.6, hyperparameters={"steps": 9}),
                took("dm", 0, 90 * G, 0.8, budget=100 * G, hyperparameters={"steps": 90}, artifact="b"),
                took("mtt", 50 * G, 40 * G, 0.9, budget=100 * G, hyperparameters={"steps": 90}, artifact="b"),
            )
        )
    )
    assert [table.title[:24] for table in section.comparisons] == [
        "Equal compute, 10 GFLOP:",
        "Equal compute, 100 GFLOP",
    ]
    assert [row[2] for row in cells(section, 1)][:2] == ["mtt[steps=90]", "dm[steps=90]"]


@pytest.mark.parametrize(
    "records",
    [
        [took("dm", 0, G, 0.7, budget=None), took("mtt", 0, G, 0.7, budget=None)],
        [took("dm", 0, G, 0.7), took("mtt", 0, 11 * G, 0.7)],
        [[make("dm"), make("mtt")]],
    ],
)
def test_without_a_budget_or_a_rival_there_is_no_table(records: list[list[Record]]) -> None:
    assert equal_compute_section(view(*records)) is None


def test_the_plot_has_sets_on_the_way_and_their_front() -> None:
    seen = view(
        took("dm", 0, 8 * G, 0.7, way=0.6), took("mtt", 2 * G, G, 0.65), took("random_real", 0, 0, 0.5)
    )
    figure = shown(compute_section(seen)).plots["accuracy_vs_operations"]()
    (axes,) = figure.axes
    rings = next(line for line in axes.lines if line.get_markersize() == RING["markersize"])
    assert list(map(float, rings.get_xdata())) == [3.0, 8.0]  # GFLOP; dm at half of its steps is dominated
    assert [round(float(y)) for y in rings.get_ydata()] == [65, 70]
    assert "GFLOP" in figure.get_supxlabel()
    assert "In the grey strip: no operations." in figure.get_supxlabel()


def test_profiles_begin_where_a_method_has_its_first_set() -> None:
    seen = view(took("dm", 0, 8 * G, 0.7, way=0.66), took("random_real", 0, 0, 0.68))
    section = shown(profile_section(seen))
    (axes,) = section.plots["performance_profiles"]().axes
    lines = {len(line.get_xdata()): line for line in axes.lines if line.get_marker() in ("None", "")}
    assert [round(float(y)) for y in lines[4].get_ydata()] == [0, 20, 100, 100]  # dm: two sets
    assert [float(x) for x in lines[4].get_xdata()[:3]] == [4.0, 4.0, 8.0]
    assert [round(float(y)) for y in lines[3].get_ydata()] == [0, 60, 60]


def test_a_report_has_the_files_and_older_records_have_none(tmp_path: Path) -> None:
    records = [*took("dm", 0, 8 * G, 0.7, way=0.66), *took("random_real", 0, 0, 0.68)]
    report = build_report(write(tmp_path / "new", records))
    names = {path.name for path in report.written}
    assert {"equal_compute.md", "compute.csv", "performance_profiles.csv"} <= names
    assert {"accuracy_vs_operations.svg", "performance_profiles.png"} <= names
    old = make_sections(view([make("dm"), make("random_real")]))
    assert not {"equal_compute", "compute", "performance_profiles"} & {section.stem for section in old}

"""Tables and diagrams over cells, at equal storage, and of compositions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from helpers.record import make
from matplotlib import rc_context

from bench.analysis.comparison import cliques
from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.reporting.plots import critical_difference
from bench.reporting.plots.style import PLOT_STYLE, method_looks
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables import composition, equal_storage, standings
from bench.reporting.tables.table import Comparison


def view(records: list[Record]) -> RecordsView:
    return RecordsView(record_frame(records), ())


def seeds(method: str, values: Sequence[float], ipc: int = 1, **fields: Any) -> list[Record]:
    return [make(method, ipc, (value,), seed=seed, **fields) for seed, value in enumerate(values)]


def shown(section: Section | None) -> Section:
    assert section is not None
    return section


def lines(table: Comparison) -> list[list[str]]:
    return [[cell.text for cell in row] for group in table.groups for row in group]


def bold(table: Comparison) -> list[str]:
    return [cell.text for group in table.groups for row in group for cell in row if cell.bold]


# --- over cells ---------------------------------------------------------------------------------------------

THREE = [0.59, 0.60, 0.61]
TWO = [
    *seeds("a", THREE), *seeds("b", [x - 0.1 for x in THREE]), *seeds("haba", [0.9] * 3, within_budget=False),
    *seeds("a", THREE, 2), *seeds("b", [x - 0.1 for x in THREE], 2), *seeds("haba", [0.9] * 3, 2),
]  # fmt: skip


def test_standings() -> None:
    section = shown(standings.standings_section(view(TWO)))
    (table,) = section.comparisons
    assert table.title == "Over data sets and ipcs: digits, protocol quick"
    assert lines(table) == [
        ["haba ‡", "90.0", "—", "—", "2"],  # over budget in one of its cells: shown, not ranked
        ["a", "60.0 [58.9, 61.1]", "1", "1.00", "2"],
        ["b", "50.0 [48.9, 51.1]", "2", "2.00", "2"],
    ]
    assert bold(table) == ["60.0 [58.9, 61.1]"]
    assert "over 2 units (data set and ipc)" in table.notes[0]
    assert "the 2 of 2 cells that all methods compared here have" in table.notes[0]
    assert section.frame is not None
    assert section.frame["mean"].tolist() == pytest.approx([0.9, 0.6, 0.5])


def test_pairs_have_no_p_below_six_units_and_say_so() -> None:
    (table,) = shown(standings.pairs_section(view(TWO))).comparisons
    assert [column.header for column in table.columns] == ["first", "second", "units", "difference"]
    assert lines(table) == [["a", "b", "2", "+10.0 [8.7, 11.3]"]]
    assert any(note.startswith("No p-value below 6 units") for note in table.notes)
    many = [r for i in range(1, 11) for m, x in (("a", 0.5), ("b", 0.4)) for r in seeds(m, [x + 0.01 * i], i)]
    (table,) = shown(standings.pairs_section(view(many))).comparisons
    assert bold(table) == ["0.002"]  # 2 / 2^10
    assert not any("No p-value" in note for note in table.notes)


def test_only_the_best_are_paired_and_one_is_not() -> None:
    records = [r for i in range(standings.MOST_PAIRED + 2) for r in seeds(f"m{i:02}", [0.1 + 0.01 * i])]
    section = shown(standings.pairs_section(view(records)))
    assert section.frame is not None
    assert len(section.frame) == standings.MOST_PAIRED * (standings.MOST_PAIRED - 1) // 2
    assert "m00" not in set(section.frame["second"])
    assert section.comparisons[0].notes[-1].endswith("; 2 more are left out.")
    assert standings.pairs_section(view([*seeds("a", [0.5]), make("full", None)])) is None
    over = seeds("haba", [0.9], within_budget=False)
    assert standings.pairs_section(view([*seeds("a", [0.5]), *over])) is None
    assert standings.standings_section(view(records)) is None  # one cell: the summary says it


def test_protocols_are_apart_and_data_sets_together() -> None:
    records = [
        r
        for d in ("x", "y", "z")
        for i in (1, 10)
        for p in ("p", "q")
        for m in "abc"
        for r in seeds(m, [0.5], i, dataset=d, protocol=p)
    ]
    tables = shown(standings.standings_section(view(records))).comparisons
    assert [table.title for table in tables] == [
        "Over data sets and ipcs: x, y, z, protocol p",
        "Over data sets and ipcs: x, y, z, protocol q",
    ]
    assert any("different data sets" in note for note in tables[0].notes)
    assert [d.protocol for d in critical_difference.diagrams(view(records))] == ["p", "q"]


# --- the diagram --------------------------------------------------------------------------------------------


def test_diagram_bars_and_average_ranks() -> None:
    """Twelve units: a and b take turns, c is always last: p = 2 / 2^12, and of a and b no difference."""
    turns = {"a": (0.80, 0.81), "b": (0.81, 0.80), "c": (0.40, 0.41)}
    records = [
        r for i in range(12) for m, x in turns.items() for r in seeds(m, [x[i % 2] + 0.001 * i], i + 1)
    ]  # fmt: skip
    records += [r for i in range(12) for r in seeds("haba", [0.9], i + 1, within_budget=False)]
    (diagram,) = critical_difference.diagrams(view(records))
    assert diagram.ranks.to_dict() == {"a": 1.5, "b": 1.5, "c": 3.0}  # as if haba were not there
    assert diagram.bars == [(0, 1)]
    section = shown(critical_difference.critical_difference_section(view(records)))
    assert list(section.plots) == ["critical_difference_quick"]
    assert section.frame is not None
    assert section.frame["n_units"].tolist() == [12] * 3


def test_names_of_the_diagram_stay_inside() -> None:
    records = [
        r for m in range(15) for i in range(6) for r in seeds(f"a_long_name[steps={m}]", [0.1 + m / 50], i)
    ]
    (found,) = critical_difference.diagrams(view(records))
    with rc_context(PLOT_STYLE):
        figure = critical_difference.draw_diagram(found, method_looks(view(records).summary))
        figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 15
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    left = sorted((box for box in boxes if box.x1 < figure.bbox.x1 / 2), key=lambda box: -box.y0)
    assert all(above.y0 >= below.y1 for above, below in pairwise(left))


def test_too_little_for_a_diagram() -> None:
    few = [r for m in "abc" for i in range(5) for r in seeds(m, [0.5], i)]
    assert critical_difference.critical_difference_section(view(few)) is None  # five units: no test
    assert cliques([], pd.DataFrame(columns=["first", "second", "p_holm"])) == []


# --- equal storage ------------------------------------------------------------------------------------------


def test_equal_storage_ranks_what_fits_and_names_the_rest() -> None:
    records = [
        *seeds("best", [0.70, 0.72, 0.74]), *seeds("tied", [0.69, 0.71, 0.73]),
        *seeds("worse", [0.50, 0.51, 0.52]),
        *seeds("haba", [0.9] * 3, within_budget=False, floats=1088), make("full", None, (0.99,)),
    ]  # fmt: skip
    section = shown(equal_storage.equal_storage_section(view(records)))
    (table,) = section.comparisons
    assert [row[:3] for row in lines(table)] == [
        ["1", "1–2", "best"], ["1", "1–2", "tied"], ["1", "3", "worse"]  # noqa: RUF001  (en dashes)
    ]  # fmt: skip
    assert [text[:4] for text in bold(table)] == ["72.0", "71.0"]
    assert table.notes[-1] == "Left out, with the ipc that it stores: haba (1.7 at ipc 1)."
    assert section.frame is not None
    assert section.frame.set_index("method")["rank"].to_dict() == {"best": 1, "tied": 1, "worse": 3}
    assert section.frame.set_index("method")["rank_to"].to_dict() == {"best": 2, "tied": 2, "worse": 3}
    assert equal_storage.equal_storage_section(view(records[:3])) is None


def test_equal_storage_over_architectures_ranks_on_the_first() -> None:
    spread = (-0.01, 0.0, 0.01)
    records = [
        *seeds("a", [0.5 + x for x in spread]), *seeds("a", [0.3 + x for x in spread], eval_arch="mlp"),
        *seeds("b", [0.4 + x for x in spread]), *seeds("b", [0.4 + x for x in spread], eval_arch="mlp"),
        *seeds("c", [0.1 + x for x in spread], eval_arch="mlp"),
    ]  # fmt: skip
    (table,) = shown(equal_storage.equal_storage_section(view(records))).comparisons
    assert [column.header for column in table.columns] == [
        "ipc", "rank", "method", "convnet", "mlp", "stored ipc"
    ]  # fmt: skip
    assert [[text.split(" ±")[0] for text in row] for row in lines(table)] == [
        ["1", "1", "a", "50.0", "30.0", "1"], ["1", "2", "b", "40.0", "40.0", "1"],
        ["1", "—", "c", "—", "10.0", "1"],
    ]  # fmt: skip
    assert [text[:4] for text in bold(table)] == ["50.0", "40.0"]
    assert any(note.endswith("On convnet.") for note in table.notes)


# --- compositions -------------------------------------------------------------------------------------------


def compose(parameterisation: str, objective: str, value: float, **fields: Any) -> list[Record]:
    """Two seeds, 2 points apart."""
    blocks = {"parameterisation": parameterisation, "objective": objective, **fields.pop("others", {})}
    return [
        make("compose", 1, (value + 0.01 * (2 * seed - 1),), hyperparameters=blocks, seed=seed, **fields)
        for seed in (0, 1)
    ]


GRID = [*compose("pixels", "dm", 0.5), *compose("pixels", "mtt", 0.4), *compose("bases", "dm", 0.9)]


def test_composition_matrix() -> None:
    section = shown(composition.composition_section(view([*GRID, make("dm")])))
    (table,) = section.comparisons
    assert [column.header for column in table.columns] == ["ipc", "parameterisation", "dm", "mtt"]
    assert lines(table) == [
        ["1", "bases", "90.0 ± 1.4", "—"], ["1", "pixels", "50.0 ± 1.4", "40.0 ± 1.4"]
    ]  # fmt: skip
    assert bold(table) == ["90.0 ± 1.4"]
    assert section.frame is not None
    assert len(section.frame) == 3
    assert composition.composition_section(view([*GRID[:2], make("dm")])) is None


def test_composition_variants_and_architectures_have_their_rows() -> None:
    one, two = {"steps": 1}, {"steps": 2}
    records = [
        *compose("pixels", "dm", 0.5, others=one), *compose("pixels", "mtt", 0.4, others=one),
        *compose("bases", "dm", 0.6, others=one), *compose("pixels", "dm", 0.7, others=two),
        *compose("bases", "dm", 0.9, others=one, eval_arch="mlp", within_budget=False),
    ]  # fmt: skip
    (table,) = shown(composition.composition_section(view(records))).comparisons
    assert lines(table) == [
        ["1", "convnet", "steps=1", "bases", "60.0 ± 1.4", "—"],
        ["1", "convnet", "steps=1", "pixels", "50.0 ± 1.4", "40.0 ± 1.4"],
        ["1", "convnet", "steps=2", "pixels", "70.0 ± 1.4", "—"],
        ["1", "mlp", "steps=1", "bases", "90.0 ± 1.4 ‡", "—"],
    ]
    assert bold(table) == ["70.0 ± 1.4"]

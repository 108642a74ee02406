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

TWO = [
    *seeds("a", [0.6] * 3), *seeds("b", [0.5] * 3), *seeds("haba", [0.9] * 3, within_budget=False),
    *seeds("a", [0.8] * 3, 2), *seeds("b", [0.7] * 3, 2), *seeds("haba", [0.9] * 3, 2),
]  # fmt: skip


def test_standings() -> None:
    section = shown(standings.standings_section(view(TWO)))
    (table,) = section.comparisons
    assert table.title == "Over cells: digits, protocol quick"
    assert lines(table) == [
        ["haba ‡", "90.0 [90.0, 90.0]", "1.00", "2"],
        ["a", "70.0 [70.0, 70.0]", "2.00", "2"],
        ["b", "60.0 [60.0, 60.0]", "3.00", "2"],
    ]
    assert bold(table) == ["70.0 [70.0, 70.0]"]  # haba is over budget in one of its cells
    assert "the 2 of 2 that all methods compared here have" in table.notes[0]
    assert section.frame is not None
    assert section.frame["iqm"].tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_pairs_say_when_there_are_too_few_cells() -> None:
    (table,) = shown(standings.pairs_section(view(TWO))).comparisons
    assert [row[:3] for row in lines(table)] == [["haba ‡", "a", "2"], ["haba ‡", "b", "2"], ["a", "b", "2"]]
    assert lines(table)[2] == ["a", "b", "2", "+10.0", "100.0 [100.0, 100.0]", "0.5", "1.0"]
    assert any(
        note.startswith("Too few cells for that test: with 2 no p is under 0.5") for note in table.notes
    )
    many = [r for i in range(1, 11) for m, x in (("a", 0.5), ("b", 0.4)) for r in seeds(m, [x + 0.01 * i], i)]
    (table,) = shown(standings.pairs_section(view(many))).comparisons
    assert bold(table) == ["0.002"]  # 2 / 2^10
    assert not any("Too few" in note for note in table.notes)


def test_only_the_best_are_paired_and_one_is_not() -> None:
    records = [r for i in range(standings.MOST_PAIRED + 2) for r in seeds(f"m{i:02}", [0.1 + 0.01 * i])]
    section = shown(standings.pairs_section(view(records)))
    assert section.frame is not None
    assert len(section.frame) == standings.MOST_PAIRED * (standings.MOST_PAIRED - 1) // 2
    assert "m00" not in set(section.frame["second"])
    assert section.comparisons[0].notes[-1].endswith("; 2 more are left out.")
    assert standings.pairs_section(view([*seeds("a", [0.5]), make("full", None)])) is None
    assert standings.standings_section(view(records)) is None  # one cell: the summary says it


def test_protocols_are_apart_and_data_sets_together() -> None:
    records = [
        r
        for d in ("x", "y")
        for p in ("p", "q")
        for m in "ab"
        for r in seeds(m, [0.5], dataset=d, protocol=p)
    ]
    tables = shown(standings.standings_section(view(records))).comparisons
    assert [table.title for table in tables] == [
        "Over cells: x, y, protocol p",
        "Over cells: x, y, protocol q",
    ]
    assert any("different data sets" in note for note in tables[0].notes)
    found = critical_difference.diagrams(
        view([r for m in "abc" for i in (1, 2) for r in seeds(m, [0.5], i)] + records)
    )
    assert [(d.dataset, d.protocol) for d in found] == [("digits", "quick")]


# --- the diagram --------------------------------------------------------------------------------------------


def test_diagram_bars_and_average_ranks() -> None:
    """Twelve cells: a and b take turns, c is always last: p = 2 / 2^12, and of a and b no difference."""
    turns = {"a": (0.80, 0.81), "b": (0.81, 0.80), "c": (0.40, 0.41)}
    records = [
        r for i in range(12) for m, x in turns.items() for r in seeds(m, [x[i % 2] + 0.001 * i], i + 1)
    ]  # fmt: skip
    (diagram,) = critical_difference.diagrams(view(records))
    assert diagram.ranks.to_dict() == {"a": 1.5, "b": 1.5, "c": 3.0}
    assert diagram.bars == [(0, 1)]
    assert diagram.note == "bars: not told apart (Wilcoxon over cells, Holm, 0.05)"
    section = shown(critical_difference.critical_difference_section(view(records)))
    assert list(section.plots) == ["critical_difference_digits_quick"]
    assert section.frame is not None
    assert section.frame["n_cells"].tolist() == [12] * 3


def test_diagram_of_few_cells_says_so_and_names_stay_inside() -> None:
    records = [
        r for m in range(15) for i in (1, 2) for r in seeds(f"a_long_name[steps={m}]", [0.1 + m / 50], i)
    ]
    (found,) = critical_difference.diagrams(view(records))
    assert found.note.endswith("; too few cells to tell any apart")
    assert found.bars == [(0, 14)]
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
    assert critical_difference.critical_difference_section(view(TWO[:3])) is None
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
    assert [row[:3] for row in lines(table)] == [["1", "1", "best"], ["1", "1", "tied"], ["1", "3", "worse"]]
    assert [text[:4] for text in bold(table)] == ["72.0", "71.0"]
    assert table.notes[-1] == "Left out, with the ipc that it stores: haba (1.7 at ipc 1)."
    assert section.frame is not None
    assert section.frame.set_index("method")["rank"].to_dict() == {"best": 1, "tied": 1, "worse": 3}
    assert equal_storage.equal_storage_section(view(records[:3])) is None


def test_equal_storage_over_architectures_takes_mean_ranks() -> None:
    records = [
        make("a", 1, (0.5,)), make("a", 1, (0.3,), eval_arch="mlp"),
        make("b", 1, (0.4,)), make("b", 1, (0.4,), eval_arch="mlp"), make("c", 1, (0.1,)),
    ]  # fmt: skip
    (table,) = shown(equal_storage.equal_storage_section(view(records))).comparisons
    assert [column.header for column in table.columns] == [
        "ipc", "mean rank", "method", "convnet", "mlp", "stored ipc"
    ]  # fmt: skip
    assert lines(table) == [
        ["1", "1.5", "a", "50.0", "30.0", "1"], ["1", "1.5", "b", "40.0", "40.0", "1"],
        ["1", "—", "c", "10.0", "—", "1"],
    ]  # fmt: skip
    assert bold(table) == ["50.0", "40.0"]


# --- compositions -------------------------------------------------------------------------------------------


def compose(parameterisation: str, objective: str, value: float, **fields: Any) -> Record:
    blocks = {"parameterisation": parameterisation, "objective": objective, **fields.pop("others", {})}
    return make("compose", 1, (value,), hyperparameters=blocks, **fields)


GRID = [compose("pixels", "dm", 0.5), compose("pixels", "mtt", 0.4), compose("bases", "dm", 0.6)]


def test_composition_matrix() -> None:
    section = shown(composition.composition_section(view([*GRID, make("dm")])))
    (table,) = section.comparisons
    assert [column.header for column in table.columns] == ["ipc", "parameterisation", "dm", "mtt"]
    assert lines(table) == [["1", "bases", "60.0", "—"], ["1", "pixels", "50.0", "40.0"]]
    assert bold(table) == ["60.0"]
    assert section.frame is not None
    assert len(section.frame) == 3
    assert composition.composition_section(view([GRID[0], make("dm")])) is None


def test_composition_variants_and_architectures_have_their_rows() -> None:
    one, two = {"steps": 1}, {"steps": 2}
    records = [
        compose("pixels", "dm", 0.5, others=one), compose("pixels", "mtt", 0.4, others=one),
        compose("bases", "dm", 0.6, others=one), compose("pixels", "dm", 0.7, others=two),
        compose("bases", "dm", 0.9, others=one, eval_arch="mlp", within_budget=False),
    ]  # fmt: skip
    (table,) = shown(composition.composition_section(view(records))).comparisons
    assert lines(table) == [
        ["1", "convnet", "steps=1", "bases", "60.0", "—"],
        ["1", "convnet", "steps=1", "pixels", "50.0", "40.0"],
        ["1", "convnet", "steps=2", "pixels", "70.0", "—"],
        ["1", "mlp", "steps=1", "bases", "90.0 ‡", "—"],
    ]
    assert bold(table) == ["70.0"]

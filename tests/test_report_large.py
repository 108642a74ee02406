"""Reports of more than a figure or a terminal can show."""

import io
from pathlib import Path

import pytest
from record_tools import sweep, write
from rich.console import Console

from bench import report
from bench.report import heat, plots


def test_what_is_too_much_for_a_figure_is_said_and_the_rest_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(tmp_path, sweep())
    whole = report.build(directory)
    assert not whole.undrawn
    monkeypatch.setattr(plots, "MOST_PANELS", 1)
    monkeypatch.setattr(heat, "MOST_BOXES", 15)
    built = report.build(directory)
    part = "; a folder with a part of the records has them"
    panels = "2 panels, at most 1 are drawn" + part
    drawn = {path.stem for path in whole.written if path.parent.name == "plots"}
    boxes = f"plots/cross_architecture: 16 boxes, at most 15 are drawn{part}"
    others = sorted(drawn - {"cross_architecture"})
    assert sorted(built.undrawn) == sorted([boxes, *(f"plots/{name}: {panels}" for name in others)])
    assert {path.parent.name for path in built.written} == {"tables"}
    assert not built.problems


def test_very_many_rows_are_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = report.build(write(tmp_path, sweep(methods=("dm",))))
    monkeypatch.setattr(report, "MOST_ROWS", 3)
    text = io.StringIO()
    report.print_tables(built, Console(file=text, width=200))
    assert text.getvalue() == "2 tables with 4 rows: more than a terminal shows, see tables/.\n"

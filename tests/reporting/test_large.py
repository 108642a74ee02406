"""Reports with more than a figure or a terminal can show."""

import io
from pathlib import Path

import pytest
from helpers.cli import without_plots
from helpers.record import sweep, write
from rich.console import Console

from bench.reporting import build
from bench.reporting.plots import accuracy_vs_ipc, heatmap, seconds, style

DRAWN = {"accuracy_vs_bytes"}  # one panel each


def test_what_is_too_much_for_a_figure_is_said_and_the_rest_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(tmp_path, sweep())
    whole = build.build_report(directory)
    assert not whole.undrawn
    monkeypatch.setattr(style, "MOST_PANELS", 1)
    monkeypatch.setattr(accuracy_vs_ipc, "MOST_PANELS", 1)
    monkeypatch.setattr(heatmap, "MOST_BOXES", 15)
    monkeypatch.setattr(seconds, "MOST_BARS", 3)
    built = build.build_report(directory)
    part = "; a folder with a part of the records has them"
    assert sorted(built.undrawn) == [
        f"plots/accuracy_vs_ipc: 4 panels, at most 1 are drawn{part}",
        f"plots/accuracy_vs_seconds: 2 panels, at most 1 are drawn{part}",
        f"plots/breakdown: 8 bars, at most 3 are drawn{part}",
        f"plots/cross_architecture: 16 boxes, at most 15 are drawn{part}",
    ]
    assert {path.stem for path in built.written if path.parent.name == "plots"} == DRAWN
    assert {path.stem for path in (directory / "plots").iterdir()} == DRAWN  # nor of another time
    assert not built.problems


def test_very_many_methods_have_no_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "MOST_NAMES", 3)
    built = build.build_report(write(tmp_path, sweep(archs=("convnet",))))
    assert "plots/accuracy_vs_bytes: 5 names in the legend, at most 3 are drawn" in " ".join(built.undrawn)


def test_very_many_rows_are_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with without_plots():
        built = build.build_report(write(tmp_path, sweep(methods=("dm",))))
    monkeypatch.setattr(build, "MOST_PRINTED_ROWS", 3)
    text = io.StringIO()
    build.print_tables(built, Console(file=text, width=200))
    assert text.getvalue() == "2 tables with 4 rows: more than a terminal shows, see tables/.\n"

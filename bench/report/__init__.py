"""Tables and plots: a pure function of the records. Delete them, build again, and get the same bytes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench import frames
from bench.files import write_atomic
from bench.report import curves, draw, heat, measures, plots, tables
from bench.report.exhibit import Exhibit, Exhibitor, View

EXHIBITORS: tuple[Exhibitor, ...] = (tables.exhibit, heat.exhibit, measures.exhibit, curves.exhibit)


@dataclass(frozen=True)
class Report:
    """What was built, from what could be read."""

    view: View
    exhibits: list[Exhibit]
    written: list[Path]
    problems: list[str]  # a line per record that could not be used


def build(directory: Path) -> Report:
    """Read `directory/records`, write `directory/tables` and `directory/plots`.

    Tables and plots of what the records do not hold (several architectures, metrics, curves) are not written.
    """
    flat, problems = frames.load(directory)
    view = View(flat, (directory,))
    exhibits = [shown for exhibitor in EXHIBITORS if (shown := exhibitor(view)) is not None]
    written = [path for shown in exhibits for path in _write(shown, directory)]
    return Report(view, exhibits, written, problems)


def _write(shown: Exhibit, directory: Path) -> list[Path]:
    stem = directory / "tables" / shown.stem
    texts = {} if shown.frame is None else {".csv": _csv(shown.frame)}
    if shown.comparisons:
        texts |= {".md": draw.markdown(shown.comparisons), ".tex": draw.latex(shown.comparisons)}
    written = [write_atomic(stem.with_suffix(suffix), text) for suffix, text in texts.items()]
    for name, figure in shown.plots.items():
        written += plots.save(figure, directory / "plots" / name)
    return written


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def print_tables(report: Report, console: Console) -> None:
    """The comparison tables and those across architectures, fitted to the terminal's width."""
    for shown in report.exhibits:
        for comparison in shown.comparisons if shown.printed else []:
            draw.show(comparison, console)

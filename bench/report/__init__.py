"""Tables and plots: a pure function of the records. Delete them, build again, and get the same bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from bench.aggregate import curve, frame, load_records, measured, summary, transfer
from bench.files import write_atomic
from bench.ranking import scores
from bench.report import cross, curves, draw, heat, measures, plots, tables
from bench.report.layout import Comparison


@dataclass(frozen=True)
class Report:
    """What was built, from what could be read."""

    summary: pd.DataFrame
    written: list[Path]
    problems: list[str]  # a line per record that could not be used
    cross: list[Comparison]  # across architectures, where the records hold several


def build(directory: Path) -> Report:
    """Read `directory/records`, write `directory/tables` and `directory/plots`.

    Tables and plots of what the records do not hold (several architectures, metrics, curves) are not written.
    """
    records, problems = load_records(directory)
    flat = frame(records)
    table, transferred, ends = summary(flat), transfer(flat), curve(flat)
    known = measures.gather(measured(flat), scores(flat))
    comparisons, crossed = tables.compare(table), cross.compare(transferred)
    texts = {
        "summary.csv": _csv(table),
        "summary.md": draw.markdown(comparisons),
        "summary.tex": draw.latex(comparisons),
    }
    figures: dict[str, tuple[Callable[[pd.DataFrame], Figure], pd.DataFrame]] = {
        "accuracy_vs_ipc": (plots.accuracy_vs_ipc, table),
        "accuracy_vs_seconds": (plots.accuracy_vs_seconds, table),
    }
    if crossed:
        texts["cross_architecture.csv"] = _csv(transferred)
        texts["cross_architecture.md"] = draw.markdown(crossed)
        texts["cross_architecture.tex"] = draw.latex(crossed)
        figures["cross_architecture"] = (heat.cross_architecture, transferred)
    if len(known):
        texts["metrics.csv"] = _csv(known)
        texts["metrics.md"] = draw.markdown(measures.compare(known))
    if len(ends):
        texts["curve.csv"] = _csv(ends)
        figures["curve"] = (curves.accuracy_vs_training, ends)
    written = [write_atomic(directory / "tables" / name, text) for name, text in texts.items()]
    for name, (figure, data) in figures.items():
        written += plots.save(figure, data, directory / "plots" / name)
    return Report(table, written, problems, crossed)


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def print_tables(report: Report, console: Console) -> None:
    """The comparison tables and those across architectures, fitted to the terminal's width."""
    for comparison in [*tables.compare(report.summary), *report.cross]:
        draw.show(comparison, console)

"""Tables and plots: a pure function of the records. Delete them, build again, and get the same bytes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.aggregate import frame, load_records, summary
from bench.files import write_atomic
from bench.report import plots, tables


@dataclass(frozen=True)
class Report:
    """What was built, from what could be read."""

    summary: pd.DataFrame
    written: list[Path]
    problems: list[str]  # a line per record that could not be used


def build(directory: Path) -> Report:
    """Read `directory/records`, write `directory/tables` and `directory/plots`."""
    records, problems = load_records(directory)
    table = summary(frame(records))
    comparisons = tables.compare(table)
    texts = {
        "summary.csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "summary.md": tables.markdown(comparisons),
        "summary.tex": tables.latex(comparisons),
    }
    written = [write_atomic(directory / "tables" / name, text) for name, text in texts.items()]
    written += plots.save(plots.accuracy_vs_ipc, table, directory / "plots" / "accuracy_vs_ipc")
    written += plots.save(plots.accuracy_vs_seconds, table, directory / "plots" / "accuracy_vs_seconds")
    return Report(table, written, problems)


def print_tables(report: Report, console: Console) -> None:
    """The comparison tables, fitted to the terminal's width."""
    for comparison in tables.compare(report.summary):
        tables.show(comparison, console)

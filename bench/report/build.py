"""Tables and plots: a pure function of the records. Delete them, build again, and get the same bytes."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.core.errors import UserError
from bench.core.io import write_atomic
from bench.records.merge import merge_folders
from bench.records.reader import uncollected
from bench.report.images import section
from bench.report.plots import critical_difference, curves, heatmap, pareto, seconds, style
from bench.report.sections import MakeSection, RecordsView, Section
from bench.report.tables import composition, equal_storage, metrics, published, render, standings, summary

MOST_PRINTED_ROWS = 2000  # in a terminal

SECTIONS: tuple[MakeSection, ...] = (
    *(
        summary.summary_section,
        equal_storage.equal_storage_section,
        heatmap.cross_architecture_section,
        composition.composition_section,
        metrics.metrics_section,
    ),
    *(
        standings.standings_section,
        standings.pairs_section,
        critical_difference.critical_difference_section,
        published.published_section,
    ),
    *(
        pareto.pareto_section,
        seconds.seconds_section,
        curves.training_curve_section,
        curves.distillation_curve_section,
        section.pictures_section,
    ),
)

# What is taken away where the records do not hold it any more: what these exhibits write, and nothing else.
TABLES = (
    *("summary", "equal_storage", "cross_architecture", "composition", "metrics", "standings", "pairs"),
    *("critical_difference", "published", "curve", "progress"),
)
PLOTS = (
    *("accuracy_vs_ipc", "accuracy_vs_seconds", "accuracy_vs_bytes", "breakdown", "cross_architecture"),
    *("critical_difference*", "curve", "progress_steps", "progress_seconds"),
)
PICTURES = "pictures"
SUFFIXES = {"tables": (".csv", ".md", ".tex"), "plots": tuple(f".{kind}" for kind in style.PLOT_FORMATS)}


@dataclass(frozen=True)
class Report:
    """What was built, from what could be read."""

    view: RecordsView
    exhibits: list[Section]
    written: list[Path]
    problems: list[str]  # a line per record that could not be used
    undrawn: list[str] = field(default_factory=list)  # a line per plot of more than a figure can show


def build_report(*directories: Path, out: Path | None = None) -> Report:
    """Read the `records` of these folders, write `tables` and `plots` under `out`, by default the first one.

    Tables and plots of what the records do not hold (several architectures, metrics, curves) are not written,
    and those of an earlier report are taken away.
    """
    to = out or directories[0]
    with uncollected():
        flat, problems = merge_folders(directories)
        _check_writable(to)
        view = RecordsView(flat, directories)
        exhibits = [shown for exhibitor in SECTIONS if (shown := exhibitor(view)) is not None]
        written = [path for shown in exhibits for path in _write(shown, to)]
    undrawn: list[str] = []
    written += [path for shown in exhibits for path in _draw(shown, to, undrawn)]
    _take_away(to, set(written))
    return Report(view, exhibits, written, problems, undrawn)


def _take_away(directory: Path, written: set[Path]) -> None:
    """The files of an earlier report that this one has not; pictures only if it has some of its own.

    Artifacts are often kept elsewhere: without them nobody could draw the pictures again.
    """
    names = {"tables": TABLES, "plots": PLOTS}
    if directory / "tables" / f"{PICTURES}.csv" in written:
        names = {"tables": (*TABLES, PICTURES), "plots": (*PLOTS, f"{PICTURES}_*")}
    for folder, patterns in names.items():
        for path in (path for pattern in patterns for path in (directory / folder).glob(f"{pattern}.*")):
            if path.suffix in SUFFIXES[folder] and path not in written:
                path.unlink(missing_ok=True)


def _write(shown: Section, directory: Path) -> list[Path]:
    stem = directory / "tables" / shown.stem
    return [write_atomic(stem.with_suffix(suffix), text) for suffix, text in texts(shown).items()]


def _draw(shown: Section, directory: Path, undrawn: list[str]) -> list[Path]:
    written: list[Path] = []
    for name, figure in shown.plots.items():
        try:
            written += style.save_plot(figure, directory / "plots" / name)
        except style.TooMuchToDraw as error:
            undrawn.append(f"plots/{name}: {error}; a folder with a part of the records has them")
    written += [write(directory / "plots" / f"{name}.png") for name, write in shown.pictures.items()]
    return written


def texts(shown: Section) -> dict[str, str]:
    """Its tables: the content of each file by its suffix."""
    found = {} if shown.frame is None else {".csv": _csv(shown.frame)}
    if shown.comparisons:
        found |= {".md": render.markdown(shown.comparisons), ".tex": render.latex(shown.comparisons)}
    return found


def _csv(table: pd.DataFrame) -> str:
    # digits first, by column: pandas asks of each number by itself whether it is one, in thrice the time
    digits = {
        str(name): [f"{value:.6g}" if value == value else "" for value in table[name].tolist()]
        for name in table.select_dtypes("float64")
    }
    return table.assign(**digits).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _check_writable(directory: Path) -> None:
    try:
        for folder in (directory / "tables", directory / "plots"):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written: {error.strerror}; choose another with --out"
        ) from None


def print_tables(report: Report, console: Console) -> None:
    """The comparison tables and those across architectures, fitted to the terminal's width; not very many."""
    printed = [table for shown in report.exhibits if shown.printed for table in shown.comparisons]
    rows = sum(len(group) for table in printed for group in table.groups)
    if rows > MOST_PRINTED_ROWS:
        console.print(f"{len(printed)} tables with {rows:,} rows: more than a terminal shows, see tables/.")
        return
    for table in printed:
        render.print_table(table, console)

"""Build a report: tables and plots are a pure function of the records, and have the same bytes every time."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.core.errors import UserError
from bench.core.io import check_writable, write_atomic
from bench.core.words import count
from bench.records.merge import merge_folders
from bench.records.reader import uncollected
from bench.reporting.images.section import pictures_section
from bench.reporting.method_names import method_settings
from bench.reporting.notes import dataset_notes, with_dataset_notes
from bench.reporting.plots import style
from bench.reporting.plots.compute import compute_section, profile_section
from bench.reporting.plots.critical_difference import critical_difference_section
from bench.reporting.plots.curves import distillation_curve_section, training_curve_section
from bench.reporting.plots.heatmap import cross_architecture_section
from bench.reporting.plots.pareto import pareto_section
from bench.reporting.plots.seconds import seconds_section
from bench.reporting.sections import MakeSection, RecordsView, Section
from bench.reporting.tables import render
from bench.reporting.tables.composition import composition_section
from bench.reporting.tables.equal_compute import equal_compute_section
from bench.reporting.tables.equal_storage import equal_storage_section
from bench.reporting.tables.experts import with_expert_note
from bench.reporting.tables.metrics import metrics_section
from bench.reporting.tables.published import published_section
from bench.reporting.tables.real_or_distilled import real_or_distilled_section, verdicts_section
from bench.reporting.tables.standings import pairs_section, standings_section
from bench.reporting.tables.summary import summary_section
from bench.reporting.tables.tuning import tuned_section, tuning_course_section, tuning_section

MOST_PRINTED_ROWS = 2000  # in a terminal
MOST_LINES = 15  # of the overview of several folders

SECTIONS: tuple[MakeSection, ...] = (
    summary_section,
    equal_storage_section,
    equal_compute_section,
    tuned_section,
    tuning_section,
    tuning_course_section,
    verdicts_section,
    real_or_distilled_section,
    cross_architecture_section,
    composition_section,
    metrics_section,
    standings_section,
    pairs_section,
    critical_difference_section,
    published_section,
    pareto_section,
    compute_section,
    profile_section,
    seconds_section,
    training_curve_section,
    distillation_curve_section,
    pictures_section,
)

# Files of an earlier report are deleted if this one does not write them: those with these stems, no others.
TABLES = [
    "summary",
    "equal_storage",
    "equal_compute",
    "compute",
    "performance_profiles",
    "tuned",
    "tuning",
    "tuning_course",
    "verdicts",
    "real_or_distilled",
    "cross_architecture",
    "composition",
    "metrics",
    "standings",
    "pairs",
    "critical_difference",
    "published",
    "curve",
    "progress",
]
PLOTS = [
    "accuracy_vs_ipc",
    "accuracy_vs_seconds",
    "accuracy_vs_bytes",
    "accuracy_vs_operations",
    "performance_profiles",
    "breakdown",
    "composition",
    "cross_architecture",
    "critical_difference*",
    "curve",
    "progress_steps",
    "progress_seconds",
    "tuning_trials",
    "tuning_operations",
    "real_or_distilled_*",
]
PICTURES = "pictures"
SUFFIXES = {"tables": (".csv", ".md", ".tex"), "plots": tuple(f".{kind}" for kind in style.PLOT_FORMATS)}


@dataclass(frozen=True)
class Report:
    """What was built."""

    view: RecordsView
    sections: list[Section]
    written: list[Path]
    problems: list[str]  # a line per record that could not be used
    undrawn: list[str] = field(default_factory=list)  # a line per plot with too much for one figure


def build_report(*directories: Path, out: Path | None = None) -> Report:
    """Read records and write tables and plots.

    Tables and plots of what the records do not hold (several architectures, metrics, curves) are not written,
    and those of an earlier report are deleted.

    Args:
        *directories: Result folders; their `records` are merged.
        out: Where `tables` and `plots` are written; by default the first folder.

    Raises:
        UserError: A folder has no records, or `out` cannot be written.
    """
    to = out or directories[0]
    with uncollected():
        flat, problems = merge_folders(directories)
        for folder in (to / "tables", to / "plots"):
            check_writable(folder, "choose another with --out")
        view = RecordsView(flat, directories)
        sections = make_sections(view)
        written = [path for section in sections for path in _write(section, to)]
    undrawn: list[str] = []
    for section in sections:
        paths, too_large = _draw(section, to)
        written += paths
        undrawn += too_large
    _delete_stale(to, set(written))
    return Report(view, sections, written, problems, undrawn)


def make_sections(view: RecordsView) -> list[Section]:
    """The sections for which the records hold something, in the order of the report."""
    made, notes = (make_section(view) for make_section in SECTIONS), dataset_notes(view)
    return [
        with_expert_note(with_dataset_notes(section, notes), view.flat)
        for section in made
        if section is not None
    ]


def _delete_stale(directory: Path, written: set[Path]) -> None:
    """Delete files of an earlier report that this one did not write; pictures only if it has some of its own.

    Artifacts are often kept elsewhere: without them the pictures could not be drawn again.
    """
    names = {"tables": TABLES, "plots": PLOTS}
    if directory / "tables" / f"{PICTURES}.csv" in written:
        names = {"tables": [*TABLES, PICTURES], "plots": [*PLOTS, f"{PICTURES}_*"]}
    for folder, patterns in names.items():
        for path in (path for pattern in patterns for path in (directory / folder).glob(f"{pattern}.*")):
            if path.suffix in SUFFIXES[folder] and path not in written:
                path.unlink(missing_ok=True)


def write_section(section: Section, directory: Path) -> list[Path]:
    """Write the tables and plots of one section into a result folder, and return their paths."""
    return [*_write(section, directory), *_draw(section, directory)[0]]


def _write(section: Section, directory: Path) -> list[Path]:
    stem = directory / "tables" / section.stem
    return [write_atomic(stem.with_suffix(suffix), text) for suffix, text in texts(section).items()]


def _draw(section: Section, directory: Path) -> tuple[list[Path], list[str]]:
    """Write plots and pictures; the paths, and a line per plot with too much for one figure."""
    written: list[Path] = []
    undrawn: list[str] = []
    for name, figure in section.plots.items():
        try:
            written += style.save_plot(figure, directory / "plots" / name)
        except style.TooMuchToDraw as error:
            undrawn.append(f"plots/{name}: {error}; a folder with a part of the records has them")
    for name, write in section.pictures.items():
        try:
            written.append(write(directory / "plots" / f"{name}.png"))
        except UserError as error:
            undrawn.append(f"plots/{error}")
    return written, undrawn


def texts(section: Section) -> dict[str, str]:
    """The tables of a section: the content of each file by its suffix."""
    found = {} if section.frame is None else {".csv": _csv(section.frame)}
    if section.comparisons:
        found |= {".md": render.markdown(section.comparisons), ".tex": render.latex(section.comparisons)}
    return found


def _csv(table: pd.DataFrame) -> str:
    # formatted by column first: to_csv would look at each number by itself and take three times as long
    digits = {
        str(name): [f"{value:.6g}" if value == value else "" for value in table[name].tolist()]
        for name in table.select_dtypes("float64")
    }
    return table.assign(**digits).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def overview(summary: pd.DataFrame) -> list[str]:
    """A line for each data set and protocol: how many sets there are, and the best that competes."""
    lines = []
    for (dataset, protocol), part in summary.groupby(["dataset", "protocol"]):
        line = f"{dataset}, protocol {protocol}: {count(len(part), 'row')}"
        if part["competes"].any():
            best = part.loc[part["competes"]].sort_values("accuracy_mean", kind="stable").iloc[-1]
            name = method_settings(best["method"])[0]
            where = f"at ipc {best['ipc']} on {best['eval_arch']}"
            line += f", the best {100 * best['accuracy_mean']:.1f} by {name} {where}"
        lines.append(line)
    left = len(lines) - MOST_LINES
    return lines if left <= 0 else [*lines[:MOST_LINES], f"and {left} more"]


def print_tables(report: Report, console: Console) -> None:
    """Print the main tables (`Section.printed`), unless they have more than `MOST_PRINTED_ROWS` rows.

    Of several folders only what they hold is printed, on less than a screen.
    """
    if len(report.view.folders) > 1:
        for line in overview(report.view.summary):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    printed = [table for section in report.sections if section.printed for table in section.comparisons]
    rows = sum(len(group) for table in printed for group in table.groups)
    if rows > MOST_PRINTED_ROWS:
        console.print(f"{len(printed)} tables with {rows:,} rows: more than a terminal shows, see tables/.")
        return
    for table in printed:
        render.print_table(table, console)

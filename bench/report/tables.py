"""The comparison table, laid out once and drawn for terminals, Markdown and LaTeX."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import pandas as pd
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

MISSING = "—"
NO_NETWORK = "–"
Row = dict[str, Any]  # one row of the summary


@dataclass(frozen=True)
class Column:
    header: str
    left: bool = False  # text and accuracies start at the left, other numbers end at the right
    rank: int = 0  # a narrow terminal drops the highest rank first, and never 0
    accuracy: bool = False


@dataclass(frozen=True)
class Cell:
    text: str
    bold: bool = False


@dataclass(frozen=True)
class Comparison:
    """One table: what was scored on one dataset under one protocol."""

    title: str
    columns: list[Column]
    groups: list[list[list[Cell]]]  # a group of rows per ipc
    notes: list[str]


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a method at one ipc, distilled on one architecture."""

    method: str
    distill_arch: str
    by_arch: dict[str, Row]  # keyed by evaluation architecture; what was not run is not there

    def values(self, name: str) -> list[Any]:
        return [row[name] for row in self.by_arch.values()]

    @property
    def exempt(self) -> bool:
        return all(self.values("exempt"))

    @property
    def competes(self) -> bool:
        """Fits its budget: a comparison at equal storage."""
        return not self.exempt and not self.over_budget

    @property
    def over_budget(self) -> bool:
        return not self.exempt and not all(self.values("within_budget"))


# --- numbers as text ----------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Two or three digits that matter: 0.012, 3.4, 120, 4,500."""
    if value == 0:
        return "0"
    if value < 0.001:
        return "<0.001"
    if value < 0.995:
        return f"{value:.2g}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def span(values: Iterable[int]) -> str:
    """`3`, or `2–3` where they differ."""
    low, high = min(values := list(values)), max(values)
    return str(low) if low == high else f"{low}–{high}"


def accuracy(row: Row) -> str:
    """Percent with the interval, with the deviation of two seeds, or alone for one."""
    text = f"{100 * row['accuracy_mean']:.1f}"
    if not math.isnan(row["accuracy_ci_low"]):
        return f"{text} [{100 * row['accuracy_ci_low']:.1f}, {100 * row['accuracy_ci_high']:.1f}]"
    return text if math.isnan(row["accuracy_std"]) else f"{text} ± {100 * row['accuracy_std']:.1f}"


def _mean(entry: Entry, name: str) -> float:
    values: list[float] = entry.values(name)
    return sum(values) / len(values)


def _seconds(name: str) -> Callable[[Entry], str]:
    return lambda entry: number(_mean(entry, name))


def _runs(entry: Entry) -> str:
    return f"{span(entry.values('n_seeds'))}×{span(entry.values('n_students'))}"


COSTS: list[tuple[Column, Callable[[Entry], str]]] = [
    (Column("seeds×students", rank=4), _runs),
    (Column("stored ipc", rank=3), lambda e: number(max(e.values("ipc_equivalent"))).removesuffix(".0")),
    (Column("stored KiB", rank=5), lambda e: number(max(e.values("stored_bytes")) / 1024)),
    (Column("prepare s", rank=2), _seconds("prepare_s")),
    (Column("distill s", rank=1), _seconds("distill_s")),
    (Column("evaluate s", rank=6), _seconds("evaluate_s")),
    (Column("peak MiB", rank=7), lambda e: f"{max(e.values('peak_memory_bytes')) / 2**20:,.0f}"),
]


# --- layout -------------------------------------------------------------------------------------------------


def is_best(entry: Entry, arch: str, group: list[Entry]) -> bool:
    """The best of its ipc at equal storage, or not to be told from it: the intervals overlap."""
    rows = [e.by_arch[arch] for e in group if arch in e.by_arch and e.competes]
    if not entry.competes or arch not in entry.by_arch:
        return False
    best = max(rows, key=lambda row: float(row["accuracy_mean"]))
    mine = entry.by_arch[arch]
    # A comparison with NaN is false: without intervals there are no ties but equal means.
    overlap = (
        mine["accuracy_ci_high"] >= best["accuracy_ci_low"]
        and mine["accuracy_ci_low"] <= best["accuracy_ci_high"]
    )
    return bool(overlap or mine["accuracy_mean"] == best["accuracy_mean"])


def _entries(rows: list[Row], first: str) -> list[Entry]:
    """The rows of one ipc by method, the best on the first architecture first, what it lacks last."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["distill_arch"]), {})[row["eval_arch"]] = row
    entries = [Entry(method, arch, by_arch) for (method, arch), by_arch in found.items()]

    def order(entry: Entry) -> tuple[float, str, str]:
        row = entry.by_arch.get(first)
        return (-row["accuracy_mean"] if row else 1.0, entry.method, entry.distill_arch)

    return sorted(entries, key=order)


def _cells(entry: Entry, ipc: str, group: list[Entry], archs: list[str], distilled: bool) -> list[Cell]:
    mark = " †" if entry.exempt else " ‡" if entry.over_budget else ""
    cells = [Cell(ipc), Cell(entry.method + mark)]
    if distilled:
        cells.append(Cell(NO_NETWORK if entry.distill_arch == "any" else entry.distill_arch))
    for arch in archs:
        text = accuracy(entry.by_arch[arch]) if arch in entry.by_arch else MISSING
        cells.append(Cell(text, is_best(entry, arch, group)))
    return cells + [Cell(text(entry)) for _, text in COSTS]


def _notes(rows: list[Row], entries: list[Entry], protocol: str) -> list[str]:
    """What the figures are, and each mark that occurs."""
    text = f"Accuracy in percent under protocol {protocol}, students averaged first"
    certain = [row["n_seeds"] for row in rows if not math.isnan(row["accuracy_ci_low"])]
    if certain:
        text += f"; [low, high]: 95 % bootstrap interval over {span(certain)} distillation seeds"
    if any(row["n_seeds"] == 2 for row in rows):
        text += "; ±: standard deviation of 2 seeds"
    if any(row["n_seeds"] < 3 for row in rows):
        text += "; no interval is claimed below 3 seeds"
    ties = ", and those whose interval overlaps the best one's" if certain else ""
    notes = [text + ".", f"Bold: the best of its ipc{ties}."]
    if any(entry.exempt for entry in entries):
        notes.append("† the whole training set: the ceiling, exempt from the budget.")
    if any(entry.over_budget for entry in entries):
        notes.append("‡ stores more than its ipc allows: not a comparison at equal storage.")
    devices = "; ".join(sorted({row["device"] for row in rows}))
    several = ", evaluate s is the mean over architectures" if len({r["eval_arch"] for r in rows}) > 1 else ""
    notes.append(f"KiB at fp32; seconds on {devices}{several}.")
    if not all(row["exclusive"] for row in rows):
        notes.append("Jobs ran side by side on the device: their seconds compare only roughly.")
    return notes


def _comparison(rows: list[Row], dataset: str, protocol: str) -> Comparison:
    distilled = sorted({row["distill_arch"] for row in rows} - {"any"})
    evaluated = {row["eval_arch"] for row in rows}
    archs = sorted(evaluated, key=lambda arch: (arch not in distilled, arch))  # the familiar one first
    by_ipc: dict[float, list[Row]] = {}  # the whole set (no ipc) on top
    for row in rows:
        by_ipc.setdefault(-1 if pd.isna(row["ipc"]) else int(row["ipc"]), []).append(row)
    grouped = {ipc: _entries(by_ipc[ipc], archs[0]) for ipc in sorted(by_ipc)}
    groups = [
        [_cells(e, "all" if ipc < 0 else str(ipc), group, archs, len(distilled) > 1) for e in group]
        for ipc, group in grouped.items()
    ]
    columns = [Column("ipc"), Column("method", left=True)]
    columns += [Column("distilled on", left=True)] if len(distilled) > 1 else []
    columns += [Column(arch, left=True, accuracy=True) for arch in archs]
    columns += [column for column, _ in COSTS]
    title = f"{dataset}, protocol {protocol}"
    title += f", distilled on {distilled[0]}" if len(distilled) == 1 else ""
    entries = [entry for group in grouped.values() for entry in group]
    return Comparison(title, columns, groups, _notes(rows, entries, protocol))


def compare(summary: pd.DataFrame) -> list[Comparison]:
    """A table for every dataset and protocol of a summary."""
    return [
        _comparison(cast(list[Row], part.to_dict("records")), str(dataset), str(protocol))
        for (dataset, protocol), part in summary.groupby(["dataset", "protocol"])
    ]


# --- Markdown and LaTeX -------------------------------------------------------------------------------------


def _markdown_cell(cell: Cell) -> str:
    text = re.sub(r"([\\|*_<`])", r"\\\1", cell.text)
    return f"**{text}**" if cell.bold else text


def markdown(comparisons: list[Comparison]) -> str:
    """GitHub's tables, one section each."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    sections = []
    for table in comparisons:
        lines = [f"## {table.title}", "", line(_markdown_cell(Cell(c.header)) for c in table.columns)]
        lines.append(line(":--" if c.left else "--:" for c in table.columns))
        lines += [line(map(_markdown_cell, row)) for group in table.groups for row in group]
        lines += ["", *(f"- {note}" for note in table.notes)]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


_TEX = {character: "\\" + character for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"†": r"$^\dagger$", "‡": r"$^\ddagger$", "±": r"$\pm$", "×": r"$\times$"},
    **{"–": "--", "—": "---", "<": r"$<$", ">": r"$>$"},
}


def tex(text: str) -> str:
    """Escaped for LaTeX's text mode."""
    return "".join(_TEX.get(character, character) for character in text)


def _tex_row(cells: list[Cell], first: bool) -> str:
    """A row; its ipc is printed once a group."""
    texts = [rf"\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text) for cell in cells]
    return " & ".join([texts[0] if first else "", *texts[1:]]) + r" \\"


def _tex_table(table: Comparison) -> str:
    where = [i for i, column in enumerate(table.columns) if column.accuracy]
    before, span_, after = where[0], len(where), len(table.columns) - where[-1] - 1
    over = "& " * before + rf"\multicolumn{{{span_}}}{{c}}{{accuracy (\%), evaluated on}}" + " &" * after
    body = ["\n".join(_tex_row(row, first=i == 0) for i, row in enumerate(group)) for group in table.groups]
    label = re.sub(r"[^a-z0-9]+", "-", table.title.lower())
    return "\n".join([
        r"\begin{table}",
        rf"\caption{{{tex(table.title)}}}\label{{tab:{label}}}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('l' if c.left else 'r' for c in table.columns)}}}",
        r"\toprule",
        over + r" \\",
        rf"\cmidrule(lr){{{before + 1}-{before + span_}}}",
        " & ".join(tex(column.header) for column in table.columns) + r" \\",
        r"\midrule",
        "\n\\midrule\n".join(body),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize",
        *(tex(note) + r"\par" for note in table.notes),
        r"\end{minipage}",
        r"\end{table}",
        "",
    ])  # fmt: skip


def latex(comparisons: list[Comparison]) -> str:
    """A floating table each; the preamble needs two packages."""
    head = "% \\usepackage{booktabs,graphicx}  (graphicx: a table wider than the line is scaled to it)\n"
    return "\n".join([head, *map(_tex_table, comparisons)])


# --- terminal -----------------------------------------------------------------------------------------------


def _pick(table: Comparison, keep: list[int]) -> Comparison:
    """The same table with these columns only."""
    groups = [[[row[i] for i in keep] for row in group] for group in table.groups]
    return replace(table, columns=[table.columns[i] for i in keep], groups=groups)


def _rich(table: Comparison) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for column in table.columns:
        wrap = column.header == "method"
        drawn.add_column(
            Text(column.header.replace("×", "\n×").replace(" ", "\n") if column.rank else column.header),
            justify="left" if column.left else "right",
            no_wrap=not wrap,
            overflow="fold",
            vertical="top",
        )
    for group in table.groups:
        for i, row in enumerate(group):
            first = Text(row[0].text if i == 0 else "")
            rest = [Text(cell.text, style="bold" if cell.bold else "") for cell in row[1:]]
            drawn.add_row(first, *rest, end_section=i == len(group) - 1)
    return drawn


def fitted(table: Comparison, console: Console) -> list[Comparison]:
    """The table without the costs that do not fit; accuracies that do not fit get a table of their own."""

    def fits(candidate: Comparison) -> bool:
        wide = console.options.update_width(10_000)  # else the measure is cut to the console's own width
        return console.measure(_rich(candidate), options=wide).maximum <= console.width

    for rank in range(len(COSTS), -1, -1):
        narrow = _pick(table, [i for i, column in enumerate(table.columns) if column.rank <= rank])
        if fits(narrow):
            return [narrow]
    where = [i for i, column in enumerate(narrow.columns) if column.accuracy]
    if len(where) == 1:
        return [narrow]
    half = (len(where) + 1) // 2
    parts = [_pick(narrow, [*range(where[0]), *part]) for part in (where[:half], where[half:])]
    return [piece for part in parts for piece in fitted(part, console)]


def show(table: Comparison, console: Console) -> None:
    """Print one comparison as wide as the terminal allows."""
    pieces = fitted(table, console)
    console.print(Text(table.title, style="bold underline"))
    for piece in pieces:
        console.print(_rich(piece))
        console.print()
    shown = {column.header for piece in pieces for column in piece.columns}
    dropped = [column.header for column in table.columns if column.header not in shown]
    notes = [*table.notes, f"Not shown for want of width: {', '.join(dropped)}."] if dropped else table.notes
    for note in notes:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    console.print()

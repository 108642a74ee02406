"""A table drawn for Markdown, LaTeX and the terminal."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import re
from collections.abc import Iterable
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.report.layout import Cell, Comparison

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


def _over(where: list[int], n_columns: int) -> list[str]:
    """The heading over the columns of the evaluation architectures, which stand side by side."""
    if not where:
        return []
    first, last = where[0], where[-1]
    text = rf"\multicolumn{{{len(where)}}}{{c}}{{accuracy (\%), evaluated on}}"
    after = " &" * (n_columns - last - 1)
    return ["& " * first + text + after + r" \\", rf"\cmidrule(lr){{{first + 1}-{last + 1}}}"]


def _tex_table(table: Comparison) -> str:
    over = _over([i for i, column in enumerate(table.columns) if column.accuracy], len(table.columns))
    body = ["\n".join(_tex_row(row, first=i == 0) for i, row in enumerate(group)) for group in table.groups]
    label = re.sub(r"[^a-z0-9]+", "-", table.title.lower())
    return "\n".join([
        r"\begin{table}",
        rf"\caption{{{tex(table.title)}}}\label{{tab:{label}}}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('l' if c.left else 'r' for c in table.columns)}}}",
        r"\toprule",
        *over,
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

    for rank in range(max(column.rank for column in table.columns), -1, -1):
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

"""A comparison written as Markdown and LaTeX, or printed in the terminal."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.core.words import true_minus
from bench.reporting.tables.table import (
    MISSING,
    NO_NETWORK,
    Comparison,
    TableCell,
    TableColumn,
    distinct_names,
)


def _without_repeats(group: list[list[TableCell]], grouped: bool) -> list[list[TableCell]]:
    """The rows of a group; their common first cell is kept in the first row only."""
    return [row if i == 0 or not grouped else [TableCell(""), *row[1:]] for i, row in enumerate(group)]


# --- Markdown -----------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"([\\|*_<`])")


def _prose(text: str) -> str:
    """Escaped for text outside of tables, where an underscore within a word needs no escape."""
    return re.sub(r"([\\*<`])", r"\\\1", text)


def _markdown_cell(cell: TableCell) -> str:
    text = _MARKUP.sub(r"\\\1", cell.text)
    return f"**{text}**" if cell.bold and text else text


def markdown(comparisons: list[Comparison]) -> str:
    """Write the tables as GitHub's Markdown, a section each."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    sections = []
    for table in comparisons:
        lines = [
            f"## {_prose(table.title)}",
            "",
            line(_markdown_cell(TableCell(c.header)) for c in table.columns),
        ]
        lines.append(line(":--" if c.left else "--:" for c in table.columns))
        lines += [line(map(_markdown_cell, row)) for group in table.groups for row in group]
        lines += ["", *(f"- {_prose(note)}" for note in table.notes)]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


# --- LaTeX --------------------------------------------------------------------------------------------------
# Not pandas' Styler: it has no rule between groups of rows or under a heading over several columns, no column
# of a number and its interval under one heading, no scaling to the line, no notes, no parts of a long table.

ROWS_A_PAGE = 40  # half as many where names take two lines
LONGEST_NOTE = 40  # characters of a text that is not wrapped
_WRAPPED = r">{\raggedright\arraybackslash}p{6.2cm}"
_HEAD = r"""% Preamble: \usepackage{booktabs,etoolbox,graphicx,siunitx} \robustify\bfseries
% Numbers are aligned by siunitx. A table wider than the line is scaled to it; one longer than a page comes in
% floats of a page each.
"""
_SETUP = (
    r"\sisetup{detect-weight,retain-explicit-plus,"
    r"group-digits=integer,group-minimum-digits=4,group-separator={,}}"
)
_TEX = {character: "\\" + character for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"†": r"$^\dagger$", "‡": r"$^\ddagger$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$"},
    **{"|": r"\textbar{}", "«": r"$\ll$", "»": r"$\gg$"},
    **{"–": "--", "—": "---", "<": r"$<$", ">": r"$>$", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$"},
}
# LaTeX sets the characters before _LAST without further packages, except for those in _UNKNOWN.
_LAST = "\u0180"
_UNKNOWN = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ").union(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
_PLAIN = re.compile(r"[A-Za-z0-9 .,:;()\[\]+=/-]*")  # text without any character to escape: nearly all cells
_NUMBER = re.compile(r"([+-]?)(\d[\d,]*)(?:\.(\d+))?(?: (.+))?")  # sign, whole part, decimals; an interval
_NO_NUMBER = ("", MISSING, NO_NETWORK)


def latex_text(text: str) -> str:
    """Escape text for LaTeX's text mode; a character that its fonts lack becomes a question mark."""
    return text if _PLAIN.fullmatch(text) else "".join(map(_latex_character, text))


def _latex_character(character: str) -> str:
    known = character < _LAST and character not in _UNKNOWN
    return _TEX.get(character, character if known else "?")


def _latex_line(cells: Iterable[str]) -> str:
    """A row. One that begins with [ or * would be read as an argument of the row before."""
    text = " & ".join(cells) + r" \\"
    return "{}" + text if text.startswith(("[", "*")) else text


@dataclass(frozen=True)
class _LatexColumn:
    """A column of a table as LaTeX, or two: numbers, and the intervals beside them."""

    spec: str  # for the tabular environment
    header: str
    cells: list[str]
    width: int = 1  # in columns of the tabular environment


def _latex_column(column: TableColumn, cells: list[TableCell], first: bool) -> _LatexColumn:
    """Align a column of numbers by siunitx; leave one of texts, and the first one, as it is."""
    matches = [_NUMBER.fullmatch(cell.text) for cell in cells]
    numbers = [match for match in matches if match]
    texts = [cell.text for cell, match in zip(cells, matches, strict=True) if not match]
    no_other_text = all(text in _NO_NUMBER or text.startswith("<") for text in texts)
    if first or not numbers or not no_other_text:
        return _text_column(column, cells)
    return _number_column(column, cells, numbers)


def _text_column(column: TableColumn, cells: list[TableCell]) -> _LatexColumn:
    spec = _WRAPPED if _has_long_text(cells) else "l" if column.left else "r"
    texts = [rf"\textbf{{{latex_text(cell.text)}}}" if cell.bold else latex_text(cell.text) for cell in cells]
    return _LatexColumn(spec, latex_text(column.header), texts)


def _number_column(column: TableColumn, cells: list[TableCell], numbers: list[re.Match[str]]) -> _LatexColumn:
    sign, whole, decimals = (
        max(len((match[part] or "").replace(",", "")) for match in numbers) for part in (1, 2, 3)
    )
    form = f"{'+' if sign else ''}{whole}.{decimals}".removesuffix(".0")
    spec, header = f"S[table-format={form}]", latex_text(column.header)
    if not any(match[4] for match in numbers):
        return _LatexColumn(spec, f"{{{header}}}", [_latex_number(cell) for cell in cells])
    texts = []
    for cell in cells:
        value, _, interval = cell.text.partition(" ")
        signed = latex_text(interval).replace("-", "$-$")
        texts.append(f"{_latex_number(TableCell(value, cell.bold))} & {_bold(cell)}{signed}")
    return _LatexColumn(rf"{spec}@{{\,}}l", rf"\multicolumn{{2}}{{c}}{{{header}}}", texts, width=2)


def _has_long_text(cells: Iterable[TableCell]) -> bool:
    """Whether one of these texts is too long for a single line."""
    return max(len(cell.text) for cell in cells) > LONGEST_NOTE


def _bold(cell: TableCell) -> str:
    return r"\bfseries " if cell.bold else ""


def _latex_number(cell: TableCell) -> str:
    """A number for siunitx; in braces what is none."""
    if _NUMBER.fullmatch(cell.text):
        return _bold(cell) + cell.text.replace(",", "")
    return f"{{{_bold(cell)}{latex_text(cell.text)}}}"


def _accuracy_heading(columns: list[TableColumn], drawn: list[_LatexColumn]) -> list[str]:
    """The heading over the columns of the evaluation architectures, which stand side by side."""
    where = [i for i, column in enumerate(columns) if column.accuracy]
    if not where:
        return []
    first, last = where[0], where[-1]
    before = sum(column.width for column in drawn[:first])
    width = sum(column.width for column in drawn[first : last + 1])
    text = rf"\multicolumn{{{width}}}{{c}}{{accuracy (\%), evaluated on}}"
    after = " &" * sum(column.width for column in drawn[last + 1 :])
    return ["& " * before + text + after + r" \\", rf"\cmidrule(lr){{{before + 1}-{before + width}}}"]


def _latex_float(table: Comparison, label: str) -> str:
    rows = [row for group in table.groups for row in _without_repeats(group, table.grouped)]
    cells = list(map(list, zip(*rows, strict=True)))
    drawn = [_latex_column(c, cells[i], first=i == 0) for i, c in enumerate(table.columns)]
    lines = iter(map(_latex_line, zip(*(c.cells for c in drawn), strict=True)))
    body = ["\n".join(islice(lines, len(group))) for group in table.groups]
    return "\n".join([
        r"\begin{table}[tbp]",
        r"\centering\small\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{6pt}",
        rf"\caption{{{latex_text(table.title)}}}\label{{tab:{label}}}",
        _SETUP,
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(column.spec for column in drawn)}}}",
        r"\toprule",
        *_accuracy_heading(table.columns, drawn),
        " & ".join(column.header for column in drawn) + r" \\",
        r"\midrule",
        "\n\\midrule\n".join(body),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize",
        *(latex_text(note) + r"\par" for note in table.notes),
        r"\end{minipage}",
        r"\end{table}",
        "",
    ])  # fmt: skip


def _pages(table: Comparison) -> list[Comparison]:
    """Split a table into parts that fit a page; a group that does not fit into the rest of one starts a new.

    The last part has the notes.
    """
    long = _has_long_text(cell for group in table.groups for row in group for cell in row)
    most = ROWS_A_PAGE // 2 if long else ROWS_A_PAGE
    pages: list[list[list[list[TableCell]]]] = [[]]
    for group in table.groups:
        for start in range(0, len(group), most):
            piece = group[start : start + most]
            if pages[-1] and sum(map(len, pages[-1])) + len(piece) > most:
                pages.append([])
            pages[-1].append(piece)
    if len(pages) == 1:
        return [table]
    titles = [f"{table.title} ({i} of {len(pages)})" for i in range(1, len(pages) + 1)]
    parts = [replace(table, title=t, groups=g, notes=[]) for t, g in zip(titles, pages, strict=True)]
    return [*parts[:-1], replace(parts[-1], notes=table.notes)]


def latex(comparisons: list[Comparison]) -> str:
    """Write the tables as LaTeX floats; the first line names the packages that the preamble needs."""
    pages = [page for table in comparisons for page in _pages(table)]
    labels = distinct_names(re.sub(r"[^a-z0-9]+", "-", page.title.lower()).strip("-") for page in pages)
    return "\n".join([_HEAD, *map(_latex_float, pages, labels)])


# --- terminal -----------------------------------------------------------------------------------------------

LEAST_WIDTH = 8  # characters of a name in a terminal that is too narrow


def _pick(table: Comparison, keep: list[int]) -> Comparison:
    """The same table with these columns only."""
    groups = [[[row[i] for i in keep] for row in group] for group in table.groups]
    return replace(table, columns=[table.columns[i] for i in keep], groups=groups)


def _rich(table: Comparison, squeezed: bool = False) -> Table:
    """The table for rich. Methods may be broken over lines; if `squeezed`, all names may, but no number."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    rows = [row for group in table.groups for row in group]
    for i, column in enumerate(table.columns):
        has_letters = any(map(str.isalpha, "".join(row[i].text for row in rows)))
        wrap = column.header == "method" or (squeezed and column.left and has_letters)
        drawn.add_column(
            Text(column.header.replace("×", "\n×").replace(" ", "\n") if column.rank else column.header),
            justify="left" if column.left else "right",
            no_wrap=not wrap,
            overflow="fold",
            min_width=LEAST_WIDTH if squeezed and wrap else None,
            vertical="top",
        )
    for group in table.groups:
        for row in _without_repeats(group, table.grouped):
            drawn.add_row(*(Text(true_minus(cell.text), style="bold" if cell.bold else "") for cell in row))
        drawn.add_section()
    return drawn


def _fits(table: Comparison, console: Console) -> bool:
    wide = console.options.update_width(10_000)  # else the measure is cut to the console's own width
    return console.measure(_rich(table), options=wide).maximum <= console.width


def fit_to_width(table: Comparison, console: Console) -> list[Comparison]:
    """Drop the costs that do not fit the console; accuracies that do not fit get a table of their own."""
    for rank in range(max(column.rank for column in table.columns), -1, -1):
        narrow = _pick(table, [i for i, column in enumerate(table.columns) if column.rank <= rank])
        if _fits(narrow, console):
            return [narrow]
    where = [i for i, column in enumerate(narrow.columns) if column.accuracy]
    if len(where) < 2:
        return [narrow]
    half = (len(where) + 1) // 2
    parts = [_pick(narrow, [*range(where[0]), *part]) for part in (where[:half], where[half:])]
    return [piece for part in parts for piece in fit_to_width(part, console)]


def print_table(table: Comparison, console: Console) -> None:
    """Print a table with the columns that the console has room for, and name those that are left out."""
    pieces = fit_to_width(table, console)
    console.print(Text(table.title, style="bold underline"))
    for piece in pieces:
        console.print(_rich(piece, squeezed=not _fits(piece, console)))
        console.print()
    shown = {column.header for piece in pieces for column in piece.columns}
    dropped = [column.header for column in table.columns if column.header not in shown]
    missing = [f"The terminal is too narrow for {', '.join(dropped)}."] if dropped else []
    for note in [*table.notes, *missing]:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    console.print()

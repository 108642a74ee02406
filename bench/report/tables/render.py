"""A table drawn for Markdown, LaTeX and the terminal."""

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

from bench.report.tables.table import MISSING, NO_NETWORK, Comparison, TableCell, TableColumn, distinct_names


def _once(group: list[list[TableCell]], grouped: bool) -> list[list[TableCell]]:
    """What all rows of a group begin with is said in the first of them."""
    return [row if i == 0 or not grouped else [TableCell(""), *row[1:]] for i, row in enumerate(group)]


# --- Markdown -----------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"([\\|*_<`])")


def _prose(text: str) -> str:
    """Outside of tables, where an underscore within a word is one."""
    return re.sub(r"([\\*<`])", r"\\\1", text)


def _markdown_cell(cell: TableCell) -> str:
    text = _MARKUP.sub(r"\\\1", cell.text)
    return f"**{text}**" if cell.bold and text else text


def markdown(comparisons: list[Comparison]) -> str:
    """GitHub's tables, one section each."""

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

ROWS_A_PAGE = 40  # half as many where names take two lines
LEAST_WIDTH = 8  # characters of a name in a terminal that is too narrow
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
_LAST = "\u0180"  # what stands before it, LaTeX sets without further packages, but for these
_UNKNOWN = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ").union(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
_PLAIN = re.compile(r"[A-Za-z0-9 .,:;()\[\]+=/-]*")  # as nearly all cells are
_NUMBER = re.compile(r"([+-]?)(\d[\d,]*)(?:\.(\d+))?(?: (.+))?")  # and what stands behind it
_NO_NUMBER = ("", MISSING, NO_NETWORK)


def latex_text(text: str) -> str:
    """Escaped for LaTeX's text mode; a question mark for a letter that its fonts do not have."""
    return text if _PLAIN.fullmatch(text) else "".join(map(_letter, text))


def _letter(character: str) -> str:
    known = character < _LAST and character not in _UNKNOWN
    return _TEX.get(character, character if known else "?")


def _line(cells: Iterable[str]) -> str:
    """A row; what begins with a bracket or an asterisk would be read as an argument of the one before."""
    text = " & ".join(cells) + r" \\"
    return "{}" + text if text.startswith(("[", "*")) else text


@dataclass(frozen=True)
class _TexColumn:
    """One column of a table as LaTeX, or two: numbers, and the intervals behind them."""

    spec: str
    header: str
    cells: list[str]
    width: int = 1

    @classmethod
    def of(cls, column: TableColumn, cells: list[TableCell], first: bool) -> "_TexColumn":
        found = [_NUMBER.fullmatch(cell.text) for cell in cells]
        rest = [cell.text for cell, match in zip(cells, found, strict=True) if not match]
        if first or not any(found) or not all(text in _NO_NUMBER or text.startswith("<") for text in rest):
            texts = [
                rf"\textbf{{{latex_text(cell.text)}}}" if cell.bold else latex_text(cell.text)
                for cell in cells
            ]
            spec = _WRAPPED if _wraps(cells) else "l" if column.left else "r"
            return cls(spec, latex_text(column.header), texts)
        return cls._aligned(column, cells, [match for match in found if match])

    @classmethod
    def _aligned(
        cls, column: TableColumn, cells: list[TableCell], found: list[re.Match[str]]
    ) -> "_TexColumn":
        digits = [max(len((match[part] or "").replace(",", "")) for match in found) for part in (1, 2, 3)]
        form = f"{'+' * digits[0]}{digits[1]}.{digits[2]}".removesuffix(".0")
        spec, header = f"S[table-format={form}]", latex_text(column.header)
        if not any(match[4] for match in found):
            return cls(spec, f"{{{header}}}", [_number(cell) for cell in cells])
        pairs = (cell.text.partition(" ") for cell in cells)
        texts = []
        for cell, (value, _, interval) in zip(cells, pairs, strict=True):
            signed = latex_text(interval).replace("-", "$-$")
            texts.append(f"{_number(TableCell(value, cell.bold))} & {_bold(cell)}{signed}")
        return cls(rf"{spec}@{{\,}}l", rf"\multicolumn{{2}}{{c}}{{{header}}}", texts, 2)


def _wraps(cells: Iterable[TableCell]) -> bool:
    """Some of these texts are too long for a line of their own."""
    return max(len(cell.text) for cell in cells) > LONGEST_NOTE


def _bold(cell: TableCell) -> str:
    return r"\bfseries " if cell.bold else ""


def _number(cell: TableCell) -> str:
    """A number for siunitx, or what it must not read, in braces."""
    if _NUMBER.fullmatch(cell.text):
        return _bold(cell) + cell.text.replace(",", "")
    return f"{{{_bold(cell)}{latex_text(cell.text)}}}"


def _over(columns: list[TableColumn], drawn: list[_TexColumn]) -> list[str]:
    """The heading over the columns of the evaluation architectures, which stand side by side."""
    where = [i for i, column in enumerate(columns) if column.accuracy]
    if not where:
        return []
    first, last = where[0], where[-1]
    before, width = (
        sum(column.width for column in part) for part in (drawn[:first], drawn[first : last + 1])
    )
    text = rf"\multicolumn{{{width}}}{{c}}{{accuracy (\%), evaluated on}}"
    after = " &" * sum(column.width for column in drawn[last + 1 :])
    return ["& " * before + text + after + r" \\", rf"\cmidrule(lr){{{before + 1}-{before + width}}}"]


def _tex_float(table: Comparison, label: str) -> str:
    rows = [row for group in table.groups for row in _once(group, table.grouped)]
    cells = list(map(list, zip(*rows, strict=True)))
    drawn = [_TexColumn.of(c, cells[i], first=i == 0) for i, c in enumerate(table.columns)]
    lines = iter(map(_line, zip(*(c.cells for c in drawn), strict=True)))
    body = ["\n".join(islice(lines, len(group))) for group in table.groups]
    return "\n".join([
        r"\begin{table}[tbp]",
        r"\centering\small\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{6pt}",
        rf"\caption{{{latex_text(table.title)}}}\label{{tab:{label}}}",
        _SETUP,
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(column.spec for column in drawn)}}}",
        r"\toprule",
        *_over(table.columns, drawn),
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
    """The table in parts that fit a page; a group that does not fit what is left of one begins the next."""
    long = _wraps(cell for group in table.groups for row in group for cell in row)
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
    """Floating tables; what the preamble needs stands in the head."""
    pages = [page for table in comparisons for page in _pages(table)]
    labels = distinct_names(re.sub(r"[^a-z0-9]+", "-", page.title.lower()).strip("-") for page in pages)
    floats = map(_tex_float, pages, labels)
    return "\n".join([_HEAD, *floats])


# --- terminal -----------------------------------------------------------------------------------------------


def _pick(table: Comparison, keep: list[int]) -> Comparison:
    """The same table with these columns only."""
    groups = [[[row[i] for i in keep] for row in group] for group in table.groups]
    return replace(table, columns=[table.columns[i] for i in keep], groups=groups)


def _rich(table: Comparison, squeezed: bool = False) -> Table:
    """`squeezed`: all names may be broken, not only methods; numbers never."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    rows = [row for group in table.groups for row in group]
    for i, column in enumerate(table.columns):
        name = column.left and any(map(str.isalpha, "".join(row[i].text for row in rows)))
        wrap = column.header == "method" or (squeezed and name)
        drawn.add_column(
            Text(column.header.replace("×", "\n×").replace(" ", "\n") if column.rank else column.header),
            justify="left" if column.left else "right",
            no_wrap=not wrap,
            overflow="fold",
            min_width=LEAST_WIDTH if squeezed and wrap else None,
            vertical="top",
        )
    for group in table.groups:
        for row in _once(group, table.grouped):
            drawn.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
        drawn.add_section()
    return drawn


def _fits(table: Comparison, console: Console) -> bool:
    wide = console.options.update_width(10_000)  # else the measure is cut to the console's own width
    return console.measure(_rich(table), options=wide).maximum <= console.width


def fit_to_width(table: Comparison, console: Console) -> list[Comparison]:
    """The table without the costs that do not fit; accuracies that do not fit get a table of their own."""
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
    """Print one comparison as wide as the terminal allows."""
    pieces = fit_to_width(table, console)
    console.print(Text(table.title, style="bold underline"))
    for piece in pieces:
        console.print(_rich(piece, squeezed=not _fits(piece, console)))
        console.print()
    shown = {column.header for piece in pieces for column in piece.columns}
    dropped = [column.header for column in table.columns if column.header not in shown]
    notes = [*table.notes, f"Not shown for want of width: {', '.join(dropped)}."] if dropped else table.notes
    for note in notes:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    console.print()

"""What commands share at the terminal: the console, the report after a run, and how a run ends."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from bench.core.errors import UserError
from bench.core.words import count

if TYPE_CHECKING:  # torch takes two seconds to import
    from bench.execution.queue import Outcome
    from bench.execution.session import Session
    from bench.reporting.build import Report

out = Console()


MOST_ROWS = 500  # of a table that rich lays out, which takes a millisecond a row


def print_rows(table: Table) -> None:
    """Print a table; into a pipe, which has no width, so wide that no key or label is cut."""
    if table.row_count > MOST_ROWS:
        _print_lines(table)
    else:
        (out if out.is_terminal else Console(width=200)).print(table)


def _print_lines(table: Table) -> None:
    """The rows as plain lines, aligned, of any width."""
    columns = [[str(c.header), *(str(cell).replace("\\[", "[") for cell in c.cells)] for c in table.columns]
    widths = [max(map(cell_len, cells)) for cells in columns]
    right = [column.justify == "right" for column in table.columns]
    for cells in zip(*columns, strict=True):
        padded = (
            " " * (width - cell_len(cell)) + cell if to_right else cell + " " * (width - cell_len(cell))
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        print("  ".join(padded).rstrip())


def left_out(problem: str) -> None:
    """A line on what cannot be used, and why."""
    out.print(f"left out: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)


def write_report(*directories: Path, to: Path | None = None) -> "Report":
    """Tables in the terminal, what was written, and the records that were left out."""
    from bench.reporting.build import build_report, print_tables

    built = build_report(*directories, out=to)
    print_tables(built, out)
    for problem in built.problems:
        left_out(problem)
    for line in built.undrawn:
        out.print(f"not drawn: {line}", highlight=False, markup=False, soft_wrap=True)
    for line in _written(built.written):
        out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    return built


def _written(paths: list[Path]) -> list[str]:
    """A line for each folder, with the names of its files, each once for all kinds; pictures are counted."""
    found: dict[Path, dict[str, None]] = {}
    for path in paths:
        found.setdefault(path.parent, {})[path.stem] = None
    lines = []
    for folder, names in found.items():
        pictures = sum(name.startswith("pictures_") for name in names)
        told = [name for name in names if not name.startswith("pictures_")]
        told += [count(pictures, "picture")] if pictures else []
        lines.append(f"{folder}: {', '.join(told)}")
    return lines


def finish_run(session: "Session", outcome: "Outcome", limit: int | None) -> None:
    """Report what a run left, and exit with what became of it."""
    from bench.execution.head import goes_on

    if outcome.interrupted or outcome.lost:
        text = goes_on(outcome.lost or "Stopped")
        out.print(text, highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1 if outcome.lost else 130)
    failed = bool(outcome.failed)
    if session.has_records() and not session.part:  # other shards may be at it too
        try:
            write_report(session.store.root)
        except UserError as error:  # what the jobs did is told all the same
            out.print(f"no report: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
            failed = True
    for line in session.summary(outcome, limit):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    if not failed:
        say_next(f"report {short_path(session.store.root)} --html", f"ls {short_path(session.store.root)}")
    raise typer.Exit(1 if failed else 0)


def say_next(*commands: str) -> None:
    """What a user may want to do now, as commands to paste."""
    first, *others = commands
    out.print(f"Next:  ddbench {first}", highlight=False, markup=False, soft_wrap=True)
    for command in others:
        out.print(f"       ddbench {command}", highlight=False, markup=False, soft_wrap=True)


def from_here(path: Path) -> Path:
    """The path relative to the working folder, where it lies inside of it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def short_path(path: Path) -> str:
    """The path as one would type it from here, quoted for a shell."""
    return shlex.quote(str(from_here(path)))

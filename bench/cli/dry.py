"""What `ddbench plan --dry` prints: operations, memory, and hours at a rate."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.cli.console import out, print_rows
from bench.core.errors import UserError
from bench.core.words import count, duration, flop, plain_text
from bench.planning.budget import parse_flop

if TYPE_CHECKING:
    from bench.execution.dry_run import DryRow


def parse_rate(text: str) -> float:
    """Operations a second, from a text like `15TFLOP/s`. Raises UserError for anything else."""
    written = re.fullmatch(r"\s*(.+?)\s*/\s*s\s*", text)
    try:
        return parse_flop(written[1] if written else "")
    except UserError:
        raise UserError(f"--rate: operations a second, like 15TFLOP/s, not {plain_text(text)!r}") from None


def print_dry_plan(sweep: Path, overrides: list[str], rate: str | None, shape: str | None) -> None:
    """Print a row for each sort of job, the sum of them, and what cannot be counted."""
    from bench.data.shapes import parse_shape
    from bench.execution.dry_run import DryPlan

    speed = parse_rate(rate) if rate else None
    plan = DryPlan.open(sweep, overrides, parse_shape(shape) if shape else None)
    with Console(stderr=True).status("") as status:
        rows, problems = plan.rows(lambda label: status.update(f"a dry run of {escape(label)}"))
    table = Table(box=None, pad_edge=False)
    columns = ("kind", "job", "jobs", "operations", "memory", "largest piece", *(["time"] if speed else []))
    for name in columns:
        table.add_column(name, justify="left" if name in ("kind", "job", "largest piece") else "right")
    for row in rows:
        time = [duration(row.operations / speed)] if speed else []
        piece = f"{memory(row.largest.bytes)} {row.largest}" if row.largest.bytes else ""
        label = row.label.removesuffix(" seed 0")
        numbers = (str(row.jobs), flop(row.operations), memory(row.peak))
        table.add_row(row.kind, escape(label), *numbers, piece, *time)
    print_rows(table)
    for line in [*problems, _sum(rows, speed)] if rows else problems:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not rows:
        raise UserError(f"{sweep}: no job of it can be counted without numbers")


def _sum(rows: "list[DryRow]", speed: float | None) -> str:
    jobs, operations = count(sum(row.jobs for row in rows), "job"), sum(row.operations for row in rows)
    time = f", {duration(operations / speed)} at {flop(speed)}/s" if speed else ""
    return f"{jobs}: {flop(operations)}{time}; memory up to {memory(max(row.peak for row in rows))}"


def memory(size: int) -> str:
    """`512 MiB`, `3.4 GiB`."""
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    return f"{size / unit:.0f} {name}" if size >= 100 * unit else f"{size / unit:.3g} {name}"

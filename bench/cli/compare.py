"""Commands for what lies in result folders: compare."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import left_out, out


def compare_command(
    a: Annotated[Path, typer.Argument(metavar="DIR_A", help="The result folder before.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="DIR_B", help="The result folder after.", show_default=False)],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as for a comment.")] = False,
) -> None:
    """Say what moved beyond noise from A to B; exit 1: a cell regressed, 2: a record is unreadable."""
    from bench.analysis import regression as comparing
    from bench.records.reader import read_records
    from bench.reporting.tables import regression, render

    (before, left), (after, right) = read_records(a), read_records(b)
    table, notes = comparing.compare_records(before, after)
    tables = regression.regression_tables(table, notes)
    if markdown:
        print(render.markdown(tables))
        print(regression.tally_moved(table))
    else:
        for drawn in tables:
            render.print_table(drawn, out)
        out.print(regression.tally_moved(table), highlight=False, markup=False, soft_wrap=True)
    for folder, problems in ((a, left), (b, right)):
        for problem in problems:
            left_out(f"{folder}/{problem}")
    raise typer.Exit(1 if comparing.any_regressed(table) else 2 if left or right else 0)

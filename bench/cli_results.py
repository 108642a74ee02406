"""Commands for what lies in result folders: compare."""

from pathlib import Path
from typing import Annotated

import typer

from bench.terminal import out


def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR_A", help="The result folder before.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="DIR_B", help="The result folder after.", show_default=False)],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as for a comment.")] = False,
) -> None:
    """Say what moved beyond noise from A to B; exit 1: a cell regressed, 2: a record is unreadable."""
    from bench import compare as comparing
    from bench.frames import load_records
    from bench.report import draw, moved

    (before, left), (after, right) = load_records(a), load_records(b)
    table, notes = comparing.compare(before, after)
    tables = moved.tables(table, notes)
    if markdown:
        print(draw.markdown(tables))
        print(moved.tally(table))
    else:
        for drawn in tables:
            draw.show(drawn, out)
        out.print(moved.tally(table), highlight=False, markup=False, soft_wrap=True)
    for folder, problems in ((a, left), (b, right)):
        for problem in problems:
            out.print(
                f"left out: {folder}/{problem}", style="red", highlight=False, markup=False, soft_wrap=True
            )
    raise typer.Exit(1 if comparing.regressed(table) else 2 if left or right else 0)

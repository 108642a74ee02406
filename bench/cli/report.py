"""The command that makes tables, plots and the page."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import out, write_report
from bench.core.errors import UserError

FoldersArgument = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="Result folders.", show_default=False)
]


def report_command(
    directories: FoldersArgument,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write; needed for several folders."),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write index.html too: all of it in one page.")
    ] = False,
) -> None:
    """Rebuild every table and plot from the records alone; several folders become one report."""
    from bench.reporting.html.write import write_page

    folders = _with_records(directories)
    if len(folders) > 1 and out_dir is None:
        raise UserError(f"{len(folders)} result folders become one report: say where with --out DIR")
    to = out_dir or folders[0]
    built = write_report(*folders, to=to)
    if html:
        out.print(f"  {write_page(built, to)}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if built.problems else 0)


def _with_records(directories: list[Path]) -> list[Path]:
    """Those that hold records, each once; `results/*` names others too. Raises UserError for no folder."""
    named = list({path.resolve(): path for path in directories}.values())
    for path in named:
        if not path.exists() or (not path.is_dir() and len(named) == 1):
            raise UserError(f"{path}: no such folder")
    found = [path for path in named if (path / "records").is_dir()]
    for path in named:
        if found and path not in found:
            out.print(f"passed over: {path} has no records", highlight=False, markup=False, soft_wrap=True)
    return found or named[:1]  # whose report says what to do

"""Commands that look into artifacts: show, recall."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.cli.console import out

ResultsArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.", show_default=False)]


def show_command(
    directory: ResultsArgument,
    identity: Annotated[
        str | None, typer.Argument(metavar="ID", help="A key, or its first characters.", show_default=False)
    ] = None,
) -> None:
    """Draw a set, its bases and how it evolved, as PNGs; without ID one set for each method and ipc."""
    from bench.report.images.gallery import draw_artifacts

    for label, path in draw_artifacts(directory, identity):
        out.print(f"{label}\n  {path}", highlight=False, markup=False, soft_wrap=True)


def recall_command(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A result folder, or an artifact's folder in one.", show_default=False
        ),
    ],
    identity: Annotated[
        str | None, typer.Argument(metavar="ID", help="A key, or its first characters.", show_default=False)
    ] = None,
    *,
    classes: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="Classes of the data set by name or number: 0,1,7 tells three apart, 0+2,1+3 two groups.",
            show_default=False,
        ),
    ],
    shots: Annotated[
        int, typer.Option(metavar="N", help="Real images of each class that the artifact does not hold.")
    ] = 5,
    architecture: Annotated[str, typer.Option(help="Of the students.")] = "convnet-d2-w64",
    protocol: Annotated[str, typer.Option(help="How they are trained.")] = "quick",
    students: Annotated[int, typer.Option(metavar="N", help="For each row of the table.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the students, and of the real images drawn.")] = 0,
) -> None:
    """Train classifiers for a task that an artifact was not distilled for, against real images."""
    from bench.tools.recall import RecallQuestion, recall_task

    question = RecallQuestion(classes, shots, architecture, protocol, students, seed)
    scored = recall_task(directory, identity, question)
    table = Table(box=None, pad_edge=False)
    for name in ("students trained on", "accuracy %", "images / class", "floats"):
        table.add_column(name, justify="left" if name == "students trained on" else "right")
    for row in scored.rows:
        table.add_row(*row.words())
    out.print(scored.title, highlight=False, markup=False, soft_wrap=True)
    (out if out.is_terminal else Console(width=200)).print(table)
    note = "mean ± standard deviation of the students of one artifact, which counts whole in the floats"
    out.print(f"{note}\n  {scored.path}", highlight=False, markup=False, soft_wrap=True)

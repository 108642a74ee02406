"""Commands that look into a result folder: ls, show, recall."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bench.cli.console import out, print_rows
from bench.cli.options import (
    ArchitectureOption,
    KeyArgument,
    ProtocolOption,
    ResultsArgument,
    SeedOption,
    StudentsOption,
)
from bench.core.errors import UserError
from bench.core.words import count


def ls_command(directory: ResultsArgument) -> None:
    """List the records of a result folder by id, with what they are of; then the sets without a record."""
    rows = [*list_records(directory), *list_artifacts(directory)]
    if not rows:
        raise UserError(f"neither records nor artifacts in {directory}: name a result folder")
    table = Table(box=None, pad_edge=False)
    for name in LISTED_COLUMNS:
        table.add_column(
            name, justify="right" if name in ("ipc", "seed", "accuracy") else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*map(escape, row))
    print_rows(table)
    out.print(
        f"{count(len(rows), 'row')}; ID names a set in `ddbench show`, `export` and `recall`", style="dim"
    )


LISTED_COLUMNS = (
    "ID",
    "method",
    "data set",
    "ipc",
    "distilled on",
    "seed",
    "scored on",
    "protocol",
    "accuracy",
)
Listed = tuple[str, ...]


def list_records(directory: Path) -> list[Listed]:
    """A row a record, by method, data set, ipc and seed; ID is the key of its set."""
    from bench.records.reader import load_frame

    if not (directory / "records").is_dir():
        return []
    frame, problems = load_frame(directory)
    for problem in problems:
        out.print(f"left out: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
    order = ["method", "dataset", "ipc", "distill_arch", "seed", "eval_arch", "protocol"]
    return [
        (
            row["artifact"],
            row["method"],
            row["dataset"],
            "all" if row["exempt"] else str(row["ipc"]),
            row["distill_arch"],
            str(row["seed"]),
            row["eval_arch"],
            row["protocol"],
            f"{100 * row['accuracy']:.1f} %",
        )
        for row in frame.sort_values(order, na_position="last").to_dict("records")
    ]


def list_artifacts(directory: Path) -> list[Listed]:
    """A row for each distilled set that no record is of."""
    scored = {json.loads(path.read_text())["artifact"] for path in (directory / "records").glob("[!.]*.json")}
    found: list[Listed] = []
    for path in sorted((directory / "artifacts").glob("[!.]*/meta.json")):
        meta = json.loads(path.read_text())
        if meta["kind"] == "distill" and path.parent.name not in scored:
            made, spec = meta["identity"], meta["dataset_spec"]
            ipc, seed = str(made["ipc"] or "all"), str(made["seed"])
            where = (made["method"], spec["label"], ipc, made["architecture"], seed)
            found.append((path.parent.name, *where, "", "", ""))
    return found


def show_command(
    directory: ResultsArgument,
    identity: KeyArgument = None,
) -> None:
    """Draw a set, its bases and how it evolved, as PNGs; without ID one set for each method and ipc."""
    from bench.reporting.images.gallery import draw_artifacts

    for label, path in draw_artifacts(directory, identity):
        out.print(f"{label}\n  {path}", highlight=False, markup=False, soft_wrap=True)


def recall_command(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A result folder, or an artifact's folder in one.", show_default=False
        ),
    ],
    identity: KeyArgument = None,
    *,
    classes: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="Classes of the data set by name or number: 0,1,7 are three classes, 0+2,1+3 two groups.",
            show_default=False,
        ),
    ],
    shots: Annotated[
        int, typer.Option(metavar="N", help="Real images of each class that the artifact does not hold.")
    ] = 5,
    architecture: ArchitectureOption = "convnet-d2-w64",
    protocol: ProtocolOption = "quick",
    students: StudentsOption = 3,
    seed: SeedOption = 0,
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
    print_rows(table)
    note = "mean ± standard deviation of the students of one artifact, which counts whole in the floats"
    out.print(f"{note}\n  {scored.path}", highlight=False, markup=False, soft_wrap=True)

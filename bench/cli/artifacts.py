"""Commands that look into a result folder: ls, show, recall."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bench.cli.console import left_out, out, print_rows
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
    records = list_records(directory)
    rows = [*records, *list_artifacts(directory, {key for key, *_ in records})]
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
        left_out(problem)
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


def list_artifacts(directory: Path, scored: set[str]) -> list[Listed]:
    """A row for each distilled set that no record is of."""
    from bench.records.artifact import read_meta, read_set_meta

    found: list[Listed] = []
    for path in sorted((directory / "artifacts").glob("[!.]*")):
        try:
            if path.name in scored or read_meta(path).get("kind") != "distill":
                continue
            meta = read_set_meta(path)
        except ValueError as error:
            left_out(f"artifacts/{path.name} {error}; `ddbench run` makes it again")
            continue
        made, data = meta["identity"], str(meta.get("dataset_spec", {}).get("label", ""))
        where = (made["method"], data, str(made["ipc"] or "all"), made["architecture"], str(made["seed"]))
        found.append((path.name, *where, "", "", ""))
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

"""`ddbench advise`: what was best at that storage and cost on the most similar data."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bench.cli.console import left_out, out, print_rows
from bench.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.advice import Advice
    from bench.data.spec import DatasetSpec

MOST_SHOWN = 12


def advise_command(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A name, a folder of images, or an entry as in a sweep: {name: cifar10, data_dir: data}.",
            show_default=False,
        ),
    ],
    ipc: Annotated[int, typer.Option(metavar="N", help="Images per class to store.", show_default=False)],
    hours: Annotated[
        float,
        typer.Option(metavar="H", help="That a set may cost, preparation included.", show_default=False),
    ],
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", metavar="DIR", help="A result folder, repeatable (default: results/*)."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How students are trained (default: where most was scored)."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the students (default: where most was scored).")
    ] = None,
) -> None:
    """Say what was best at that storage and cost on the most similar data; exit 1: the records do not tell.

    What is not told apart from the best is as good: the cheapest of it is advised. The evidence is one table
    of one folder; name folders, protocol or architecture to choose another.
    """
    from bench.analysis.advice import NoEvidence, Question, advise
    from bench.interop.external import NamedDataset

    if ipc < 1:
        raise UserError(f"--ipc {ipc}: must be at least 1")
    if not 0 < hours < float("inf"):
        raise UserError(f"--hours {hours:g}: must be above 0, and finite")
    folders = results or _result_folders()
    source = NamedDataset.open(dataset, "DATASET")
    data = source.data
    question = Question(
        label=data.label,
        fingerprint=data.fingerprint,
        image_shape=data.image_shape,
        n_classes=data.n_classes,
        ipc=ipc,
        seconds=3600 * hours,
        protocol=protocol,
        architecture=architecture,
    )
    try:
        advice = advise({str(folder): _read(folder) for folder in folders}, question)
    except NoEvidence as error:
        _say(f"The records do not tell: {error}")
        raise typer.Exit(1) from None
    _print_table(advice)
    evidence = f"evidence: {advice.folder}"
    for line in [*advice.notes, *_lines(advice), evidence, *_sweep(advice, source.spec, ipc)]:
        _say(f"  {line}")


def _result_folders() -> list[Path]:
    """Those under results/ that hold records. Raises UserError where there are none."""
    found = {path.parent.parent: None for path in sorted(Path("results").glob("*/records/*.json"))}
    if not found:
        raise UserError("no result folders under results/: name them with --results DIR")
    return list(found)


def _read(folder: Path) -> "pd.DataFrame":
    """The records of a folder; a line for each that cannot be used."""
    from bench.records.reader import load_frame

    frame, problems = load_frame(folder)
    for problem in problems:
        left_out(f"{folder}/{problem}")
    return frame


def _say(line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _sweep(advice: "Advice", spec: "DatasetSpec", ipc: int) -> list[str]:
    """The sweep file that makes the advised method's sets of this data."""
    from bench.records.to_sweep import PLACES, dataset_entry, sweep_lines, sweep_of

    told = spec.model_dump(mode="json")
    entry = dataset_entry(spec.label, told) | {name: told[name] for name in PLACES if told.get(name)}
    content = sweep_of(advice.records, entry) | {"name": "advised", "ipc": [ipc]}
    return [
        "`ddbench run advised.yaml` makes it, with this in the file:",
        *(f"  {line}" for line in sweep_lines(content)),
    ]


def _print_table(advice: "Advice") -> None:
    """What is as good as the best, all of it, and the next best."""
    from bench.analysis.advice import span
    from bench.reporting.tables.table import MISSING, frame_rows, percent_cell, short_number

    table = Table(box=None, pad_edge=False)
    for name in ("", "method", "accuracy %", "seeds", "KiB", "cost"):
        table.add_column(name, justify="right" if name in ("seeds", "KiB", "cost") else "left", no_wrap=True)
    alike = int(advice.rows["standing"].isin(["advised", "not told apart"]).sum())
    for row in frame_rows(advice.rows.head(max(alike, MOST_SHOWN))):
        table.add_row(
            row["standing"],
            escape(row["method"]),
            escape(percent_cell(row, "accuracy")),
            str(row["n_seeds"]),
            short_number(row["stored_bytes"] / 1024),
            MISSING if isnan(row["seconds"]) else span(row["seconds"]),
        )
    print_rows(table)


def _lines(advice: "Advice") -> list[str]:
    """Why it is advised, and how it stands to the runner-up and to random real images."""
    from bench.analysis.advice import ALIKE

    advised, best = advice.advised["method"], advice.best["method"]
    if (advice.rows["standing"] == ALIKE).any() and advised == best:
        why = f"advised: {advised}, the best, and the cheapest of what is not told apart from it"
    elif advised != best:
        why = f"advised: {advised}, the cheapest of what is not told apart from the best, {best}"
    else:
        why = f"advised: {advised}, told apart from all others within the time"
    lines = [
        f"{one.first} less {one.second}: {100 * one.points:+.1f} points, "
        f"{'told apart' if one.told else 'not told apart'}"
        for one in advice.differences
    ]
    if not lines:
        return [f"advised: {advised}, the only method within the time: there is nothing to compare it with"]
    if not any(advice.rows["method_name"] == "random_real"):
        lines.append("random real images were not scored there")
    test = f"one test for all pairs, 5 %; told from about {100 * advice.least_difference:.1f} points"
    return [why, *lines, test]

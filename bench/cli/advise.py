"""`ddbench advise`: what was best at that storage and cost on the most similar data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bench.cli.console import out, print_rows
from bench.core.errors import UserError

if TYPE_CHECKING:
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
    """Name what was best at that storage and cost on the most similar data; exit 1: the records do not "
    "tell."""
    from bench.analysis.advice import NoEvidence, Question, advise
    from bench.interop.external import NamedDataset
    from bench.records.merge import merge_folders

    if ipc < 1:
        raise UserError(f"--ipc {ipc}: must be at least 1")
    if not hours > 0:
        raise UserError(f"--hours {hours:g}: must be above 0")
    folders = results or [path.parent for path in sorted(Path("results").glob("*/records"))]
    if not folders:
        raise UserError("no result folders under results/: name them with --results DIR")
    source = NamedDataset.open(dataset)
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
    flat, _ = merge_folders(folders)
    try:
        advice = advise(flat, question)
    except NoEvidence as error:
        out.print(f"The records do not tell: {error}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    _print(advice)
    names = [
        str(f) for f in folders if any((f / "records" / f"{r['key']}.json").exists() for r in advice.records)
    ]
    told = [f"evidence: {', '.join(names)}", *_sweep(advice, source.spec, ipc)]
    for line in told:
        out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _sweep(advice: "Advice", spec: "DatasetSpec", ipc: int) -> list[str]:
    """The sweep file that makes the advised method's sets of this data."""
    from bench.records.to_sweep import PLACES, dataset_entry, sweep_lines, sweep_of

    told = spec.model_dump(mode="json")
    entry = dataset_entry(spec.label, told) | {name: told[name] for name in PLACES if told.get(name)}
    content = sweep_of(advice.records, entry) | {"name": "advised", "ipc": [ipc]}
    return ["a sweep that makes it:", *(f"  {line}" for line in sweep_lines(content))]


def _print(advice: "Advice") -> None:
    from bench.core.words import duration
    from bench.reporting.tables.table import frame_rows, percent_cell, short_number

    table = Table(box=None, pad_edge=False)
    for name in ("", "method", "accuracy %", "seeds", "KiB", "cost"):
        table.add_column(name, justify="right" if name in ("seeds", "KiB", "cost") else "left", no_wrap=True)
    for row in frame_rows(advice.rows.head(MOST_SHOWN)):
        mark = (
            "advised" if row["advised"] else "as good" if row["equal"] else "too slow" if row["slow"] else ""
        )
        size = short_number(row["stored_bytes"] / 1024)
        table.add_row(
            mark,
            row["method"],
            percent_cell(row, "accuracy"),
            str(row["n_seeds"]),
            size,
            duration(row["seconds"]),
        )
    print_rows(table)
    for line in [*advice.notes, *_lines(advice)]:
        out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _lines(advice: "Advice") -> list[str]:
    """How the advised method stands to random images, and to the cheapest that is as good."""
    best, cheap, gain = advice.advised, advice.cheapest, advice.over_random
    lines = []
    if gain is not None and best["method_name"] != "random_real":
        lines.append(f"{best['method']} is {100 * gain:+.1f} points over random real images")
    if not advice.told:
        return [*lines, "one seed each, so that nothing can be told apart"]
    lines.append("as good: not told apart from the advised (one test for all pairs, 5 %)")
    if cheap["method"] != best["method"]:
        less = 100 * (cheap["accuracy_mean"] - best["accuracy_mean"])
        lines.append(f"the cheapest of those: {cheap['method']}, {less:+.1f} points")
    return lines

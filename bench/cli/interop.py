"""Commands for distilled sets that lie in a file: evaluate, import, export, verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bench.cli.console import finish_run, out, say_next
from bench.cli.options import (
    ArchitectureOption,
    ArchitecturesOption,
    CpusOption,
    DatasetOption,
    GpusOption,
    ProtocolsOption,
    ResultsArgument,
    StudentsOption,
)
from bench.core.errors import UserError
from bench.core.io import check_writable
from bench.core.words import true_minus

if TYPE_CHECKING:  # as in cli: torch takes two seconds to import
    from bench.interop.diagnose import ChangeTrial, Verdict
    from bench.interop.external import Adopted
    from bench.interop.importers.request import ImportRequest
    from bench.planning.resources import Resources

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE_OR_DIR", help="The distilled set, as published.", show_default=False)
]
FormatOption = Annotated[
    str,
    typer.Option("--format", help="auto, dc, mtt, datm, idc, haba, rtp, frepo, kip, folder, plain, ddbench."),
]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        help="How pixels are scaled: raw01, raw255, signed (-1 to 1), normalized (by mean and std) or zca."
    ),
]
FactorOption = Annotated[int | None, typer.Option(metavar="F", help="Multi-formation factor of an IDC file.")]
DownsampleOption = Annotated[
    int | None, typer.Option(metavar="D", help="How much an RTP memory is enlarged.")
]
LrOption = Annotated[
    float | None, typer.Option(metavar="LR", help="The step size that was learned with the set.")
]
NameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="What tables call it (default: the file's name).")
]
ImportedOutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Result folder; others' sets may stand in one.")
]
IMPORTED_FOLDER = Path("results/imported")


def _request(
    file: Path, form: str, space: str | None, factor: int | None, downsample: int | None, lr: float | None
) -> "ImportRequest":
    from bench.interop.importers.request import ImportRequest

    if not file.exists():
        raise UserError(f"{file}: no such file or folder")
    return ImportRequest(file, form, space, factor, lr, downsample)


def _needs(cpus: int, gpus: float) -> "Resources":
    """What a job gets. Raises UserError for what is impossible, or not in this machine."""
    from bench.execution.machine import check_resources
    from bench.planning.resources import Resources

    if cpus < 1 or not 0 <= gpus <= 1:
        raise UserError(f"--cpus {cpus} --gpus {gpus:g}: at least one thread; no GPU, one or a part")
    needs = Resources(cpus=cpus, gpus=gpus)
    check_resources(needs)
    return needs


def evaluate_command(
    file: FileArgument,
    dataset: DatasetOption,
    form: FormatOption = "auto",
    space: SpaceOption = None,
    factor: FactorOption = None,
    downsample: DownsampleOption = None,
    lr: LrOption = None,
    architectures: ArchitecturesOption = "convnet",
    protocols: ProtocolsOption = "standard",
    students: StudentsOption = 5,
    name: NameOption = None,
    out_dir: ImportedOutOption = IMPORTED_FOLDER,
    cpus: CpusOption = 1,
    gpus: GpusOption = 0,
) -> None:
    """Score a distilled set that someone published; prints the same table as `run`."""
    from bench.execution.store import Store
    from bench.interop.external import NamedDataset, adopt_sets, evaluation_specs, external_session

    request, needs = _request(file, form, space, factor, downsample, lr), _needs(cpus, gpus)
    check_writable(out_dir, "choose another with --out")
    source = NamedDataset.open(dataset)
    # before anything is written
    specs = evaluation_specs(source, architectures.split(","), protocols.split(","), students)
    store = Store(out_dir.resolve())
    adopted = adopt_sets(store, request, source, name)
    _tell(adopted)
    session = external_session(store, adopted, source, specs, needs)
    finish_run(session, session.run("inline", None, None, out), None)


def import_command(
    file: FileArgument,
    dataset: DatasetOption,
    form: FormatOption = "auto",
    space: SpaceOption = None,
    factor: FactorOption = None,
    downsample: DownsampleOption = None,
    lr: LrOption = None,
    name: NameOption = None,
    out_dir: ImportedOutOption = IMPORTED_FOLDER,
) -> None:
    """Turn a published set into an artifact, for `show`, `recall` and `export`."""
    from bench.execution.store import Store
    from bench.interop.external import NamedDataset, adopt_sets

    request, store = _request(file, form, space, factor, downsample, lr), Store(out_dir.resolve())
    check_writable(store.root, "choose another with --out")
    adopted = adopt_sets(store, request, NamedDataset.open(dataset), name)
    _tell(adopted)
    for one in adopted:
        out.print(f"  {store.artifact(one.job.key)}", highlight=False, markup=False, soft_wrap=True)
    say_next(f"show {out_dir} {adopted[0].job.key}")


def _tell(adopted: "list[Adopted]") -> None:
    """What was read, what was assumed, and what the file claims of itself."""
    for one in adopted:
        found = one.imported
        lines = [f"{one.job.label}  {one.job.key}", f"  format {found.format}: {found.source}"]
        lines += [f"  {note}" for note in found.notes]
        lines += [f"  the file claims {what}: {value}" for what, value in found.published.items()]
        for line in lines:
            out.print(line, highlight=False, markup=False, soft_wrap=True)


def export_command(
    directory: ResultsArgument,
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="A key, or its first characters.", show_default=False)
    ],
    to: Annotated[
        Path, typer.Option(metavar="PATH", help="The file or folder to write.", show_default=False)
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="dc (torch, as DC's), plain (DD-Ranking), safetensors, folder (PNG files)."
        ),
    ] = "plain",
) -> None:
    """Write what an artifact decodes to in a layout that other tools read."""
    from bench.core.distilled import load_distilled
    from bench.execution.store import WEIGHTS, Store, verified_meta
    from bench.interop.export import export_set

    store = Store(directory)
    key = store.find(identity)
    meta = verified_meta(store, key)
    distilled = load_distilled(store.artifact(key) / WEIGHTS)
    written = export_set(distilled, meta["classes"], to, form)
    out.print(f"{meta['label']}  {key}: {len(written)} files", highlight=False, markup=False, soft_wrap=True)
    out.print(f"  {to}", highlight=False, markup=False, soft_wrap=True)


def verify_command(
    file: FileArgument,
    dataset: DatasetOption,
    expect: Annotated[
        float, typer.Option(metavar="ACCURACY", help="The published figure, as a fraction: 0.675.")
    ],
    tolerance: Annotated[float, typer.Option(help="How far from it still agrees, as a fraction.")] = 0.015,
    form: FormatOption = "auto",
    space: SpaceOption = None,
    factor: FactorOption = None,
    downsample: DownsampleOption = None,
    lr: LrOption = None,
    architecture: ArchitectureOption = "convnet",
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How students are trained (default: as the format's papers do)."),
    ] = None,
    students: StudentsOption = 3,
    experiment: Annotated[int, typer.Option(metavar="N", help="Which set of a file that holds several.")] = 0,
    gpus: GpusOption = 0,
    cpus: CpusOption = 1,
) -> None:
    """Evaluate a published set; if the figure is missed, try what usually explains it, and say how much."""
    from bench.interop.diagnose import prepare_verification
    from bench.interop.external import NamedDataset

    for value, flag in ((expect, "--expect"), (tolerance, "--tolerance")):
        if not 0 <= value < 1:
            raise UserError(f"{flag} {value:g}: a fraction, like 0.675 for 67.5 %")
    request = _request(file, form, space, factor, downsample, lr)
    source = NamedDataset.open(dataset)
    needs = _needs(cpus, gpus)
    asked = prepare_verification(
        request, experiment, source.data, architecture, protocol, students, needs, _row
    )
    _columns("round", "suspect", "changed to", "accuracy %", "", "gain")
    verdict = asked.run(expect, tolerance)
    _judge(verdict, tolerance)
    raise typer.Exit(0 if abs(verdict.expected - verdict.first.accuracy) <= tolerance else 1)


def _row(trial: "ChangeTrial") -> None:
    """One line for each trial as it ends: a user waits minutes for all of them."""
    gain = true_minus(true_minus(f"{100 * trial.gain:+.1f}")) if trial.round else ""
    spread = f"± {100 * trial.spread:.1f}" if len(trial.accuracies) > 1 else ""
    _columns(str(trial.round or ""), trial.suspect, trial.change, f"{100 * trial.accuracy:.1f}", spread, gain)


def _columns(number: str, suspect: str, change: str, accuracy: str, spread: str, gain: str) -> None:
    line = f"{number:<6}{suspect:<15}{change:<54}{accuracy:>10}{spread:>8}{gain:>8}".rstrip()
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _judge(verdict: "Verdict", tolerance: float) -> None:
    first, expected = 100 * verdict.first.accuracy, 100 * verdict.expected
    title = f"expected {expected:.1f} %, measured {first:.1f} %: "
    if abs(verdict.expected - verdict.first.accuracy) <= tolerance:
        out.print(f"\n{title}reproduced, within {100 * tolerance:g}", highlight=False)
        return
    out.print(f"\n{title}missed by {true_minus(f'{expected - first:+.1f}')}", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for trial in verdict.blamed:
        table.add_row(f"  {trial.suspect}", trial.change, true_minus(f"{100 * trial.gain:+.1f}"))
    table.add_row("  left unexplained", "", true_minus(f"{100 * verdict.missing:+.1f}"))
    out.print(table)
    out.print("  chosen by test accuracy: an explanation, not a result", style="dim")

"""Commands for distilled sets that lie in a file: evaluate, import, export, verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bench.errors import UserError
from bench.terminal import finish, out

if TYPE_CHECKING:  # as in cli: torch takes two seconds to import
    from bench.config import Resources
    from bench.foreign import Adopted
    from bench.importers import Request
    from bench.verify import Trial, Verdict

File = Annotated[
    Path, typer.Argument(metavar="FILE_OR_DIR", help="The distilled set, as published.", show_default=False)
]
Data = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="What it was distilled from: a name, a folder of images, or {name: cifar10, data_dir: data}.",
        show_default=False,
    ),
]
Format = Annotated[
    str,
    typer.Option("--format", help="auto, dc, mtt, datm, idc, haba, rtp, frepo, kip, folder, plain, ddbench."),
]
Space = Annotated[str | None, typer.Option(help="How the pixel values are scaled: raw01, normalized or zca.")]
Factor = Annotated[int | None, typer.Option(metavar="F", help="Multi-formation factor of an IDC file.")]
Downsample = Annotated[int | None, typer.Option(metavar="D", help="How much an RTP memory is enlarged.")]
Lr = Annotated[float | None, typer.Option(metavar="LR", help="The step size that was learned with the set.")]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="What tables call it (default: the file's name).")
]
Students = Annotated[int, typer.Option(metavar="N", help="Networks trained on each set.")]
Cpus = Annotated[int, typer.Option(metavar="N", help="Threads.")]
Gpus = Annotated[float, typer.Option(metavar="N", help="1 for a GPU.")]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Result folder; others' sets may stand in one.")
]
FOLDER = Path("results/imported")


def _request(
    file: Path, form: str, space: str | None, factor: int | None, downsample: int | None, lr: float | None
) -> "Request":
    from bench.importers import Request

    if not file.exists():
        raise UserError(f"{file}: no such file or folder")
    return Request(file, form, space, factor, lr, downsample)


def _needs(cpus: int, gpus: float) -> "Resources":
    """What a job gets. Raises UserError for what is impossible, or not in this machine."""
    from bench.config import Resources
    from bench.session import check_resources

    if cpus < 1 or not 0 <= gpus <= 1:
        raise UserError(f"--cpus {cpus} --gpus {gpus:g}: at least one thread; no GPU, one or a part")
    needs = Resources(cpus=cpus, gpus=gpus)
    check_resources(needs)
    return needs


def evaluate(
    file: File,
    dataset: Data,
    form: Format = "auto",
    space: Space = None,
    factor: Factor = None,
    downsample: Downsample = None,
    lr: Lr = None,
    archs: Annotated[str, typer.Option(metavar="A,B", help="Architectures of the students.")] = "convnet",
    protocol: Annotated[str, typer.Option(metavar="P,Q", help="How they are trained.")] = "standard",
    students: Students = 5,
    name: Name = None,
    out_dir: Out = FOLDER,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
) -> None:
    """Score a distilled set that someone published; prints the same table as `run`."""
    from bench import foreign
    from bench.store import Store

    request, needs = _request(file, form, space, factor, downsample, lr), _needs(cpus, gpus)
    source = foreign.Source.open(dataset)
    # before anything is written
    exams = foreign.exams(source, archs.split(","), protocol.split(","), students)
    store = Store(out_dir.resolve())
    adopted = foreign.adopt(store, request, source, name)
    _tell(adopted)
    session = foreign.session(store, adopted, source, exams, needs)
    finish(session, session.run("inline", None, None, out), None)


def import_(
    file: File,
    dataset: Data,
    form: Format = "auto",
    space: Space = None,
    factor: Factor = None,
    downsample: Downsample = None,
    lr: Lr = None,
    name: Name = None,
    out_dir: Out = FOLDER,
) -> None:
    """Turn a published set into an artifact, for `show`, `recall` and `export`."""
    from bench import foreign
    from bench.store import Store

    request, store = _request(file, form, space, factor, downsample, lr), Store(out_dir.resolve())
    adopted = foreign.adopt(store, request, foreign.Source.open(dataset), name)
    _tell(adopted)
    for one in adopted:
        out.print(f"  {store.artifact(one.job.key)}", highlight=False, markup=False, soft_wrap=True)


def _tell(adopted: "list[Adopted]") -> None:
    """What was read, what was assumed, and what the file claims of itself."""
    for one in adopted:
        found = one.imported
        lines = [f"{one.job.label}  {one.job.key}", f"  format {found.format}: {found.source}"]
        lines += [f"  {note}" for note in found.notes]
        lines += [f"  the file claims {what}: {value}" for what, value in found.published.items()]
        for line in lines:
            out.print(line, highlight=False, markup=False, soft_wrap=True)


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.", show_default=False)],
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
    from bench import artifact, exporters
    from bench.evaluate import WEIGHTS
    from bench.gallery import verified
    from bench.store import Store

    store = Store(directory)
    key = store.find(identity)
    meta = verified(store, key)
    distilled = artifact.load(store.artifact(key) / WEIGHTS)
    written = exporters.export(distilled, meta["classes"], to, form)
    out.print(f"{meta['label']}  {key}: {len(written)} files", highlight=False, markup=False, soft_wrap=True)
    out.print(f"  {to}", highlight=False, markup=False, soft_wrap=True)


def verify(
    file: File,
    dataset: Data,
    expect: Annotated[
        float, typer.Option(metavar="ACCURACY", help="The published figure, as a fraction: 0.675.")
    ],
    tolerance: Annotated[float, typer.Option(help="How far from it still agrees, as a fraction.")] = 0.015,
    form: Format = "auto",
    space: Space = None,
    factor: Factor = None,
    downsample: Downsample = None,
    lr: Lr = None,
    arch: Annotated[str, typer.Option(help="Architecture of the students.")] = "convnet",
    protocol: Annotated[
        str | None, typer.Option(help="How they are trained (default: as the format's papers do).")
    ] = None,
    students: Students = 3,
    experiment: Annotated[int, typer.Option(metavar="N", help="Which set of a file that holds several.")] = 0,
    gpus: Gpus = 0,
    cpus: Cpus = 1,
) -> None:
    """Evaluate a published set; if the figure is missed, try what usually explains it, and say how much."""
    from bench import foreign
    from bench.verify import prepared

    for value, flag in ((expect, "--expect"), (tolerance, "--tolerance")):
        if not 0 <= value < 1:
            raise UserError(f"{flag} {value:g}: a fraction, like 0.675 for 67.5 %")
    request = _request(file, form, space, factor, downsample, lr)
    source = foreign.Source.open(dataset)
    needs = _needs(cpus, gpus)
    _columns("round", "suspect", "changed to", "accuracy %", "", "gain")
    asked = prepared(request, experiment, source.data, arch, protocol, students, needs, _row)
    verdict = asked.run(expect, tolerance)
    _judge(verdict, tolerance)
    raise typer.Exit(0 if abs(verdict.expected - verdict.first.accuracy) <= tolerance else 1)


def _row(trial: "Trial") -> None:
    """One line for each trial as it ends: a user waits minutes for all of them."""
    gain = f"{100 * trial.gain:+.1f}" if trial.round else ""
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
    out.print(f"\n{title}missed by {expected - first:+.1f}", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for trial in verdict.blamed:
        table.add_row(f"  {trial.suspect}", trial.change, f"{100 * trial.gain:+.1f}")
    table.add_row("  left unexplained", "", f"{100 * verdict.missing:+.1f}")
    out.print(table)
    out.print("  the test accuracy told them apart: an explanation, not a result", style="dim")

"""The command line; further commands are in cli_*. `ddbench` is `python -m bench`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from bench import cli_foreign, cli_profile, cli_report, cli_results, cli_submit
from bench.errors import UserError
from bench.terminal import finish, out

if TYPE_CHECKING:  # torch takes two seconds to import: only the commands that need it pay
    from bench.session import Session


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """A UserError, and a broken pair of torch and torchvision, end in one line and exit code 2."""
    try:
        yield
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped")
        raise SystemExit(130) from None


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with _one_line_errors():  # around `main` it would see no Ctrl-C: typer ends on one without a word
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="ddbench: benchmark dataset-distillation methods. Accuracy, bytes and seconds in one record.",
)

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Result folder (default: results/<sweep name>).")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.students=5, methods.dm.steps=100."
    ),
]
Results = Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.", show_default=False)]


def _open(
    sweep: Path, out_dir: Path | None, overrides: list[str] | None, on_cluster: bool = False
) -> "Session":
    from bench.session import Session

    return Session.open(sweep, overrides or [], out_dir, on_cluster)


@app.command()
def run(
    sweep: SweepFile,
    out_dir: Out = None,
    overrides: Set = None,
    executor: Annotated[
        Literal["ray", "inline"], typer.Option(help="Ray Tune, or one job after the other in this process.")
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="A running Ray cluster (host:port or auto).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run at most N jobs.")] = None,
) -> None:
    """Run what is missing, write records, then report."""
    if address and executor == "inline":
        raise UserError("--address needs --executor ray")
    session = _open(sweep, out_dir, overrides, on_cluster=address is not None)
    finish(session, session.run(executor, address, limit, out), limit)


@app.command()
def plan(sweep: SweepFile, out_dir: Out = None, overrides: Set = None) -> None:
    """Print the jobs, their keys, what is done and what the rest may cost. Runs nothing."""
    from bench.progress import duration

    session = _open(sweep, out_dir, overrides)
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "job", "key", "state", "estimate"):
        table.add_column(name, justify="right" if name == "estimate" else "left")
    costs = session.estimate()
    for key, job in session.jobs.items():
        cost = duration(costs[key]) if key in costs and key in session.todo else ""
        table.add_row(job.kind, escape(job.label), key, escape(session.state(key)), cost)
    # a pipe has no width: never cut a key or a label
    (out if out.is_terminal else Console(width=200)).print(table)
    for line in session.plan_summary(costs):
        out.print(line, highlight=False)


@app.command("list")
def list_(
    what: Annotated[
        Literal["methods", "datasets", "architectures", "protocols", "blocks"],
        typer.Argument(show_default=False),
    ],
) -> None:
    """What can be named in a sweep file, with one line on each."""
    from bench.catalogue import CATALOGUE

    entries = CATALOGUE[what]()
    width = max(map(len, entries))
    for name, line in entries.items():
        out.print(f"[bold]{name:<{width}}[/bold]  {escape(line)}", highlight=False, soft_wrap=True)


@app.command()
def show(
    directory: Results,
    identity: Annotated[
        str | None, typer.Argument(metavar="ID", help="A key, or its first characters.", show_default=False)
    ] = None,
) -> None:
    """Draw a set, its bases and how it evolved, as PNGs; without ID one set for each method and ipc."""
    from bench.gallery import draw

    for label, path in draw(directory, identity):
        out.print(f"{label}\n  {path}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def recall(
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
    from bench import recall as recalling

    question = recalling.Question(classes, shots, architecture, protocol, students, seed)
    scored = recalling.recall(directory, identity, question)
    table = Table(box=None, pad_edge=False)
    for name in ("students trained on", "accuracy %", "images / class", "floats"):
        table.add_column(name, justify="left" if name == "students trained on" else "right")
    for row in scored.rows:
        table.add_row(*row.words())
    out.print(scored.title, highlight=False, markup=False, soft_wrap=True)
    (out if out.is_terminal else Console(width=200)).print(table)
    note = "mean ± standard deviation of the students of one artifact, which counts whole in the floats"
    out.print(f"{note}\n  {scored.path}", highlight=False, markup=False, soft_wrap=True)


app.command("report")(cli_report.report)
app.command("submit-check")(cli_submit.submit_check)
app.command("evaluate")(cli_foreign.evaluate)
app.command("import")(cli_foreign.import_)
app.command("export")(cli_foreign.export)
app.command("verify")(cli_foreign.verify)
app.command("compare")(cli_results.compare)
app.command("profile")(cli_profile.profile)


def main() -> None:
    app()


if __name__ == "__main__":
    main()

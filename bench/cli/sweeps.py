"""Commands that run a sweep, or say what it would run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from bench.cli.console import finish_run, out, print_rows
from bench.cli.options import FreshOption, OutOption, PluginOption, SetOption, SweepArgument
from bench.core.errors import UserError
from bench.core.registry import load_plugin
from bench.core.words import duration

if TYPE_CHECKING:  # torch takes two seconds to import: only the commands that need it pay
    from bench.execution.session import Session


def _open(
    sweep: Path,
    out_dir: Path | None,
    overrides: list[str] | None,
    plugins: list[Path] | None,
    on_cluster: bool = False,
    fresh: bool = False,
) -> "Session":
    for path in plugins or []:
        load_plugin(path)
    from bench.execution.session import Session

    return Session.open(sweep, overrides or [], out_dir, on_cluster, fresh)


def run_command(
    sweep: SweepArgument,
    out_dir: OutOption = None,
    overrides: SetOption = None,
    executor: Annotated[
        Literal["ray", "inline"], typer.Option(help="Ray Tune, or one job after the other in this process.")
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="A running Ray cluster (host:port or auto).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run at most N jobs.")] = None,
    fresh: FreshOption = False,
    plugins: PluginOption = None,
) -> None:
    """Run the jobs of a sweep that are missing, write records, then report."""
    if address and executor == "inline":
        raise UserError("--address needs --executor ray")
    out.print(f"planning {sweep}", highlight=False, markup=False, soft_wrap=True)
    session = _open(sweep, out_dir, overrides, plugins, on_cluster=address is not None, fresh=fresh)
    finish_run(session, session.run(executor, address, limit, out), limit)


def plan_command(
    sweep: SweepArgument,
    out_dir: OutOption = None,
    overrides: SetOption = None,
    fresh: FreshOption = False,
    plugins: PluginOption = None,
) -> None:
    """Print the jobs of a sweep, their keys, what is done and what the rest may cost. Runs nothing."""
    session = _open(sweep, out_dir, overrides, plugins, fresh=fresh)
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "job", "key", "state", "estimate"):
        table.add_column(name, justify="right" if name == "estimate" else "left")
    costs = session.estimate()
    for key, job in session.jobs.items():
        cost = duration(costs[key]) if key in costs and key in session.todo else ""
        table.add_row(job.kind, escape(job.label), key, escape(session.state(key)), cost)
    print_rows(table)
    for line in session.plan_summary(costs):
        out.print(line, highlight=False)

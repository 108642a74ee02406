"""Commands that run a sweep, or say what it would run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.cli.console import finish_run, out, print_rows
from bench.cli.dry import print_dry_plan
from bench.cli.options import (
    AddressOption,
    FreshOption,
    OutOption,
    PluginOption,
    SetOption,
    ShardOption,
    SweepArgument,
)
from bench.core.errors import UserError
from bench.core.registry import load_plugin
from bench.core.words import count, duration

if TYPE_CHECKING:  # torch takes two seconds to import: only the commands that need it pay
    from bench.execution.session import Session
    from bench.execution.url_folder import UrlFolder
    from bench.planning.shards import Shard


def _open(
    sweep: Path,
    out_dir: Path | None,
    overrides: list[str] | None,
    plugins: list[Path] | None,
    on_cluster: bool = False,
    fresh: bool = False,
    shard: str | None = None,
    keep_split: bool = False,
) -> "Session":
    for path in plugins or []:
        load_plugin(path)
    from bench.execution.session import Session
    from bench.planning.shards import parse_shard

    wanted = parse_shard(shard) if shard is not None else None
    if wanted and fresh:
        raise UserError("--fresh makes again what other shards may be using: give it without --shard")
    status = Console(stderr=True).status("")

    def tell(label: str) -> None:
        status.update(f"counting the operations of {escape(label)}")
        status.start()

    try:
        session = Session.open(sweep, overrides or [], out_dir, on_cluster, fresh, tell)
    finally:
        status.stop()
    return _take_shard(session, wanted, keep_split) if wanted else session


def _take_shard(session: "Session", shard: "Shard", keep_split: bool) -> "Session":
    """The session of one shard, and a line on it."""
    from bench.execution.shard_run import take_shard

    taken = take_shard(session, shard, keep_split)
    told = f"shard {shard}: {len(taken.jobs):,} of {count(len(session.jobs), 'job')}"
    out.print(told, highlight=False, soft_wrap=True)
    return taken


def _open_at(
    place: str | None,
    sweep: Path,
    overrides: list[str] | None,
    plugins: list[Path] | None,
    on_cluster: bool = False,
    fresh: bool = False,
    shard: str | None = None,
    keep_split: bool = False,
) -> "tuple[Session, UrlFolder | None]":
    """`place` is a folder or a URL, from which what is finished is taken."""
    if "://" not in (place or ""):
        if ":/" in (place or ""):
            raise UserError(f"--out {place}: a URL has two slashes behind its colon, as s3://BUCKET/PATH")
        to = Path(place) if place else None
        return _open(sweep, to, overrides, plugins, on_cluster, fresh, shard, keep_split), None
    if shard:
        raise UserError("--shard needs a folder for --out, not a URL")
    if fresh:
        raise UserError("--fresh needs a folder for --out: behind a URL nothing is written again")
    from bench.execution.url_folder import UrlFolder, fetch_finished

    there = UrlFolder(str(place))
    session = _open(sweep, there.store.root, overrides, plugins, on_cluster, fresh)
    fetch_finished(session, there)
    return session, there


def run_command(
    sweep: SweepArgument,
    out_dir: OutOption = None,
    overrides: SetOption = None,
    executor: Annotated[
        Literal["ray", "inline"], typer.Option(help="Ray Tune, or one job after the other in this process.")
    ] = "ray",
    address: AddressOption = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run at most N jobs.")] = None,
    shard: ShardOption = None,
    fresh: FreshOption = False,
    plugins: PluginOption = None,
) -> None:
    """Run the jobs of a sweep that are missing, write records, then report."""
    if address and executor == "inline":
        raise UserError("--address needs --executor ray")
    out.print(f"planning {sweep}", highlight=False, markup=False, soft_wrap=True)
    session, there = _open_at(
        out_dir, sweep, overrides, plugins, address is not None, fresh, shard, keep_split=True
    )
    if there is None:
        outcome = session.run(executor, address, limit, out)
    else:
        from bench.execution.url_folder import run_sending

        told = f"results go to {there.name}, and stay in {there.store.root}"
        out.print(told, highlight=False, markup=False, soft_wrap=True)
        outcome = run_sending(session, there, lambda: session.run(executor, address, limit, out))
    finish_run(session, outcome, limit)


def plan_command(
    sweep: SweepArgument,
    out_dir: OutOption = None,
    overrides: SetOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time two steps of what no finished job is like.")
    ] = False,
    shard: ShardOption = None,
    dry: Annotated[
        bool,
        typer.Option("--dry", help="Operations and memory instead, from shapes: for a machine not at hand."),
    ] = False,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="With --dry: operations a second, as 15TFLOP/s.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="With --dry: of a folder that is not here (KxNxCxHxW), as 10x1300x3x128x128.",
        ),
    ] = None,
    fresh: FreshOption = False,
    plugins: PluginOption = None,
) -> None:
    """Print the jobs of a sweep, their keys, what is done and what the rest may cost. Runs nothing."""
    if dry:
        for path in plugins or []:
            load_plugin(path)
        print_dry_plan(sweep, overrides or [], rate, shape)
        return
    if rate or shape:
        raise UserError(f"--{'rate' if rate else 'shape'} needs --dry")
    session, _ = _open_at(out_dir, sweep, overrides, plugins, fresh=fresh, shard=shard)
    problems = _measure(session) if measure and session.todo else []
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "job", "key", "state", "estimate"):
        table.add_column(name, justify="right" if name == "estimate" else "left")
    for key, job in session.jobs.items():
        seconds = session.costs.seconds(key) if key in session.todo else None
        cost = "" if seconds is None else duration(seconds)
        table.add_row(job.kind, escape(job.label), key, escape(session.state(key)), cost)
    print_rows(table)
    for line in [*problems, *session.plan_summary()]:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _measure(session: "Session") -> list[str]:
    """Let the session's estimates learn from a few steps; a line on what could not be measured."""
    from bench.data.cache import read_dataset
    from bench.tools.measure import measure_plan

    data = {name: read_dataset(Path(place["path"])) for name, place in session.datasets.items()}
    with Console(stderr=True).status("measuring") as status:
        return measure_plan(
            session.jobs,
            session.todo,
            session.costs,
            data,
            session.resources,
            lambda label: status.update(f"two steps of {label}"),
        )

"""The command that profiles a method."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.console import out
from bench.cli.options import (
    ArchitectureOption,
    CpusOption,
    DatasetOption,
    GpusOption,
    PluginOption,
    ProtocolOption,
)
from bench.core.registry import load_plugin
from bench.core.strict import valid_name

PROFILE_FOLDER = Path("results/profile")


def profile_command(
    method: Annotated[str, typer.Argument(metavar="METHOD", show_default=False)],
    dataset: DatasetOption,
    ipc: Annotated[int, typer.Option(metavar="N", help="Images per class.", show_default=False)],
    architecture: ArchitectureOption = "convnet",
    protocol: ProtocolOption = "standard",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A hyper-parameter, in the place of the preset's."),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="About how long; a step is never cut.")] = 60,
    cpus: CpusOption = 1,
    gpus: GpusOption = 0,
    plugins: PluginOption = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="(default: results/profile/METHOD-DATASET-ipcN)"),
    ] = None,
) -> None:
    """See what a method spends its time on, and what all of its steps would cost."""
    for path in plugins or []:
        load_plugin(path)
    # before torch is loaded: its tracer writes to stderr, errors for want of a GPU among them
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from bench.execution.store import Store
    from bench.planning.overrides import read_overrides
    from bench.reporting.tables.render import print_table
    from bench.tools.profile.run import CheckedRequest, Profiler, ProfileRequest
    from bench.tools.profile.tables import profile_tables
    from bench.tools.profile.write import TRACE, workplace, write_profile

    values = read_overrides(overrides or [], "batch_real=64")
    request = ProfileRequest(method, values, dataset, ipc, architecture, protocol, seconds, cpus, gpus)
    asked = CheckedRequest.check(request)
    stores = [Store(path.parent) for path in sorted(Path("results").glob("*/artifacts"))]
    label = valid_name(asked.source.data.label)
    target = (out_dir or PROFILE_FOLDER / f"{method}-{label}-ipc{ipc}").resolve()
    with workplace(target) as work, Console(stderr=True).status("starting") as status:
        found = Profiler(request, asked, stores, status.update).run(work / TRACE)
        written = write_profile(found, work, target)
    for table in profile_tables(found):
        print_table(table, out)
    for path in written:
        out.print(f"  {path}", highlight=False, markup=False, soft_wrap=True)

"""The command that tunes the methods of a sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from bench.cli.console import from_here, out, say_next, short_path
from bench.cli.options import AddressOption, PluginOption, SetOption, SweepArgument
from bench.core.errors import UserError
from bench.core.io import write_atomic
from bench.core.registry import load_plugin
from bench.core.strict import valid_name
from bench.core.words import count

if TYPE_CHECKING:  # torch takes two seconds to import: only the commands that need it pay
    from bench.execution.tuning import Tuning


def tune_command(
    sweep: SweepArgument,
    trials: Annotated[
        int,
        typer.Option("--trials", metavar="N", min=1, max=10_000, help="Of each method, data set and ipc."),
    ] = 20,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Result folder (default: results/<sweep name>_tuned)."),
    ] = None,
    overrides: SetOption = None,
    executor: Annotated[
        Literal["ray", "inline"], typer.Option(help="Ray Tune, or one trial after the other in this process.")
    ] = "ray",
    address: AddressOption = None,
    plugins: PluginOption = None,
) -> None:
    """Tune each method with equally many trials on a hold-out of the training set; goes on where it ended."""
    if address and executor == "inline":
        raise UserError("--address needs --executor ray")
    for path in plugins or []:
        load_plugin(path)
    from bench.execution.head import goes_on
    from bench.execution.run_tuning import run_tuning
    from bench.execution.tuning import Tuning
    from bench.planning.sweep import read_sweep

    with Console(stderr=True).status(f"planning {escape(str(sweep))}") as status:
        tuning = Tuning.begin(
            sweep,
            overrides or [],
            out_dir,
            trials,
            address is not None,
            lambda label: status.update(f"counting the operations of {escape(label)}"),
        )
    _say_plan(tuning, trials)
    outcome = run_tuning(tuning, executor, address, out, _say)
    if outcome.interrupted or outcome.lost:
        _say(goes_on(outcome.lost or "Stopped"))
        raise typer.Exit(1 if outcome.lost else 130)
    for label, why in outcome.failed.items():
        _say(f"failed: {label}: {why}")
    compared = _write(tuning, read_sweep(sweep, overrides or []))
    nothing = [one.cell.label for one in tuning.cells if one.best is None]
    for label in nothing:
        _say(f"failed: {label}: no trial came to its end")
    if not (outcome.failed or nothing):
        say_next(f"run {short_path(compared)} --out {short_path(tuning.store.root)}")
    raise typer.Exit(1 if outcome.failed or nothing else 0)


def _say(line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _say_plan(tuning: "Tuning", trials: int) -> None:
    for name in tuning.without:
        _say(f"{name}: has no search space: it is compared as it is")
    if other := tuning.made_by_others:
        made = f"{count(other, 'trial')} made by other sources than today's"
        _say(f"{made}: they count as done; another --out begins anew")
    left = sum(len(one.left) for one in tuning.cells)
    _say(
        f"{count(left, 'trial')} to run in {tuning.store.root}, {trials} for each of "
        f"{count(len(tuning.cells), 'cell')} (method, data set, ipc)"
    )


def _write(tuning: "Tuning", content: dict[str, Any]) -> Path:
    """Presets, the sweep that compares them, and the tables; returns the sweep."""
    root = tuning.store.root
    from bench.planning.tuned_files import compared_sweep, preset_files
    from bench.reporting.build import write_section
    from bench.reporting.tables.render import print_table
    from bench.reporting.tables.tuning import trial_sections

    records = [record for one in tuning.cells for record in one.ended]
    presets = {}
    for method, text in preset_files(records).items():
        presets[method] = from_here(write_atomic(root / "presets" / f"{method}.yaml", text))
    for section in trial_sections(records):
        for comparison in section.comparisons:
            print_table(comparison, out)
        write_section(section, root)
    return write_atomic(root / "compare.yaml", compared_sweep(content, valid_name(root.name), presets))

"""Run sweeps and read their results as data frames."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.analysis import aggregate
from bench.analysis.regression import compare_frames
from bench.core.errors import UserError
from bench.records.merge import merge_folders

Results = pd.DataFrame | str | Path


def load_records(*folders: str | Path) -> pd.DataFrame:
    """The records of result folders, one row each.

    Args:
        folders: result folders; a record that is in several counts once.

    Returns:
        A frame: method, dataset, ipc, architectures, protocol, seed, accuracy (a fraction, the mean over
        students), metrics, storage, costs, versions. bench/README.md explains every column.

    Raises:
        UserError: a folder without records. Records that cannot be read are left out with a warning.

    Example:
        >>> frame = load_records("results/quickstart")
    """
    if not folders:
        raise UserError("name at least one result folder")
    frame, problems = merge_folders([Path(folder) for folder in folders])
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return frame


def _frame(results: Results) -> pd.DataFrame:
    return results if isinstance(results, pd.DataFrame) else load_records(results)


def summary(results: Results) -> pd.DataFrame:
    """Means over distillation seeds with intervals, storage and costs: the numbers of the comparison table.

    Args:
        results: a frame of `load_records`, or a result folder.

    Returns:
        A row per method, data set, ipc, architectures and protocol, the best of each group first.
    """
    return aggregate.summary_frame(_frame(results))


def compare(old: Results, new: Results) -> pd.DataFrame:
    """What moved between two result sets, beyond the noise of their seeds.

    Args:
        old: a frame of `load_records`, or a result folder.
        new: the same.

    Returns:
        A row per cell of either: means, difference with its interval, p-values, `verdict`, `storage`. What
        was matched by name alone is in `.attrs["notes"]`.

    Raises:
        UserError: no cell in common.
    """
    table, notes = compare_frames(_frame(old), _frame(new))
    table.attrs["notes"] = notes
    return table


def run(
    sweep: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    executor: str = "ray",
    address: str | None = None,
    limit: int | None = None,
) -> Path:
    """Run the jobs of a sweep that are missing, as `ddbench run` does.

    Args:
        sweep: the sweep file.
        out: the result folder; by default results/<name of the sweep>.
        overrides: as `--set`, e.g. ["evaluate.students=3"].
        executor: "ray", or "inline" for this process.
        address: of a running Ray cluster.
        limit: run at most so many jobs.

    Returns:
        The result folder.

    Raises:
        UserError: a bad sweep; or jobs that failed, each with its reason. What finished is kept.
        KeyboardInterrupt: stopped; running it again goes on.

    Example:
        >>> frame = dd.load_records(dd.run("sweep.yaml"))
    """
    from bench.execution.session import Session

    if executor not in ("ray", "inline"):
        raise UserError(f"executor: {executor!r}; choose ray or inline")
    session = Session.open(Path(sweep), list(overrides), Path(out) if out else None, address is not None)
    outcome = session.run(executor, address, limit, Console(stderr=True))
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.lost:
        raise UserError(f"{outcome.lost}. Finished jobs are kept; running it again goes on")
    if outcome.failed:
        raise UserError("\n".join(session.summary(outcome, limit)))
    return session.store.root


def report(*folders: str | Path, out: str | Path | None = None, html: bool = False) -> list[Path]:
    """Build every table and plot from the records alone, as `ddbench report` does.

    Args:
        folders: result folders; several become one report, which needs `out`.
        out: where to write; by default the folder itself.
        html: also write index.html, all of it in one page.

    Returns:
        The files written.

    Raises:
        UserError: no records, or a folder that cannot be written.
    """
    from bench.reporting.build import build_report
    from bench.reporting.html.write import write_page

    if len(folders) != 1 and out is None:
        raise UserError(f"{len(folders)} result folders become one report: say where with `out`")
    directories = [Path(folder) for folder in folders]
    to = Path(out) if out else directories[0]
    built = build_report(*directories, out=to)
    return [*built.written, write_page(built, to)] if html else built.written

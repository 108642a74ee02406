"""The command that checks contributed results."""

from typing import Annotated

import typer

from bench.cli.console import out
from bench.cli.options import PluginOption, ResultsArgument
from bench.core.registry import load_plugin


def submit_check_command(
    directory: ResultsArgument,
    sample: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many records are evaluated again.")
    ] = 3,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Where a data set lies here: a folder of images, or {name: cifar10, data_dir: data}.",
        ),
    ] = None,
    plugins: PluginOption = None,
) -> None:
    """Check contributed results: files, keys and storage; and evaluate some records again."""
    for path in plugins or []:
        load_plugin(path)
    from bench.interop.external import NamedDataset
    from bench.interop.submission import Submission

    given = [NamedDataset.open(text).data for text in dataset or []]
    submission = Submission(directory, {found.fingerprint: found for found in given})
    failed = False
    _line("check", "", "passed", "failed")
    for check in submission.checks(sample):  # each as it ends: students are trained for minutes
        verdict, style = ("fail", "red") if check.failures else ("pass", "green")
        _line(check.name, verdict, str(check.passed), str(len(check.failures)), style)
        for note in (*check.notes, *check.failures):
            out.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
        failed = failed or bool(check.failures)
    raise typer.Exit(1 if failed else 0)


def _line(name: str, verdict: str, passed: str, failed: str, style: str = "bold") -> None:
    out.print(f"{name:<38}{verdict:<6}{passed:>8}{failed:>8}", style=style, highlight=False, markup=False)

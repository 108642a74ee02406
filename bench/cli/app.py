"""The command line: every command, and how its errors end. `ddbench` is `python -m bench`."""

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bench.cli import artifacts, compare, interop, listing, profile, report, submit, sweeps
from bench.core.errors import UserError


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


app.command("run")(sweeps.run_command)
app.command("plan")(sweeps.plan_command)
app.command("list")(listing.list_command)
app.command("show")(artifacts.show_command)
app.command("recall")(artifacts.recall_command)
app.command("report")(report.report_command)
app.command("submit-check")(submit.submit_check_command)
app.command("evaluate")(interop.evaluate_command)
app.command("import")(interop.import_command)
app.command("export")(interop.export_command)
app.command("verify")(interop.verify_command)
app.command("compare")(compare.compare_command)
app.command("profile")(profile.profile_command)


def main() -> None:
    app()


if __name__ == "__main__":
    main()

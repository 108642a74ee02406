"""The command line: every command, and how its errors end. `ddbench` is `python -m bench`."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bench.cli import (
    advise,
    artifacts,
    compare,
    init,
    interop,
    listing,
    profile,
    report,
    selftest,
    submit,
    sweeps,
    teacher,
    tune,
)
from bench.cli.console import out
from bench.core.errors import UserError
from bench.core.signals import stop_on_signals
from bench.core.words import plain_text

LONGEST_LINE = 2000  # characters of a message


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """A UserError ends in its message and exit code 2, Ctrl-C and SIGTERM in one word and exit code 130."""
    try:
        with stop_on_signals():
            yield
    except UserError as error:
        # paths may hold anything
        text = "\n".join(plain_text(line, LONGEST_LINE) for line in str(error).split("\n"))
        Console(stderr=True).print(f"error: {text}", markup=False, highlight=False, soft_wrap=True)
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
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        out.print(f"ddbench {version('ddbench')}", highlight=False)
    except PackageNotFoundError:
        out.print("ddbench, not installed", highlight=False)
    raise typer.Exit


@app.callback()
def _program(
    wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Benchmark dataset-distillation methods: accuracy, bytes and seconds in one record.

    Start with [bold]ddbench init digits[/bold], then [bold]ddbench run digits.yaml[/bold].
    """


RUN, LOOK = "Run", "Look at results"
OTHERS, EXTEND = "Other people's sets and results", "Methods"

# command, function, panel of --help, an example
COMMANDS: tuple[tuple[str, Callable[..., None], str, str], ...] = (
    ("init", init.init_command, RUN, "ddbench init data/birds"),
    ("plan", sweeps.plan_command, RUN, "ddbench plan birds.yaml"),
    ("run", sweeps.run_command, RUN, "ddbench run birds.yaml --set evaluate.students=3"),
    ("tune", tune.tune_command, RUN, "ddbench tune birds.yaml --trials 20"),
    ("report", report.report_command, LOOK, "ddbench report results/birds --html"),
    ("ls", artifacts.ls_command, LOOK, "ddbench ls results/birds"),
    ("show", artifacts.show_command, LOOK, "ddbench show results/birds 1f3a"),
    ("compare", compare.compare_command, LOOK, "ddbench compare results/old results/new"),
    ("advise", advise.advise_command, LOOK, "ddbench advise data/birds --ipc 10 --hours 2"),
    ("recall", artifacts.recall_command, LOOK, "ddbench recall results/memory 1f3a --classes 0+2+4,1+3"),
    ("evaluate", interop.evaluate_command, OTHERS, "ddbench evaluate data.pt --dataset digits --factor 2"),
    ("import", interop.import_command, OTHERS, "ddbench import images_best.pt --dataset digits --lr 0.02"),
    ("export", interop.export_command, OTHERS, "ddbench export results/birds 1f3a --to birds.pt"),
    ("verify", interop.verify_command, OTHERS, "ddbench verify data.pt --dataset digits --expect 0.675"),
    (
        "teacher",
        teacher.teacher_command,
        OTHERS,
        "ddbench teacher net.pth --dataset digits",
    ),
    ("submit-check", submit.submit_check_command, OTHERS, "ddbench submit-check results/birds"),
    ("list", listing.list_command, EXTEND, "ddbench list methods"),
    ("selftest", selftest.selftest_command, EXTEND, "ddbench selftest --gpu"),
    ("profile", profile.profile_command, EXTEND, "ddbench profile dm --dataset digits --ipc 10"),
)
for _name, _function, _panel, _example in COMMANDS:
    app.command(_name, rich_help_panel=_panel, epilog=f"Example:  {_example}")(_function)


def main() -> None:
    """Run the command that the arguments name."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()

"""The command that tries a device."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import out
from bench.core.io import check_writable
from bench.core.strict import valid_name

MINUTES = 25


def selftest_command(
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu", help="Try the first GPU, at the papers' sizes; by default the CPU, at small ones."
        ),
    ] = False,
    minutes: Annotated[
        float, typer.Option(min=0.1, max=1440, metavar="N", help="About how long; the CPU needs a few.")
    ] = MINUTES,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="(default: results/gpu/DEVICE; of a CPU results/local/selftest)"
        ),
    ] = None,
) -> None:
    """Try a device: does it compute what a CPU does, does anything wait for it, how fast is it."""
    import torch

    if gpu and not torch.cuda.is_available():
        told = "nothing to test: torch finds no GPU here; without --gpu the same parts run on the CPU, small"
        out.print(told, soft_wrap=True)
        return
    from bench.core.timing import device_name
    from bench.reporting.tables.render import print_table
    from bench.tools.selftest.result import Part, part_table
    from bench.tools.selftest.run import run_selftest
    from bench.tools.selftest.setting import cpu_setting, gpu_setting

    setting = (gpu_setting if gpu else cpu_setting)(minutes)
    named = Path("results/gpu", valid_name(device_name(setting.device)))
    folder = (out_dir or (named if gpu else Path("results/local/selftest"))).resolve()
    check_writable(folder, "choose another with --out")
    out.print(f"testing {device_name(setting.device)}, about {minutes:g} minutes at most", highlight=False)

    def tell(part: Part) -> None:
        print_table(part_table(part), out)
        for item in part.items:  # a narrow terminal has no column of notes
            if item.passed is False:
                text = f"FAIL {item.name}: {item.note or part.title}"
                out.print(text, style="red", highlight=False, markup=False, soft_wrap=True)

    passed = run_selftest(setting, folder, tell)
    out.print(f"  {folder}: selftest.md, selftest.csv, versions.json", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if passed else 1)

"""`ddbench teacher`: a trained network as a file that a sweep can name."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import out
from bench.cli.options import DatasetOption
from bench.core.errors import UserError


def teacher_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|ARTIFACT",
            help="A network's weights (.pt, .pth, .safetensors), or a teacher's folder in artifacts/.",
            show_default=False,
        ),
    ],
    dataset: DatasetOption,
    to: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.", show_default=False)],
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the network, where a file does not say.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="What its training took: charged to every set that it labels. An artifact says it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Keep a teacher in a file: for `evaluate.teacher` of a sweep, here or elsewhere."""
    from bench.core.io import check_writable
    from bench.interop.external import NamedDataset
    from bench.interop.teachers import find_teacher

    if to.suffix != ".safetensors":
        raise UserError(f"--to {to}: must end in .safetensors")
    if to.exists():
        raise UserError(f"{to} is there already: remove it, or give another name")
    check_writable(to.parent, "choose another place with --to")
    teacher = find_teacher(source, architecture, seconds)
    data = NamedDataset.open(dataset).data
    teacher.check(data.image_shape, data.n_classes)
    teacher.save(to)
    told = f"{teacher.architecture}, trained in {teacher.seconds:g} s, weights {teacher.digest}"
    out.print(f"{told}\n  {to}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"  for a sweep: evaluate: {{teacher: {to}}}", highlight=False, markup=False, soft_wrap=True)

"""The command that writes a first sweep file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from bench.cli.console import out, say_next
from bench.core.errors import UserError
from bench.core.io import write_atomic

if TYPE_CHECKING:
    from bench.data.spec import DatasetSpec

_TEMPLATE = """\
# A sweep over {label}: methods x images per class x architectures x seeds. Every key: configs/README.md
#   ddbench plan {file}      what would run, and what it may cost
#   ddbench run {file}       runs what is missing; Ctrl-C and the same command again go on
name: {name}
datasets:
  - {dataset}
methods:            # `ddbench list methods` has them all, with their hyper-parameters
  - full            # the whole training set: the ceiling
  - random_real     # random real images: what a distilled set must beat
  - {{name: dm, steps: 300}}        # few steps for a first look; without `steps` as many as the paper
ipc: [1, 10]        # images per class
distill:
  architectures: [{architecture}]
  seeds: [0, 1, 2]  # intervals need three or more
evaluate:
  architectures: [{architecture}]    # add others, e.g. mlp, to see what transfers
  students: 3       # networks trained on each set
  protocol: quick   # `ddbench list protocols`; `standard` chooses a learning rate for each method
resources: {{cpus: 1, gpus: 0}}     # of one job; gpus: 1 on a GPU, or a fraction to share one
"""


def _convnet(side: int) -> str:
    """The field's ConvNet: three blocks at 32 pixels, one more each time that the side doubles."""
    depth = max(1, min(6, side.bit_length() - 3))
    return "convnet-d2-w64" if side < 16 else f"convnet-d{depth}-w64" if depth != 3 else "convnet-w64"


def _spec(what: str) -> "DatasetSpec":
    """The data set that is named, with a size for images that are not all alike. Raises UserError."""
    from pydantic import ValidationError

    from bench.data.decode import decode
    from bench.data.image_folder import is_flat, scan
    from bench.data.spec import DatasetSpec, read_entry
    from bench.planning.yaml_schema import describe_faults, list_faults

    entry = read_entry(what)
    if entry["name"] == "image_folder":
        root = Path(entry["path"]).expanduser()
        if root.is_dir() and is_flat(root):
            entry["split"] = 0.2
        tree = scan(root, entry.get("split"))
        sizes = {decode(Path(file.path), None).size for file in tree.files()[:50]}
        if len(sizes) > 1 or any(width != height for width, height in sizes):
            entry["image_size"] = 64 if min(map(min, sizes)) >= 64 else 32
    elif entry["name"].lower() != "digits":
        entry["data_dir"] = "data"
    try:
        return DatasetSpec.model_validate(entry)
    except ValidationError as error:
        raise UserError(f"{what}: {describe_faults(list_faults(error))}") from None


def _side(spec: "DatasetSpec") -> int:
    from bench.data.decode import decode
    from bench.data.image_folder import scan

    known = {"digits": 8, "mnist": 28, "fashion_mnist": 28, "kmnist": 28, "stl10": 96}
    if spec.path is None:
        return known.get(spec.name, 32)
    return spec.image_size or decode(Path(scan(spec.path, spec.split).files()[0].path), None).size[0]


def init_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="The name of a data set, or a folder of images.", show_default=False
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The file to write (default: DATASET.yaml)."),
    ] = None,
) -> None:
    """Write a commented sweep file for a data set, to run as it is and to edit."""
    spec = _spec(what)
    path = file or Path(f"{spec.label}.yaml")
    if path.exists():
        raise UserError(f"{path} is there already: remove it, or write another with --out FILE")
    held = {
        "name": spec.name,
        "path": str(spec.path) if spec.path else None,
        "image_size": spec.image_size,
        "split": spec.split,
        "data_dir": "data" if spec.data_dir else None,
        "download": True if spec.data_dir else None,
    }
    entry = {key: value for key, value in held.items() if value is not None}
    flow = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1000).strip()
    text = _TEMPLATE.format(
        label=spec.label,
        file=path,
        name=path.stem,
        dataset=spec.name if entry.keys() == {"name"} else flow,
        architecture=_convnet(_side(spec)),
    )
    try:
        write_atomic(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    out.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    say_next(f"plan {path}", f"run {path}")

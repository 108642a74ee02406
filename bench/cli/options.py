"""Arguments and options that several commands take: one name and one meaning for one thing."""

from pathlib import Path
from typing import Annotated

import typer

SweepArgument = Annotated[
    Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)
]
ResultsArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.", show_default=False)]
KeyArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="ID", help="A key, or its first characters; `ddbench ls DIR` lists them.", show_default=False
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR|URL",
        help="Result folder (default: results/<sweep name>), or one behind s3://, gs:// or hdfs://.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.students=5, methods.dm.steps=100."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDR", help="A running Ray cluster (host:port or auto)."),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Make again what is finished, but was made by other sources.")
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only the jobs of the I-th of N shards, e.g. 2/8."),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE.py", help="A method in a file of its own, named as the file; repeatable."
    ),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="A name, a folder of images, or an entry as in a sweep: {name: cifar10, data_dir: data}.",
        show_default=False,
    ),
]
ArchitectureOption = Annotated[
    str, typer.Option("--architecture", metavar="NAME", help="Of the students, e.g. convnet, convnet-d2-w64.")
]
ArchitecturesOption = Annotated[
    str, typer.Option("--architecture", metavar="A,B", help="Of the students: one name, or several.")
]
ProtocolOption = Annotated[str, typer.Option("--protocol", metavar="NAME", help="How students are trained.")]
ProtocolsOption = Annotated[
    str, typer.Option("--protocol", metavar="P,Q", help="How students are trained: one name, or several.")
]
StudentsOption = Annotated[
    int, typer.Option("--students", metavar="N", help="Networks trained on each set, averaged.")
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Of every random draw.")]
CpusOption = Annotated[int, typer.Option("--cpus", metavar="N", help="Threads of a job.")]
GpusOption = Annotated[float, typer.Option("--gpus", metavar="N", help="GPUs of a job: 0, 1 or a fraction.")]

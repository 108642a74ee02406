"""From a record to the sweep file that plans it, and the command that makes it again."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd
import yaml

from bench.core.strict import valid_name
from bench.records.columns import Row
from bench.records.naming import GIVEN
from bench.records.schema import ANY_ARCHITECTURE, EXTERNAL_HYPERPARAMETERS

PLACES = ("path", "data_dir")  # keys whose paths differ from machine to machine
ELSEWHERE = "/where/it/is"


def dataset_entry(label: str, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry of a data set in a sweep file.

    Args:
        label: the data set's label.
        spec: as its artifact stores it; None where there is no artifact, which gives a guess from the label.

    Returns:
        The keys that differ from their defaults, with placeholder paths.
    """
    if spec is None:
        guess = {"name": "image_folder", "path": "", "label": label}
        return dataset_entry(label, {"name": "digits"} if label == "digits" else guess)
    entry = {key: value for key, value in spec.items() if value not in (None, False)}
    entry |= {key: f"data/{label}" for key in PLACES if key in entry}
    return {key: value for key, value in entry.items() if key != "label" or value != entry["name"]}


def is_external(row: Row) -> bool:
    """Whether the row is of a set distilled elsewhere, which no sweep can distill."""
    return bool(json.loads(row["hyperparameters"]).keys() == EXTERNAL_HYPERPARAMETERS)


def rows_by_sweep(rows: Iterable[Row]) -> list[list[Row]]:
    """Split the rows of a cell by the sweep that makes them: equal students, curve and snapshots."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["students"], row["snapshots_wanted"], *_curve(row)), []).append(row)
    return list(found.values())


def _curve(row: Row) -> list[float]:
    return [fraction for fraction, _, _ in row["curve"] if fraction < 1]


def sweep_of(rows: Sequence[Row], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest sweep that plans these records, as the content of its file.

    Job keys depend on all of it but the name and the resources.

    Args:
        rows: of the flat frame, different in their seed only. A protocol may choose a learning rate on the
            first seed, so the first seed of the original sweep has to be among them.
        entry: of the data set, as `dataset_entry` gives it.
    """
    row = rows[0]
    distill = row["eval_arch"] if row["distill_arch"] == ANY_ARCHITECTURE else row["distill_arch"]
    ipc: int = 1 if pd.isna(row["ipc"]) else int(row["ipc"])
    curve, gpus = _curve(row), float(row["gpus"])
    values = json.loads(row["hyperparameters"])
    per_seed = {"experts_per_seed": True} if values.pop("experts_per_seed", False) else {}
    return {
        "name": valid_name(f"{row['method_name']}-{row['dataset_name']}-ipc{ipc}"),
        "datasets": [dict(entry)],
        # said explicitly, because a preset may ask for whitening; the record's own value wins
        "methods": [{"name": row["method_name"], "preprocess": "normalise", **values}],
        "ipc": [ipc],
        "distill": {
            "architectures": [distill],
            "seeds": sorted({int(r["seed"]) for r in rows}),
            **per_seed,
        },
        "evaluate": {
            "architectures": [row["eval_arch"]],
            "students": int(row["students"]),
            "protocol": row["protocol_name"].partition(GIVEN)[0],
            **({"teacher": json.loads(row["given_teacher"])} if row["given_teacher"] else {}),
            **({} if row["precision"] == "fp32" else {"precision": row["precision"]}),
            **({"curve": curve} if curve else {}),
            **({"snapshots": True} if row["snapshots_wanted"] else {}),
        },
        "resources": {"cpus": int(row["cpus"]), "gpus": int(gpus) if gpus.is_integer() else gpus},
    }


def reproducing_command(rows: Sequence[Row], spec: Mapping[str, Any] | None) -> str:
    """The shell commands that make these records again."""
    row = rows[0]
    entry = dataset_entry(row["dataset_name"], spec)
    printed = " ".join(str(row["dataset_fingerprint"]).split())  # it must not leave the comment's line
    fingerprint = f"# the data set's fingerprint: {printed}"
    if is_external(row):
        return "\n".join([fingerprint, _evaluate(row, entry)])
    content = sweep_of(rows, entry)
    file = f"{content['name']}.yaml"
    run = f"ddbench run {file}" + "".join(f" --set datasets.0.{k}={ELSEWHERE}" for k in PLACES if k in entry)
    return "\n".join([f"cat > {file} <<'END'", *sweep_lines(content), "END", fingerprint, run])


def _evaluate(row: Row, entry: Mapping[str, Any]) -> str:
    """The command for a set distilled elsewhere, whose FILE is needed again."""
    named = entry["name"] if entry.keys() == {"name"} else _flow(json.dumps(dict(entry)))
    words = {
        "--dataset": named,
        "--architecture": row["eval_arch"],
        "--protocol": row["protocol_name"],
        "--students": row["students"],
        "--name": row["method_name"],
    }
    return shlex.join(["ddbench", "evaluate", "FILE", *(str(w) for pair in words.items() for w in pair)])


def sweep_lines(content: Mapping[str, Any]) -> list[str]:
    """The lines of a sweep file, one for each key."""
    return [f"{key}: {_flow(json.dumps(value))}" for key, value in content.items()]


@cache  # many rows share their methods
def _flow(value: str) -> str:
    """JSON as YAML on one line; not JSON as it is, since YAML would read 1e-05 as a text."""
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    style: dict[str, Any] = {"default_flow_style": True, "width": 2**30, "sort_keys": False}
    return str(yaml.dump(json.loads(value), Dumper=dumper, **style)).removesuffix("\n").removesuffix("\n...")

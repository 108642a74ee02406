"""The sweep file that plans a record, made from the record: how to run the same again."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd
import yaml

from bench.core.strict import valid_name
from bench.records.columns import Row
from bench.records.naming import ANY_ARCHITECTURE

EXTERNAL_HYPERPARAMETERS = {"format", "sha256"}  # the hyper-parameters of a set that someone else distilled
PLACES = ("path", "data_dir")  # where a data set lies differs from machine to machine
ELSEWHERE = "/where/it/is"


def dataset_entry(label: str, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry of a data set; without the spec, which stands in artifacts only, a guess from its label."""
    if spec is None:
        guess = {"name": "image_folder", "path": "", "label": label}
        return dataset_entry(label, {"name": "digits"} if label == "digits" else guess)
    entry = {key: value for key, value in spec.items() if value not in (None, False)}
    entry |= {key: f"data/{label}" for key in PLACES if key in entry}
    return {key: value for key, value in entry.items() if key != "label" or value != entry["name"]}


def is_external(row: Row) -> bool:
    """Somebody else's set: no sweep distils it."""
    return bool(json.loads(row["hyperparameters"]).keys() == EXTERNAL_HYPERPARAMETERS)


def rows_by_sweep(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of one cell of the summary by what one sweep makes: as many students, the same told."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["students"], row["snapshots_wanted"], *_curve(row)), []).append(row)
    return list(found.values())


def _curve(row: Row) -> list[float]:
    return [fraction for fraction, _, _ in row["curve"] if fraction < 1]


def sweep_of(rows: Sequence[Row], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The least sweep that plans these records: rows of the flat frame that differ in their seed only.

    The keys depend on everything that is said here but on the name and the resources. Where a protocol
    chooses a learning rate it does so on the first seed, so the first seed of the sweep has to be among them.
    """
    row = rows[0]
    distill = row["eval_arch"] if row["distill_arch"] == ANY_ARCHITECTURE else row["distill_arch"]
    ipc: int = 1 if pd.isna(row["ipc"]) else int(row["ipc"])
    curve, gpus = _curve(row), float(row["gpus"])
    return {
        "name": valid_name(f"{row['method_name']}-{row['dataset_name']}-ipc{ipc}"),
        "datasets": [dict(entry)],
        # a preset may ask for whitening: what the record does not name was not whitened
        "methods": [
            {"name": row["method_name"], "preprocess": "normalise", **json.loads(row["hyperparameters"])}
        ],
        "ipc": [ipc],
        "distill": {"architectures": [distill], "seeds": sorted({int(r["seed"]) for r in rows})},
        "evaluate": {
            "architectures": [row["eval_arch"]],
            "students": int(row["students"]),
            "protocol": row["protocol_name"],
            **({"curve": curve} if curve else {}),
            **({"snapshots": True} if row["snapshots_wanted"] else {}),
        },
        "resources": {"cpus": int(row["cpus"]), "gpus": int(gpus) if gpus.is_integer() else gpus},
    }


def reproducing_command(rows: Sequence[Row], spec: Mapping[str, Any] | None) -> str:
    """What to paste into a shell to make these records again."""
    row = rows[0]
    entry = dataset_entry(row["dataset_name"], spec)
    printed = " ".join(str(row["dataset_fingerprint"]).split())  # on the comment's line, whatever it holds
    fingerprint = f"# the data set's fingerprint: {printed}"
    if is_external(row):
        return "\n".join([fingerprint, _evaluate(row, entry)])
    content = sweep_of(rows, entry)
    file = f"{content['name']}.yaml"
    run = f"ddbench run {file}" + "".join(f" --set datasets.0.{k}={ELSEWHERE}" for k in PLACES if k in entry)
    return "\n".join([f"cat > {file} <<'END'", *_lines(content), "END", fingerprint, run])


def _evaluate(row: Row, entry: Mapping[str, Any]) -> str:
    """For a set that was read from someone's file, which is needed again."""
    named = entry["name"] if entry.keys() == {"name"} else _flow(json.dumps(dict(entry)))
    words = {
        "--dataset": named,
        "--archs": row["eval_arch"],
        "--protocol": row["protocol_name"],
        "--students": row["students"],
        "--name": row["method_name"],
    }
    return shlex.join(["ddbench", "evaluate", "FILE", *(str(w) for pair in words.items() for w in pair)])


def _lines(content: Mapping[str, Any]) -> list[str]:
    """A sweep file with one line for each of its keys, as people write them."""
    return [f"{key}: {_flow(json.dumps(value))}" for key, value in content.items()]


@cache  # many rows agree in their methods
def _flow(value: str) -> str:
    """JSON as YAML on one line; a float of JSON, 1e-05, would be a text in YAML."""
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    style: dict[str, Any] = {"default_flow_style": True, "width": 2**30, "sort_keys": False}
    return str(yaml.dump(json.loads(value), Dumper=dumper, **style)).removesuffix("\n").removesuffix("\n...")

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
    if is_external(row):
        return "\n".join([_fingerprint(row), _evaluate(row, entry)])
    return _run(sweep_of(rows, entry), row)


def joined_command(parts: Sequence[Sequence[Row]], spec: Mapping[str, Any] | None) -> str:
    """The shell commands that make the records of several methods again, in as few sweeps as plan just them.

    Args:
        parts: rows that agree in data set, ipc, network of the students and protocol; each part is one
            method's as `sweep_of` takes them.
        spec: of the data set, as its artifacts store it.
    """
    entry = dataset_entry(parts[0][0]["dataset_name"], spec)
    found: dict[str, dict[str, Any]] = {}
    alone = [reproducing_command(rows, spec) for rows in parts if is_external(rows[0])]
    # sets of no network go with those of any other
    ordered = sorted(parts, key=lambda rows: rows[0]["distill_arch"] == ANY_ARCHITECTURE)
    for rows in (rows for rows in ordered if not is_external(rows[0])):
        content = sweep_of(rows, entry)
        (method,), seeds = content["methods"], content["distill"]["seeds"]
        counted = seeds == list(range(len(seeds)))  # only so can a method have seeds of its own
        fixed = {**content, "name": "", "methods": [], "resources": {}}
        fixed["distill"] = content["distill"] | {"seeds": 0 if counted else seeds}
        keys = [json.dumps(fixed)]
        if rows[0]["distill_arch"] == ANY_ARCHITECTURE and counted:
            keys += [key for key in found if _but_network(key) == _but_network(keys[0])]
        known = next((key for key in keys if key in found), keys[0])
        sweep = found.setdefault(known, content | {"name": "view", "methods": []})
        own = {} if seeds == sweep["distill"]["seeds"] else {"seeds": len(seeds)}
        sweep["methods"].append({**method, **own})
    names = [f"view-{i}" for i in range(1, 1 + len(found))] if len(found) > 1 else ["view"]
    contents = zip(found.values(), names, strict=True)
    return "\n\n".join([*(_run(content | {"name": name}, parts[0][0]) for content, name in contents), *alone])


def _but_network(key: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(key)
    return content | {"distill": {**content["distill"], "architectures": []}}


def _fingerprint(row: Row) -> str:
    printed = " ".join(str(row["dataset_fingerprint"]).split())  # it must not leave the comment's line
    return f"# the data set's fingerprint: {printed}"


def _run(content: Mapping[str, Any], row: Row) -> str:
    file, (entry,) = f"{content['name']}.yaml", content["datasets"]
    run = f"ddbench run {file}" + "".join(f" --set datasets.0.{k}={ELSEWHERE}" for k in PLACES if k in entry)
    return "\n".join([f"cat > {file} <<'END'", *sweep_lines(content), "END", _fingerprint(row), run])


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

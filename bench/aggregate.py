"""From records to frames: what is compared with what, and how sure the means are. No torch, no drawing.

Students of one artifact are averaged first; spread and interval are over distillation seeds. Accuracy is
a fraction throughout.
"""

import json
import warnings
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from bench.errors import UserError
from bench.record import Record, load

CELL = ["method", "dataset", "ipc", "distill_arch", "eval_arch", "protocol"]
SORT = ["dataset", "protocol", "distill_arch", "eval_arch", "ipc"]
SECONDS = ["prepare_s", "distill_s", "evaluate_s"]
CONFIDENCE = 0.95
LEAST_SEEDS = 3  # below this a spread is shown but no interval is claimed
RESAMPLES = 9999


def load_records(directory: Path) -> tuple[list[Record], list[str]]:
    """The readable records of a results folder in name order, and one line for each that is not.

    Raises UserError when there is nothing to read.
    """
    records: list[Record] = []
    problems: list[str] = []
    folder = directory / "records"
    # A hidden name is a file that a writer has not finished.
    for path in sorted(p for p in folder.glob("*.json") if not p.name.startswith(".")):
        try:
            records.append(load(path))
        except ValueError as error:
            problems.append(f"records/{path.name} {error}; `ddbench run` makes it again")
    if not records:
        bad = f" (unreadable: {len(problems)}; {problems[0]})" if problems else ""
        hint = f"run `ddbench run SWEEP.yaml --out {directory}` first"
        raise UserError(f"no records in {directory}: {hint}{bad}")
    return records, problems


# --- names: what may be averaged together has one name, what may not has two -------------------------------


def _versions(pairs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """`quick` where a name has one version among the records, `quick v2` where it has several."""
    known = set(pairs)
    names = [name for name, _ in known]
    return {(name, v): f"{name} v{v}" if names.count(name) > 1 else name for name, v in known}


def _fingerprints(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """`cifar10` where a name has one fingerprint among the records, `cifar10#ab12cd` where several."""
    by_name: dict[str, set[str]] = {}
    for name, fingerprint in pairs:
        by_name.setdefault(name, set()).add(fingerprint)
    labels: dict[tuple[str, str], str] = {}
    for name, prints in by_name.items():
        longest = max(map(len, prints))
        digits = next((n for n in range(6, longest) if len({p[:n] for p in prints}) == len(prints)), longest)
        labels |= {(name, p): f"{name}#{p[:digits]}" if len(prints) > 1 else name for p in prints}
    return labels


def _flat(hyperparameters: dict[str, Any]) -> dict[str, str]:
    """Values as text that can be compared, whatever they are."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in hyperparameters.items()
    }


def _varying(variants: Sequence[dict[str, str]]) -> set[str]:
    """The fields that do not have one value in all variants; a missing field is a value of its own."""
    names = {name for variant in variants for name in variant}
    return {name for name in names if len({variant.get(name) for variant in variants}) > 1}


def _method_labels(methods: list[str], cells: list[Hashable], records: Sequence[Record]) -> list[str]:
    """`dm[steps=1000]`: the method with exactly the hyper-parameters that differ within some cell.

    What differs only across cells (a learning rate that depends on ipc) belongs to the method. The cell
    leaves the seed out: two seeds with different hyper-parameters must not be averaged either.
    """
    flat = [_flat(record.hyperparameters) for record in records]
    variants: dict[tuple[str, Hashable], list[dict[str, str]]] = {}
    for method, cell, values in zip(methods, cells, flat, strict=True):
        variants.setdefault((method, cell), []).append(values)
    varying: dict[str, set[str]] = {}
    for (method, _), found in variants.items():
        varying.setdefault(method, set()).update(_varying(found))

    def label(method: str, values: dict[str, str]) -> str:
        shown = [f"{name}={values[name]}" for name in sorted(varying[method]) if name in values]
        return f"{method}[{', '.join(shown)}]" if shown else method

    return [label(method, values) for method, values in zip(methods, flat, strict=True)]


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """One flat row per record; `method`, `dataset` and `protocol` are labels that keep apart what differs."""
    method = _versions((r.method, r.method_version) for r in records)
    dataset = _fingerprints((r.dataset, r.dataset_fingerprint) for r in records)
    protocol = _versions((r.protocol, r.protocol_version) for r in records)
    rows = [
        {
            "method": method[r.method, r.method_version],
            "dataset": dataset[r.dataset, r.dataset_fingerprint],
            "ipc": r.ipc,
            "distill_arch": r.distill_arch,
            "eval_arch": r.eval_arch,
            "protocol": protocol[r.protocol, r.protocol_version],
            "protocol_version": r.protocol_version,
            "seed": r.seed,
            "accuracy": float(np.mean(r.accuracies)),
            "students": len(r.accuracies),
            "stored_floats": r.storage.floats,
            "stored_bytes": r.storage.bytes,
            "stored_bytes_uint8": r.storage.bytes_uint8,
            "ipc_equivalent": r.storage.ipc_equivalent,
            "within_budget": r.storage.within_budget,
            "exempt": r.storage.exempt,
            **r.cost.model_dump(exclude={"peak_memory"}),
            "key": r.key,
            "artifact": r.artifact,
            "method_version": r.method_version,
            "dataset_fingerprint": r.dataset_fingerprint,
        }
        for r in records
    ]
    cells: list[Hashable] = [tuple(row[name] for name in CELL[1:]) for row in rows]
    labels = _method_labels([str(row["method"]) for row in rows], cells, records)
    return pd.DataFrame(rows).assign(method=labels).astype({"ipc": "Int64"})


# --- statistics over seeds ----------------------------------------------------------------------------------


def interval(values: Iterable[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean: NaN below three values, the point where all are the same."""
    return _interval(tuple(sorted(values)))  # sorted: the draws must not depend on the order of the seeds


@cache
def _interval(values: tuple[float, ...]) -> tuple[float, float]:
    if len(values) < LEAST_SEEDS:
        return float("nan"), float("nan")
    if values[0] == values[-1]:
        return values[0], values[0]
    low, high = _bootstrap(values, "BCa")
    return (low, high) if np.isfinite([low, high]).all() else _bootstrap(values, "percentile")


def _bootstrap(values: tuple[float, ...], method: str) -> tuple[float, float]:
    with warnings.catch_warnings():  # BCa warns where it is undefined; the caller looks at the numbers
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            (np.array(values),),
            np.mean,
            method=method,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _one_cell(cell: pd.DataFrame) -> dict[str, Any]:
    """The statistics of one method in one cell of the comparison."""
    by_seed = cell.groupby("seed")["accuracy"].mean()
    low, high = interval(by_seed)
    return {
        "accuracy_mean": by_seed.mean(),
        "accuracy_std": by_seed.std(ddof=1),
        "accuracy_ci_low": low,
        "accuracy_ci_high": high,
        "n_seeds": len(by_seed),
        "n_students": cell["students"].min(),
        # Storage is the same for every seed; if it ever is not, the largest is what has to be stored.
        **cell[["stored_floats", "stored_bytes", "stored_bytes_uint8", "ipc_equivalent"]].max(),
        "within_budget": bool(cell["within_budget"].all()),
        "exempt": bool(cell["exempt"].all()),
        **cell[SECONDS].mean(),
        "peak_memory_bytes": cell["peak_memory_bytes"].max(),
        "device": "; ".join(sorted(cell["device"].unique())),
        "exclusive": bool(cell["exclusive"].all()),
    }


WHOLE = ["n_seeds", "n_students", "stored_floats", "stored_bytes", "stored_bytes_uint8", "peak_memory_bytes"]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method, dataset, ipc, architectures and protocol, over its distillation seeds.

    `exclusive` is true where every job had its device to itself: only then are its seconds comparable.
    """
    # sums of floats must not depend on the order of the files; students that were scored again with more
    # beside them count once
    ordered = frame.sort_values(["seed", "students", "key"]).drop_duplicates([*CELL, "seed"], keep="last")
    rows = [
        {**dict(zip(CELL, cast(tuple[Any, ...], key), strict=True)), **_one_cell(cell)}
        for key, cell in ordered.groupby(CELL, dropna=False)
    ]
    table = pd.DataFrame(rows).astype({"ipc": "Int64", **dict.fromkeys(WHOLE, "int64")})
    order = table.assign(_negated=-table["accuracy_mean"])
    order = order.sort_values([*SORT, "_negated", "method"], na_position="last")
    return order.drop(columns="_negated").reset_index(drop=True)

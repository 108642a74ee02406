"""From records to frames: what is compared with what, and how sure the means are. No torch, no drawing.

Students of one artifact are averaged first; spread and interval are over distillation seeds. Accuracy is
a fraction throughout.
"""

import json
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
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
MEASURED = ["calibration_error", "agreement", "worst_class"]
TRAINING = ["labels", "soft", "augment", "cutmix", "preprocess", "steps"]
RATE = ["lr", "lr_from"]  # which may differ between the seeds of a cell
BLOCKS = ["parameterisation", "objective"]  # of a composition
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


def _measured(record: Record) -> dict[str, Any]:
    """Means over the students, and how they were trained: NaN, None and no curve in records without.

    `worst_class`: the accuracy of the class that a student knows least.
    """
    metrics, training = record.metrics, record.training
    known = {name: None if training is None else getattr(training, name) for name in TRAINING + RATE}
    if metrics is None or training is None:
        return {**known, **dict.fromkeys(MEASURED, float("nan")), "curve": [], "snapshots": []}
    agreement = float("nan") if metrics.agreement is None else metrics.agreement
    worst = [min(a for a in student if a is not None) for student in metrics.class_accuracies]
    means = (np.mean(metrics.calibration_errors), agreement, np.mean(worst))
    ends = [(point.fraction, point.step, np.mean(point.accuracies)) for point in metrics.curve]
    curve = [*ends, (1.0, training.steps, np.mean(record.accuracies))] if ends else []
    taken = [(one.fraction, one.step, one.seconds, np.mean(one.accuracies)) for one in metrics.snapshots]
    return {**known, **dict(zip(MEASURED, means, strict=True)), "curve": curve, "snapshots": taken}


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
            "accuracies": r.accuracies,
            "students": len(r.accuracies),
            **_measured(r),
            "stored_floats": r.storage.floats,
            "stored_bytes": r.storage.bytes,
            "stored_bytes_uint8": r.storage.bytes_uint8,
            "ipc_equivalent": r.storage.ipc_equivalent,
            "within_budget": r.storage.within_budget,
            "exempt": r.storage.exempt,
            **r.cost.model_dump(exclude={"peak_memory"}),
            "key": r.key,
            "artifact": r.artifact,
            "method_name": r.method,
            "method_version": r.method_version,
            "dataset_name": r.dataset,
            "dataset_fingerprint": r.dataset_fingerprint,
            "image_shape": r.image_shape,
            "n_classes": r.n_classes,
            "protocol_name": r.protocol,
            **{name: r.hyperparameters.get(name) if r.method == "compose" else None for name in BLOCKS},
            "hyperparameters": json.dumps(r.hyperparameters, sort_keys=True),
            "versions": json.dumps(r.versions, sort_keys=True),
        }
        for r in records
    ]
    cells: list[Hashable] = [tuple(row[name] for name in CELL[1:]) for row in rows]
    labels = _method_labels([str(row["method"]) for row in rows], cells, records)
    return pd.DataFrame(rows).assign(method=labels).astype({"ipc": "Int64"})


# --- statistics over seeds ----------------------------------------------------------------------------------


# samples and the axis of their seeds -> a number for each; a function of a module, so that it can be a key
Statistic = Callable[..., Any]
Groups = tuple[tuple[float, ...], ...]


def interval(*groups: Iterable[float], statistic: Statistic = np.mean) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of groups of seeds that are drawn independently.

    By default the mean of one group. NaN where a group has fewer than three values, the point where all
    groups are constant.
    """
    # sorted: the draws must not depend on the order of the seeds
    return _interval(tuple(tuple(sorted(group)) for group in groups), statistic)


@cache
def _interval(groups: Groups, statistic: Statistic) -> tuple[float, float]:
    if min(map(len, groups)) < LEAST_SEEDS:
        return float("nan"), float("nan")
    if all(group[0] == group[-1] for group in groups):
        point = float(statistic(*(np.array(group[:1]) for group in groups), axis=-1))
        return point, point
    low, high = _bootstrap(groups, statistic, "BCa")
    return (low, high) if np.isfinite([low, high]).all() else _bootstrap(groups, statistic, "percentile")


def _bootstrap(groups: Groups, statistic: Statistic, method: str) -> tuple[float, float]:
    with warnings.catch_warnings():  # BCa warns where it is undefined; the caller looks at the numbers
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            tuple(map(np.array, groups)),
            statistic,
            method=method,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def spread(by_seed: pd.Series, name: str) -> dict[str, float]:
    """Mean, deviation and interval over distillation seeds, under names that begin with `name`."""
    low, high = interval(by_seed)
    values = (by_seed.mean(), by_seed.std(ddof=1), low, high)
    return dict(zip((f"{name}_{part}" for part in ("mean", "std", "ci_low", "ci_high")), values, strict=True))


def once(frame: pd.DataFrame) -> pd.DataFrame:
    """Students that were scored again with more beside them count once; sorted, as sums of floats must be."""
    ordered = frame.sort_values(["seed", "students", "key"])
    return ordered.drop_duplicates([*CELL, "seed"], keep="last")


def parts(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows that agree in these columns, with the values in which they do."""
    for key, part in frame.groupby(list(names), dropna=False):
        yield dict(zip(names, cast(tuple[Any, ...], key), strict=True)), part


def _one_cell(cell: pd.DataFrame) -> dict[str, Any]:
    """The statistics of one method in one cell of the comparison."""
    by_seed = cell.groupby("seed")["accuracy"].mean()
    return {
        **spread(by_seed, "accuracy"),
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
    rows = [{**where, **_one_cell(cell)} for where, cell in parts(once(frame), CELL)]
    return _ranked(pd.DataFrame(rows).astype({"ipc": "Int64", **dict.fromkeys(WHOLE, "int64")}))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The best of each cell of the comparison first."""
    order = table.assign(_negated=-table["accuracy_mean"])
    order = order.sort_values([*SORT, "_negated", "method"], na_position="last")
    return order.drop(columns="_negated").reset_index(drop=True)


# --- more than the accuracy ---------------------------------------------------------------------------------


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per cell as in `summary`: accuracy, and means of calibration error, agreement and worst class.

    NaN where a seed lacks it: nothing is filled in.
    """
    rows = [
        {
            **where,
            **spread(cell["accuracy"], "accuracy"),
            **{name: cell[name].mean(skipna=False) for name in MEASURED},
            "n_seeds": len(cell),
            "within_budget": bool(cell["within_budget"].all()),
            "exempt": bool(cell["exempt"].all()),
        }
        for where, cell in parts(once(frame), CELL)
    ]
    return _ranked(pd.DataFrame(rows).astype({"ipc": "Int64"}))


def curve(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and part of the students' training: accuracy after `step` optimiser steps, over seeds.

    The last of a cell is the accuracy that its records hold, at `fraction` 1. Empty where they hold no curve.
    """
    alike = [*CELL, "exempt", "within_budget"]
    ends = once(frame)[[*alike, "curve"]].explode("curve").dropna(subset="curve")
    ends[["fraction", "step", "accuracy"]] = ends["curve"].tolist() or np.empty((0, 3))
    rows = [
        {
            **where,
            "step": int(part["step"].max()),
            **spread(part["accuracy"], "accuracy"),
            "n_seeds": len(part),
        }
        for where, part in parts(ends, [*alike, "fraction"])
    ]
    return pd.DataFrame(rows).astype({"ipc": "Int64"} if rows else {})


def progress(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and part of the distillation: the accuracy of what it had made by then, over seeds.

    `step` counts the distillation's; `prepare_s` and `distill_s` are what it had cost, means over seeds. The
    last of a cell is the set itself. Empty where the records hold no snapshots.
    """
    alike = [*CELL, "exempt", "within_budget"]
    # those without are left out first: `once` might keep them in the place of those with
    taken = once(frame[frame["snapshots"].map(len) > 0])[[*alike, "prepare_s", "snapshots"]]
    points = taken.explode("snapshots")
    points[["fraction", "step", "distill_s", "accuracy"]] = points["snapshots"].tolist() or np.empty((0, 4))
    rows = [
        {
            **where,
            "step": int(part["step"].max()),
            **part[["prepare_s", "distill_s"]].mean(),
            **spread(part["accuracy"], "accuracy"),
            "n_seeds": len(part),
        }
        for where, part in parts(points, [*alike, "fraction"])
    ]
    return pd.DataFrame(rows).astype({"ipc": "Int64"} if rows else {})


def transfer(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per method, ipc, distillation architecture and protocol: how its sets do on other networks.

    `transfer`: the mean accuracy over all evaluation architectures of the data set and protocol other than
    `own_arch`, for each seed first; a seed that lacks one has none. `gap`: the accuracy on `own_arch` less
    that. `own_arch` is the distillation architecture. What needs no network is taken with the one on which
    the others were distilled, so that it stands beside them over the same networks; if there are several,
    or none, it has no transfer.
    """
    rows = []
    for where, compared in parts(once(frame), ["dataset", "protocol"]):
        archs = sorted(compared["eval_arch"].unique())
        sources = set(compared["distill_arch"]) - {"any"}
        common = sources.pop() if len(sources) == 1 else None
        for which, row in parts(compared, ["ipc", "method", "distill_arch"]):
            own = common if which["distill_arch"] == "any" else which["distill_arch"]
            rows.append({**where, **which, "own_arch": own, **_transfer(row, own, archs)})
    return pd.DataFrame(rows).astype({"ipc": "Int64"})


def _transfer(rows: pd.DataFrame, own: str | None, archs: list[str]) -> dict[str, Any]:
    """The statistics of one method's transfer from its own architecture."""
    accuracy = rows.pivot(index="seed", columns="eval_arch", values="accuracy").reindex(columns=archs)
    others = accuracy.drop(columns=own, errors="ignore") if own is not None else accuracy[[]]
    transferred = others.mean(axis=1, skipna=False)
    gap = accuracy.get(own, float("nan")) - transferred
    return {
        **spread(transferred.dropna(), "transfer"),
        **spread(gap.dropna(), "gap"),
        "n_archs": others.shape[1],
        "n_seeds": transferred.count(),
        "within_budget": bool(rows["within_budget"].all()),
        "exempt": bool(rows["exempt"].all()),
        **{f"accuracy_{arch}": accuracy[arch].mean() for arch in archs},
    }

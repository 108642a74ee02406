"""A record as a row: what it says in a column each, as an Arrow table and as a data frame."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

import pandas as pd
import pyarrow as pa

from bench.records.groups import Floats, group_means, ragged
from bench.records.naming import labelled
from bench.records.schema import Metrics, Record

TRAINING_COLUMNS = ["labels", "soft", "augment", "cutmix", "preprocess", "steps"]
MEASURED_COLUMNS = ["calibration_error", "agreement", "worst_class"]
COMPOSED_OF = ["parameterisation", "objective"]  # of a composition
COST_COLUMNS = [
    *("prepare_s", "distill_s", "evaluate_s", "peak_memory_bytes"),
    *("device", "cpus", "gpus", "exclusive", "warm"),
]

Row = dict[str, Any]  # one row of a frame
RecordColumn = tuple[pa.DataType, Callable[[Sequence[Record]], Any]]


# --- a record as a row --------------------------------------------------------------------------------------


def _means(lists: Sequence[Sequence[float]]) -> Floats:
    return group_means(ragged(lists))


def _each(name: str) -> Callable[[Sequence[Record]], Any]:
    get = attrgetter(name)
    return lambda records: [get(record) for record in records]


def _trained(name: str) -> Callable[[Sequence[Record]], Any]:
    get = attrgetter(name)
    return lambda records: [None if r.training is None else get(r.training) for r in records]


def _block(name: str) -> Callable[[Sequence[Record]], Any]:
    return lambda records: [r.hyperparameters.get(name) if r.method == "compose" else None for r in records]


def _text(name: str) -> Callable[[Sequence[Record]], Any]:
    get = attrgetter(name)
    return lambda records: [json.dumps(get(record), sort_keys=True) for record in records]


def _metrics(records: Sequence[Record]) -> list[Metrics | None]:
    """Of each record; None in those of before there were any."""
    return [None if r.training is None else r.metrics for r in records]


def _metric(get: Callable[[Metrics], Sequence[float]]) -> Callable[[Sequence[Record]], Any]:
    """The mean over the students."""
    return lambda records: _means([[] if m is None else get(m) for m in _metrics(records)])


def _worst(metrics: Metrics) -> list[float]:
    """The accuracy of the class that each student knows least."""
    try:
        return list(map(min, metrics.class_accuracies))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # classes without images
        known = [[a for a in student if a is not None] for student in metrics.class_accuracies]
        return [min(student, default=math.nan) for student in known]


def _curves(records: Sequence[Record]) -> list[list[tuple[float, int, float]]]:
    """(part of the training, step, accuracy), the last at its end; empty where there are none."""
    points = [[] if metrics is None else metrics.curve for metrics in _metrics(records)]
    scored = iter(_means([point.accuracies for curve in points for point in curve]).tolist())
    last = _means([record.accuracies for record in records]).tolist()
    return [
        [*((p.fraction, p.step, next(scored)) for p in curve), (1.0, r.training.steps, end)]
        if r.training is not None and curve
        else []
        for r, curve, end in zip(records, points, last, strict=True)
    ]


def _snapshots(records: Sequence[Record]) -> list[list[tuple[float, int, float, float]]]:
    """(part of the distillation, step, seconds, accuracy), the last the set itself; empty where none are."""
    taken = [(m and m.snapshots) or [] for m in _metrics(records)]
    scored = iter(_means([one.accuracies for ones in taken for one in ones]).tolist())
    return [[(one.fraction, one.step, one.seconds, next(scored)) for one in ones] for ones in taken]


TEXT, WHOLE, REAL, YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()
COLUMNS: dict[str, RecordColumn] = {
    "ipc": (WHOLE, _each("ipc")),
    "distill_arch": (TEXT, _each("distill_arch")),
    "eval_arch": (TEXT, _each("eval_arch")),
    "protocol_version": (WHOLE, _each("protocol_version")),
    "seed": (WHOLE, _each("seed")),
    "accuracy": (REAL, lambda records: _means([r.accuracies for r in records])),  # of the students
    "accuracies": (pa.list_(REAL), _each("accuracies")),
    "students": (WHOLE, lambda records: [len(r.accuracies) for r in records]),
    **{name: (TEXT, _trained(name)) for name in ("labels", "augment", "preprocess", "lr_from")},
    **{name: (REAL, _trained(name)) for name in ("cutmix", "lr")},
    "soft": (YES, _trained("soft")),
    "steps": (WHOLE, _trained("steps")),
    "calibration_error": (REAL, _metric(lambda metrics: metrics.calibration_errors)),
    "agreement": (REAL, _metric(lambda metrics: [] if metrics.agreement is None else [metrics.agreement])),
    "worst_class": (REAL, _metric(_worst)),
    "curve": (pa.list_(pa.struct({"fraction": REAL, "step": WHOLE, "accuracy": REAL})), _curves),
    "snapshots": (
        pa.list_(pa.struct({"fraction": REAL, "step": WHOLE, "seconds": REAL, "accuracy": REAL})),
        _snapshots,
    ),
    "snapshots_wanted": (
        YES,
        lambda records: [bool(m and m.snapshots is not None) for m in _metrics(records)],
    ),
    "stored_floats": (WHOLE, _each("storage.floats")),
    "stored_bytes": (WHOLE, _each("storage.bytes")),
    "stored_bytes_uint8": (WHOLE, _each("storage.bytes_uint8")),
    "ipc_equivalent": (REAL, _each("storage.ipc_equivalent")),
    **{name: (YES, _each(f"storage.{name}")) for name in ("within_budget", "exempt")},
    **{name: (REAL, _each(f"cost.{name}")) for name in ("prepare_s", "distill_s", "evaluate_s")},
    "peak_memory_bytes": (WHOLE, _each("cost.peak_memory_bytes")),
    "device": (TEXT, _each("cost.device")),
    "cpus": (WHOLE, _each("cost.cpus")),
    "gpus": (REAL, _each("cost.gpus")),
    **{name: (YES, _each(f"cost.{name}")) for name in ("exclusive", "warm")},
    "key": (TEXT, _each("key")),
    "artifact": (TEXT, _each("artifact")),
    "method_name": (TEXT, _each("method")),
    "method_version": (WHOLE, _each("method_version")),
    "dataset_name": (TEXT, _each("dataset")),
    "dataset_fingerprint": (TEXT, _each("dataset_fingerprint")),
    "image_shape": (pa.list_(WHOLE), _each("image_shape")),
    "n_classes": (WHOLE, _each("n_classes")),
    "protocol_name": (TEXT, _each("protocol")),
    **{name: (TEXT, _block(name)) for name in COMPOSED_OF},
    "hyperparameters": (TEXT, _text("hyperparameters")),
    "versions": (TEXT, _text("versions")),
}
COLUMNS_SCHEMA = pa.schema({name: kind for name, (kind, _) in COLUMNS.items()})


def record_table(records: Sequence[Record]) -> pa.Table:
    return pa.table(
        {name: pa.array(of(records), kind) for name, (kind, of) in COLUMNS.items()}, COLUMNS_SCHEMA
    )


def _lists(column: pa.ChunkedArray) -> list[list[Any]]:
    """Lists of numbers, or of tuples, as Python has them."""
    array = column.combine_chunks()
    flat = array.flatten()
    structs = pa.types.is_struct(flat.type)
    parts = [part.to_numpy(zero_copy_only=False).tolist() for part in (flat.flatten() if structs else [flat])]
    values = list(zip(*parts, strict=True)) if structs else parts[0]
    starts = (array.offsets.to_numpy() - array.offsets[0].as_py()).tolist()
    return [values[start:end] for start, end in pairwise(starts)]


def record_rows(table: pa.Table) -> pd.DataFrame:
    nested = [name for name in COLUMNS if pa.types.is_list(COLUMNS_SCHEMA.field(name).type)]
    rows = table.select([name for name in COLUMNS if name not in nested]).to_pandas().astype({"ipc": "Int64"})
    lists = {name: pd.Series(_lists(table[name]), dtype=object) for name in nested}
    return rows.assign(**lists | {"image_shape": lists["image_shape"].map(tuple)})


def record_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One flat row per record; `method`, `dataset` and `protocol` are labels that keep apart what differs."""
    return labelled(record_rows(record_table(records)))

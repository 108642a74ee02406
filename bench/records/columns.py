"""Records as rows: the columns of the flat frame, as an Arrow table and as a data frame."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from bench.records.naming import labelled
from bench.records.schema import Record

TRAINING_COLUMNS = ["labels", "soft", "augment", "cutmix", "preprocess", "steps"]
MEASURED_COLUMNS = ["calibration_error", "agreement", "worst_class"]
COMPOSED_OF = ["parameterisation", "objective"]  # of the method `compose`; missing for the others
SECONDS = ["prepare_s", "teacher_s", "distill_s", "bookkeeping_s", "tune_s", "evaluate_s"]
COST_COLUMNS = [
    *SECONDS,
    "prerequisites_s",
    "prepare_operations",
    "distill_operations",
    "compute_budget",
    "peak_memory_bytes",
    "device",
    "cpus",
    "gpus",
    "exclusive",
    "cold",
]

Row = dict[str, Any]  # one row of a frame
Floats = NDArray[np.float64]


class RecordColumn(NamedTuple):
    """A column of the flat frame."""

    kind: pa.DataType
    source: str | Callable[[Sequence[Record]], Any]  # an attribute of a record, or a function of all records


# --- what is computed from records --------------------------------------------------------------------------


def _means(lists: Sequence[Sequence[float]]) -> Floats:
    return np.array([fmean(values) if values else math.nan for values in lists], dtype=np.float64)


def _accuracy(records: Sequence[Record]) -> Floats:
    return _means([record.accuracies for record in records])


def _n_students(records: Sequence[Record]) -> list[int]:
    return [len(record.accuracies) for record in records]


def _calibration_error(records: Sequence[Record]) -> Floats:
    found = [record.metrics.calibration_errors for record in records]
    return _means([[error for error in errors if error is not None] for errors in found])


def _worst_class(records: Sequence[Record]) -> Floats:
    return _means([_lowest(record.metrics.class_accuracies) for record in records])


def _lowest(class_accuracies: Sequence[Sequence[float | None]]) -> list[float]:
    """The accuracy of each student's worst class; classes without test images (None) do not count.

    NaN where no class has any.
    """
    return [min((a for a in student if a is not None), default=math.nan) for student in class_accuracies]


def _curve(records: Sequence[Record]) -> list[list[tuple[float, int, float]]]:
    """(fraction of the training, step, accuracy), the last at its end; empty for records without a curve."""
    points = [record.metrics.curve for record in records]
    scored = iter(_means([point.accuracies for curve in points for point in curve]).tolist())
    curves = [[(point.fraction, point.step, next(scored)) for point in curve] for curve in points]
    ends = zip(records, _accuracy(records).tolist(), strict=True)
    return [
        [*curve, (1.0, record.training.steps, final)] if curve else []
        for curve, (record, final) in zip(curves, ends, strict=True)
    ]


def _snapshots(records: Sequence[Record]) -> list[list[tuple[float, int, float, float]]]:
    """(fraction of the distillation, step, seconds, accuracy), the last the set itself; empty without any."""
    taken = [record.metrics.snapshots or [] for record in records]
    scored = iter(_means([one.accuracies for ones in taken for one in ones]).tolist())
    return [[(one.fraction, one.step, one.seconds, next(scored)) for one in ones] for ones in taken]


def _snapshots_wanted(records: Sequence[Record]) -> list[bool]:
    return [record.metrics.snapshots is not None for record in records]


def _parameterisation(records: Sequence[Record]) -> list[Any]:
    return [r.hyperparameters.get("parameterisation") if r.method == "compose" else None for r in records]


def _objective(records: Sequence[Record]) -> list[Any]:
    return [r.hyperparameters.get("objective") if r.method == "compose" else None for r in records]


def _hyperparameters(records: Sequence[Record]) -> list[str]:
    return [json.dumps(record.hyperparameters, sort_keys=True) for record in records]


def _prerequisites(records: Sequence[Record]) -> list[str]:
    return [json.dumps(record.cost.prerequisites_s, sort_keys=True) for record in records]


def _operations(name: str) -> Callable[[Sequence[Record]], list[float | None]]:
    """Read a number of the operations, None where they were not counted."""
    return lambda records: [getattr(record.cost.operations, name, None) for record in records]


def _device(records: Sequence[Record]) -> list[str]:
    """The device of the distillation, and in brackets what other phases ran on."""
    return [_device_text(record.cost.device, record.cost.devices) for record in records]


def _device_text(device: str, others: Mapping[Any, str]) -> str:
    elsewhere = ", ".join(f"{phase} on {name}" for phase, name in sorted(others.items()))
    return f"{device} ({elsewhere})" if elsewhere else device


def _versions(records: Sequence[Record]) -> list[str]:
    return [json.dumps(record.versions, sort_keys=True) for record in records]


def _given_teacher(records: Sequence[Record]) -> list[str]:
    given = (record.training.given_teacher for record in records)
    return ["" if teacher is None else teacher.model_dump_json() for teacher in given]


# --- the columns --------------------------------------------------------------------------------------------

TEXT, WHOLE, REAL, YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_CURVE = pa.list_(pa.struct({"fraction": REAL, "step": WHOLE, "accuracy": REAL}))
_SNAPSHOTS = pa.list_(pa.struct({"fraction": REAL, "step": WHOLE, "seconds": REAL, "accuracy": REAL}))
COLUMNS: dict[str, RecordColumn] = {
    "ipc": RecordColumn(WHOLE, "ipc"),
    "distill_arch": RecordColumn(TEXT, "distill_arch"),
    "eval_arch": RecordColumn(TEXT, "eval_arch"),
    "protocol_version": RecordColumn(WHOLE, "protocol_version"),
    "seed": RecordColumn(WHOLE, "seed"),
    "accuracy": RecordColumn(REAL, _accuracy),  # mean of the students
    "accuracies": RecordColumn(pa.list_(REAL), "accuracies"),
    "students": RecordColumn(WHOLE, _n_students),
    "labels": RecordColumn(TEXT, "training.labels"),
    "augment": RecordColumn(TEXT, "training.augment"),
    "preprocess": RecordColumn(TEXT, "training.preprocess"),
    "precision": RecordColumn(TEXT, "training.precision"),
    "lr_from": RecordColumn(TEXT, "training.lr_from"),
    "cutmix": RecordColumn(REAL, "training.cutmix"),
    "lr": RecordColumn(REAL, "training.lr"),
    "soft": RecordColumn(YES, "training.soft"),
    "steps": RecordColumn(WHOLE, "training.steps"),
    "calibration_error": RecordColumn(REAL, _calibration_error),  # mean of the students
    "agreement": RecordColumn(REAL, "metrics.agreement"),
    "diverged": RecordColumn(WHOLE, "metrics.diverged"),
    "worst_class": RecordColumn(REAL, _worst_class),  # mean of the students
    "curve": RecordColumn(_CURVE, _curve),
    "snapshots": RecordColumn(_SNAPSHOTS, _snapshots),
    "snapshots_wanted": RecordColumn(YES, _snapshots_wanted),
    "stored_floats": RecordColumn(WHOLE, "storage.floats"),
    "stored_bytes": RecordColumn(WHOLE, "storage.bytes"),
    "stored_bytes_uint8": RecordColumn(WHOLE, "storage.bytes_uint8"),
    "label_floats": RecordColumn(WHOLE, "storage.label_floats"),
    "teacher_bytes": RecordColumn(WHOLE, "storage.teacher_bytes"),
    "ipc_equivalent": RecordColumn(REAL, "storage.ipc_equivalent"),
    "within_budget": RecordColumn(YES, "storage.within_budget"),
    "exempt": RecordColumn(YES, "storage.exempt"),
    **{name: RecordColumn(REAL, f"cost.{name}") for name in SECONDS},
    "prerequisites_s": RecordColumn(TEXT, _prerequisites),
    "prepare_operations": RecordColumn(REAL, _operations("prepare")),
    "distill_operations": RecordColumn(REAL, _operations("distill")),
    "compute_budget": RecordColumn(REAL, _operations("budget")),
    "peak_memory_bytes": RecordColumn(WHOLE, "cost.peak_memory_bytes"),
    "device": RecordColumn(TEXT, _device),
    "cpus": RecordColumn(WHOLE, "cost.cpus"),
    "gpus": RecordColumn(REAL, "cost.gpus"),
    "exclusive": RecordColumn(YES, "cost.exclusive"),
    "cold": RecordColumn(pa.list_(TEXT), "cost.cold"),
    "key": RecordColumn(TEXT, "key"),
    "artifact": RecordColumn(TEXT, "artifact"),
    "method_name": RecordColumn(TEXT, "method"),
    "method_version": RecordColumn(WHOLE, "method_version"),
    "dataset_name": RecordColumn(TEXT, "dataset"),
    "dataset_fingerprint": RecordColumn(TEXT, "dataset_fingerprint"),
    "image_shape": RecordColumn(pa.list_(WHOLE), "image_shape"),
    "n_classes": RecordColumn(WHOLE, "n_classes"),
    "protocol_name": RecordColumn(TEXT, "protocol"),
    "given_teacher": RecordColumn(TEXT, _given_teacher),
    "parameterisation": RecordColumn(TEXT, _parameterisation),
    "objective": RecordColumn(TEXT, _objective),
    "hyperparameters": RecordColumn(TEXT, _hyperparameters),
    "versions": RecordColumn(TEXT, _versions),
}
COLUMNS_SCHEMA = pa.schema({name: column.kind for name, column in COLUMNS.items()})


def _values(source: str | Callable[[Sequence[Record]], Any], records: Sequence[Record]) -> Any:
    return source(records) if callable(source) else list(map(attrgetter(source), records))


def record_table(records: Sequence[Record]) -> pa.Table:
    """The records as an Arrow table, a row each, with the columns of COLUMNS."""
    columns = {name: pa.array(_values(of, records), kind) for name, (kind, of) in COLUMNS.items()}
    return pa.table(columns, COLUMNS_SCHEMA)


def _lists(column: pa.ChunkedArray) -> list[list[Any]]:
    """A column of lists as Python lists of numbers, or of tuples where its entries are structs."""
    array = column.combine_chunks()
    flat = array.flatten()
    structs = pa.types.is_struct(flat.type)
    parts = [part.to_numpy(zero_copy_only=False).tolist() for part in (flat.flatten() if structs else [flat])]
    values = list(zip(*parts, strict=True)) if structs else parts[0]
    starts = (array.offsets.to_numpy() - array.offsets[0].as_py()).tolist()
    return [values[start:end] for start, end in pairwise(starts)]


def record_rows(table: pa.Table) -> pd.DataFrame:
    """The rows of `record_table` as a data frame, without labels."""
    nested = [name for name in COLUMNS if pa.types.is_list(COLUMNS_SCHEMA.field(name).type)]
    rows = table.select([name for name in COLUMNS if name not in nested]).to_pandas().astype({"ipc": "Int64"})
    lists = {name: pd.Series(_lists(table[name]), dtype=object) for name in nested}
    return rows.assign(**lists | {"image_shape": lists["image_shape"].map(tuple)})


def record_frame(records: Sequence[Record]) -> pd.DataFrame:
    """The flat frame: one row per record, with labels as `method`, `dataset` and `protocol` (see naming)."""
    return labelled(record_rows(record_table(records)))

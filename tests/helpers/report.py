"""What the tests of reports share: its files, the columns of its summary, a sweep that has it all."""

from typing import Any

from bench.records.schema import CurvePoint, Metrics, Record
from helpers.record import sweep, trained

COLUMNS = [
    *("method", "dataset", "ipc", "distill_arch", "eval_arch", "protocol"),
    *("accuracy_mean", "accuracy_std", "accuracy_ci_low", "accuracy_ci_high", "n_seeds", "n_students"),
    *("stored_floats", "stored_bytes", "stored_bytes_uint8", "ipc_equivalent", "within_budget", "exempt"),
    *("prepare_s", "distill_s", "evaluate_s", "peak_memory_bytes", "device", "exclusive"),
]

FILES = {
    *("tables/summary.csv", "tables/summary.md", "tables/summary.tex"),
    *(
        f"plots/{name}.{kind}"
        for name in ("accuracy_vs_ipc", "accuracy_vs_seconds", "accuracy_vs_bytes", "breakdown")
        for kind in ("png", "svg")
    ),
}


TWO = {  # what there is when two methods compete
    *("tables/standings.csv", "tables/standings.md", "tables/standings.tex"),
    *("tables/pairs.csv", "tables/pairs.md", "tables/pairs.tex"),
    *("tables/equal_storage.csv", "tables/equal_storage.md", "tables/equal_storage.tex"),
}
DIAGRAM = (
    "tables/critical_difference.csv",
    *(f"plots/critical_difference_digits_quick.{kind}" for kind in ("png", "svg")),
)
THREE = TWO.union(DIAGRAM)
CROSS = {
    *(f"tables/cross_architecture.{kind}" for kind in ("csv", "md", "tex")),
    *(f"plots/cross_architecture.{kind}" for kind in ("png", "svg")),
}


def rich_sweep(**fields: Any) -> list[Record]:
    """A sweep whose records hold everything, under a protocol with augmentation and one without."""
    found = []
    for protocol, augment in (("quick", "flip"), ("plain", "none")):
        for record in sweep(ipcs=(1, 10), protocol=protocol, **fields):
            ends = [CurvePoint(fraction=0.5, step=50, accuracies=[a / 2 for a in record.accuracies])]
            metrics = Metrics(
                class_accuracies=[[a, a / 2] for a in record.accuracies],
                calibration_errors=[0.1, 0.2],
                agreement=0.7,
                curve=ends,
            )
            update = {"metrics": metrics, "training": trained(augment=augment)}
            found.append(record.model_copy(update=update))
    return found

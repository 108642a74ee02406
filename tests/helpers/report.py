"""What the tests of reports share: file names, the columns of the summary, a sweep with everything."""

from pathlib import Path
from typing import Any
from unittest import mock

from bench.records.schema import CurvePoint, Record
from bench.reporting.plots import style
from helpers.record import measured, sweep, trained

COLUMNS = [
    "method",
    "dataset",
    "ipc",
    "distill_arch",
    "eval_arch",
    "protocol",
    "accuracy_mean",
    "accuracy_std",
    "accuracy_ci_low",
    "accuracy_ci_high",
    "n_seeds",
    "n_students",
    "stored_floats",
    "stored_bytes",
    "stored_bytes_uint8",
    "label_floats",
    "teacher_bytes",
    "ipc_equivalent",
    "within_budget",
    "exempt",
    "prepare_s",
    "teacher_s",
    "distill_s",
    "bookkeeping_s",
    "tune_s",
    "evaluate_s",
    "peak_memory_bytes",
    "device",
    "exclusive",
    "cold",
    "diverged",
    "competes",
    "rank",
    "rank_to",
    "best",
    "least_difference",
]


def table_files(*stems: str) -> set[str]:
    """The files of these tables."""
    return {f"tables/{stem}.{kind}" for stem in stems for kind in ("csv", "md", "tex")}


def plot_files(*stems: str) -> set[str]:
    """The files of these plots."""
    return {f"plots/{stem}.{kind}" for stem in stems for kind in ("png", "svg")}


PLOTS = plot_files("accuracy_vs_seconds", "accuracy_vs_bytes", "breakdown")
FILES = table_files("summary", "metrics") | PLOTS
SEVERAL_IPC = plot_files("accuracy_vs_ipc")
TWO = table_files("standings", "pairs", "equal_storage")  # written when two methods compete
CROSS = table_files("cross_architecture") | plot_files("cross_architecture")


def empty_plots() -> Any:
    """Plots of reports made inside are empty files: where only their names matter; pictures are drawn."""

    def touch(draw: object, stem: Path) -> list[Path]:
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(f".{kind}") for kind in style.PLOT_FORMATS]
        for path in paths:
            path.touch()
        return paths

    return mock.patch.object(style, "save_plot", touch)


def rich_sweep(**fields: Any) -> list[Record]:
    """A sweep whose records hold everything, under a protocol with augmentation and one without."""
    found = []
    for protocol, augment in (("quick", "flip"), ("plain", "none")):
        for record in sweep(ipcs=(1, 10), protocol=protocol, **fields):
            ends = [CurvePoint(fraction=0.5, step=50, accuracies=[a / 2 for a in record.accuracies])]
            metrics = measured(
                class_accuracies=[[a, a / 2] for a in record.accuracies],
                calibration_errors=[0.1, 0.2],
                agreement=0.7,
                curve=ends,
            )
            update = {"metrics": metrics, "training": trained(augment=augment)}
            found.append(record.model_copy(update=update))
    return found

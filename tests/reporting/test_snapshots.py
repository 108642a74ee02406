"""Scored snapshots: like the set itself, not counted in its seconds; their tables and plots."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import Ended, find_record, run_inline, stable_records, sweep_file, written
from helpers.record import make, measured, write

from bench.analysis.aggregate import distillation_course
from bench.core.distilled import load_distilled
from bench.core.networks.architecture import parse_architecture
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting, train_and_score
from bench.planning.protocols import load_protocol
from bench.records.columns import record_frame
from bench.records.schema import Record, Snapshot, load_record
from bench.reporting.build import build_report
from bench.reporting.plots.style import COLOURS

EVALUATE = {"architectures": ["mlp"], "students": 2, "protocol": "quick"}
DISTILL = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
METHODS = ["random_real", {"name": "dm", "steps": 10, "batch_real": 8}]


def swept(folder: Path, out: Path, snapshots: bool | None) -> Ended:
    evaluate = EVALUATE | ({} if snapshots is None else {"snapshots": snapshots})
    sweep = sweep_file(folder, methods=METHODS, ipc=[1], distill=DISTILL, evaluate=evaluate)
    return run_inline(sweep, out)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    ended = swept(folder, folder / "out", True)
    assert ended.code == 0, ended.err
    return folder / "out"


def test_each_snapshot_is_scored_like_a_set(out: Path, digits: Dataset) -> None:
    record = load_record(find_record(out, method="dm"))
    found = record.metrics.snapshots
    assert found is not None
    assert [(one.fraction, one.step) for one in found] == [(0.1, 1), (0.2, 2), (0.5, 5), (1.0, 10)]
    start, *taken = json.loads((out / "artifacts" / record.artifact / "meta.json").read_text())["snapshots"]
    assert start["step"] == 0  # kept to be looked at, never scored
    assert [one.seconds for one in found] == [one["seconds"] for one in taken]
    assert found[-1].seconds == record.cost.distill_s
    assert found[-1].accuracies == record.accuracies
    protocol = load_protocol("quick")
    setting = EvaluationSetting(digits, parse_architecture("mlp"), protocol, 2, 0, torch.device("cpu"))
    for one, file in zip(found, [snapshot["file"] for snapshot in taken], strict=True):
        stored = load_distilled(out / "artifacts" / record.artifact / file)
        assert train_and_score(stored, setting).scores.accuracies == one.accuracies


def test_a_method_without_steps_has_none(out: Path) -> None:
    record = load_record(find_record(out, method="random_real"))
    assert record.metrics.snapshots == []


def test_asking_later_distils_nothing_and_changes_nothing_else(out: Path, tmp_path: Path) -> None:
    """Without snapshots the key of an evaluation is the same whether the option is false or missing."""
    for wanted in (None, False):
        assert swept(tmp_path, tmp_path / "out", wanted).code == 0
    before = written(tmp_path / "out", "artifacts")
    assert len(stable_records(tmp_path / "out")) == 2
    assert swept(tmp_path, tmp_path / "out", True).code == 0
    assert written(tmp_path / "out", "artifacts") == before
    plain, scored = (
        next(r for r in stable_records(tmp_path / "out").values() if r["method"] == "dm" and has(r) == which)
        for which in (False, True)
    )
    assert scored.pop("key") != plain.pop("key")
    scored["metrics"]["snapshots"] = None
    assert scored == plain


def has(record: dict[str, Any]) -> bool:
    return bool(record["metrics"]["snapshots"])


def test_they_are_a_boolean(tmp_path: Path) -> None:
    ended = run_inline(sweep_file(tmp_path, evaluate=EVALUATE | {"snapshots": [0.1]}), tmp_path / "out")
    assert ended.code == 2
    assert "evaluate.snapshots" in ended.err


# --- what is made of them -----------------------------------------------------------------------------------


def snapped(seed: int, accuracy: float) -> Record:
    """A record with half of the accuracy after half of the steps; two students that differ by 0.1."""
    ends = []
    for f in (0.5, 1.0):
        scores = [f * accuracy, f * accuracy + 0.1]
        ends.append(Snapshot(fraction=f, step=int(20 * f), seconds=(2 + seed) * f, accuracies=scores))
    metrics = measured(2, snapshots=ends)
    return make(accuracies=(accuracy, accuracy + 0.1), seed=seed, metrics=metrics, cost={"prepare_s": 5.0})


def test_progress_is_over_seeds() -> None:
    table = distillation_course(
        record_frame([snapped(s, a) for s, a in enumerate((0.4, 0.5, 0.6))] + [make("herding")])
    )
    assert list(table["method"]) == ["dm", "dm"]
    assert list(table["fraction"]) == [0.5, 1.0]
    assert list(table["step"]) == [10, 20]
    assert list(table["distill_s"]) == pytest.approx([1.5, 3.0])
    assert list(table["prepare_s"]) == [5.0, 5.0]
    assert list(table["accuracy_mean"]) == pytest.approx([0.3, 0.55])
    assert list(table["accuracy_std"]) == pytest.approx([0.05, 0.1])
    assert list(table["n_seeds"]) == [3, 3]
    assert table["accuracy_ci_low"].notna().all()
    assert distillation_course(record_frame([make()])).empty


def test_a_record_without_snapshots_does_not_replace_one_with() -> None:
    later = make(accuracies=(0.9,) * 5, seed=0)  # more students: it counts in the tables
    assert list(
        distillation_course(record_frame([snapped(0, 0.4), later]))["accuracy_mean"]
    ) == pytest.approx([0.25, 0.45])


def test_a_record_with_snapshots_reads_back_the_same(tmp_path: Path) -> None:
    record = snapped(0, 0.4)
    assert load_record(write(tmp_path, [record]) / "records" / f"{record.key}.json") == record


def test_progress_is_drawn_with_the_colours_of_all_plots(tmp_path: Path) -> None:
    records = [snapped(s, 0.5) for s in range(3)] + [
        make("bptt", ipc, seed=s) for s in range(3) for ipc in (1, 10)
    ]
    built = build_report(write(tmp_path, records))
    names = {f"plots/progress_{unit}.{kind}" for unit in ("steps", "seconds") for kind in ("png", "svg")}
    files = {str(path.relative_to(tmp_path)) for path in built.written}
    assert names | {"tables/progress.csv"} <= files
    plots = {name: draw for shown in built.sections for name, draw in shown.plots.items()}
    for name in ("progress_steps", "progress_seconds", "accuracy_vs_seconds"):
        handles = plots[name]().legends[0].legend_handles
        (colour,) = [h.get_color() for h in handles if h is not None and h.get_label() == "dm"]
        assert colour == COLOURS[1]  # after bptt, which has no snapshots

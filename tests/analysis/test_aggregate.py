"""Aggregation: statistics computed by hand, labels of records that differ, records that do not count."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.record import make, measured, sweep, write
from helpers.report import COLUMNS
from scipy import stats

from bench.analysis import aggregate
from bench.analysis.aggregate import (
    distillation_course,
    metrics_summary,
    summary_frame,
    training_course,
    transfer,
)
from bench.core.errors import UserError
from bench.records.columns import SECONDS, record_frame
from bench.records.reader import read_records
from bench.records.schema import CurvePoint, Record, Snapshot

# --- statistics ---------------------------------------------------------------------------------------------


def test_students_are_averaged_before_seeds() -> None:
    accuracies = [(0.4, 0.6), (0.6, 0.6, 0.6, 0.6), (0.7, 0.9)]  # seeds 0.5, 0.6, 0.8
    costs = [{"distill_s": s, "peak_memory_bytes": int(m)} for s, m in ((1, 5), (2, 9), (6, 7))]
    records = [
        make(accuracies=a, seed=i, cost=c) for i, (a, c) in enumerate(zip(accuracies, costs, strict=True))
    ]
    row = summary_frame(record_frame(records)).iloc[0]
    assert row["accuracy_mean"] == pytest.approx(1.9 / 3)  # and not 5.0 / 8, the mean of all students
    deviation = math.sqrt(((0.5 - 1.9 / 3) ** 2 + (0.6 - 1.9 / 3) ** 2 + (0.8 - 1.9 / 3) ** 2) / 2)
    assert row["accuracy_std"] == pytest.approx(deviation)
    half = stats.t.ppf(0.975, 2) * deviation / math.sqrt(3)
    assert row["accuracy_ci_low"] == pytest.approx(1.9 / 3 - half)
    assert row["accuracy_ci_high"] == pytest.approx(min(1, 1.9 / 3 + half))
    assert (row["n_seeds"], row["n_students"]) == (3, 2)
    assert (row["distill_s"], row["evaluate_s"], row["peak_memory_bytes"]) == (3.0, 3.0, 9)
    assert (row["stored_floats"], row["stored_bytes"], row["stored_bytes_uint8"]) == (640, 2560, 640)


def test_columns_order_and_types() -> None:
    table = summary_frame(record_frame(sweep()))
    assert list(table.columns) == COLUMNS
    assert len(table) == 2 + 3 * 2 * 2
    assert str(table["ipc"].dtype) == "Int64"
    assert str(table["stored_floats"].dtype) == "int64"
    assert str(table["within_budget"].dtype) == "bool"


def test_rows_are_sorted_whatever_the_order_of_the_records() -> None:
    records = sweep()
    table = summary_frame(record_frame(records))
    assert table.equals(summary_frame(record_frame(records[::-1])))
    dm = summary_frame(record_frame(sweep(methods=("full", "random_real", "herding"), archs=("mlp",))))
    assert list(dm["method"]) == ["herding", "random_real", "herding", "random_real", "full"]
    assert dm["ipc"].iloc[:4].tolist() == [1, 1, 10, 10]
    assert dm["ipc"].isna().iloc[4]


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_interval_below_three_seeds(seeds: int) -> None:
    row = summary_frame(record_frame(sweep(methods=("dm",), ipcs=(1,), archs=("mlp",), seeds=seeds))).iloc[0]
    assert math.isnan(row["accuracy_ci_low"])
    assert math.isnan(row["accuracy_ci_high"])
    assert math.isnan(row["accuracy_std"]) == (seeds == 1)


def test_identical_seeds_have_no_interval_and_no_warning() -> None:
    """31.3 [31.3, 31.3] would be a claim of certainty."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = summary_frame(record_frame([make(seed=seed, accuracies=(0.3,)) for seed in range(4)])).iloc[0]
    assert row["accuracy_std"] == 0
    assert row[["accuracy_ci_low", "accuracy_ci_high"]].isna().all()


def test_an_interval_ends_where_accuracies_do() -> None:
    """Three seeds of 0.6, 0.9 and 1.0: their t would reach to 1.35."""
    row = summary_frame(record_frame([make(seed=s, accuracies=(a,)) for s, a in enumerate((0.6, 0.9, 1.0))]))
    assert row["accuracy_ci_high"].item() == 1
    assert 0 < row["accuracy_ci_low"].item() < 0.6


# --- labels -------------------------------------------------------------------------------------------------


def labels(records: list[Record], column: str = "method") -> list[str]:
    return list(record_frame(records)[column])


def test_hyperparameters_that_differ_within_a_cell_enter_the_label_sorted() -> None:
    base = {"steps": 10, "lr": 0.1, "init": "real", "blocks": [1, 2]}
    records = [
        make(hyperparameters=base),
        make(hyperparameters=base | {"steps": 1000, "init": "noise"}),
        make(hyperparameters=base, ipc=10),
        make("herding", hyperparameters={"k": 1}),
    ]
    expected = ["dm[init=real, steps=10]", "dm[init=noise, steps=1000]", "dm[init=real, steps=10]", "herding"]
    assert labels(records) == expected
    assert summary_frame(record_frame(records))["n_seeds"].tolist() == [1] * 4


def test_hyperparameters_that_differ_across_cells_do_not() -> None:
    records = [make(ipc=ipc, seed=s, hyperparameters={"lr": 1 / ipc}) for ipc in (1, 10) for s in (0, 1)]
    records.append(make(eval_arch="mlp", hyperparameters={"lr": 7}))
    assert labels(records) == ["dm"] * 5


def test_seeds_with_different_hyperparameters_are_not_averaged() -> None:
    records = [make(seed=seed, hyperparameters={"steps": seed}) for seed in (0, 1)]
    assert labels(records) == ["dm[steps=0]", "dm[steps=1]"]


def test_a_field_that_one_record_lacks() -> None:
    assert labels([make(), make(hyperparameters={"aug": None})]) == ["dm", "dm[aug=null]"]


def test_versions_are_kept_apart_only_when_there_are_several() -> None:
    twice = [make(), make(method_version=2), make("herding", method_version=2)]
    assert labels(twice) == ["dm v1", "dm v2", "herding"]
    assert labels([make(), make(protocol_version=2)], "protocol") == ["quick v1", "quick v2"]
    alone = record_frame([make(protocol_version=3)]).iloc[0]
    assert (alone["protocol"], alone["protocol_version"]) == ("quick", 3)
    prints = [make(), make(dataset_fingerprint="ab12ce00"), make(dataset="other")]
    assert labels(prints, "dataset") == ["digits#ab12cd", "digits#ab12ce", "other"]
    alike = [make(), make(dataset_fingerprint="ab12cd99")]
    assert labels(alike, "dataset") == ["digits#ab12cd3", "digits#ab12cd9"]
    for records in (twice, prints, alike):
        assert summary_frame(record_frame(records))["n_seeds"].eq(1).all()


def test_a_new_method_version_compares_hyperparameters_with_its_own_kind() -> None:
    records = [make(hyperparameters={"a": 1}), make(method_version=2, hyperparameters={"a": 2, "b": 1})]
    assert labels(records) == ["dm v1", "dm v2"]


# --- reading ------------------------------------------------------------------------------------------------


def test_bad_records_are_reported_and_not_averaged(tmp_path: Path) -> None:
    records = sweep(methods=("dm",), ipcs=(1,), archs=("mlp",))
    folder = write(tmp_path, records) / "records"
    altered = folder / f"{records[0].key}.json"
    altered.write_text(altered.read_text().replace('"seed": 0', '"seed": 9'))
    (folder / "half.json").write_text('{"key": ')
    (folder / ".unfinished.json").write_text("")
    (folder / "notes.txt").write_text("not a record")
    read, problems = read_records(tmp_path)
    assert read == records[1:]
    again = "; `ddbench run` makes it again"
    assert problems == [
        f"records/{altered.name} does not match its checksum{again}",
        f"records/half.json is not readable as JSON{again}",
    ]
    assert summary_frame(record_frame(read))["n_seeds"].tolist() == [2]


def test_nothing_to_read_is_the_users_error(tmp_path: Path) -> None:
    message = f"no records in {tmp_path}: run `ddbench run SWEEP.yaml --out {tmp_path}` first"
    with pytest.raises(UserError) as error:
        read_records(tmp_path)
    assert str(error.value) == message
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"unreadable: 1; records/x\.json has no checksum"):
        read_records(tmp_path)


def test_a_seed_scored_again_with_more_students_counts_once() -> None:
    few = make("dm", 1, (0.2, 0.2), seed=0)
    more = few.model_copy(update={"key": "again", "accuracies": [0.2, 0.2, 0.5]})
    (row,) = aggregate.summary_frame(record_frame([few, more])).to_dict("records")
    assert (row["n_students"], row["n_seeds"]) == (3, 1)
    assert row["accuracy_mean"] == pytest.approx(0.3)


# --- more than the accuracy ---------------------------------------------------------------------------------


def scored(seed: int, accuracy: float, agreement: float | None = 0.8, **fields: Any) -> Record:
    """Two students; the worst class of the second is 0.1 lower, its calibration error 0.02 higher."""
    classes = [[accuracy, 0.3 + accuracy / 2, None], [0.2 + accuracy / 2, None, 1.0]]
    ends = [CurvePoint(fraction=f, step=int(100 * f), accuracies=[f * accuracy, f]) for f in (0.1, 0.5)]
    metrics = measured(
        class_accuracies=classes, calibration_errors=[0.1, 0.12], agreement=agreement, curve=ends
    )
    return make(accuracies=(accuracy, 1.0), seed=seed, metrics=metrics, **fields)


def test_metrics_are_averaged_over_students_then_seeds() -> None:
    (row,) = metrics_summary(record_frame([scored(0, 0.4), scored(1, 0.6)])).to_dict("records")
    worst = [(0.4 + 0.4) / 2, (0.6 + 0.5) / 2]  # of each seed, over its students
    assert row["worst_class"] == pytest.approx(sum(worst) / 2)
    assert row["calibration_error"] == pytest.approx(0.11)
    assert row["agreement"] == pytest.approx(0.8)
    assert row["accuracy_mean"] == pytest.approx(0.75)
    assert row["n_seeds"] == 2


def diverged(seed: int, count: int, errors: list[float | None]) -> Record:
    metrics = measured(2, calibration_errors=errors, diverged=count)
    return make(accuracies=(0.1, 0.5), seed=seed, metrics=metrics)


def test_diverged_students_are_counted_over_seeds() -> None:
    records = [diverged(0, 1, [None, 0.2]), diverged(1, 0, [0.3, 0.5]), diverged(2, 1, [0.2, None])]
    frame = record_frame(records)
    assert list(frame["diverged"]) == [1, 0, 1]
    assert list(frame["calibration_error"]) == pytest.approx([0.2, 0.4, 0.2])
    for table in (summary_frame(frame), metrics_summary(frame)):
        assert list(table["diverged"]) == [2]
    assert list(summary_frame(frame)["accuracy_mean"]) == pytest.approx([0.3])


def test_without_any_sound_student_there_is_no_calibration_error() -> None:
    (row,) = metrics_summary(record_frame([diverged(0, 2, [None, None])])).to_dict("records")
    assert math.isnan(row["calibration_error"])
    assert row["diverged"] == 2


def test_seconds_of_a_set_from_elsewhere_are_missing_and_not_zero() -> None:
    elsewhere = make(cost={"distill_s": None, "bookkeeping_s": None})
    (row,) = summary_frame(record_frame([elsewhere])).to_dict("records")
    assert {name for name in SECONDS if math.isnan(row[name])} == {"distill_s", "bookkeeping_s"}


# --- seconds ------------------------------------------------------------------------------------------------


def timed(seed: int, cold: list[str], **fields: Any) -> Record:
    """10 s, 20 s, ... of each phase for seeds 0, 1, ..."""
    return make(seed=seed, cost={**dict.fromkeys(SECONDS, 10.0 * (seed + 1)), "cold": cold}, **fields)


def test_seconds_are_of_warm_jobs_where_there_are_any() -> None:
    records = [timed(0, ["distill", "teacher"]), timed(1, ["teacher", "evaluate"]), timed(2, ["teacher"])]
    (row,) = summary_frame(record_frame(records)).to_dict("records")
    assert (row["prepare_s"], row["tune_s"]) == (20, 20), "all"
    assert (row["distill_s"], row["bookkeeping_s"]) == (25, 25), "of the second and third"
    assert row["evaluate_s"] == 20, "of the first and third"
    assert row["teacher_s"] == 20, "all were cold"
    assert row["cold"] == "teacher"


def test_cells_do_not_lend_each_other_warm_jobs() -> None:
    records = [timed(0, ["distill"]), timed(1, []), timed(0, ["distill"], method="dc")]
    table = summary_frame(record_frame(records)).set_index("method")
    assert table["distill_s"].to_dict() == {"dm": 20, "dc": 10}
    assert table["cold"].to_dict() == {"dm": "", "dc": "distill"}


def test_the_course_of_a_distillation_is_of_warm_ones() -> None:
    def taken(seed: int, cold: list[str]) -> Record:
        ends = [Snapshot(fraction=1.0, step=5, seconds=10.0 * (seed + 1), accuracies=[0.5])]
        return timed(seed, cold, metrics=measured(snapshots=ends))

    (row,) = distillation_course(record_frame([taken(0, ["distill"]), taken(1, [])])).to_dict("records")
    assert (row["distill_s"], row["prepare_s"], row["n_seeds"]) == (20, 15, 2)
    (row,) = distillation_course(record_frame([taken(0, ["distill"])])).to_dict("records")
    assert row["distill_s"] == 10


def test_a_seed_that_lacks_a_metric_is_not_filled_in() -> None:
    """Of a seed whose students diverged, or all but one, there is no calibration error or no agreement."""
    (row,) = metrics_summary(record_frame([scored(0, 0.4), diverged(1, 2, [None, None])])).to_dict("records")
    assert math.isnan(row["agreement"])
    assert math.isnan(row["calibration_error"])
    assert row["worst_class"] == pytest.approx((0.4 + 0.5) / 2)
    (alone,) = metrics_summary(record_frame([scored(0, 0.4, agreement=None)])).to_dict("records")
    assert math.isnan(alone["agreement"])
    assert alone["calibration_error"] == pytest.approx(0.11)


def test_a_curve_ends_with_the_accuracy() -> None:
    table = training_course(
        record_frame([scored(s, a) for s, a in enumerate((0.4, 0.5, 0.6))] + [make("herding")])
    )
    assert list(table["method"]) == ["dm"] * 3
    assert list(zip(table["fraction"], table["step"], strict=True)) == [(0.1, 10), (0.5, 50), (1.0, 100)]
    assert list(table["accuracy_mean"]) == pytest.approx([0.075, 0.375, 0.75])
    assert list(table["n_seeds"]) == [3] * 3
    assert table["accuracy_ci_low"].notna().all()
    assert training_course(record_frame([make()])).empty


# --- transfer -----------------------------------------------------------------------------------------------


def on(accuracies: dict[str, float], method: str = "dm", **fields: Any) -> list[Record]:
    return [make(method, accuracies=(a,), eval_arch=arch, **fields) for arch, a in accuracies.items()]


def transfers(records: list[Record]) -> dict[tuple[str, str], dict[str, Any]]:
    rows = transfer(record_frame(records)).to_dict("records")
    return {(row["method"], row["distill_arch"]): {str(k): v for k, v in row.items()} for row in rows}


def test_transfer_is_the_mean_over_other_architectures_for_each_seed_first() -> None:
    records = on({"convnet": 0.8, "mlp": 0.5, "vit": 0.3}, seed=0) + on(
        {"convnet": 0.9, "mlp": 0.7, "vit": 0.1}, seed=1
    )
    row = transfers(records)["dm", "convnet"]
    assert row["transfer_mean"] == pytest.approx(0.4)
    assert row["transfer_std"] == pytest.approx(0.0, abs=1e-12)  # 0.4 for both seeds
    assert row["gap_mean"] == pytest.approx((0.4 + 0.5) / 2)
    assert row["gap_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert (row["n_archs"], row["n_seeds"]) == (2, 2)
    assert row["accuracy_vit"] == pytest.approx(0.2)


def test_an_architecture_that_was_not_run_leaves_no_transfer() -> None:
    half = on({"convnet": 0.8, "mlp": 0.5}, seed=1)
    whole = on({"convnet": 0.8, "mlp": 0.5, "vit": 0.3})
    row = transfers(whole + half)["dm", "convnet"]
    assert (row["n_seeds"], row["transfer_mean"]) == (1, pytest.approx(0.4))
    other = transfers(whole + on({"convnet": 0.8, "mlp": 0.5}, "haba"))["haba", "convnet"]
    assert other["n_seeds"] == 0
    assert math.isnan(other["transfer_mean"])
    assert math.isnan(other["gap_mean"])
    single = transfers(on({"convnet": 0.8}))["dm", "convnet"]
    assert (single["n_archs"], single["n_seeds"]) == (0, 0)
    assert math.isnan(single["transfer_mean"])


def test_a_set_not_scored_on_its_own_architecture_has_a_transfer_and_no_gap() -> None:
    row = transfers(on({"mlp": 0.5, "vit": 0.3}))["dm", "convnet"]
    assert row["transfer_mean"] == pytest.approx(0.4)
    assert math.isnan(row["gap_mean"])


def test_a_method_without_network_takes_the_only_distillation_architecture() -> None:
    both = {"convnet": 0.6, "mlp": 0.5}
    records = on(both) + on(both, "random_real") + on({"convnet": 0.9, "mlp": 0.7}, "full", ipc=None)
    rows = transfers(records)
    assert rows["random_real", "any"]["own_arch"] == "convnet"
    assert rows["full", "any"]["gap_mean"] == pytest.approx(0.2)
    rows = transfers([*records, make(distill_arch="mlp")])
    assert math.isnan(rows["random_real", "any"]["transfer_mean"])
    assert rows["dm", "convnet"]["transfer_mean"] == pytest.approx(0.5)
    alone = transfers(on(both, "random_real"))
    assert math.isnan(alone["random_real", "any"]["transfer_mean"])

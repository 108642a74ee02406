"""Frames of tunings: what was best so far for what was spent, and tuned against untuned methods."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.record import make
from helpers.trial import trial

from bench.analysis.intervals import sum_of_variances, t_interval
from bench.analysis.tuning import cell_names, tuned_against_default, tuning_course, tuning_summary
from bench.records.columns import record_frame
from bench.records.schema import Record
from bench.records.trial import TrialRecord

LR = {"lr": 2.0, "momentum": 0.5, "init": "real"}
COSTS: dict[str, Any] = {"prepare_operations": 100.0, "prepare_s": 10.0}
TRIALS = [
    trial(0, 0.1, 0.2, 0.3, 0.4, **COSTS),
    trial(1, 0.9, values={**LR, "lr": 3.0}),  # stopped: not its best, as it is not the whole distillation
    trial(2, state="failed", error="no", values={**LR, "lr": 4.0}),
    trial(3, 0.1, 0.2, 0.3, 0.6, values=LR, **COSTS),
    trial(4, 0.1, 0.2, 0.3, 0.5, values={**LR, "lr": 5.0}, **COSTS),
]


def test_the_best_so_far_counts_whole_distillations_and_costs_all_trials() -> None:
    course = tuning_course(TRIALS[::-1])
    assert list(course["trials"]) == [1, 2, 3, 4, 5]
    assert list(course["best"]) == [0.4, 0.4, 0.4, 0.6, 0.6]
    assert list(course["operations"]) == [101.0, 102.0, 102.0, 103.0, 104.0], "prerequisites once"
    assert list(course["seconds"]) == [11.0, 12.0, 12.0, 13.0, 14.0]
    assert list(course["percent"]) == [100, 10, 0, 100, 100]


def test_nothing_is_best_before_a_trial_came_to_its_end() -> None:
    course = tuning_course([trial(0, state="failed"), trial(1, 0.2), trial(2, state="running")])
    assert course["best"].isna().all()
    assert len(course) == 2, "a trial that runs has no result"
    summary = tuning_summary([trial(0, state="failed"), trial(1, 0.2)])
    assert summary[["default", "best"]].isna().all(axis=None)
    assert summary["best_trial"].item() == -1


def test_the_summary_has_default_and_best_and_counts_trials() -> None:
    row = tuning_summary(TRIALS).iloc[0]
    assert (row["default"], row["best"], row["best_trial"]) == (0.4, 0.6, 3)
    assert (row["trials"], row["stopped"], row["failed"]) == (5, 1, 1)
    assert json.loads(row["values"]) == LR


def test_a_method_that_the_sweep_has_twice_is_named_with_what_it_fixes() -> None:
    found = [trial(0, cell="a", fixed={"factor": 1}), trial(0, cell="b", fixed={"factor": 2})]
    assert cell_names(found) == {"a": "dm[factor=1]", "b": "dm[factor=2]"}
    assert cell_names(found[:1]) == {"a": "dm"}
    other = trial(0, cell="c", fixed={"factor": 2}, ipc=10)
    assert cell_names([*found[:1], other]) == {"a": "dm", "c": "dm"}


# --- tuned against untuned ----------------------------------------------------------------------------------


def scored(accuracies: dict[str, list[float]], distilled_on: str = "mlp") -> pd.DataFrame:
    """Records of seeds 0, 1, ...: of dm by its learning rate, and of others by name."""
    records: list[Record] = []
    for name, by_seed in accuracies.items():
        for seed, accuracy in enumerate(by_seed):
            dm = name[0].isdigit()
            values = {"lr": float(name), "momentum": 0.5, "init": "real", "steps": 9} if dm else {}
            fields: dict[str, Any] = {"seed": seed, "distill_arch": distilled_on if dm else "any"}
            records.append(make("dm" if dm else name, 1, (accuracy,), hyperparameters=values, **fields))
    return record_frame(records)


def found_trials(*later: TrialRecord) -> list[TrialRecord]:
    return [trial(0, 0, 0, 0, 0.4, fixed={"steps": 9}), *later]


def test_tuned_and_untuned_are_compared_on_the_seeds_of_the_sweep() -> None:
    scores = {"1": [0.4, 0.5, 0.6], "2": [0.7, 0.74, 0.78], "3": [0.1, 0.1, 0.1]}
    scores["random_real"] = [0.3, 0.31, 0.32]
    tuned = trial(1, 0, 0, 0, 0.6, values=LR, fixed={"steps": 9})
    table = tuned_against_default(scored(scores), found_trials(tuned)).set_index("method")
    assert list(table.index) == ["dm", "random_real"], "the best first"
    dm = table.loc["dm"]
    assert (dm["accuracy_mean_default"], dm["accuracy_mean_tuned"]) == pytest.approx((0.5, 0.74))
    variances, freedom = sum_of_variances(np.array([0.01, 0.0016]) / 3, np.array([2.0, 2.0]))
    ends = t_interval(0.24, variances, freedom)
    assert (dm["difference_ci_low"], dm["difference_ci_high"]) == pytest.approx(ends)
    assert dm["difference"] == pytest.approx(0.24)
    assert not dm["same_values"]
    other = table.loc["random_real"]
    assert other["accuracy_mean_default"] == other["accuracy_mean_tuned"] == pytest.approx(0.31)
    assert np.isnan(other["difference"])


def test_default_values_that_stay_the_best_have_no_difference() -> None:
    table = tuned_against_default(scored({"1": [0.4, 0.5, 0.6]}), found_trials())
    assert table["same_values"].tolist() == [True]
    assert table["difference"].isna().all()


@pytest.mark.parametrize(("distilled_on", "rows"), [("mlp", 1), ("any", 1), ("convnet", 0)])
def test_records_of_another_network_are_not_those_of_the_tuning(distilled_on: str, rows: int) -> None:
    """A method that names its own network has `any`."""
    tuned = trial(1, 0, 0, 0, 0.6, values=LR, fixed={"steps": 9})
    flat = scored({"1": [0.4, 0.5], "2": [0.7, 0.8]}, distilled_on)
    assert len(tuned_against_default(flat, found_trials(tuned))) == rows


def test_two_seeds_have_a_difference_and_no_interval() -> None:
    tuned = trial(1, 0, 0, 0, 0.6, values=LR, fixed={"steps": 9})
    table = tuned_against_default(scored({"1": [0.4, 0.5], "2": [0.7, 0.8]}), found_trials(tuned))
    assert table["difference"].item() == pytest.approx(0.3)
    assert table["difference_ci_low"].isna().all()


@pytest.mark.parametrize("scores", [{"1": [0.4, 0.5]}, {"2": [0.4]}, {"9": [0.4]}, {"random_real": [0.4]}])
def test_without_records_of_both_there_is_no_table(scores: dict[str, list[float]]) -> None:
    tuned = trial(1, 0, 0, 0, 0.6, values=LR, fixed={"steps": 9})
    assert tuned_against_default(scored(scores), found_trials(tuned)).empty

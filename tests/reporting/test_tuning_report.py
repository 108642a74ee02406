"""What a report says of a tuning: tables and plots beside the records, and nothing without trials."""

from pathlib import Path

import pytest
from helpers.record import make, write
from helpers.trial import trial

from bench.records.trial import TRIALS, TrialRecord, dump_trial
from bench.reporting.build import build_report

LR = {"lr": 2.0, "momentum": 0.5, "init": "real"}


def write_trials(folder: Path, *trials: TrialRecord) -> None:
    (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    for one in trials:
        (folder / TRIALS / f"{one.key}.json").write_text(dump_trial(one))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = [
        make("dm", 1, (accuracy,), hyperparameters={**LR, "lr": lr}, seed=seed, distill_arch="mlp")
        for lr, by_seed in ((1.0, (0.4, 0.5, 0.6)), (2.0, (0.7, 0.74, 0.78)))
        for seed, accuracy in enumerate(by_seed)
    ]
    write(tmp_path, [record.model_copy(update={"key": f"{n}"}) for n, record in enumerate(records)])
    return tmp_path


def test_tables_and_plots_of_a_tuning_stand_beside_its_records(folder: Path) -> None:
    write_trials(folder, trial(0, 0, 0, 0, 0.4), trial(1, 0.2, values={**LR, "lr": 9.0}))
    write_trials(folder, trial(2, 0, 0, 0, 0.625, values=LR))
    report = build_report(folder)
    assert not report.problems
    tuning = (folder / "tables/tuning.md").read_text()
    assert "20% of the training set held out" in tuning
    assert "| 1 | dm | 40.0 | 62.5 | 2 | 3 | 1 | 0 | 3 FLOP | 3.0 |" in tuning
    tuned = (folder / "tables/tuned.md").read_text()
    assert "| 50.0 ± 10.0 [25.2, 74.8] |" in tuned
    assert "| **+24.0 [" in tuned
    for name in ("tuning_trials", "tuning_operations"):
        assert (folder / f"plots/{name}.png").stat().st_size > 1000
    course = (folder / "tables/tuning_course.csv").read_text().splitlines()
    assert course[0].startswith("dataset,ipc,method,trials,operations")
    assert len(course) == 4
    before = (folder / "plots/tuning_trials.svg").read_bytes()
    build_report(folder)
    assert (folder / "plots/tuning_trials.svg").read_bytes() == before


def test_without_trials_what_an_earlier_report_said_of_a_tuning_is_deleted(folder: Path) -> None:
    write_trials(folder, trial(0, 0, 0, 0, 0.4))
    build_report(folder)
    assert (folder / "tables/tuning.md").exists()
    for path in (folder / TRIALS).iterdir():
        path.unlink()
    build_report(folder)
    assert not list(folder.glob("*/tun*"))


def test_a_tuning_that_found_nothing_has_a_table_and_no_plot(folder: Path) -> None:
    write_trials(folder, trial(0, state="failed", error="no"))
    build_report(folder)
    assert "| 1 | dm | — | — | — | 1 | 0 | 1 | 0 FLOP | 0 |" in (folder / "tables/tuning.md").read_text()
    assert not list(folder.glob("plots/tun*"))

"""Tunings: equal trials on a hold-out, early stops, what a second run does, and what they leave."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.cli import Ended, ddbench, leftovers, run_inline, sweep_file, written
from safetensors.torch import load_file

from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.execution.jobs import run_job
from bench.execution.trials import pack_trial, run_trial, unpack_trial
from bench.execution.tuning import Tuning
from bench.planning.sweep import load_sweep
from bench.records.trial import TrialRecord, load_trials

TUNED: dict[str, Any] = {
    "methods": ["random_real", {"name": "dm", "steps": 10, "batch_real": 8}],
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0, 1]},
    "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return sweep_file(tmp_path, **TUNED)


def tune(sweep: Path, out: Path, *words: object) -> Ended:
    return ddbench("tune", sweep, "--out", out, "--executor", "inline", *words)


def trials(out: Path) -> list[TrialRecord]:
    found, problems = load_trials(out)
    assert not problems
    return found


def stable(trial: TrialRecord) -> dict[str, Any]:
    """Without what is measured, and never the same twice."""
    content = trial.model_dump(exclude={"prepare_s": True, "rungs": {"__all__": {"distill_s", "score_s"}}})
    return content


def begun(sweep: Path, out: Path, n: int = 3) -> Tuning:
    return Tuning.begin(sweep, [], out, n, False, lambda label: None)


# --- trials -------------------------------------------------------------------------------------------------


def test_the_default_values_are_tried_first_then_others_of_the_space(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = tune(sweep, out, "--trials", 3)
    assert ended.code == 0, ended.err + ended.out
    assert "random_real: has no search space" in ended.out
    found = trials(out)
    assert [trial.number for trial in found] == [0, 1, 2]
    default = found[0]
    assert default.values == {"lr": 1.0, "momentum": 0.5, "init": "real"}
    assert default.state == "finished", "the default values are never stopped"
    assert [rung.percent for rung in default.rungs] == [10, 20, 50, 100]
    assert all(0.01 <= float(trial.values["lr"]) <= 100 for trial in found)
    assert len({json.dumps(trial.values) for trial in found}) == 3
    assert {trial.seed for trial in found} == {2}, "no seed of the sweep, whose seeds stay fresh"
    operations = [rung.operations or 0 for rung in default.rungs]
    assert operations == sorted(operations)
    assert operations[1] == pytest.approx(2 * operations[0]), "a fifth of the steps, two tenths of the cost"
    assert not leftovers(out)
    assert not (out / "artifacts").exists() or not list((out / "artifacts").iterdir()), "sets are not kept"


def test_a_second_run_does_nothing_and_more_trials_are_added(sweep: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert tune(sweep, out, "--trials", 2).code == 0
    before = written(out, "trials")
    again = tune(sweep, out, "--trials", 2)
    assert again.code == 0
    assert "0 trials to run" in again.out
    assert written(out, "trials") == before
    assert tune(sweep, out, "--trials", 4).code == 0
    assert before.items() <= written(out, "trials").items()
    assert tune(sweep, whole, "--trials", 4).code == 0
    assert [stable(trial) for trial in trials(out)] == [stable(trial) for trial in trials(whole)]


def test_trials_of_other_sources_are_said(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tune(sweep, out, "--trials", 1).code == 0
    (path,) = (out / "trials").iterdir()
    content = json.loads(path.read_text())
    assert content["versions"]["sources"]
    assert "other sources" not in tune(sweep, out, "--trials", 1).out
    content["versions"]["sources"] = "0" * 16
    path.write_text(json.dumps(content))
    assert "1 trial made by other sources" in tune(sweep, out, "--trials", 1).out


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_tuning_that_was_stopped_goes_on_and_ends_as_an_undisturbed_one(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    note, seen = Tuning.note, list[int]()

    def stop(self: Tuning, one: Any, number: int, report: Mapping[str, Any]) -> Any:
        found = note(self, one, number, report)
        seen.append(number)
        if len(seen) == at:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Tuning, "note", stop)
        ended = tune(sweep, out, "--trials", 3)
    assert ended.code == 130
    assert "the same command goes on" in ended.text
    assert not (out / "presets").exists()
    assert tune(sweep, out, "--trials", 3).code == 0
    assert tune(sweep, whole, "--trials", 3).code == 0
    assert [stable(trial) for trial in trials(out)] == [stable(trial) for trial in trials(whole)]


def test_watching_a_distillation_does_not_change_its_set(sweep: Path, tmp_path: Path) -> None:
    sets = []
    for name, watched in (("alone", False), ("watched", True)):
        tuning = begun(sweep, tmp_path / name)
        trial, context = tuning.cells[0].cell.default, tuning.context()
        reports: list[dict[str, Any]] = []
        if watched:
            run_trial(unpack_trial(pack_trial(trial)), context, reports.append)
            assert [report["percent"] for report in reports] == [10, 20, 50, 100]
        else:
            assert run_job(trial.distill, context)["ok"]
        sets.append(load_file(tuning.store.artifact(trial.distill.key) / "data.safetensors"))
    assert sets[0].keys() == sets[1].keys()
    assert all(torch.equal(tensor, sets[1][name]) for name, tensor in sets[0].items())


def test_values_that_fail_are_a_result_and_do_not_end_the_tuning(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(trial: Any, context: Any, report: Any) -> None:
        report({"error": "the loss is not finite"} if trial.record.number == 1 else RUNG)

    monkeypatch.setattr("bench.execution.run_tuning.run_trial", diverge)
    ended = tune(sweep, tmp_path / "out", "--trials", 3)
    assert ended.code == 0
    assert "failed: the loss is not finite" in ended.out
    assert [trial.state for trial in trials(tmp_path / "out")] == ["finished", "failed", "finished"]


RUNG = {"percent": 100, "accuracy": 0.5, "accuracies": [0.5], "operations": 1.0, "distill_s": 1, "score_s": 1}


def test_a_tuning_in_which_no_trial_comes_to_its_end_fails(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.execution.run_tuning.run_trial", lambda t, c, report: report({"error": "no"}))
    ended = tune(sweep, tmp_path / "out", "--trials", 2)
    assert ended.code == 1
    assert "no trial came to its end" in ended.out


def test_a_small_space_ends_before_the_trials_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_file(tmp_path, **{**TUNED, "methods": [{"name": "dm", "lr": 1.0, "momentum": 0.5}]})
    monkeypatch.setattr("bench.execution.run_tuning.run_trial", lambda t, c, report: report(RUNG))
    assert tune(sweep, tmp_path / "out", "--trials", 9).code == 0
    assert [trial.values for trial in trials(tmp_path / "out")] == [{"init": "real"}, {"init": "noise"}]


def test_a_budget_gives_each_trial_the_steps_that_it_pays_for(tmp_path: Path) -> None:
    methods = [{"name": "dm", "batch_real": 8}, {"name": "dc", "batch_real": 8, "net_epochs": 1}]
    sweep = sweep_file(tmp_path, **{**TUNED, "methods": methods, "budget": {"compute": "100 MFLOP"}})
    tuning = begun(sweep, tmp_path / "out")
    for one in tuning.cells:
        planned = [one.start(number) for number in range(3)]
        steps = {
            trial.distill.identity["hyperparameters"][name]
            for trial in planned
            if trial
            for name in ("steps", "iterations")
            if name in trial.distill.identity["hyperparameters"]
        }
        assert len(steps) == 1, "no searched value moves the cost of a step"


# --- the test split -----------------------------------------------------------------------------------------


class Poison:
    """A test split that nobody may look at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split was read: {name}")


def test_no_trial_reads_the_test_split(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    prepare_dataset(DatasetSpec.model_validate("digits"))  # decoding reads all files

    def poisoned(path: Path) -> Dataset:
        data = read_dataset(path)
        if not data.label.endswith("-holdout"):
            object.__setattr__(data, "test", Poison())
        return data

    for module in (
        "bench.data.cache",
        "bench.execution.tuning",
        "bench.execution.session",
        "bench.execution.jobs",
    ):
        monkeypatch.setattr(f"{module}.read_dataset", poisoned)
    out = tmp_path / "out"
    ended = tune(sweep, out, "--trials", 2)
    assert ended.code == 0, ended.out + ended.err
    assert {trial.state for trial in trials(out)} <= {"finished", "stopped"}
    compared = run_inline(out / "compare.yaml", out)
    assert compared.code == 1, "the last evaluation does read it"
    assert "the test split was read" in compared.out


# --- what is left for sweeps --------------------------------------------------------------------------------


def test_presets_and_the_comparing_sweep_hold_the_best_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("- {values: {batch_real: 9}, source: mine}")
    methods = ["random_real", {"name": "dm", "steps": 10, "seeds": 4}, {"name": "dm", "presets": "mine.yaml"}]
    sweep = sweep_file(tmp_path, **{**TUNED, "methods": methods, "ipc": [1, 2]})
    scores = {0: 0.5, 1: 0.75, 2: 0.75}

    def score(trial: Any, context: Any, report: Any) -> None:
        tie = trial.record.ipc == 2  # of equals the default wins
        report(RUNG | {"accuracy": 0.5 if tie else scores[trial.record.number]})

    monkeypatch.setattr("bench.execution.run_tuning.run_trial", score)
    out = tmp_path / "tuned"
    assert tune(sweep, out, "--trials", 3).code == 0
    found = {(t.ipc, json.dumps(t.fixed), t.number): t.values for t in trials(out)}
    rows = yaml.safe_load((out / "presets/dm.yaml").read_text())
    assert [(row["ipc"], row.get("when")) for row in rows] == [
        ([1], None), ([2], None), ([1], {"steps": 10}), ([2], {"steps": 10})
    ]  # fmt: skip
    assert rows[0]["values"] == found[1, "{}", 1]
    assert rows[1]["values"] == found[2, "{}", 0]
    assert "tuned on digits ipc 1, 3 trials" in rows[0]["source"]
    assert "held out" in rows[0]["source"]
    compared = load_sweep(out / "compare.yaml")
    assert compared.distill.seeds == (0, 1)
    assert [entry.name for entry in compared.methods] == ["random_real", "dm", "dm", "dm", "dm"]
    ten, tuned_ten, default, tuned = (entry.resolve("digits", 1) for entry in compared.methods[1:])
    assert ten.lr == default.lr == 1.0
    assert tuned.lr == found[1, "{}", 1]["lr"]
    assert (tuned_ten.steps, tuned_ten.lr) == (10, found[1, '{"steps": 10}', 1]["lr"])
    assert default.batch_real == tuned.batch_real == 9, "with the presets that the sweep had"


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["random_real"]}, "no search space"),
        ({"datasets": [{"name": "digits", "holdout": 0.2}]}, "leave it out"),
        ({"distill": {"architectures": ["convnet-d1-w4", "mlp"]}}, "name one"),
        ({"methods": ["dmm"]}, "did you mean"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    ended = tune(sweep_file(tmp_path, **{**TUNED, **changes}), tmp_path / "out")
    assert ended.code == 2
    assert words in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["{", "{}", '{"trial_schema": 1}', "null"])
def test_a_damaged_trial_is_named(sweep: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "out/trials/0123456789abcdef.json"
    path.parent.mkdir(parents=True)
    path.write_text(damage)
    ended = tune(sweep, tmp_path / "out")
    assert ended.code == 2
    assert "0123456789abcdef.json" in ended.err
    assert "delete it" in ended.err


@pytest.mark.parametrize(
    ("words", "said"), [(("--address", "a:1"), "--executor ray"), (("--trials", "0"), "trials")]
)
def test_arguments_that_do_not_fit_are_refused(
    sweep: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ended = tune(sweep, tmp_path / "out", *words)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def test_two_tunings_do_not_work_in_one_folder(sweep: Path, tmp_path: Path) -> None:
    first = begun(sweep, tmp_path / "out")
    with first.locked():
        ended = tune(sweep, tmp_path / "out")
    assert ended.code == 2
    assert "another ddbench run is at work" in ended.err

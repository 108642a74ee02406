"""Tunings on Ray: a dead worker and a dead run cost nothing that was reported, and bad trials stop early."""

from pathlib import Path
from typing import Any

import pytest
from helpers.cli import (
    SLOW_DM,
    ddbench,
    leftovers,
    program,
    started,
    steps_seen,
    sweep_file,
    use_plugins,
    wait_until,
)

from bench.records.trial import TrialRecord, load_trials

pytestmark = pytest.mark.ray

TUNED: dict[str, Any] = {
    "methods": [SLOW_DM],
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
    "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
}


def by_number(out: Path) -> dict[int, TrialRecord]:
    found, problems = load_trials(out)
    assert not problems
    return {trial.number: trial for trial in found}


def assert_same_rungs(found: dict[int, TrialRecord], expected: dict[int, TrialRecord]) -> None:
    """Trials that run side by side may stop elsewhere; what both scored is the same to the last bit."""
    assert found.keys() == expected.keys()
    for number, trial in found.items():
        pairs = list(zip(trial.rungs, expected[number].rungs, strict=False))
        assert pairs
        assert all((a.percent, a.accuracies) == (b.percent, b.accuracies) for a, b in pairs)
        assert trial.values == expected[number].values
    assert found[0].state == expected[0].state == "finished"


@pytest.mark.timeout(600)  # three starts of Ray, one of them after a death
def test_a_killed_worker_and_run_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out, whole = use_plugins(tmp_path / "site", monkeypatch), tmp_path / "out", tmp_path / "whole"
    sweep = sweep_file(tmp_path, **TUNED)
    monkeypatch.setenv("SEEN", str(tmp_path / "undisturbed"))
    assert ddbench("tune", sweep, "--out", whole, "--trials", 3, "--executor", "inline").code == 0
    seen = tmp_path / "seen"
    monkeypatch.setenv("SEEN", str(seen))
    seen.touch()
    monkeypatch.setenv("DIES", "9")  # in that step of all, its process kills itself
    monkeypatch.setenv("PAUSE", "0.2")
    with started("tune", sweep, "--out", out, "--trials", 3, path=path) as process:
        wait_until(lambda: process.poll() is not None or steps_seen(seen) >= 14, 240)
        process.kill()  # and later the run
    assert 0 < len(list(out.glob("trials/*.json"))) <= 3
    monkeypatch.setenv("PAUSE", "0")
    ended = program("tune", sweep, "--out", out, "--trials", 3, path=path)
    assert ended.code == 0, ended.out + ended.err
    assert ended.err == ""
    assert_same_rungs(by_number(out), by_number(whole))
    assert (out / "presets/slow_dm.yaml").exists()
    assert leftovers(out) == []
    assert not list(out.glob("artifacts/*"))
    assert not list(out.glob("checkpoints/*"))

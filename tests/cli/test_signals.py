"""Ctrl-C and SIGTERM in commands that run no job: one line, exit code 130, nothing half-written."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import SLOW_DM, Ended, ended, leftovers, plugins, started, sweep_file, wait_until
from helpers.record import write
from helpers.report import rich_sweep

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def stopped(process: Any, number: int) -> Ended:
    process.send_signal(number)
    run = ended(process, timeout=30)
    assert (run.code, run.err) == (130, "stopped\n")
    return run


@SIGNALS
def test_a_report_that_is_stopped_leaves_whole_files_only(number: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "out", rich_sweep())
    with started("report", folder, "--html") as process:
        wait_until(lambda: any((folder / "plots").glob("[!.]*.png")))  # others are to be drawn
        stopped(process, number)
    assert leftovers(folder) == []
    assert not (folder / "index.html").exists()


@SIGNALS
def test_a_plan_that_is_stopped_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setenv("SEEN", str(seen))
    monkeypatch.setenv("PAUSE", "60")  # into its first step
    sweep = sweep_file(tmp_path, methods=[SLOW_DM], ipc=[1])
    with started(
        "plan", sweep, "--measure", "--out", tmp_path / "out", path=plugins(tmp_path / "site")
    ) as process:
        wait_until(seen.exists)
        assert stopped(process, number).out == ""
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []
    assert not list(Path(os.environ["DDBENCH_CACHE"]).glob(".tmp-*"))

"""A distillation that is killed, stopped or diverges, from end to end."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import (
    SLOW_DM,
    leftovers,
    run_inline,
    stable_records,
    started,
    steps_seen,
    sweep_file,
    use_plugins,
    wait_until,
)

from bench.core.distilled import load_distilled
from bench.core.loop import CHECKPOINT, PROGRESS, read_step_report
from bench.execution.store import Store

STEPS, PAUSE_S = SLOW_DM["steps"], 0.1


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for PYTHONPATH with `slow_dm`, which notes its steps in `seen`; this process finds it."""
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return use_plugins(tmp_path / "site", monkeypatch)


def dm_sweep(folder: Path, **values: Any) -> Path:
    methods = [SLOW_DM | values]
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
    evaluate = {"architectures": ["mlp"], "students": 1, "protocol": "quick", "snapshots": True}
    return sweep_file(folder, methods=methods, ipc=[1], distill=distill, evaluate=evaluate)


def the_artifact(out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the only artifact says of itself, and its files."""
    (folder,) = (out / "artifacts").iterdir()
    content = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "meta.json"}
    return Store(out).meta(folder.name), content


def assert_as_undisturbed(out: Path, sweep: Path, folder: Path) -> None:
    """The same records and files as those of a run that nobody disturbs, and nothing else is left."""
    assert run_inline(sweep, folder / "undisturbed").code == 0
    assert stable_records(out) == stable_records(folder / "undisturbed")
    assert the_artifact(out)[1] == the_artifact(folder / "undisturbed")[1]
    assert not (out / "checkpoints").exists()
    assert leftovers(out) == []


def _kill(process: Any) -> None:
    process.kill()


def _ctrl_c(process: Any) -> None:
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("stop", [_kill, _ctrl_c])
def test_a_distillation_goes_on_from_where_it_was_stopped(
    stop: Callable[[Any], None], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, out = dm_sweep(tmp_path), tmp_path / "out"
    monkeypatch.setenv("PAUSE", str(PAUSE_S))
    with started("run", sweep, "--out", out, "--executor", "inline", path=site) as process:
        wait_until(
            lambda: any(read_step_report(p.parent).step > 4 for p in out.glob(f"checkpoints/*/{PROGRESS}")),
            120,
        )
        stop(process)
        process.wait(60)
    assert [path.name for path in out.rglob(CHECKPOINT)] == [CHECKPOINT]
    assert not list(out.glob("artifacts/[!.]*"))
    monkeypatch.delenv("PAUSE")
    before = steps_seen(tmp_path / "seen")
    assert 5 <= before <= STEPS
    assert run_inline(sweep, out).code == 0
    assert STEPS <= steps_seen(tmp_path / "seen") <= STEPS + 1  # the one under way may come twice
    (record,) = (json.loads(path.read_text()) for path in (out / "records").iterdir())
    assert record["cost"]["distill_s"] > (before - 1) * PAUSE_S
    assert [one["step"] for one in record["metrics"]["snapshots"]] == [1, 2, 6, 12]
    assert_as_undisturbed(out, sweep, tmp_path)


def test_snapshots_are_part_of_the_artifact(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_inline(dm_sweep(tmp_path, name="dm"), out).code == 0
    meta, content = the_artifact(out)
    taken = meta["snapshots"]
    steps = [(one["step"], one["fraction"]) for one in taken]
    assert steps == [(0, 0.0), (1, 0.1), (2, 0.2), (6, 0.5), (12, 1.0)]
    assert {one["file"] for one in taken} == content.keys() == meta["files"].keys()
    seconds = [one["seconds"] for one in taken]
    assert seconds[0] > 0
    assert seconds == sorted(seconds)
    assert seconds[-1] == meta["cost"]["distill_s"]
    (folder,) = (out / "artifacts").iterdir()
    images = [load_distilled(folder / one["file"]).decode()[0].detach() for one in taken]
    moved = [float((one - images[-1]).abs().max()) for one in images]
    assert moved == sorted(moved, reverse=True)
    assert 0 == moved[-1] < moved[-2]
    assert not (out / "checkpoints").exists()


def test_a_method_without_steps_has_no_snapshots(tmp_path: Path) -> None:
    assert run_inline(sweep_file(tmp_path, methods=["random_real"], ipc=[1]), tmp_path / "out").code == 0
    for path in (tmp_path / "out/artifacts").iterdir():
        assert json.loads((path / "meta.json").read_text())["snapshots"] == []
        assert {file.name for file in path.iterdir()} == {"data.safetensors", "meta.json"}
    assert not (tmp_path / "out/checkpoints").exists()


def test_a_neighbour_takes_the_snapshots_over(tmp_path: Path) -> None:
    assert run_inline(dm_sweep(tmp_path, name="dm"), tmp_path / "out").code == 0
    (folder,) = (tmp_path / "out/artifacts").iterdir()
    Store(tmp_path / "other").adopt("distill", folder.name, Store(tmp_path / "out"))
    Store(tmp_path / "other").verify(folder.name)
    assert the_artifact(tmp_path / "other") == the_artifact(tmp_path / "out")


def test_a_distillation_that_diverges_fails_in_one_line_and_starts_anew(tmp_path: Path) -> None:
    sweep, out = dm_sweep(tmp_path, name="dm", lr=1e30), tmp_path / "out"
    for _ in range(2):
        run = run_inline(sweep, out)
        assert run.code == 1
        assert (
            "failed: dm digits ipc 1 convnet-d1-w4 seed 0: "
            "Diverged: the loss is not finite at step 2 of 12: lower lr" in run.text
        )
        assert not (out / "checkpoints").exists()
        assert leftovers(out) == []

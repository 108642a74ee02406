"""A cluster of three nodes that share no folder, one of which is killed."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import (
    SLOW_DM,
    ended,
    leftovers,
    run_inline,
    stable_records,
    steps_seen,
    sweep_file,
    use_plugins,
    wait_until,
)
from helpers.cluster import free_port, inside, kill_tree, separate_node, unshare_refused

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(unshare_refused()), reason=f"no mount namespaces: {unshare_refused()}"),
]
RUN = """
import sys
from helpers.cli import without_plots
from bench.cli.app import main
with without_plots():
    main()
"""


def steps_at(seen: Path, least: int) -> bool:
    return seen.exists() and steps_seen(seen) >= least


def all_home(pid: int, cache: Path, there: Path) -> bool:
    """Whether the checkpoint that a node has written last has arrived."""
    (mine,) = Path(f"/proc/{pid}/root{cache}").glob("nodes/*/checkpoints/*/checkpoint")
    arrived = there / "checkpoints" / mine.parent.name / "checkpoint"
    return arrived.exists() and arrived.read_bytes() == mine.read_bytes()


def answers(ip: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((ip, port), 1):
        return True
    return False


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray's files go; the paths of its sockets are short."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_results_come_home_from_nodes_that_share_nothing_and_one_that_is_killed_costs_its_job_only(
    tmp_path: Path, ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tokens; a distillation of the lost node goes on elsewhere from what came home of it."""
    site, seen, out = use_plugins(tmp_path / "site", monkeypatch), tmp_path / "seen", tmp_path / "out"
    paths = [str(site), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("SEEN", str(seen))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", 32 * "0f")
    monkeypatch.setenv("GATE", str(gate := tmp_path / "gate"))
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    own = [ray_folder, out, tmp_path / "cache"]
    for folder in own[1:]:
        folder.mkdir()
    sweep = sweep_file(
        tmp_path,
        methods=[SLOW_DM],
        ipc=[1],
        distill={"architectures": ["convnet-d1-w4"], "seeds": [0, 1, 2]},
    )
    port = free_port()
    address = f"127.0.0.1:{port}"
    with contextlib.ExitStack() as nodes:

        def node(last: int, *words: str) -> Any:
            log = tmp_path / f"node{last}.log"
            return nodes.enter_context(separate_node(f"127.0.0.{last}", own, log, *words))

        head = node(1, "--head", f"--port={port}", "--include-dashboard=false")
        wait_until(lambda: answers("127.0.0.1", port), 60)
        second, third = (node(last, f"--address={address}") for last in (2, 3))
        there = Path(f"/proc/{head.pid}/root{out}")  # what the node has at this path
        command = [sys.executable, "-c", RUN, "run", str(sweep), "--out", str(out), "--address", address]
        wait_until(lambda: "Ray runtime started" in (tmp_path / "node3.log").read_text(), 60)
        driver = subprocess.Popen(
            inside(head.pid, command), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            wait_until(lambda: steps_at(seen, 3 * 6) or driver.poll() is not None, 120)
            wait_until(lambda: all_home(third.pid, tmp_path / "cache", there), 20)
            kill_tree(third)
            gate.touch()
            run = ended(driver, 150)
        finally:
            driver.kill()
        assert (run.code, run.err) == (0, "")
        assert run.out.count("tried again: ") == run.out.count(": its node was lost") == 1
        assert steps_seen(seen) == 3 * SLOW_DM["steps"] + 1, "it goes on from where it was"
        assert leftovers(there) == []
        assert not (there / "checkpoints").exists()
        cache = Path(f"/proc/{second.pid}/root{tmp_path}/cache")
        (data,) = (cache / "datasets").glob("*.safetensors")
        assert re.fullmatch("[0-9a-f]{32}", data.stem), "the data set came, it was not decoded there"
        assert any(cache.glob("nodes/*/artifacts/*"))
        assert list(Path(f"/proc/{second.pid}/root{out}").iterdir()) == []
        found = stable_records(there)
    assert run_inline(sweep, tmp_path / "alone").code == 0
    assert found == stable_records(tmp_path / "alone")
    assert len(found) == 3

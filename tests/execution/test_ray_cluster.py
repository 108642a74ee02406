"""Ray where it does not start, where its servers die in the middle, and where a node joins."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.cli import (
    BIN,
    ONE_METHOD,
    ddbench,
    ended,
    leftovers,
    plugins,
    run_inline,
    stable_records,
    started,
    sweep_file,
    wait_until,
)

from bench.core.signals import stop_on_signals
from bench.execution.head import HeadWatch
from bench.execution.queue import Outcome

GONE_S = 60  # until a run that lost its servers has ended, and all that it started; measured: 5 to 25


# --- what does not start ------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("place", ["a path of more than 100 characters" + "." * 80, "file/below"])
def test_ray_that_cannot_start_names_the_variable_and_the_way_without_it(
    variable: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / place))
    run = ddbench("run", sweep_file(tmp_path, **ONE_METHOD), "--out", tmp_path / "out")
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert "error: Ray does not start here: " in run.err
    assert f"{variable}={tmp_path / place}" in run.err
    assert "--executor inline" in run.err
    assert not (tmp_path / "out").exists()


# --- servers that die ---------------------------------------------------------------------------------------


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def test_a_server_that_is_gone_stops_this_process_as_ctrl_c_does() -> None:
    with listening() as server:
        address: tuple[str, int] = server.getsockname()
        # as every command does: a process that a shell started in the background ignores SIGINT
        with stop_on_signals(), HeadWatch({"The head": address}) as head:
            assert not head.gone()
            server.close()
            with pytest.raises(KeyboardInterrupt):
                time.sleep(20)
    assert head.lost == f"The head died: nothing answers at 127.0.0.1:{address[1]}"
    with pytest.raises(KeyboardInterrupt):
        head.check()


def test_nothing_is_said_of_servers_that_answer() -> None:
    with listening() as server, HeadWatch({"The head": server.getsockname()}) as head:
        head.check()
        time.sleep(2.5)  # two looks
    assert head.lost is None


@pytest.mark.ray
@pytest.mark.parametrize(
    ("server", "name"), [("gcs_server", "Ray's head"), ("raylet", "Ray on this machine")]
)
def test_a_server_that_is_killed_ends_the_run_in_our_words_and_it_goes_on(
    server: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, out = plugins(tmp_path / "site"), tmp_path / "out"
    methods = ["random_real", {"name": "slow", "seconds": 120.0}]
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
    sweep = sweep_file(tmp_path, methods=methods, ipc=[1], distill=distill)
    with started("run", sweep, "--out", out, path=site) as process:
        wait_until(lambda: any((out / "records").glob("[!.]*")) or process.poll() is not None, 120)
        children = psutil.Process(process.pid).children(recursive=True)
        # Ray's two agents do no work, and look for their servers for another minute
        children = [child for child in children if not child.name().endswith("Agent")]
        (victim,) = (child for child in children if child.name() == server)
        begin = time.monotonic()
        victim.kill()
        run = ended(process, timeout=GONE_S)
        _, alive = psutil.wait_procs(children, timeout=GONE_S - (time.monotonic() - begin))
    assert alive == []
    assert run.code == 1
    assert re.search(
        rf"\n{name} died: nothing answers at \S+:\d+\. Finished jobs are kept; the same command goes on:\n"
        rf"  ddbench run {sweep} --out {out}\n$",
        run.out,
    ), run.out
    for words in ("Traceback", "process died", "Raylet is terminated", "Stopped"):
        assert words not in run.out + run.err
    assert leftovers(out) == []
    before = stable_records(out)
    monkeypatch.setenv("FAST", "1")
    monkeypatch.syspath_prepend(site)
    assert run_inline(sweep, out).code == 0
    assert before.items() <= stable_records(out).items()
    assert len(stable_records(out)) == 2


# --- nodes that join ----------------------------------------------------------------------------------------


def test_the_overhead_is_that_of_as_many_workers_as_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    outcome = Outcome(workers=1)
    outcome.begin()
    now[0] += 30
    outcome.resize(4)
    now[0] += 10
    outcome.end()
    outcome.busy = 56.0
    assert (outcome.seconds, outcome.worker_s, outcome.mean_workers) == (40.0, 70.0, 1.75)
    assert outcome.overhead == pytest.approx(0.25)


@contextmanager
def ray_node(folder: Path, *words: str) -> Iterator[None]:
    """One more node on this machine, with one CPU; the first is the head."""
    environment = {**os.environ, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    command = [str(BIN / "ray"), "start", "--block", "--num-cpus=1", "--disable-usage-stats", *words]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        parts = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for part in parts:
            part.kill()
        psutil.wait_procs(parts, timeout=10)
        process.wait()


def _free_port() -> int:
    with listening() as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_node_that_joins_is_used_and_counted(tmp_path: Path, tmp_path_factory: Any) -> None:
    site, out = plugins(tmp_path / "site"), tmp_path / "out"
    distill = {"architectures": ["convnet-d1-w4"], "seeds": list(range(8))}
    sweep = sweep_file(tmp_path, methods=[{"name": "slow", "seconds": 4.0}], ipc=[1], distill=distill)
    short = Path("/tmp") / f"ray-{os.getpid()}"  # the path of a socket is short
    address = f"127.0.0.1:{_free_port()}"
    head = ("--head", f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1")
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths["PYTHONPATH"])
        with ray_node(short, *head, "--include-dashboard=false"):
            wait_until(lambda: _answers(address), 60)
            with started("run", sweep, "--out", out, "--address", address) as process:
                wait_until(lambda: any((out / "records").glob("[!.]*")) or process.poll() is not None, 120)
                with ray_node(short, f"--address={address}", "--node-ip-address=127.0.0.1"):
                    run = ended(process, 150)
    assert (run.code, run.err) == (0, "")
    assert "\n1 worker, started in" in run.out
    assert "2 workers instead of 1: a node has joined" in run.out
    assert re.search(r"on 1\.\d workers on average", run.text)
    overhead = float(re.search(r"overhead (-?[\d.]+)%", run.text)[1])  # type: ignore[index]
    assert overhead > 0, "what the second worker did is no gain over one"
    assert "tried again" not in run.out


def _answers(address: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1).close()
    except OSError:
        return False
    return True

"""A Ray cluster of nodes that share no folder: each is a process tree in a mount namespace of its own."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from helpers.cli import BIN


def unshare_refused() -> str | None:
    """Why no process can have a mount namespace with a file system of its own here; None where it can."""
    try:
        run = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True
        )
    except OSError as error:
        return str(error)
    return run.stderr.strip() or None if run.returncode else None


def own_folders(command: list[str], folders: list[Path]) -> list[str]:
    """The command in a mount namespace of its own, where each of these folders is empty and its own."""
    mounts = [f"mount -t tmpfs -o size=512m tmpfs {shlex.quote(str(folder))}" for folder in folders]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, f"exec {shlex.join(command)}"])]


def inside(pid: int, command: list[str]) -> list[str]:
    """The command in the mount namespace of a process."""
    return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--wd=/", *command]


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all that it started, at once."""
    try:
        parts = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        parts = []
    for part in parts:
        if part.is_running():
            part.kill()
    psutil.wait_procs(parts, timeout=10)
    process.wait()


@contextmanager
def separate_node(
    ip: str, folders: list[Path], log: Path, *words: str, cpus: int = 1
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node with an address of this machine's own, in whose eyes `folders` are empty."""
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", **os.environ}
    # so that the head notices sooner that a node is gone; by itself after a quarter of a minute
    environment |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
    start = ["start", "--block", f"--num-cpus={cpus}", "--disable-usage-stats"]
    start += ["--object-store-memory=100000000", f"--node-ip-address={ip}", *words]
    with log.open("wb") as out:
        process = subprocess.Popen(
            own_folders([str(BIN / "ray"), *start], folders),
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_tree(process)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A server on this machine that accepts nobody, but refuses nobody."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def free_port() -> int:
    with listening() as server:
        port: int = server.getsockname()[1]
        return port

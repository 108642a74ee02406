"""Ray on this machine or a cluster that is there: started, joined, looked at, left."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.errors import UserError
from bench.core.registry import plugin_environment
from bench.execution.capacity import Capacity, Node
from bench.execution.head import Address, HeadWatch
from bench.planning.resources import Needs

ACCELERATOR = "accelerator_type:"  # before its name: what Ray calls that resource of a node
CONNECT_S = 5.0  # to wait for a cluster
ENVIRONMENT = {  # read by ray when it is imported or started
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_AUTH_MODE": "disabled",  # no token file in the home directory; a cluster's own setting wins
    "RAY_worker_niceness": "0",  # the default of 15 falsifies seconds on a shared machine
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a CPU job sees no GPU
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it waits for the running step; ours stops at once
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # resuming is plan minus store, so Tune's own state is of no use
    "TUNE_WARN_THRESHOLD_S": "3600",
}
os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})

import ray  # noqa: E402 (reads the variables above when it is imported)

# its servers' last words, a page of them, would stand among our lines
ray._private.worker.print_to_stdstream = lambda *args, **kwargs: None


def check_address(address: str) -> None:
    """Raises UserError, within seconds, when nothing listens at host:port: Ray itself tries for minutes."""
    if address == "auto":
        return  # Ray looks for itself, and gives up soon
    try:
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (ValueError, OSError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(f"--address {address}: no Ray cluster answers: {why}; give host:port or auto")


def worker_environment() -> dict[str, str]:
    """The variables of processes on a cluster: as here, where a setting of one's own wins (its tokens)."""
    return {name: os.environ[name] for name in ENVIRONMENT} | plugin_environment()


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined."""

    capacity: Capacity
    start_s: float
    head: HeadWatch
    joined: bool  # it was there before, and may have nodes that do not see the result folder

    @property
    def slots(self) -> int:
        """How many jobs fit at once."""
        return self.capacity.most


@contextlib.contextmanager
def cluster(address: str | None, kinds: Mapping[str, Needs]) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at `address`.

    Args:
        address: host:port, or auto; None: this machine.
        kinds: what the kinds of jobs get that are to run.

    Raises:
        UserError: no job of a kind fits, or no cluster answers.
    """
    begin = time.monotonic()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": 200 * 2**20}
    else:
        options |= {"address": address, "runtime_env": {"env_vars": worker_environment()}}
    try:
        ray.init(**options)
    except Exception as error:  # of many kinds
        ray.shutdown()
        raise (_no_cluster(address, error) if address else _no_start(error)) from None
    try:
        capacity = Capacity(seen_nodes(), kinds)
        capacity.check()
        with HeadWatch(_servers()) as head:
            try:
                yield Cluster(capacity, time.monotonic() - begin, head, address is not None)
            finally:
                _leave(head)
    finally:
        ray.shutdown()


def _leave(head: HeadWatch) -> None:
    """Leave the cluster; of one that has lost a server the others, which would look for it, are killed."""
    if head.lost:
        node: Any = ray._private.worker._global_node
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    else:
        head.leave()  # what was started here goes now
    ray.shutdown()


def _no_start(error: Exception) -> UserError:
    """Ray's own words, and for files the variable that says where they go."""
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if isinstance(error, OSError):
        variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "RAY_TMPDIR")
        why += f"; its files go to {variable}={os.environ.get(variable, '/tmp')}: name a folder with a short "
        why += "path that can be written"
    return UserError(f"Ray does not start here: {why}; or go without it: --executor inline")


def seen_nodes() -> tuple[Node, ...]:
    """The machines of the cluster, as it is now."""
    nodes = []
    for has in (node["Resources"] for node in ray.nodes() if node["Alive"]):
        makes = frozenset(name.removeprefix(ACCELERATOR) for name in has if name.startswith(ACCELERATOR))
        nodes.append(Node(has.get("CPU", 0.0), int(has.get("GPU", 0)), makes))
    return tuple(sorted(nodes, key=repr))


def _servers() -> dict[str, Address]:
    """Without these two this process can do nothing: the cluster's head, and Ray on this machine."""
    here = ray.get_runtime_context()
    host, _, port = here.gcs_address.rpartition(":")
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here.get_node_id())
    local = (node["NodeManagerAddress"], node["NodeManagerPort"])
    return {"Ray's head": (host.strip("[]"), int(port)), "Ray on this machine": local}


def bundle(needs: Needs | None) -> dict[str, float]:
    """What a trial asks Ray for; of a make of GPU next to nothing, as Ray's own `accelerator_type` does."""
    assert needs is not None, "the queue knows what jobs get"
    gpus = {"GPU": needs.gpus} if needs.gpus else {}
    return {
        "CPU": needs.cpus,
        **gpus,
        **({f"{ACCELERATOR}{needs.accelerator}": 0.001} if needs.accelerator else {}),
    }

"""Processes of jobs that died: which count as a job's tries, and which went with their node."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.execution.head import refuses

RETRIES = 2  # of a job whose process died
MOST_DEATHS = 20  # of one job for any reason, so that one that brings down its nodes has an end
Nodes = Callable[[], Iterable[Mapping[str, Any]]]


def node_is_lost(node: Mapping[str, Any]) -> bool:
    """Whether a node of the cluster is gone; the cluster itself notices after a quarter of a minute."""
    return (
        not node["Alive"] or refuses((node["NodeManagerAddress"], node["NodeManagerPort"]), 1.0) is not False
    )


class Deaths:
    """The deaths of each trial, with the nodes that it may have been on.

    Whether a node is lost is looked up when it matters: the last try of a job.
    """

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        """In `folder` a trial writes the id of its node into a file named as `node_file` says."""
        self.folder, self.nodes = folder, nodes
        self._there: dict[str, set[str]] = {}  # nodes at the start of a trial
        self._of: dict[str, list[set[str]]] = {}

    def started(self, trial: str) -> None:
        """A trial begins, on a node that it will name."""
        (self.folder / node_file(trial)).unlink(missing_ok=True)
        self._there[trial] = {node["NodeID"] for node in self.nodes() if node["Alive"]}

    def died(self, trial: str) -> None:
        """Its process is gone, or what it runs on."""
        named = self.folder / node_file(trial)
        node = named.read_text() if named.exists() else ""
        self._of.setdefault(trial, []).append({node} if node else self._there.get(trial, set()))

    def reason(self, trial: str) -> str:
        """In words, of the last death."""
        return "its node was lost" if self._lost(self._of[trial][-1]) else "its process died"

    def verdict(self, trial: str) -> str | None:
        """Why the job is not tried again; None if it is."""
        deaths = self._of.get(trial, [])
        lost = self._lost(set().union(*deaths))
        own = sum(not nodes & lost for nodes in deaths)
        if own > RETRIES:
            return f"its process died {own} times (killed, out of memory, or its GPU failed)"
        return f"its node was lost {len(deaths) - own} times" if len(deaths) >= MOST_DEATHS else None

    def _lost(self, among: set[str]) -> set[str]:
        there = self.nodes() if among else ()
        return {node["NodeID"] for node in there if node["NodeID"] in among and node_is_lost(node)}


def node_file(trial: str) -> str:
    """The name of the file with the node of a trial."""
    return f"{trial}.node"

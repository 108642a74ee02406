"""Which deaths of a process are a job's own, and which are those of its node."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cluster import listening

from bench.execution.deaths import MOST_DEATHS, RETRIES, Deaths, node_file, node_is_lost


class Nodes:
    """The nodes of a cluster, as it tells them."""

    def __init__(self, port: int) -> None:
        self.port, self.alive = port, {"a": True, "b": True}

    def __call__(self) -> list[dict[str, Any]]:
        place = {"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": self.port}
        return [{"NodeID": name, "Alive": alive, **place} for name, alive in self.alive.items()]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with listening() as server:
        yield Nodes(server.getsockname()[1])


def die(deaths: Deaths, folder: Path, node: str | None) -> None:
    deaths.started("t")
    if node:
        (folder / node_file("t")).write_text(node)
    deaths.died("t")


def test_a_job_whose_process_dies_is_tried_as_often_as_is_said(nodes: Nodes, tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, nodes)
    for _ in range(RETRIES):
        die(deaths, tmp_path, "a")
        assert (deaths.reason("t"), deaths.verdict("t")) == ("its process died", None)
    die(deaths, tmp_path, "a")
    assert (
        deaths.verdict("t")
        == f"its process died {RETRIES + 1} times (killed, out of memory, or its GPU failed)"
    )


@pytest.mark.parametrize("named", [True, False])  # it may die before it could say where it is
def test_the_loss_of_a_node_is_no_try_of_a_job_even_if_it_is_known_late(
    named: bool, nodes: Nodes, tmp_path: Path
) -> None:
    deaths = Deaths(tmp_path, nodes)
    for node in ("a", "a", "b"):
        assert deaths.verdict("t") is None
        die(deaths, tmp_path, node if named or node == "a" else None)
        nodes.alive["b"] = node != "b"
    assert (deaths.reason("t"), deaths.verdict("t")) == ("its node was lost", None)
    die(deaths, tmp_path, "a")
    assert deaths.reason("t") == "its process died"
    assert deaths.verdict("t") == "its process died 3 times (killed, out of memory, or its GPU failed)"


def test_a_node_whose_server_refuses_is_lost_before_the_cluster_says_so(nodes: Nodes) -> None:
    (node, _) = nodes()
    assert not node_is_lost(node)
    with listening() as server:
        port = server.getsockname()[1]
    assert node_is_lost({**node, "NodeManagerPort": port})
    assert node_is_lost({**node, "Alive": False})


def test_a_job_that_brings_down_its_nodes_has_an_end(nodes: Nodes, tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, nodes)
    nodes.alive = {f"n{i}": True for i in range(MOST_DEATHS)}
    for name in list(nodes.alive):
        assert deaths.verdict("t") is None
        die(deaths, tmp_path, name)
        nodes.alive[name] = False
    assert deaths.verdict("t") == f"its node was lost {MOST_DEATHS} times"

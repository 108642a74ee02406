"""What every test may use: one thread, a private cache, the digits, a problem made from them, comparisons."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml
from helpers.parity import Compare, comparison
from helpers.site import browser, first, page, site  # noqa: F401  (fixtures)

from bench.core.method import Problem
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.planning import protocols
from bench.testing.contract import tiny_problem

MakeProblem = Callable[..., Problem]
WriteProtocol = Callable[..., None]

os.environ["OMP_NUM_THREADS"] = "1"  # also in the subprocesses
torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "ddbench", deadline=None, derandomize=True, max_examples=50, database=None
)
hypothesis.settings.register_profile("long", deadline=None, max_examples=20_000, database=None)
hypothesis.settings.load_profile("ddbench")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers (`-n 2`) one has all tests that start Ray: two clusters at once are slow."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A data cache of this session's own, here and in subprocesses; and no cluster of someone else's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="session")
def digits(_environment: None) -> Dataset:
    return read_dataset(prepare_dataset(DatasetSpec(name="digits")))


@pytest.fixture(scope="session")
def make_problem(digits: Dataset) -> MakeProblem:
    """`make_problem(method, ipc=, seed=, architecture=)`: the digits, and what the method requires, built."""

    def make(
        method: object = None, *, ipc: int = 1, seed: int = 0, architecture: str = "convnet-d2-w16"
    ) -> Problem:
        return tiny_problem(method, digits, ipc=ipc, seed=seed, architecture=architecture)

    return make


@pytest.fixture
def write_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteProtocol:
    """`write_protocol(name, **content)`: fast files of one's own in place of those of ddbench."""
    folder = tmp_path / "configs/protocols"
    folder.mkdir(parents=True)
    monkeypatch.setattr(protocols, "CONFIGS", tmp_path / "configs")
    recipe = {"batch_size": 20, "lr": 0.03, "steps": 10}

    def write(name: str, **content: Any) -> None:
        text = {"version": 1, "about": "of one test", "recipe": recipe, **content}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(text))

    return write


@pytest.fixture
def compare(record_property: Callable[[str, Any], None]) -> Iterator[Compare]:
    """`compare(method, what, ours, theirs, allowed)`, see `helpers.parity`; the test computes in float64."""
    torch.set_default_dtype(torch.float64)
    yield comparison(record_property)
    torch.set_default_dtype(torch.float32)

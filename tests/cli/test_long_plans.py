"""Plans of thousands of jobs: rows as plain lines, and no work that grows faster than the jobs."""

import pkgutil
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import sweep_file
from rich.markup import escape
from rich.table import Table

from bench.cli import console
from bench.core import registry
from bench.data.dataset import Dataset
from bench.execution.session import Session
from bench.execution.store import Store
from bench.planning import presets
from bench.planning.graph import plan_sweep
from bench.planning.protocols import load_protocols
from bench.planning.sweep import Sweep
from bench.planning.yaml_text import parse_yaml


def table(rows: int) -> Table:
    found = Table(box=None, pad_edge=False)
    found.add_column("job")
    found.add_column("estimate", justify="right")
    for i in range(rows):
        found.add_row(escape(f"dm[lr={i}] 猫"), f"{i} s")
    return found


def test_a_long_table_has_the_cells_of_a_short_one(capsys: pytest.CaptureFixture[str]) -> None:
    most = console.MOST_ROWS
    console.print_rows(table(most))
    short = capsys.readouterr().out.splitlines()
    console.print_rows(table(most + 1))
    long = capsys.readouterr().out.splitlines()
    assert [line.split() for line in long[:-1]] == [line.split() for line in short]
    assert long[-1].split() == [f"dm[lr={most}]", "猫", str(most), "s"]
    assert len({len(line) + line.count("猫") for line in long[1:]}) == 1  # aligned; 猫 takes two columns


def sweep(seeds: int, ipcs: int) -> Sweep:
    content: dict[str, Any] = {
        "name": "x", "datasets": ["digits"], "methods": ["random_real", "dm"], "ipc": [*range(1, ipcs + 1)],
        "distill": {"architectures": ["mlp"], "seeds": list(range(seeds))},
        "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
    }  # fmt: skip
    return Sweep.model_validate(content)


@pytest.mark.parametrize(("seeds", "ipcs"), [(50, 3), (1, 100)])
def test_a_grid_reads_no_more_yaml(
    seeds: int, ipcs: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(text: str) -> Any:
        read.append(text)
        return parse_yaml(text)

    monkeypatch.setattr(presets, "parse_yaml", counting)
    protocols = load_protocols("quick")
    counts = []
    for grid in ((1, 3), (seeds, ipcs)):
        read.clear()
        presets._parsed.cache_clear()
        jobs = plan_sweep(sweep(*grid), {"digits": digits}, protocols)
        counts.append(len(read))
        assert len(jobs) == 2 * 2 * grid[0] * grid[1]
    assert counts[0] == counts[1]


def test_neighbouring_folders_are_looked_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once for each job and folder."""
    monkeypatch.chdir(tmp_path)
    for i in range(5):
        (tmp_path / f"results/other{i}/records").mkdir(parents=True)
    session = Session.open(sweep_file(tmp_path, distill={"seeds": list(range(20))}), [], None, False)
    asked: list[str] = []
    monkeypatch.setattr(Store, "state", lambda _, kind, key: asked.append(key) or "")
    assert {session.state(key) for key in session.jobs} == {"missing"}
    assert len(session.lenders) == 5
    assert len(asked) == len(session.jobs)


def test_the_methods_folder_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.own_method_names.cache_clear()
    listed: list[Any] = []
    monkeypatch.setattr(pkgutil, "iter_modules", lambda paths: listed.append(paths) or iter(()))
    assert registry.method_names() == registry.method_names()
    assert len(listed) == 1
    registry.own_method_names.cache_clear()

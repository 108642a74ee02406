"""Plans of thousands of jobs: rows as plain lines, and no work that grows faster than the jobs."""

from pathlib import Path
from typing import Any

import pytest
from rich.markup import escape
from rich.table import Table

from bench.cli import console
from bench.data.dataset import Dataset
from bench.planning import presets
from bench.planning.graph import plan_sweep
from bench.planning.protocols import load_protocols
from bench.planning.sweep import Sweep
from bench.planning.yaml_schema import read_yaml


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


def test_seeds_cost_no_more_files_to_read(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counting(path: Path) -> Any:
        read.append(path)
        return read_yaml(path)

    monkeypatch.setattr(presets, "read_yaml", counting)
    protocols = load_protocols("quick")
    counts = []
    for seeds in (1, 50):
        read.clear()
        jobs = plan_sweep(sweep(seeds, 3), {"digits": digits}, protocols)
        counts.append(len(read))
        assert len(jobs) == 2 * 2 * 3 * seeds
    assert counts[0] == counts[1]

"""Presets: which rows hold, what they win over, and that those of ddbench fit their methods."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.core.errors import UserError
from bench.core.registry import method_class, method_names
from bench.data.spec import DATASETS
from bench.planning.presets import Preset, preset
from bench.planning.sweep import MethodEntry, build_method
from bench.planning.yaml_schema import CONFIGS

ROWS = """
- {values: {lr: 1.0, steps: 10}, source: everywhere}
- {datasets: [cifar10], values: {lr: 2.0}, source: one data set}
- {ipc: [10, 50], values: {lr: 3.0}, source: two budgets}
- {datasets: [cifar10], ipc: [50], values: {lr: 4.0, momentum: 0.0}, source: both}
"""


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("bench.planning.presets.CONFIGS", tmp_path)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/dm.yaml").write_text(ROWS)
    return tmp_path / "methods/dm.yaml"


@pytest.mark.usefixtures("presets")
@pytest.mark.parametrize(
    ("dataset", "ipc", "expected"),
    [
        ("digits", 1, {"lr": 1.0, "steps": 10}),
        ("cifar10", 1, {"lr": 2.0, "steps": 10}),
        ("digits", 10, {"lr": 3.0, "steps": 10}),
        ("cifar10", 10, {"lr": 3.0, "steps": 10}),
        ("cifar10", 50, {"lr": 4.0, "steps": 10, "momentum": 0.0}),
    ],
)
def test_later_rows_of_a_preset_win(dataset: str, ipc: int, expected: dict[str, Any]) -> None:
    assert preset("dm", dataset, ipc) == expected
    assert preset("random_real", dataset, ipc) == {}


@pytest.mark.usefixtures("presets")
def test_a_sweep_wins_over_presets_and_presets_over_defaults() -> None:
    entry = MethodEntry.model_validate({"name": "dm", "steps": 99})
    method = entry.resolve("cifar10", 50)
    assert (method.steps, method.lr, method.momentum) == (99, 4.0, 0.0)
    assert method.batch_real == method_class("dm")().batch_real


def test_bad_presets_name_their_file(presets: Path) -> None:
    for text in ("- {values: {}}", "- {values: {}, source: x, dataset: [a]}", "{}", "[1", "- 3"):
        presets.write_text(text)
        with pytest.raises(UserError) as caught:
            preset("dm", "digits", 1)
        assert str(caught.value).startswith(f"{presets}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((CONFIGS / "methods").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_fits_its_method_and_cites_a_source(path: Path) -> None:
    assert path.stem in method_names()
    for content in yaml.safe_load(path.read_text()):
        row = Preset.model_validate(content)
        assert len(row.source) > 10
        build_method(path.stem, row.values)
        assert all(name in DATASETS for name in row.datasets or ())

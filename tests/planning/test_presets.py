"""Presets: which rows hold, what they win over, and that those of ddbench fit their methods."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.core.errors import UserError
from bench.core.registry import method_class, method_names
from bench.data.spec import DATASETS
from bench.planning.presets import Preset, not_covered, preset
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


@pytest.mark.parametrize(
    ("method", "dataset", "ipc", "chosen", "expected"),
    [
        ("idc", "mnist", 20, {}, {"lr": 2e-4}),
        ("idc", "cifar10", 20, {}, {"lr": 0.01}),
        ("idc", "fashion_mnist", 50, {}, {"lr": 3.828e-4}),
        ("idc", "birds", 1, {}, {"lr": 5e-4}),
        ("idc", "mnist", 10, {}, {"lr": 1e-4, "augment": "color+crop", "cutmix": 0.0}),
        ("idc", "mnist", 10, {"factor": 1}, {"lr": 1e-4, "augment": "color+crop+cutout", "cutmix": 0.5}),
        ("dsa", "cifar10", 20, {}, {"inner_steps": 20, "net_epochs": 25}),
        ("dsa", "cifar10", 40, {}, {"inner_steps": 40, "net_epochs": 15}),
        ("rtp", "cifar10", 1, {}, {"augment": "none"}),
        ("bptt", "svhn", 1, {}, {"augment": "none"}),
        ("mtt", "svhn", 1, {}, {"expert_epochs": 3}),
        ("mtt", "cifar10", 10, {}, {"expert_epochs": 2}),
        ("tesla", "cifar10", 50, {}, {"inner_steps": 30, "start_epochs": 40, "lr": 1000.0}),
    ],
)
def test_presets_are_those_of_their_sources(
    method: str, dataset: str, ipc: int, chosen: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert preset(method, dataset, ipc, chosen).items() >= expected.items()


def test_a_row_may_depend_on_what_the_sweep_gives() -> None:
    entry = MethodEntry.model_validate({"name": "idc", "factor": 1})
    assert entry.resolve("mnist", 1).cutmix == 0.5
    assert MethodEntry.model_validate({"name": "idc"}).resolve("mnist", 1).cutmix == 0.0


@pytest.mark.parametrize(
    ("method", "dataset", "ipc", "chosen", "names"),
    [
        ("mtt", "cifar10", 10, {}, []),
        ("mtt", "cifar10", 20, {}, ["inner_steps", "start_epochs", "lr_lr"]),
        ("mtt", "svhn", 10, {"inner_steps": 20, "start_epochs": 20, "lr": 1.0}, ["lr_lr"]),
        ("dc", "svhn", 7, {}, ["inner_steps", "net_epochs"]),
        ("dc", "digits", 7, {}, []),
        ("idc", "svhn", 7, {}, []),
        ("random_real", "svhn", 7, {}, []),
    ],
)
def test_what_a_preset_gives_for_other_budgets_only_is_named(
    method: str, dataset: str, ipc: int, chosen: dict[str, Any], names: list[str]
) -> None:
    assert not_covered(method, dataset, ipc, chosen) == names


@pytest.mark.usefixtures("presets")
def test_rows_of_a_file_that_the_sweep_names_win_over_those_of_ddbench(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "- {datasets: [digits], ipc: [10], when: {momentum: 0.1}, values: {lr: 7.0}, source: mine}"
    )
    entry = MethodEntry.model_validate({"name": "dm", "presets": str(own), "momentum": 0.1})
    assert [entry.resolve(d, ipc).lr for d, ipc in (("digits", 10), ("digits", 1), ("cifar10", 10))] == [
        7,
        1,
        3,
    ]
    later = tmp_path / "later.yaml"
    later.write_text("- {values: {lr: 8.0}, source: mine}")
    both = MethodEntry.model_validate({"name": "dm", "presets": [str(own), str(later)], "momentum": 0.1})
    assert both.resolve("digits", 10).lr == 8.0
    other = MethodEntry.model_validate({"name": "dm", "presets": str(own), "momentum": 0.2})
    assert other.resolve("digits", 10).lr == 3.0, "its row depends on what the sweep sets"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), ("[1", "own.yaml"), ("- {values: {}}", "source"), (3, "the path of a file")],
)
def test_a_bad_file_of_presets_is_refused_with_the_sweep(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "own.yaml"
    if isinstance(content, str):
        path.write_text(content)
    with pytest.raises(ValueError, match=words):
        MethodEntry.model_validate({"name": "dm", "presets": content if content == 3 else str(path)})

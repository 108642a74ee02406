"""Sweep files, altered or made up: each is read, or its faults are named, in little memory."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import fuzz
from helpers.cli import TINY
from helpers.plan import dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.planning.graph import plan_sweep
from bench.planning.protocols import load_protocol
from bench.planning.sweep import Sweep, load_sweep

TEXT = yaml.safe_dump(TINY, sort_keys=False)
TOKENS = [
    *("[", "]", "{", "}", ":", "- ", ", ", "\n", "  ", "'", '"', "#", "? ", "| ", "> ", "%", "@", "`", "\t"),
    *(
        "null",
        "~",
        "true",
        "yes",
        "0",
        "-1",
        "1.5",
        "1e999",
        ".nan",
        ".inf",
        "0x1F",
        "1_000",
        "'1'",
        "ü",
        "=" * 80,
    ),
    *("name", "digits", "dm", "ipc", "seeds", "---\n", "...\n", "1:30"),
]
FULL: dict[str, Any] = {
    "name": "full",
    "datasets": [
        {"name": "digits", "classes": [0, 1, "2"], "holdout": 0.2, "label": "three"},
        {"name": "image_folder", "path": "/nowhere", "image_size": 8},
    ],
    "methods": [
        {"name": "random_real", "seeds": 2},
        {"name": "idc", "factor": 2, "decoder": "uniform", "iterations": 2},
        {"name": "mtt", "steps": 2, "preprocess": "zca", "experts": 2, "expert_epochs": 1},
        {"name": "compose", "parameterisation": "pixels", "objective": "distribution_matching"},
    ],
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0, 1], "experts_per_seed": True},
    "evaluate": {
        "architectures": ["mlp", {"name": "resnet18", "width": 8}],
        "students": 1,
        "protocol": ["quick"],
        "curve": [0.5],
        "snapshots": True,
    },
    "resources": {"cpus": 1, "gpus": 0.5},
}


@st.composite
def edited(draw: st.DrawFn) -> str:
    """TINY's text with some of its characters replaced by tokens of YAML."""
    text = TEXT
    for _ in range(draw(st.integers(1, 4))):
        at, gone = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at + gone :]
    return text


def planned(content: bytes) -> str | None:
    """Read the file and plan its jobs; the message, if it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_bytes(content)
        return fuzz.tidy(lambda: plan(load_sweep(path)))


def plan(sweep: Sweep) -> None:
    protocols = [load_protocol(name) for name in sweep.evaluate.protocol]
    plan_sweep(sweep, {spec.label: dataset(label=spec.label) for spec in sweep.datasets}, protocols)


@pytest.mark.parametrize("text", [TEXT, yaml.safe_dump(FULL)], ids=["tiny", "full"])
def test_what_is_altered_was_read(text: str) -> None:
    assert planned(text.encode()) is None


@given(edited())
def test_altered_texts(text: str) -> None:
    planned(text.encode())


@given(fuzz.alterations)
def test_altered_bytes(how: list[fuzz.Alteration]) -> None:
    planned(fuzz.altered(TEXT.encode(), how))


@settings(max_examples=settings().max_examples // 3)  # a plan takes a tenth of a second
@given(fuzz.changes(FULL))
def test_altered_values(changes: fuzz.Changes) -> None:
    planned(yaml.safe_dump(fuzz.changed(FULL, changes)).encode())


@given(st.dictionaries(st.sampled_from([*FULL, "extra"]), fuzz.values))
def test_made_up_values(content: dict[str, Any]) -> None:
    planned(yaml.safe_dump(content).encode())

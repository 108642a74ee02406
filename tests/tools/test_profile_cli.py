"""`ddbench profile` from end to end, on digits."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import Ended, ddbench

from bench.core import timing
from bench.core.timing import OPERATIONS
from bench.planning.yaml_schema import CONFIGS
from bench.tools.profile.run import Profiler
from bench.tools.profile.write import workplace

TINY = ("--dataset", "digits", "--architecture", "convnet-d1-w4", "--protocol", "quick", "--seconds", 0.3)
FILES = {f"profile.{kind}" for kind in ("csv", "json", "md", "png", "svg")}
ALL = sorted(path.stem for path in (CONFIGS.parent / "methods").glob("*.py") if path.stem != "__init__")


def profiled(out: Path, method: str, *values: str, ipc: int = 2) -> tuple[Ended, dict[str, Any]]:
    words = [word for value in values for word in ("--set", value)]
    ended = ddbench("profile", method, *TINY, "--ipc", ipc, "--out", out, *words)
    assert ended.code == 0, ended.err
    return ended, json.loads((out / "profile.json").read_text())


def test_a_method_of_steps_from_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "there"
    ended, found = profiled(out, "dm", "batch_real=4", "steps=30")
    assert {path.name for path in out.iterdir()} == FILES | {"trace.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert "a step" in ended.text
    assert "profile.png" in ended.text
    assert found["step"]["total"] == 30
    assert found["step"]["flops"] > 0
    for phase in found["phases"]:
        assert set(phase["spent"]) <= set(OPERATIONS)
    distill = found["phases"][1]["spent"]
    assert all(distill[name] > 0 for name in ("augment", "real gradient", "synthetic gradient", "decode"))
    assert distill["hypergradient"] == distill["evaluation"] == 0
    assert found["phases"][2]["spent"]["evaluation"] > 0
    assert {axis["name"] for axis in found["scaling"]} == {"images per class", "classes", "image side"}
    rows = pd.read_csv(out / "profile.csv")
    told = rows[(rows["kind"] == "operation") & (rows["name"] == "distill")]["value"].sum()
    assert told == pytest.approx(sum(distill.values()) / 1e9)
    events = json.loads((out / "trace.json").read_text())["traceEvents"]
    assert {"augment", "real gradient", "synthetic gradient"} <= {event.get("name") for event in events}


def test_a_method_of_prerequisites(tmp_path: Path) -> None:
    values = ("steps=10", "inner_steps=2", "experts=2", "start_epochs=2", "batch_synthetic=5")
    _, found = profiled(tmp_path / "mtt", "mtt", *values)
    prepare, distill, _ = found["phases"]
    assert "built" in prepare["note"]
    assert prepare["projected_s"] > 0
    assert prepare["spent"]["network update"] > 0
    assert max(distill["spent"], key=distill["spent"].get) in ("hypergradient", "augment")


def test_a_method_without_steps(tmp_path: Path) -> None:
    """Again into the same folder: what an earlier profile left of its steps is gone."""
    profiled(tmp_path / "same", "dm", "batch_real=4", "steps=10")
    ended, found = profiled(tmp_path / "same", "full")
    assert {path.name for path in (tmp_path / "same").iterdir()} == FILES
    assert found["step"] is None
    assert found["ipc"] is None
    assert "no steps" in ended.text
    assert [axis["name"] for axis in found["scaling"]] == ["classes", "image side"]


@pytest.mark.parametrize("method", ["idc", "haba", "rtp", "herding"])
def test_others_get_through(tmp_path: Path, method: str) -> None:
    """One of each kind of objective; the rest of the catalogue is made of the same blocks."""
    short = {
        "idc": ("net_images=64", "batch_real=4"),
        "haba": ("inner_steps=2", "experts=1", "start_epochs=1"),
        "rtp": ("unroll=2", "bases=2", "batch_real=4"),
        "herding": ("network_steps=5",),
    }
    _, found = profiled(tmp_path / method, method, *short[method])
    assert found["projected_s"] > 0
    named = {name for phase in found["phases"] for name, spent in phase["spent"].items() if spent}
    assert (
        named
        >= {
            "idc": {"synthetic gradient", "network update"},
            "haba": {"hypergradient", "synthetic gradient", "decode"},
            "rtp": {"hypergradient", "real gradient", "decode"},
            "herding": {"network update"},
        }[method]
    )


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: Profiler, trace: Path) -> None:
        trace.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Profiler, "run", stopped)
    ended = ddbench("profile", "dm", *TINY, "--ipc", 1, "--out", tmp_path / "new" / "there")
    assert (ended.code, ended.err) == (130, "stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_all_that_must_be_writable(tmp_path: Path) -> None:
    """Nothing is put beside it; and that it cannot be written to is known before anything runs."""
    there = tmp_path / "there"
    there.mkdir()
    with workplace(there) as work:
        assert list(tmp_path.iterdir()) == [there]
        assert list(there.iterdir()) == [work]
    assert list(there.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zzz", *TINY, "--ipc", 1), "no method named 'zzz'; choose from"),
        (("dm", "--dataset", "nope", "--ipc", 1), "unknown data set 'nope'"),
        (("dm", "--dataset", "{name: image_folder, path: /nowhere}", "--ipc", 1), "no folder /nowhere"),
        (("dm", *TINY, "--ipc", 0), "ipc: must be greater than 0, not 0"),
        (("dm", *TINY, "--ipc", 500), "use 1 to 139"),
        (("dm", *TINY, "--ipc", 1, "--set", "foo=1"), "does not take the parameter 'foo'"),
        (("dm", *TINY, "--ipc", 1, "--set", "foo"), "write KEY=VALUE"),
        (("dm", *TINY, "--ipc", 1, "--set", "name=dc"), "--set name=dc: the method is METHOD, dm"),
        (("dm", *TINY, "--ipc", 1, "--set", "steps=["), "the value is not YAML"),
        (("dm", *TINY, "--ipc", 1, "--seconds", 0), "--seconds 0: must be above 0"),
        (("dm", *TINY, "--ipc", 1, "--protocol", "standard.teacher"), "name another"),
        (("dm", *TINY, "--ipc", 1, "--cpus", 10_000), "resources.cpus"),
        (("dm", *TINY, "--ipc", 1, "--out", Path(__file__)), "is a file; name a folder"),
    ],
)
def test_bad_input_is_one_line(words: tuple[object, ...], message: str) -> None:
    ended = ddbench("profile", *words)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert ended.err.count("\n") == 1


def test_the_sweep_of_runtimes_has_every_method(tmp_path: Path) -> None:
    ended = ddbench("plan", CONFIGS / "sweeps" / "runtime.yaml", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert all(f"{name} digits" in ended.text for name in ALL)


def test_nothing_is_left_watching() -> None:
    assert timing.part("decode") is timing.part("other")
    assert torch.is_grad_enabled()


def test_a_profile_applies_the_rules_of_the_protocol(tmp_path: Path, write_protocol: WriteProtocol) -> None:
    write_protocol("quick", rules=[{"datasets": ["digits"], "recipe": {"steps": 7}}])
    _, found = profiled(tmp_path / "out", "random_real")
    assert found["phases"][2]["note"].endswith("of 7 steps of quick")

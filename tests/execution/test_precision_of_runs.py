"""A run at another precision: records say it, tables show it, and a stranger gets it again."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.cli import ddbench, run_inline, sweep_file

from bench.core.precision import precision_now
from bench.records.columns import record_frame
from bench.records.reader import read_records

METHODS = [
    {"name": "dm", "steps": 30},
    {"name": "dc", "iterations": 2, "inner_steps": 4},
    {"name": "idc", "iterations": 1, "inner_steps": 8, "net_images": 50, "factor": 1},
    {"name": "bptt", "steps": 2, "unroll": 2},
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bf16")
    sweep = sweep_file(
        folder,
        methods=METHODS,
        ipc=[2],
        distill={"architectures": ["convnet-d1-w8"], "seeds": [0], "precision": "bf16"},
        evaluate={
            "architectures": ["convnet-d1-w8"],
            "students": 2,
            "protocol": "quick",
            "precision": "bf16",
        },
    )
    ended = run_inline(sweep, folder / "out")
    assert ended.code == 0, ended.out
    return folder / "out"


def test_bf16_sets_and_students_score_well_above_chance(out: Path) -> None:
    records, _ = read_records(out)
    scores = {record.method: min(record.accuracies) for record in records}
    assert scores.keys() == {"dm", "dc", "idc", "bptt"}
    assert min(scores[name] for name in ("dm", "dc", "idc")) > 0.5, scores


def test_records_and_artifacts_say_at_which_precision(out: Path) -> None:
    records, _ = read_records(out)
    for record in records:
        kept = {} if record.method == "bptt" else {"precision": "bf16"}
        assert {k: v for k, v in record.hyperparameters.items() if k == "precision"} == kept
        assert record.training.precision == record.versions["precision"] == "bf16"
        meta = json.loads((out / "artifacts" / record.artifact / "meta.json").read_text())
        assert meta["versions"]["precision"] == kept.get("precision", "fp32")
    assert precision_now() == "fp32"


def test_tables_show_it_as_a_setting(out: Path) -> None:
    records, _ = read_records(out)
    frame = record_frame(records)
    assert set(frame["method"]) == {*(f"{m}[precision=bf16]" for m in ("dm", "dc", "idc")), "bptt"}
    assert set(frame["protocol"]) == {"quick@bf16"}
    assert "dm[precision=bf16]" in (out / "tables/summary.md").read_text().replace("\\", "")


def test_a_stranger_gets_the_same_records(out: Path) -> None:
    ended = ddbench("submit-check", out, "--sample", "1")
    assert ended.code == 0, ended.out


def test_the_plan_names_it(out: Path) -> None:
    sweep = yaml.safe_load((out.parent / "sweep.yaml").read_text())
    ended = ddbench("plan", sweep_file(out.parent / "again", **sweep), "--out", out)
    assert "dm digits ipc 2 convnet-d1-w8 bf16 seed 0" in ended.text
    assert "to run: nothing" in ended.text

"""Sweeps at the edge of what runs: an image left over, small classes, networks that a method refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ddbench, run_inline, sweep_file
from PIL import Image

BATCH_NORM = "resnet10-w4"  # whose last maps of eight-pixel images are single pixels


def pictures(root: Path) -> Path:
    """Six training images of a and b each, two of c."""
    for split, sizes in (("train", (6, 6, 2)), ("test", (2, 2, 2))):
        for c, size in enumerate(sizes):
            folder = root / split / "abc"[c]
            folder.mkdir(parents=True)
            for i in range(size):
                Image.new("L", (8, 8), 80 * c + 5 * i).save(folder / f"{i}.png")
    return root


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (out / "records").iterdir()]


def test_fifty_one_images_in_batches_of_fifty_train_batch_norm(tmp_path: Path, write_protocol: Any) -> None:
    write_protocol("mine", recipe={"batch_size": 50, "lr": 0.03, "epochs": 2})
    sweep = sweep_file(
        tmp_path,
        datasets=[{"name": "digits", "classes": [0, 1, 2]}],
        methods=["random_real"],
        ipc=[17],
        distill={"architectures": [BATCH_NORM], "seeds": [0]},
        evaluate={"architectures": [BATCH_NORM], "students": 1, "protocol": "mine"},
    )
    run = run_inline(sweep, tmp_path / "out")
    assert run.code == 0, run.err
    (record,) = records(tmp_path / "out")
    assert record["training"]["steps"] == 2


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_network_that_methods_refuse_is_one_line(command: str, tmp_path: Path) -> None:
    sweep = sweep_file(
        tmp_path,
        methods=["dc", "dm", "idc"],
        ipc=[1, 10],
        distill={"architectures": ["convnet-d1-w4-batch"], "seeds": [0, 1, 2]},
    )
    ended = ddbench(command, sweep, "--out", tmp_path / "out")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {sweep}: methods: dc, idc with convnet-d1-w4-batch on digits: ")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_class_smaller_than_the_budget(tmp_path: Path) -> None:
    root, out = pictures(tmp_path / "tail"), tmp_path / "out"
    methods: list[Any] = ["noise", {"name": "dm", "steps": 2}, "random_real"]
    few = {"datasets": [str(root)], "ipc": [5], "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]}}
    refused = run_inline(sweep_file(tmp_path, methods=methods, **few), out)
    assert refused.code == 2
    assert "methods: random_real on tail: ipc: 5 is more than class 'c' has; use 1 to 2" in refused.err
    methods[-1] = {"name": "random_real", "repeat": True}
    run = run_inline(sweep_file(tmp_path, methods=methods, **few), out)
    assert run.code == 0, run.err
    found = {record["method"]: record for record in records(out)}
    assert {record["storage"]["floats"] for record in found.values()} == {5 * 3 * 64}
    assert found["random_real"]["hyperparameters"] == {"repeat": True}

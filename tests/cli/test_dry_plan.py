"""`ddbench plan --dry`: a table of operations and memory, for data and machines that are not here."""

from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ddbench, sweep_file

CIFAR = {"name": "cifar10", "data_dir": "nowhere"}
DM = {"name": "dm", "steps": 100, "batch_real": 8}


def dry(tmp_path: Path, *words: object, **changes: Any) -> Any:
    values = {"datasets": [CIFAR], "methods": [DM], "ipc": [1], "resources": {"gpus": 1}, **changes}
    return ddbench("plan", sweep_file(tmp_path, **values), "--dry", *words)


def test_operations_memory_and_time_of_a_machine_that_is_not_here(tmp_path: Path) -> None:
    ended = dry(tmp_path, "--rate", "15TFLOP/s", distill={"architectures": ["convnet"], "seeds": [0, 1]})
    assert (ended.code, ended.err) == (0, "")
    assert "kind job jobs operations memory largest piece time" in ended.text
    # 10 real images a class in a forward pass, and one forward and back, for 100 steps and 2 seeds
    assert "distill dm cifar10 ipc 1 convnet 2" in ended.text
    assert "convolution" in ended.text
    assert "evaluate dm cifar10 ipc 1 convnet seed 0 on mlp 2" in ended.text
    assert "at 15 TFLOP/s; memory up to" in ended.text
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.yaml"]


def test_without_a_rate_there_is_no_time(tmp_path: Path) -> None:
    ended = dry(tmp_path)
    assert ended.code == 0
    assert "largest piece time" not in ended.text
    assert "TFLOP/s" not in ended.text


def test_what_cannot_be_counted_is_a_line_and_the_rest_a_table(tmp_path: Path) -> None:
    over = {"name": "datm", "labels": "image", "steps": 1, "experts": 1, "inner_steps": 1}
    ended = dry(tmp_path, methods=["random_real", over], ipc=[1, 2], datasets=["digits"])
    assert ended.code == 0
    assert "distill random_real digits ipc 1" in ended.text
    assert (
        "cannot be counted: datm digits ipc 1 convnet-d1-w4 seed 0: image labels leave no room" in ended.text
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry", "--rate", "fast"], "error: --rate: operations a second, like 15TFLOP/s, not 'fast'"),
        (["--dry", "--rate", "15TFLOP"], "error: --rate: operations a second, like 15TFLOP/s, not '15TFLOP'"),
        (["--dry", "--shape", "big"], "error: --shape: classes x images of each x channels"),
        (["--rate", "15TFLOP/s"], "error: --rate needs --dry"),
        (["--shape", "10x1300x3x128x128"], "error: --shape needs --dry"),
    ],
)
def test_options_that_do_not_fit_are_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    ended = ddbench("plan", sweep_file(tmp_path, methods=["random_real"]), *words)
    assert ended.code == 2
    assert ended.err.startswith(message)
    assert len(ended.err.splitlines()) == 1


def test_a_folder_that_is_not_here_is_planned_by_its_shape(tmp_path: Path) -> None:
    folder = {"name": "image_folder", "path": str(tmp_path / "birds")}
    changes: dict[str, Any] = {"datasets": [folder], "methods": ["random_real"]}
    ended = dry(tmp_path, **changes)
    assert ended.code == 2
    assert "--shape" in ended.err
    ended = dry(tmp_path, "--shape", "3x20x3x16x16", **changes)
    assert ended.code == 0
    assert "distill random_real birds ipc 1" in ended.text

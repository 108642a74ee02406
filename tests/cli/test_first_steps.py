"""What a newcomer types first: --version, --help, init, ls."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import BIN, Ended, ddbench, find_record, run_inline, sweep_file
from PIL import Image

from bench.cli.app import COMMANDS
from bench.planning.sweep import load_sweep


def folder_of_images(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Two classes of noise in both splits, with images of these sizes one after the other."""
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i, (width, height) in enumerate(sizes):
                pixels = draws.integers(256, size=(height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_version() -> None:
    ended = ddbench("--version")
    assert ended.code == 0
    assert re.fullmatch(r"ddbench \d+\.\d+\.\d+", ended.text)


@pytest.mark.parametrize("name", [name for name, *_ in COMMANDS])
def test_every_command_has_a_help_with_an_example(name: str) -> None:
    ended = ddbench(name, "--help")
    assert ended.code == 0
    assert f"Example: ddbench {name} " in ended.text


def test_help_groups_the_commands() -> None:
    text = ddbench("--help").text
    places = [text.index(f"─ {panel} ─") for panel in dict.fromkeys(panel for *_, panel, _ in COMMANDS)]
    assert places == sorted(places)


def test_the_shell_can_complete() -> None:
    assert "_DDBENCH_COMPLETE" in ddbench("--show-completion", "bash").out or BIN  # depends on the shell


def planned(file: Path, tmp_path: Path) -> Ended:
    return ddbench("plan", file, "--out", tmp_path / "out")


def test_init_writes_a_sweep_that_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = ddbench("init", "Digits")
    assert ended.code == 0, ended.err
    assert "Next: ddbench plan digits.yaml ddbench run digits.yaml" in ended.text
    assert "28 jobs in" in planned(Path("digits.yaml"), tmp_path).text
    again = ddbench("init", "digits")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "is there already" in again.err
    assert ddbench("init", "digits", "--out", "other.yaml").code == 0
    assert load_sweep(Path("other.yaml")).name == "other"


@pytest.mark.parametrize(
    ("sizes", "size", "network"),
    [
        ([(32, 32)], None, "convnet-w64"),
        ([(64, 64)], None, "convnet-d4-w64"),
        ([(40, 30), (50, 50)], 32, "convnet-w64"),
        ([(200, 130), (100, 100)], 64, "convnet-d4-w64"),
    ],
)
def test_init_of_a_folder_fits_its_images(
    sizes: list[tuple[int, int]], size: int | None, network: str, tmp_path: Path
) -> None:
    folder = folder_of_images(tmp_path / "my pets", [*sizes, *sizes])
    file = tmp_path / "pets.yaml"
    ended = ddbench("init", folder, "--out", file)
    assert ended.code == 0, ended.err
    sweep = load_sweep(file, ["ipc=[1]"])
    assert (sweep.datasets[0].path, sweep.datasets[0].image_size) == (folder, size)
    assert [a.label for a in sweep.distill.architectures] == [network]
    ended = ddbench("plan", file, "--out", tmp_path / "out", "--set", "ipc=[1]")
    assert "jobs in" in ended.text, ended.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("digit",), "did you mean digits?"),
        (("./nothing",), "no folder nothing"),
        (("digits", "--out", "taken/digits.yaml"), "cannot be written"),
    ],
)
def test_init_refuses_in_one_line(
    words: tuple[Any, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    ended = ddbench("init", *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert complaint in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_ls_names_every_record_by_its_set(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep = sweep_file(tmp_path, methods=["full", "random_real"], ipc=[1])
    run_inline(sweep, out)
    ended = ddbench("ls", out)
    assert ended.code == 0, ended.err
    header, *rows = ended.out.splitlines()
    assert header.split()[:2] == ["ID", "method"]
    assert len([row for row in rows if " quick " in row]) == 4
    record = find_record(out, method="random_real", seed=0)
    (row,) = [row for row in rows if re.search(r"random_real +digits +1 +any +0 ", row)]
    assert row.split()[0] in record.read_text()
    record.unlink()
    rows = ddbench("ls", out).out.splitlines()
    (row,) = [row for row in rows if re.search(r"random_real +digits +1 +any +0 *$", row)]
    assert (out / "artifacts" / row.split()[0]).is_dir()


def test_ls_of_nothing_is_refused(tmp_path: Path) -> None:
    ended = ddbench("ls", tmp_path)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "neither records nor artifacts" in ended.err

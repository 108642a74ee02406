"""YAML from people and strangers: values as written, and one line for everything else."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ddbench

from bench.core.errors import UserError
from bench.core.words import check_name, check_printable
from bench.data.spec import DatasetSpec
from bench.planning.yaml_schema import LONGEST_FAULT, MOST_BYTES, read_yaml
from bench.planning.yaml_text import MOST_DEPTH, parse_yaml

PICTURE = Path(__file__).parents[2] / "results/quickstart/plots/accuracy_vs_ipc.png"
BOMB = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
REFUSED = {
    "tag that does not fit": ("ipc: [!!int abc]", "holds abc, which is no int, line 1"),
    "float that is none": ("lr: !!float x", "holds x, which is no float"),
    "date that is none": ("day: !!timestamp 2024-13-45", "holds 2024-13-45, which is no timestamp"),
    "huge integer": ("ipc: [" + "9" * 5001 + "]", "which is no int"),
    "deep list": ("name: " + "[" * 5000, f"is nested more than {MOST_DEPTH} deep"),
    "deep mapping": ("".join(f"{' ' * i}a:\n" for i in range(100)), f"nested more than {MOST_DEPTH} deep"),
    "aliases": (BOMB, "stands for more than 100,000 values"),
    "a value in itself": ("a: &a [*a]", "has a value that holds itself"),
    "an unknown alias": ("a: *b", "is not YAML"),
    "a key twice": ("a: 1\nb: {c: 1, c: 2}", "gives the key 'c' twice, line 2"),
    "a key twice in another spelling": ("1: a\n0x1: b", "gives the key 1 twice"),
    "a list as a key": ("? [a]\n: b", "is not YAML"),
    "escape": ('name: "a\\x1b[31mb"', "holds the control character U+001B after 'a'"),
    "escape in a key": ('"\\a": 1', "control character U+0007"),
    "turned writing": ('name: "a\\u202eb"', "control character U+202E"),
    "code": ("!!python/object/apply:os.getcwd []", "is not YAML"),
    "binary that is none": ("a: !!binary é", "is not YAML"),
    "two documents": ("a: 1\n---\nb: 2", "is not YAML"),
    "a merge of no mapping": ("a: {<<: 3}", "is not YAML"),
}


@pytest.mark.parametrize(("text", "needle"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_value_is_one_line(text: str, needle: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < LONGEST_FAULT
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    ended = ddbench("plan", path)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {path}: ")
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("2024-01-02", "2024-01-02"),
        ("name: 2024-13-45", {"name": "2024-13-45"}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: &a {x: 1}\nb: {<<: *a, x: 2}", {"a": {"x": 1}, "b": {"x": 2}}),
        ("[&a [1], *a]", [[1], [1]]),
        ("a: 'x\n\n  y'", {"a": "x\ny"}),
        ("- 👩‍👧\n- é", ["👩‍👧", "é"]),
        ("[1e3, .inf, true, null, 0x10]", ["1e3", float("inf"), True, None, 16]),
    ],
)
def test_values_are_as_written(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "not text"])
def test_only_plain_files_of_text_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"#" * (MOST_BYTES + 1) if kind == "large" else b"\xff\xfe")
    with pytest.raises(UserError, match=rf"^{path}: "):
        read_yaml(path)


def test_what_the_command_line_sets_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("name: x\ndatasets: [digits]\nmethods: [random_real]\nipc: [1]")
    for words, needle in (
        (["--set", "ipc=[1]", "--set", "ipc=[2]"], "--set ipc: given twice"),
        (["--set", "resources={cpus: 1, cpus: 2}"], "the value gives the key 'cpus' twice"),
        (["--set", "ipc=[" + "9" * 5001 + "]"], "which is no int"),
        (["--set", "ipc=" + "[" * 5000], "nested more than"),
    ):
        ended = ddbench("plan", path, *words)
        assert ended.code == 2
        assert needle in ended.err
        assert len(ended.err.strip().splitlines()) == 1
    ended = ddbench("profile", "dm", "--dataset", "{name: digits, name: mnist}", "--ipc", 1)
    assert ended.code == 2
    assert "gives the key 'name' twice" in ended.err


def test_a_fault_shows_little_of_a_large_value(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: x\ndatasets: [digits]\nmethods: [random_real]\nipc: {{a: {list(range(5000))}}}")
    ended = ddbench("plan", path)
    assert ended.code == 2
    assert len(ended.err) < 2 * LONGEST_FAULT


@pytest.mark.parametrize("name", ["a" * 201, "a\nb", "a\tb", "a\x1b[2J", "\u2066a"])
def test_names_are_short_and_printable(name: str) -> None:
    with pytest.raises(UserError):
        check_name(name)
    with pytest.raises(ValueError, match="label"):
        DatasetSpec.model_validate({"name": "digits", "label": name})


def test_names_of_all_writings_are_names() -> None:
    for name in ("a" * 200, "caf\u00e9", "C#", "👩‍👧", "猫", "שלום"):
        assert check_name(name) == check_printable(name) == name


def test_a_class_folder_with_a_control_character_is_one_line(tmp_path: Path) -> None:
    for name in ("train/a", "train/b\x1b[31m", "test/a", "test/b\x1b[31m"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(PICTURE, tmp_path / name / "0.png")
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: x\ndatasets: [{tmp_path}]\nmethods: [random_real]\nipc: [1]")
    ended = ddbench("plan", path)
    assert ended.code == 2
    assert "control character U+001B" in ended.err
    assert "\x1b" not in ended.err

"""Names of files, folders and sets on their way to the terminal: refused in one line, or shown."""

import io
import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from helpers.cli import ddbench
from helpers.folders import make_tree

from bench.cli import app
from bench.cli.app import LONGEST_LINE
from bench.core import registry
from bench.core.errors import UserError
from bench.interop.external import NamedDataset
from bench.reporting.plots.style import natural_order

LONG = "x" * 240  # a file's name may have 255 bytes


@pytest.mark.parametrize("name", ["2024", "no", "my birds", "_cats", "1e3", "2024-01-02", "[a]", "a" * 190])
def test_init_of_a_folder_of_any_name_writes_a_sweep_that_plans(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / "data" / name)
    ended = ddbench("init", f"data/{name}", "--out", "first.yaml")
    assert ended.code == 0, ended.err
    ended = ddbench("init", f"data/{name}")
    assert ended.code == 0, ended.err
    for path in (tmp_path / "first.yaml", tmp_path / f"{name}.yaml"):
        ended = ddbench("plan", path, "--set", "ipc=[1]", "--set", "datasets.0.image_size=8")
        assert ended.code == 0, ended.err
        assert name[:50] in ended.out


@pytest.mark.parametrize("name", ["2024", "birds #1", "a: b", "[a]"])
def test_a_folder_of_any_name_is_a_data_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / name)
    assert NamedDataset.open(name).data.label == NamedDataset.open(f"./{name}").data.label == name


@pytest.mark.parametrize(
    ("file", "words"),
    [(f"{LONG}.pt", ()), ("a\x1b[31mb.pt", ()), ("a.pt", ("--name", LONG)), ("a.pt", ("--name", "a\nb"))],
)
@pytest.mark.parametrize("command", ["evaluate", "import"])
def test_a_set_of_a_bad_name_is_refused(
    command: str, file: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / file
    images, labels = torch.rand(10, 1, 8, 8), torch.arange(10)
    torch.save({"images": images, "labels": labels}, path)
    out = tmp_path / "out"
    ended = ddbench(command, path, "--dataset", "digits", "--space", "raw01", "--out", out, *words)
    assert ended.code == 2
    assert ended.err.startswith("error: the name of the set ")
    assert ended.err.endswith(": give another with --name\n")
    assert ended.err.count("\n") == 1
    assert not out.exists()
    if not words:
        ended = ddbench(
            "import", path, "--dataset", "digits", "--space", "raw01", "--out", out, "--name", "mine"
        )
        assert ended.code == 0, ended.err


def test_a_message_shows_no_control_characters(tmp_path: Path) -> None:
    ended = ddbench("plan", tmp_path / "a\x1b[2J\u202eb.yaml")
    assert (ended.code, ended.err) == (2, f"error: {tmp_path}/a?[2J?b.yaml: no such file\n")


def test_a_message_is_short() -> None:
    ended = ddbench("plan", "x/" * 9999)
    assert ended.code == 2
    assert LONGEST_LINE < len(ended.err) < LONGEST_LINE + 20


def test_a_path_that_is_no_text_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.yaml")
    path.write_text("name: x\ndatasets: [digits]\nmethods: [random_real]\nipc: [0]")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["ddbench", "run", str(path)])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8", errors="strict"))
    with pytest.raises(SystemExit) as end:
        app.main()
    sys.stdout.flush()
    assert end.value.code == 2
    assert raw.getvalue().decode() == f"planning {tmp_path}/caf\\udce9.yaml\n"


def test_a_profile_lies_where_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(target: Path) -> None:
        raise UserError(f"in {target}")

    monkeypatch.setattr("bench.tools.profile.write.workplace", stop)
    monkeypatch.chdir(tmp_path)
    dataset = yaml.safe_dump({"name": "digits", "label": "../../../x"})
    words = ("--ipc", 1, "--architecture", "convnet-d1-w4", "--protocol", "quick")
    ended = ddbench("profile", "random_real", "--dataset", dataset, *words)
    assert ended.err == f"error: in {tmp_path}/results/profile/random_real-x-ipc1\n"


@pytest.mark.parametrize("name", [LONG, "a\x1b[31m", "a\nb"])
def test_methods_of_bad_names_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name, "somewhere", "ddbench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry._installed.cache_clear()
    with pytest.raises(UserError, match=r"^an entry point for somewhere .*: remove its package$"):
        registry.method_names()
    registry._installed.cache_clear()


def test_a_plugin_of_a_long_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{LONG}.py"
    path.write_text("METHOD = None")
    with pytest.raises(UserError, match="rename the file"):
        registry.load_plugin(path)


def test_names_with_raised_digits_have_an_order() -> None:
    assert sorted(["a²", "a10", "a9", "²"], key=natural_order) == ["a9", "a10", "a²", "²"]

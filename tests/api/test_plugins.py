"""Methods from elsewhere: a package with presets, a single file, and a folder that is called like ours."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.cli import Ended, ddbench, find_record, run_inline, sweep_file

import bench as dd
from bench.core.registry import PLUGINS
from bench.records.schema import load_record

ROOT = Path(__file__).parents[2]
MINE = '''
"""Mine: the first images of each class. Deviations: none."""
from dataclasses import dataclass
from typing import ClassVar

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, Problem
from bench.core.sampling import ClassIndex
from methods.blocks.coresets import real_images


@dataclass(frozen=True)
class Mine:
    """The images of each class from the `skip`-th on."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "A. Author, Mine, 2026"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC})

    skip: int = 0

    def requires(self):
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        index = ClassIndex.of(problem.labels, problem.n_classes)
        chosen = [index.members(c)[self.skip :][: problem.ipc] for c in range(problem.n_classes)]
        return real_images(problem, chosen)


METHOD = Mine
'''


def program(*words: object, cwd: Path, path: Path | None = None) -> Ended:
    """The command line as a process in a folder of its own."""
    found = os.pathsep.join(map(str, [ROOT, *([path] if path else [])]))
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": found, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for the import path with an installed package that brings a method and its presets."""
    site = tmp_path / "site"
    (site / "theirs").mkdir(parents=True)
    (site / "theirs" / "__init__.py").write_text("")
    (site / "theirs" / "mine.py").write_text(MINE)
    (site / "theirs" / "mine.yaml").write_text("- {datasets: [digits], values: {skip: 3}, source: theirs}\n")
    info = site / "theirs_package-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-package\nVersion: 2.1\n")
    points = "[ddbench.methods]\nmine = theirs.mine\n[ddbench.presets]\nmine = theirs\n"
    (info / "entry_points.txt").write_text(points)
    return site


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_a_package_brings_a_method_with_presets(
    package: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(elsewhere)
    with monkeypatch.context() as installed:
        installed.syspath_prepend(package)
        ended = run_inline(sweep_file(tmp_path, methods=["mine"], ipc=[1]), Path("out"))
        assert ended.code == 0, ended.err
        record = load_record(find_record(Path("out"), method="mine", seed=0))
        assert record.hyperparameters == {"skip": 3}
        assert record.versions["theirs-package"] == "2.1"
        assert "A. Author, Mine, 2026" in ddbench("list", "methods").text
    # where the package is not installed, it is named once
    ended = ddbench("submit-check", "out", "--sample", 0)
    assert ended.code == 1
    assert ended.text.count("method mine is not installed: pip install theirs-package") == 1
    assert "no method named" not in ended.text


@pytest.fixture
def first_images(tmp_path: Path) -> Path:
    file = tmp_path / "first_images.py"
    file.write_text(MINE)
    return file


def test_a_file_brings_a_method(first_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_file(tmp_path, methods=[{"name": "first_images", "skip": 1}], ipc=[1])
    monkeypatch.setenv(PLUGINS, "")
    ended = run_inline(sweep, tmp_path / "out", "--plugin", first_images)
    assert ended.code == 0, ended.err
    assert load_record(find_record(tmp_path / "out", seed=0)).hyperparameters == {"skip": 1}
    monkeypatch.setenv(PLUGINS, "")
    assert "first_images" in ddbench("list", "methods", "--plugin", first_images).out
    monkeypatch.setenv(PLUGINS, "")
    assert "first_images" not in ddbench("list", "methods").out


@pytest.mark.ray
def test_on_ray_too_and_a_folder_called_methods_shadows_nothing(
    first_images: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """A file, and a method of ours, where the working folder has packages that are called like ours."""
    for name in ("methods", "configs"):
        (elsewhere / name).mkdir()
        (elsewhere / name / "__init__.py").write_text("raise SystemExit('not ours')")
    assert "herding" in program("list", "methods", cwd=elsewhere).out
    methods = [{"name": "first_images", "skip": 1}, {"name": "herding", "network_steps": 5}]
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
    sweep = sweep_file(tmp_path, methods=methods, ipc=[1], distill=distill)
    ended = program("run", sweep, "--plugin", first_images, "--out", "out", cwd=elsewhere)
    assert ended.code == 0, ended.err
    record = load_record(find_record(elsewhere / "out", method="first_images"))
    assert record.hyperparameters == {"skip": 1}
    assert load_record(find_record(elsewhere / "out", method="herding")).seed == 0


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("none.py", None, "no such Python file"),
        ("dm.py", MINE, "dm is taken"),
        ("my-method.py", MINE, "no name for a method"),
        ("broken.py", "def (", "does not load: SyntaxError"),
        ("empty.py", "", "it defines no METHOD"),
    ],
)
def test_a_bad_plugin_is_refused_in_one_line(
    name: str, text: str | None, complaint: str, elsewhere: Path
) -> None:
    if text is not None:
        (elsewhere / name).write_text(text)
    ended = program("list", "methods", "--plugin", name, cwd=elsewhere)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert complaint in ended.err


def test_the_contract_can_be_checked_from_outside(package: Path, elsewhere: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "bench.testing"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{package}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("frozenset({IPC})", "frozenset()", "it depends on IPC"),
        ("frozenset({IPC})", "frozenset({IPC, 'seed'})", "wrong about SEED"),
        ("frozen=True", "frozen=False", "frozen"),
        ("chosen = [", "problem.images.zero_(); chosen = [", "writes to problem.images"),
        ("chosen = [", "import torch; torch.rand(1); chosen = [", "global generator"),
        ("[: problem.ipc]", "[: problem.ipc + 1]", "images per class"),
    ],
)
def test_a_broken_method_is_told_what_is_wrong(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "broken_method.py"
    file.write_text(textwrap.dedent(MINE.replace(old, new)))
    names: dict[str, object] = {"__name__": "broken_method"}
    module = type(sys)("broken_method")
    module.__doc__ = "Broken."
    sys.modules["broken_method"] = module
    exec(compile(file.read_text(), file, "exec"), names)
    with pytest.raises(AssertionError, match=complaint):
        dd.check_method(names["METHOD"])

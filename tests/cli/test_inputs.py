"""The program from end to end: what it can be told, what it refuses, and what it does when jobs fail."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers.cli import (
    ONE_METHOD,
    Ended,
    ddbench,
    ended,
    leftovers,
    plugins,
    program,
    run_inline,
    stable_records,
    started,
    sweep_file,
    use_plugins,
    wait_until,
    written,
)
from PIL import Image

DISTILL = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
EVALUATE = {"architectures": ["mlp"], "students": 1, "protocol": "quick"}
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def refused(run: Ended, *needles: object) -> None:
    """One line on standard error with all the needles, and exit code 2."""
    assert run.code == 2, run.out
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    assert [str(needle) for needle in needles if str(needle) not in run.err] == [], run.err


# --- what can be named ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", ["full", "random_real", "herding", "k_center", "k_means", "dm", "Zhao & Bilen"]),
        ("datasets", ["digits", "mnist", "cifar10", "image_folder"]),
        ("architectures", ["convnet", "depth", "mlp", "lenet"]),
        ("protocols", ["quick", "v1"]),
        ("blocks", ["parameterisation pixels", "objective unrolled", "pool trained_on_real"]),
    ],
)
def test_list_names_what_a_sweep_can_name(what: str, names: list[str]) -> None:
    run = ddbench("list", what)
    assert (run.code, run.err) == (0, "")
    assert [name for name in names if name not in run.out] == []


def test_list_names_the_methods_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_plugins(tmp_path / "site", monkeypatch)
    run = ddbench("list", "methods")
    assert run.code == 0
    assert "a plug-in of the tests" in run.out


def test_module_is_the_same_program() -> None:
    module = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=True
    ).stdout
    script = program("--help").out
    assert "report" in script
    assert module.split("Options")[1] == script.split("Options")[1]


# --- refused before anything starts -------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"ipcs": [1]}, ["'ipcs'", "did you mean ipc?", "datasets, distill, evaluate"]),
    "unknown nested key": ({"evaluate": {**EVALUATE, "student": 3}}, ["evaluate", "'student'", "students"]),
    "missing key": ({"ipc": None}, ["ipc: is missing"]),
    "bad name": ({"name": "a/b"}, ["name", "'a/b'"]),
    "unknown data set": ({"datasets": ["digit"]}, ["datasets.0", "'digit'", "did you mean digits?", "mnist"]),
    "no data folder": ({"datasets": ["mnist"]}, ["datasets.0", "mnist needs data_dir"]),
    "unknown data key": ({"datasets": [{"name": "digits", "data_dir": "x"}]}, ["data_dir does not apply"]),
    "data set twice": ({"datasets": ["digits", "digits"]}, ["datasets: digits is given twice"]),
    "unknown method": ({"methods": ["random"]}, ["methods.0", "'random'", "random_real", "herding"]),
    "no method": ({"methods": []}, ["methods: ", "at least one"]),
    "method twice": ({"methods": ["full", "full"]}, ["methods: full is given twice"]),
    "unknown parameter": ({"methods": [{"name": "dm", "step": 2}]}, ["methods.0", "'step'", "steps, lr"]),
    "parameter of none": ({"methods": [{"name": "full", "steps": 2}]}, ["'steps'", "it takes none"]),
    "impossible parameter": ({"methods": [{"name": "dm", "steps": 0}]}, ["methods.0", "steps", "than 0"]),
    "parameter of a type": ({"methods": [{"name": "dm", "lr": "high"}]}, ["methods.0", "lr", "'high'"]),
    "ipc over a class": ({"ipc": [1, 1000]}, ["ipc: 1000", "digits", "use 1 to 139"]),
    "ipc zero": ({"ipc": [0]}, ["ipc.0", "greater than 0"]),
    "ipc of a type": ({"ipc": ["ten"]}, ["ipc.0", "'ten'"]),
    "ipc not a list": ({"ipc": 10}, ["ipc", "10"]),
    "unknown architecture": (
        {"distill": {**DISTILL, "architectures": ["resnet99"]}},
        ["distill.architectures.0", "'resnet99'", "alexnet, convnet, densenet, lenet, mlp"],
    ),
    "unreadable architecture": (
        {"evaluate": {**EVALUATE, "architectures": ["convnet-x4"]}},
        ["evaluate.architectures.0", "'x4'", "d<depth>"],
    ),
    "too deep": (
        {"distill": {**DISTILL, "architectures": ["convnet-d5"]}},
        ["distill.architectures: ", "depth 5", "depth of 1 to 3 (digits)"],
    ),
    "too deep to evaluate": (
        {"evaluate": {**EVALUATE, "architectures": ["mlp", "convnet-d5"]}},
        ["evaluate.architectures: ", "depth 5", "depth of 1 to 3 (digits)"],
    ),
    "no seed": ({"distill": {**DISTILL, "seeds": []}}, ["distill.seeds"]),
    "seed twice": ({"distill": {**DISTILL, "seeds": [0, 0]}}, ["distill", "seeds: 0 is given twice"]),
    "no student": ({"evaluate": {**EVALUATE, "students": 0}}, ["evaluate.students", "greater than 0"]),
    "unknown protocol": ({"evaluate": {**EVALUATE, "protocol": "slow"}}, ["evaluate", "'slow'", "quick"]),
    "two GPUs": ({"resources": {"gpus": 2}}, ["resources.gpus", "less than or equal to 1"]),
    "too many cores": ({"resources": {"cpus": 10_000}}, ["resources.cpus: 10000", "this machine has"]),
}


@pytest.mark.parametrize(("changes", "needles"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_bad_sweep_is_refused_in_one_line(
    command: str, changes: dict[str, Any], needles: list[str], tmp_path: Path
) -> None:
    sweep = sweep_file(tmp_path, **changes)
    refused(ddbench(command, sweep, "--out", tmp_path / "out"), sweep, *needles)
    assert [path.name for path in tmp_path.iterdir()] == [sweep.name]


@NO_GPU
@pytest.mark.parametrize("gpus", [0.5, 1])
def test_gpus_are_refused_where_there_are_none(gpus: float, tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, resources={"gpus": gpus})
    refused(ddbench("run", sweep, "--out", tmp_path / "out"), sweep, "resources.gpus", "use gpus: 0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "needle"), [("a: [1", "is not YAML"), ("- digits", "is a mapping"), ("", "is a mapping")]
)
def test_file_that_is_no_sweep_is_refused(text: str, needle: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    refused(ddbench("plan", path), path, needle)
    refused(ddbench("plan", tmp_path / "none.yaml"), tmp_path / "none.yaml", "no such file")
    refused(ddbench("plan", tmp_path), tmp_path, "cannot be read")


@pytest.mark.parametrize(
    ("override", "needle"),
    [
        ("ipc", "write KEY=VALUE"),
        ("=1", "write KEY=VALUE"),
        ("evaluate.student=1", "students"),
        ("nothing.at.all=1", "'nothing'"),
        ("name.x=1", "name holds no keys"),
        ("methods.herding.steps=1", "full, random_real, dm"),
        ("ipc=[1", "not YAML"),
    ],
)
def test_bad_override_is_refused(override: str, needle: str, tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path)
    refused(run_inline(sweep, tmp_path / "out", "--set", override), needle)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [["--executor", "threads"], ["--limit", "0"], ["--limit", "x"], ["--colour", "red"]]
)
def test_bad_argument_is_refused(words: list[str], tmp_path: Path) -> None:
    run = ddbench("run", sweep_file(tmp_path), "--out", tmp_path / "out", *words)
    assert run.code == 2
    assert words[0] in run.err
    assert not (tmp_path / "out").exists()


def test_address_needs_ray(tmp_path: Path) -> None:
    refused(run_inline(sweep_file(tmp_path), tmp_path / "out", "--address", "auto"), "--address", "ray")
    assert not (tmp_path / "out").exists()


def test_result_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    sweep, file = sweep_file(tmp_path), tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        refused(run_inline(sweep, out), f"--out {out}", "cannot be written")
    assert file.read_text() == "mine"


def test_result_folder_in_use_is_refused(tmp_path: Path) -> None:
    sweep, out = sweep_file(tmp_path, **ONE_METHOD), tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"):
        refused(run_inline(sweep, out), "another ddbench run is at work", out)
        assert [path.name for path in out.iterdir()] == [".lock"]
    assert run_inline(sweep, out, "--limit", 1).code == 0


# --- folders of images --------------------------------------------------------------------------------------


def image_folder(root: Path) -> Path:
    """Two classes of 8x8 RGB noise, one dark and one bright: 6 + 4 training and 3 test images each."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (6, 4)), ("test", (3, 3))):
        for name, level, count in zip(("dark", "bright"), (0, 155), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level, level + 100, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_folder_of_images_beside_digits(tmp_path: Path) -> None:
    entry = {"name": "image_folder", "path": str(image_folder(tmp_path / "pictures"))}
    sweep, out = sweep_file(tmp_path, datasets=["digits", entry], ipc=[1], distill=DISTILL), tmp_path / "out"
    run = run_inline(sweep, out)
    assert run.code == 0
    assert "distill 6/6 evaluate 6/6" in run.text
    found = {(r["dataset"], r["method"]): r for r in stable_records(out).values()}
    assert {dataset for dataset, _ in found} == {"digits", "pictures"}
    assert len(found) == 6
    assert found["pictures", "dm"]["image_shape"] == [3, 8, 8]
    assert found["pictures", "dm"]["storage"]["floats"] == 2 * 3 * 8 * 8
    assert found["pictures", "full"]["storage"]["floats"] == 10 * 3 * 8 * 8
    assert found["pictures", "full"]["accuracies"] == [1.0]
    assert "pictures, protocol quick" in run.text


def test_folder_of_images_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    root, out = tmp_path / "pictures", tmp_path / "out"
    sweep = sweep_file(tmp_path, datasets=[{"name": "image_folder", "path": str(root)}])
    refused(run_inline(sweep, out), root, "train/<class>")
    image = image_folder(root) / "train/dark/3.png"
    run = run_inline(sweep, out, "--set", "ipc=[5]")
    assert run.code == 2
    assert f"{sweep}: methods: random_real on pictures: ipc: 5 is more than class 'bright' has" in run.err
    image.write_bytes(image.read_bytes()[:60])
    run = run_inline(sweep, out)
    assert run.code == 2
    assert run.err.splitlines()[-1].startswith("error: ")
    assert f"{image} cannot be decoded" in run.err.splitlines()[-1]
    assert not out.exists()


def test_missing_data_files_are_refused(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, datasets=[{"name": "mnist", "data_dir": str(tmp_path / "none")}])
    run = run_inline(sweep, tmp_path / "out")
    assert run.code == 2
    assert "no mnist files: looked for" in run.err.splitlines()[-1]
    assert str(tmp_path / "none") in run.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


# --- jobs that fail or are stopped --------------------------------------------------------------------------


def test_failing_method_of_another_package_fails_its_own_cells_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_plugins(tmp_path / "site", monkeypatch)
    out, sweep = tmp_path / "out", sweep_file(tmp_path, methods=["random_real", "fails"], distill=DISTILL)
    run = run_inline(sweep, out)
    assert (run.code, run.err) == (1, "")
    reason = "failed: fails digits ipc 2 seed 0: AssertionError: cannot do ipc 2\n  log: "
    log = Path(run.out.split(reason)[1].splitlines()[0])
    assert log.is_relative_to(out)
    assert "Traceback" in log.read_text()
    assert "plug_fails.py" in log.read_text()
    assert "on mlp: not run: fails digits ipc 2 seed 0 failed" in run.text
    assert "distill 3/4 (1 failed) evaluate 3/4 (1 failed)" in run.text
    found = {(r["method"], r["ipc"]) for r in stable_records(out).values()}
    assert found == {("random_real", 1), ("random_real", 2), ("fails", 1)}
    assert "fails" in (out / "tables/summary.csv").read_text()
    before = written(out)
    monkeypatch.setenv("MENDED", "1")
    run = run_inline(sweep, out)
    assert run.code == 0
    assert "2 jobs in" in run.text
    assert before.items() <= written(out).items()
    assert not log.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_keeps_what_is_finished_and_goes_on(number: int, tmp_path: Path) -> None:
    slow = {"name": "slow", "seconds": 120.0}
    sweep = sweep_file(tmp_path, methods=["random_real", slow], ipc=[1], distill=DISTILL)
    out = tmp_path / "out"
    words = ["run", sweep, "--out", out, "--executor", "inline", "--set", "datasets=[digits]"]
    with started(*words, path=plugins(tmp_path / "site")) as process:
        wait_until(lambda: any((out / "records").glob("[!.]*")))
        time.sleep(0.5)  # into the slow one
        process.send_signal(number)
        run = ended(process, timeout=30)
    assert run.code == 130
    assert f"the same command goes on:\n  {shlex.join(['ddbench', *map(str, words)])}\n" in run.out
    assert leftovers(out) == []
    before = written(out)
    assert len(before) == 3  # one artifact (data and meta), which was scored at once
    assert run_inline(sweep, out, "--set", "methods=[random_real, class_mean]").code == 0
    assert before.items() <= written(out).items()

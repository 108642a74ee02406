"""What the end-to-end tests share: tiny sweeps, the program here and as a process, records to compare."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from bench.cli import app

BIN = Path(sys.executable).parent
TINY: dict[str, Any] = {
    "name": "tiny",
    "datasets": ["digits"],
    "methods": ["full", "random_real", {"name": "dm", "steps": 2}],
    "ipc": [1, 2],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0, 1]},
    "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick"},
}
ONE_METHOD = {"methods": ["random_real"], "ipc": [1]}
FILES = sorted([
    *("tables/summary.csv", "tables/summary.md", "tables/summary.tex"),
    *("tables/standings.csv", "tables/standings.md", "tables/standings.tex"),
    *("tables/pairs.csv", "tables/pairs.md", "tables/pairs.tex"),
    *("tables/equal_storage.csv", "tables/equal_storage.md", "tables/equal_storage.tex"),
    *("plots/accuracy_vs_ipc.png", "plots/accuracy_vs_ipc.svg"),
    *("plots/accuracy_vs_seconds.png", "plots/accuracy_vs_seconds.svg"),
    *("plots/accuracy_vs_bytes.png", "plots/accuracy_vs_bytes.svg"),
    *("plots/breakdown.png", "plots/breakdown.svg"),
])  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """Standard output with every line break and run of spaces as one space."""
        return " ".join(self.out.split())


def sweep_file(folder: Path, **changes: Any) -> Path:
    """TINY with some of its keys replaced, or dropped by None, as a file."""
    content = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def ddbench(*words: object) -> Ended:
    """The program in this process: no import of torch to wait for."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with (
        mock.patch.object(sys, "argv", ["ddbench", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app.main()
        except SystemExit as end:
            code = end.code
    return Ended(code, out.getvalue(), err.getvalue())


def without_plots() -> Any:
    """Reports made inside have their tables only: drawing takes a second, and has its own tests."""
    return mock.patch("bench.reporting.build._draw", return_value=([], []))


def run_inline(sweep: Path, out: Path, *words: object) -> Ended:
    """`ddbench run` in this process, one job after the other, without the plots of its report."""
    with without_plots():
        return ddbench("run", sweep, "--out", out, "--executor", "inline", *words)


@contextlib.contextmanager
def started(*words: object, path: Path | None = None) -> Iterator["subprocess.Popen[str]"]:
    """The program as a process, in a group of its own, dead at the end; `path` is a folder of plug-ins."""
    paths = [str(path) if path else "", os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(
        [str(BIN / "ddbench"), *map(str, words)],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: "subprocess.Popen[str]", timeout: float = 240) -> Ended:
    out, err = process.communicate(timeout=timeout)
    return Ended(process.returncode, out, err)


def program(*words: object, path: Path | None = None, timeout: float = 240) -> Ended:
    """The program as a process, to its end."""
    with started(*words, path=path) as process:
        return ended(process, timeout)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


# --- what lies in a result folder ---------------------------------------------------------------------------


def stable(path: Path) -> dict[str, Any]:
    """A record without what is measured, and never the same twice."""
    content: dict[str, Any] = json.loads(path.read_text())
    for taken in (content["metrics"] or {}).get("snapshots") or []:
        del taken["seconds"]
    return {key: value for key, value in content.items() if key not in ("cost", "sha256")}


def stable_records(out: Path) -> dict[str, dict[str, Any]]:
    return {path.name: stable(path) for path in sorted((out / "records").iterdir())}


def written(out: Path, *folders: str) -> dict[str, int]:
    """{file: when it was written} of artifacts and records: what is equal was not made again."""
    paths = [path for folder in folders or ("artifacts", "records") for path in (out / folder).rglob("*")]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in paths if path.is_file()}


def leftovers(out: Path) -> list[Path]:
    """Files and folders that some process has not finished."""
    return [path for path in out.rglob(".*") if path.name != ".lock"]


def find_record(out: Path, **fields: Any) -> Path:
    """The one record with these values."""
    found = [
        path
        for path in sorted((out / "records").iterdir())
        if fields.items() <= json.loads(path.read_text()).items()
    ]
    assert len(found) == 1, f"{len(found)} records with {fields}"
    return found[0]


# --- methods that sleep, fail and die, as a package elsewhere would bring them ------------------------------

_MODULE = '''
import os, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from methods.random_real import RandomReal


@dataclass(frozen=True)
class Plugin(RandomReal):
    """A method of the tests."""

    paper: ClassVar[str] = "a plug-in of the tests"
    {field}

    def distill(self, problem):
        {body}
        return super().distill(problem)


METHOD = Plugin
'''
_PLUGINS = {
    "slow": ("seconds: float = 1.0", 'time.sleep(0 if "FAST" in os.environ else self.seconds)'),
    "fails": (
        "ipc: int = 2",
        'assert problem.ipc != self.ipc or "MENDED" in os.environ, f"cannot do ipc {problem.ipc}"',
    ),
    "dies": (
        'marker: str = ""  # a file: once made, it lives',
        "if not self.marker or not Path(self.marker).exists():\n"
        "            self.marker and Path(self.marker).touch()\n"
        "            os.kill(os.getpid(), 9)",
    ),
    "faults": (  # once; whatever its process runs then fails in the same way, as after a CUDA error
        'marker: str = ""',
        "if not Path(self.marker).exists():\n"
        "            Path(self.marker).touch()\n"
        "            def stuck(*_, **__): raise RuntimeError('CUDA error: device-side assert triggered')\n"
        "            from bench.execution import evaluate_job, jobs\n"
        "            jobs.make_problem = evaluate_job.load_distilled = stuck\n"
        "            stuck()",
    ),
    "environment": (
        'file: str = ""',
        "Path(self.file).write_text(f\"{os.nice(0)} {os.environ.get('RAY_USAGE_STATS_ENABLED')}\")",
    ),
}


_SLOW_DM = '''
import dataclasses, os, time
from pathlib import Path

from methods.dm import DM


@dataclasses.dataclass(frozen=True)
class SlowDM(DM):
    """DM that notes each step in a file, dies or waits once, is slow unless told, and keeps every step."""

    def distill(self, problem):
        problem.loop.every_s, seen, mine = 0, Path(os.environ["SEEN"]), []

        def make_net(generator):
            with seen.open("a") as file:
                file.write("step\\n")
            if seen.read_text().count("step") == int(os.environ.get("DIES", 0)):
                os.kill(os.getpid(), 9)
            time.sleep(float(os.environ.get("PAUSE", 0)))
            mine.append(generator)
            while len(mine) == 6 and "GATE" in os.environ and not Path(os.environ["GATE"]).exists():
                time.sleep(0.05)
            return problem.make_net(generator)

        return super().distill(dataclasses.replace(problem, make_net=make_net))


METHOD = SlowDM
'''
SLOW_DM: dict[str, Any] = {"name": "slow_dm", "steps": 12, "batch_real": 8}


def steps_seen(seen: Path) -> int:
    """The steps that slow_dm has noted in its file, SEEN in the environment."""
    return seen.read_text().count("step")


def plugins(folder: Path) -> Path:
    """A folder for PYTHONPATH with an installed distribution that brings the methods of _PLUGINS."""
    info = folder / "plug-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 0\n")
    modules = {name: _MODULE.format(field=field, body=body) for name, (field, body) in _PLUGINS.items()}
    modules["slow_dm"] = _SLOW_DM
    points = "".join(f"{name} = plug_{name}\n" for name in modules)
    (info / "entry_points.txt").write_text(f"[ddbench.methods]\n{points}")
    for name, text in modules.items():
        (folder / f"plug_{name}.py").write_text(text)
    return folder


def use_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`plugins`, found by this process too until the end of the test."""
    monkeypatch.syspath_prepend(plugins(folder))
    return folder

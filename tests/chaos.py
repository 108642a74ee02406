"""Kills a run anywhere, again and again, and compares what it ends with to a run that nobody disturbs.

PYTHONPATH=tests python -m chaos --kills 200 --seed 0    # some seconds for each kill; with Ray twice as many

Each round is a tiny sweep with an empty cache: decoding of a folder of images, prerequisites, distillations
(one with checkpoints), evaluations, report. At places drawn by the seed a process of it gets SIGKILL: the
command itself or one of its workers, on Ray also the local server and the head. The same command is run again
until it ends by itself. Then:

- artifacts have the same bytes, and records the same values apart from costs;
- what had been finished before a kill was not made again (else it counts as lost);
- no record is there twice, no temporary file is left in the result folder or the cache, and no process runs.

Prints a table; exit code 1 if anything differs. `--keep` leaves the folders of rounds that differ.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from helpers.cli import SLOW_DM, leftovers, plugins, stable_records, written
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from bench.execution.session import Session

ROOT = Path(__file__).parents[1]
SPLITS = {"train": (0, 350), "test": (350, 420)}  # images of each class: enough for a pool that decodes
MTT = {"name": "mtt", "steps": 10, "experts": 2, "expert_epochs": 1, "start_epochs": 1, "inner_steps": 2}
SERVERS = {"gcs_server": "head", "raylet": "raylet"}
KILLS = 4  # of a round
ENDS_S = 300  # a command that takes longer hangs
GONE_S = 90  # Ray's agents look for their servers for a minute
Where = tuple[str, str, str]  # executor, what was done, who was killed


def draw_folder(root: Path) -> Path:
    """A folder of digits as PNGs, each moved by a few pixels in its own way."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16 * 255).astype("uint8").reshape(-1, 8, 8)
    for split, (begin, end) in SPLITS.items():
        for c in range(10):
            (root / split / str(c)).mkdir(parents=True)
            of_class = images[labels == c]
            for i in range(begin, end):
                moved = np.roll(of_class[i % len(of_class)], i // len(of_class), axis=i % 2)
                Image.fromarray(moved).save(root / split / str(c) / f"{i}.png")
    return root


@dataclass
class Site:
    """What all rounds share: the sweep, its plan, and how a run that nobody disturbed ended."""

    folder: Path
    sweep: Path = field(init=False)
    kinds: dict[str, str] = field(init=False)  # of the planned jobs, by key
    order: list[str] = field(init=False)  # keys of the jobs as an undisturbed run finished them
    start_s: float = field(init=False)  # until the command looks for its data
    decode_s: float = field(init=False)  # of the folder of images
    job_s: float = field(init=False)  # of the longest job
    report_s: float = field(init=False)  # of the report
    expected: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        plugins(self.folder / "site")
        entry = {"name": "image_folder", "path": str(draw_folder(self.folder / "pictures"))}
        content = {
            "name": "chaos",
            "datasets": ["digits", entry],
            "methods": ["random_real", {"name": "dm", "steps": 50}, MTT, SLOW_DM],
            "ipc": [1],
            "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
            "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick", "snapshots": True},
        }
        self.sweep = self.folder / "chaos.yaml"
        self.sweep.write_text(yaml.safe_dump(content, sort_keys=False))
        undisturbed = Round(self, "inline", self.folder / "undisturbed")
        process = undisturbed.start()
        self.start_s = _seconds_until(undisturbed.cache)
        self.decode_s = _seconds_until(undisturbed.out)
        assert process.wait(ENDS_S) == 0, undisturbed.log.read_text()
        ended = time.time()
        at = {key: path.stat().st_mtime for key, path in undisturbed.finished().items()}
        self.order = sorted(at, key=lambda key: at[key])
        spans = [at[b] - at[a] for a, b in zip(self.order[:-1], self.order[1:], strict=True)]
        self.job_s, self.report_s = max(spans), ended - max(at.values())
        with undisturbed.environment():
            planned = Session.open(self.sweep, [], undisturbed.out, False).jobs
        self.kinds = {key: job.kind for key, job in planned.items()}
        assert self.kinds.keys() == at.keys()
        self.expected = undisturbed.result()


def _seconds_until(path: Path) -> float:
    begin = time.monotonic()
    while not path.exists() and time.monotonic() - begin < ENDS_S:
        time.sleep(0.01)
    return time.monotonic() - begin


@dataclass
class Round:
    """One result folder with a cache of its own, killed again and again until it is whole."""

    site: Site
    executor: str
    folder: Path
    seen: set[psutil.Process] = field(default_factory=set)  # every process that it was seen to start
    kills: list[Where] = field(default_factory=list)
    lost: list[Where] = field(default_factory=list)  # kills after which something finished was made again
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.out, self.cache, self.log = self.folder / "out", self.folder / "cache", self.folder / "log"

    @property
    def variables(self) -> Mapping[str, str]:
        paths = [str(self.site.folder / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DDBENCH_CACHE": str(self.cache),
            "SEEN": str(self.folder / "seen"),
            "PAUSE": "0.05",
            "OMP_NUM_THREADS": "1",
        }

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """The variables and the plug-ins of its commands in this process."""
        before = dict(os.environ)
        os.environ.update(self.variables)
        sys.path.insert(0, str(self.site.folder / "site"))
        try:
            yield
        finally:
            sys.path.pop(0)
            os.environ.clear()
            os.environ.update(before)

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "bench", "run", str(self.site.sweep), "--out", str(self.out)]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*command, "--executor", self.executor],
                env={**os.environ, **self.variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # --- what is there --------------------------------------------------------------------------------------

    def finished(self) -> dict[str, Path]:
        """The artifacts and records that are there, by key."""
        found = {path.parent.name: path for path in self.out.glob("artifacts/[!.]*/meta.json")}
        return found | {path.stem: path for path in self.out.glob("records/[!.]*.json")}

    def place(self) -> str:
        """What is being done, as far as files tell."""
        done = self.finished().keys()
        coming = next((key for key in self.site.order if key not in done), None)
        if coming is None:
            return "report"
        if self.out.exists():
            return self.site.kinds[coming]
        return "decoding" if self.cache.exists() else "start"

    def result(self) -> dict[str, Any]:
        """What has to be the same: files of artifacts, what they and the records say apart from costs."""
        files = {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in sorted(self.out.glob("artifacts/*/*"))
            if path.name != "meta.json"
        }
        metas = {}
        for path in sorted(self.out.glob("artifacts/*/meta.json")):
            meta = json.loads(path.read_text())
            for taken in meta.get("snapshots", []):
                del taken["seconds"]
            metas[path.parent.name] = {k: v for k, v in meta.items() if k not in ("cost", "sha256")}
        return {"files": files, "metas": metas, "records": stable_records(self.out)}

    # --- kills ----------------------------------------------------------------------------------------------

    def disturb(self, dice: random.Random, most: int) -> None:
        """Kill at most so often, then let the command end by itself, and compare."""
        for n in range(most):
            last = n == most - 1  # after a kill during the report nothing else is left
            stages = ["start", "decoding", "jobs"] if not self.out.exists() else ["jobs"]
            code = self.kill_once(dice, dice.choice([*stages, "report"] if last else stages))
            if code == 0 or self.place() == "report":
                break
        for _ in range(3):
            code = self.end(self.start())
            if code == 0:
                break
        if code != 0:
            self.wrong.append(f"does not end well: exit code {code}\n{self.log.read_text()[-2000:]}")
        self.compare()

    def kill_once(self, dice: random.Random, stage: str) -> int | None:
        """One command with one kill in it; its exit code."""
        site, done, n_jobs = self.site, len(self.finished()), len(self.site.order)
        wanted = n_jobs if stage == "report" else min(n_jobs - 1, done + dice.randint(0, n_jobs // 2))
        reached: Callable[[], bool] = {
            "start": lambda: True,
            "decoding": self.cache.exists,
            "jobs": lambda: self.out.exists() and len(self.finished()) >= wanted,
            "report": lambda: len(self.finished()) >= wanted,
        }[stage]
        longest = dict(start=site.start_s, decoding=site.decode_s, jobs=site.job_s, report=site.report_s)
        process = self.start()
        begin = time.monotonic()
        while process.poll() is None and not reached() and time.monotonic() - begin < ENDS_S:
            time.sleep(0.01)
        time.sleep(dice.random() * longest[stage])
        place, before = self.place(), written(self.out) if self.out.exists() else {}
        who = self.strike(process, dice)
        if who is None:
            return self.end(process)
        where = (self.executor, place, who)
        self.kills.append(where)
        code = self.end(process)
        after = written(self.out) if self.out.exists() else {}
        if {name: at for name, at in before.items() if "/." not in name}.items() - after.items():
            self.lost.append(where)
        return code

    def look(self, process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
        """The processes of a command, itself first; they are remembered."""
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(process.pid)
            found = [main, *main.children(recursive=True)]
            self.seen |= set(found)
            return found
        return []

    def strike(self, process: "subprocess.Popen[bytes]", dice: random.Random) -> str | None:
        """Kill one of the command's processes; says which, None where it has ended."""
        if process.poll() is not None:
            return None
        found = self.look(process)
        victims: dict[str, list[psutil.Process]] = {"command": found[:1]}
        for one in found[1:]:
            with contextlib.suppress(psutil.Error):
                name, command = one.name(), " ".join(one.cmdline())
                works = "popen_loky" in command or (name.startswith("ray::") and not name.endswith("Agent"))
                if who := "worker" if works else SERVERS.get(name):
                    victims.setdefault(who, []).append(one)
        who = dice.choice(sorted(victims))
        try:
            dice.choice(victims[who]).send_signal(signal.SIGKILL)
        except (psutil.Error, IndexError):
            return None
        return who

    def end(self, process: "subprocess.Popen[bytes]") -> int | None:
        """Wait for a command; what it printed must be no traceback."""
        begin = time.monotonic()
        while process.poll() is None and time.monotonic() - begin < ENDS_S:
            self.look(process)
            time.sleep(0.05)
        if process.poll() is None:
            self.wrong.append(f"hangs: {self.log.read_text()[-2000:]}")
            process.kill()
            process.wait()
        if "Traceback" in (said := self.log.read_text(errors="replace")):
            self.wrong.append(f"a traceback: {said[-3000:]}")
        return process.returncode

    def compare(self) -> None:
        """Note what differs from the run that nobody disturbed."""
        found, expected = self.result(), self.site.expected
        for part, content in expected.items():
            names = found[part].keys() | content.keys()
            differ = sorted(n for n in names if found[part].get(n) != content.get(n))
            self.wrong += [f"{part}: {name} differs, is missing or one too many" for name in differ]
        left = leftovers(self.out)
        kept = (".lock", ".safetensors")
        left += leftovers(self.cache)
        left += [path for path in self.cache.rglob("*") if path.is_file() and path.suffix not in kept]
        left += [path for path in (self.out / "checkpoints",) if path.exists()]
        self.wrong += [f"left over: {path.relative_to(self.folder)}" for path in left]


def survivors(rounds: list[Round]) -> list[str]:
    """The processes of all rounds that do not go, at last by force."""
    _, alive = psutil.wait_procs({one for each in rounds for one in each.seen}, timeout=GONE_S)
    told = []
    for one in alive:
        with contextlib.suppress(psutil.Error):
            told.append(f"{one.name()} ({one.pid})")
            one.kill()
    return told


def run_rounds(folder: Path, kills: int, seed: int, ray: float, keep: bool = False) -> list[Round]:
    """Rounds until there were so many kills; a share of them on Ray."""
    dice, site, rounds = random.Random(seed), Site(folder), list[Round]()
    while (left := kills - sum(len(one.kills) for one in rounds)) > 0:
        executor = "ray" if dice.random() < ray else "inline"
        one = Round(site, executor, folder / f"round{len(rounds)}")
        rounds.append(one)
        one.disturb(dice, min(left, KILLS))
        told = ", ".join(f"{place}: {who}" for _, place, who in one.kills)
        print(f"round {len(rounds)} ({executor}): {told}: {len(one.wrong)} wrong", flush=True)
        for line in one.wrong:
            print(f"  {line}", flush=True)
        if not (keep and one.wrong):
            shutil.rmtree(one.folder, ignore_errors=True)
    return rounds


def table_of(rounds: list[Round]) -> Table:
    """Where was killed, how often, and what came of it."""
    kills = Counter(where for one in rounds for where in one.kills)
    lost = Counter(where for one in rounds for where in one.lost)
    # a difference counts for every kill of its round: which of them it was is not known
    wrong = Counter(where for one in rounds if one.wrong for where in set(one.kills))
    table = Table(box=None, pad_edge=False)
    for name in ("executor", "during", "killed", "kills", "lost jobs", "rounds that differ"):
        table.add_column(name, justify="left" if name in ("executor", "during", "killed") else "right")
    for where in sorted(kills):
        table.add_row(*where, str(kills[where]), str(lost[where]), str(wrong[where]))
    differ = sum(bool(one.wrong) for one in rounds)
    table.add_row("all", "", "", str(kills.total()), str(lost.total()), str(differ))
    return table


def main() -> int:
    """Run as the arguments say; the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", type=float, default=0.3, metavar="SHARE", help="of the rounds, on Ray")
    parser.add_argument("--keep", action="store_true", help="leave the folders of rounds that differ")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    begin = time.monotonic()
    try:
        rounds = run_rounds(folder, asked.kills, asked.seed, asked.ray, asked.keep)
    finally:
        if asked.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    alive = survivors(rounds)
    Console(width=120).print(table_of(rounds))
    print(f"processes that did not go: {', '.join(alive) or 'none'}; {time.monotonic() - begin:.0f} s")
    return int(bool(alive or any(one.wrong or one.lost for one in rounds)))


if __name__ == "__main__":
    sys.exit(main())

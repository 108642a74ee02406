"""What a killed process leaves: no file that takes room, no process that decodes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.folders import folder, get, make_tree, paint
from helpers.record import sweep, write

from bench.core.errors import UserError
from bench.data import decode
from bench.data.cache import cache_dir
from bench.records import reader

WRITES = """
import sys, time
from pathlib import Path
from bench.data import cache
from helpers.folders import folder

def stuck(tensors, path, metadata):
    beside = Path(path).with_name(".tmpRANDOM")  # where safetensors writes first
    for file in (Path(path), beside):
        file.write_bytes(b"0" * 1000)
    print("writing", flush=True)
    time.sleep(600)

cache.save_file = stuck
cache.prepare_dataset(folder(Path(sys.argv[1])))
"""
DECODES = """
import sys
from pathlib import Path
from bench.data import decode

if __name__ == "__main__":
    decode._POOL_FROM = decode._CHUNK = 1
    print("decoding", flush=True)
    decode.decode_images([Path(sys.argv[1])] * 5000, 8)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(
        "PYTHONPATH", ":".join(str(Path(__file__).parents[n] / d) for n, d in ((2, ""), (1, "")))
    )


def started(tmp_path: Path, code: str, argument: Path) -> "subprocess.Popen[str]":
    """A process that has printed its first line."""
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script), str(argument)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def left(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix not in (".lock", ".safetensors")]


@pytest.mark.timeout(60)
def test_the_next_write_sweeps_up_after_a_killed_one(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set")
    with started(tmp_path, WRITES, root) as process:
        cache = cache_dir() / "datasets"
        (unfinished,) = left(cache)
        get(folder(make_tree(tmp_path / "other")))
        assert left(cache) == [unfinished], "its process is alive"
        process.kill()
    assert left(cache) == [unfinished]
    get(folder(root))
    assert left(cache) == []


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)
def test_a_killed_process_that_decodes_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "a.png", 1)
    monkeypatch.setattr(decode, "_POOL_FROM", 1)
    monkeypatch.setattr(decode, "_decode_chunk", _die)
    with pytest.raises(UserError, match=r"^a process that decodes images was killed, .* again$"):
        decode.decode_images([tmp_path / "a.png"] * 5, 8)


@pytest.mark.timeout(60)
def test_a_killed_process_that_reads_records_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_records = write(tmp_path, sweep())
    monkeypatch.setattr(reader, "POOL_FROM", 1)
    monkeypatch.setattr(reader, "FILES_PER_TASK", 10)
    monkeypatch.setattr(reader, "_read_chunk", _die)
    with pytest.raises(UserError, match=r"^a process that reads records was killed, .* again$"):
        reader.load_frame(folder_of_records)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.timeout(60)
def test_decoding_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    paint(tmp_path / "a.png", 1, (800, 800))
    with started(tmp_path, DECODES, tmp_path / "a.png") as process:
        parent = psutil.Process(process.pid)
        while not any("popen_loky" in " ".join(child.cmdline()) for child in parent.children()):
            time.sleep(0.05)
        time.sleep(0.5)  # at work
        children = parent.children(recursive=True)
        process.send_signal(number)
    _, alive = psutil.wait_procs(children, timeout=10)
    for child in alive:
        child.kill()
    assert alive == []

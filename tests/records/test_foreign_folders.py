"""Result folders that somebody else made: what cannot be used is named in a line, and the rest is used."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import Ended, ddbench, without_plots
from helpers.record import make, sweep, write

import bench as dd
from bench.core.io import MOST_BYTES
from bench.records.artifact import META
from bench.records.reader import PARQUET, load_frame
from bench.records.schema import content_digest, load_record

RECORDS = sweep(archs=("convnet",), ipcs=(1,))


def file_of(**changes: Any) -> str:
    """The file of a record with other values, by their place as cost__distill_s, and a checksum that fits."""
    content = make("dm", 1).model_dump(mode="json") | {"key": "bad"}
    for place, value in changes.items():
        *parents, name = place.split("__")
        within = content
        for parent in parents:
            within = within[parent]
        within[name] = value
    return json.dumps(content | {"sha256": content_digest(content)})


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)


NOT_READ: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is no plain file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is no plain file"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), ""),
    "folder": (Path.mkdir, "cannot be read: Is a directory"),
    "circle": (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels"),
    "large": (large, "is larger than 16 MiB"),
    "deep": (lambda path: path.write_text("[" * 100_000), "is not readable as JSON"),
    "deep values": (
        lambda path: path.write_text(file_of(method="").replace('""', "[" * 500 + "]" * 500)),
        "is not readable as JSON",
    ),
    "digits": (lambda path: path.write_text(f'{{"sha256": {"9" * 5001}}}'), "is not readable as JSON"),
    "not UTF-8": (lambda path: path.write_bytes(b'{"key": "\xff"}'), "is not readable as JSON"),
    "lone surrogate": (lambda path: path.write_text('{"key": "\\ud800"}'), "is not readable as JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "why"), NOT_READ.values(), ids=NOT_READ)
def test_what_is_no_record_is_named_and_left_out(
    spoil: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, sweep())
    spoil(folder / "records/bad.json")
    frame, problems = load_frame(folder)
    assert len(frame) == len(sweep())
    (problem,) = problems
    assert problem.startswith(f"records/bad.json {why}")
    assert "\n" not in problem
    assert len(problem) < 300


OFF = [float("inf"), float("-inf"), float("nan"), 1e300, -1.0]  # nowhere a number of seconds
NUMBERS = {
    **{f"cost__{name}": OFF for name in ("prepare_s", "teacher_s", "distill_s", "bookkeeping_s", "tune_s")},
    **{f"cost__{name}": OFF for name in ("evaluate_s", "peak_memory_bytes")},
    "cost__operations": [{"prepare": 0.0, "distill": value} for value in (*OFF[:3], -1.0)],
    **{name: OFF[:4] for name in ("cost__gpus", "cost__cpus", "training__cutmix", "metrics__agreement")},
    "cost__prerequisites_s": [{"experts": value} for value in OFF],
    "cost__peak_memory": [{"distill": value} for value in OFF[:4]],
    "training__lr": [*OFF, 0.0],
    "training__holdout_scores": [{"0.1": value} for value in OFF],
    **{f"storage__{name}": OFF for name in ("floats", "bytes", "bytes_uint8", "ipc_equivalent")},
    "metrics__class_accuracies": [[[value]] for value in OFF],
    "metrics__calibration_errors": [[value] for value in OFF[:4]],
    "metrics__curve": [[{"fraction": 0.5, "step": 1, "accuracies": [value]}] for value in OFF],
    "metrics__snapshots": [
        [{"fraction": 1.0, "step": 1, "seconds": value, "accuracies": [0.5]}] for value in OFF
    ],
    "accuracies": [[value] for value in OFF],
    "ipc": [*OFF, 2**53, 2**70],
    "seed": [*OFF[:4], 2**63],
    "n_classes": OFF[:4],
}  # fmt: skip


def test_an_older_schema_is_told_on_one_line_whatever_its_number(tmp_path: Path) -> None:
    folder = write(tmp_path, [make()])
    (folder / "records/bad.json").write_text(f'{{"schema_version": -{"9" * 4000}, "sha256": ""}}')
    (problem,) = load_frame(folder)[1]
    assert problem.startswith("records/ holds a record that was written by an older schema (-9")
    assert len(problem) < 200


@pytest.mark.parametrize("place", NUMBERS)
def test_numbers_that_are_none_do_not_fit(place: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    for value in NUMBERS[place]:
        path.write_text(file_of(**{place: value}))
        with pytest.raises(ValueError, match=f"does not fit schema 2: {place.replace('__', '.')}"):
            load_record(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("method", "x" * 256),
        ("dataset", "two\nlines"),
        ("eval_arch", "\x1b[31mred"),
        ("protocol", "nul\0"),
        ("distill_arch", "right \u202e to left"),
        ("artifact", "../../elsewhere"),
        ("artifact", "nul\0"),
        ("artifact", ""),
        ("cost__peak_memory", {"two\nlines": 1}),
    ],
)
def test_names_that_fit_no_table_or_folder_do_not_fit(place: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(file_of(**{place: value}))
    with pytest.raises(ValueError, match=f"does not fit schema 2: {place.replace('__', '.')}") as caught:
        load_record(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A sweep whose folder also holds everything that is no record, a cost without end and odd artifacts."""
    folder = write(tmp_path / "hostile", RECORDS)
    for name, (spoil, _) in NOT_READ.items():
        spoil(folder / f"records/{name}.json")
    (folder / "records/bad.json").write_text(file_of(cost__distill_s=float("inf")))
    for name, (spoil, _) in NOT_READ.items():
        (folder / f"artifacts/{name}").mkdir(parents=True)
        spoil(folder / f"artifacts/{name}/{META}")
    os.mkfifo(folder / "artifacts/pipe itself")
    (folder / "artifacts/a").mkdir()
    os.mkfifo(folder / f"artifacts/a/{META}")  # the artifact of the records
    return folder


N_BAD = len(NOT_READ) + 1


def left_out(ended: Ended) -> int:
    """How many records a command names and leaves out, each in a line."""
    return sum(line.startswith("left out: ") and "records/" in line for line in ended.out.splitlines())


COMMANDS: dict[str, tuple[Callable[[Path, Path], tuple[object, ...]], int]] = {
    "report": (lambda bad, to: ("report", bad, "--html", "--out", to), 1),
    "merged": (lambda bad, to: ("report", bad, write(to / "good", RECORDS), "--out", to), 1),
    "ls": (lambda bad, to: ("ls", bad), 0),
    "compare": (lambda bad, to: ("compare", write(to / "good", RECORDS), bad), 2),
}


@pytest.mark.parametrize(("words", "code"), COMMANDS.values(), ids=COMMANDS)
def test_commands_go_on_without_what_is_no_record(
    words: Callable[[Path, Path], tuple[object, ...]], code: int, hostile: Path, tmp_path: Path
) -> None:
    with without_plots():
        ended = ddbench(*words(hostile, tmp_path / "to"))
    assert (ended.code, ended.err) == (code, "")
    assert left_out(ended) == N_BAD
    assert "dm" in ended.out


def test_contributed_folder_fails_its_check_in_lines(hostile: Path) -> None:
    ended = ddbench("submit-check", hostile, "--sample", 0)
    assert (ended.code, ended.err) == (1, "")
    assert "records/pipe.json is no plain file" in ended.out
    assert f"artifacts/a has no readable {META}" in ended.out


def test_python_warns_and_goes_on(hostile: Path) -> None:
    with pytest.warns(UserWarning, match="left out: records/") as warned:
        frame = dd.load_records(hostile)
    assert len(warned) == N_BAD
    assert len(frame) == len(RECORDS)


def test_show_names_an_artifact_that_is_none(hostile: Path) -> None:
    ended = ddbench("show", hostile, "pipe itself")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"artifacts/pipe itself has no readable {META}" in ended.err
    assert ddbench("show", hostile).code == 0


def test_a_cache_that_is_a_pipe_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.records.reader.COMPACT_FROM", 1)
    folder = write(tmp_path, sweep())
    os.mkfifo(folder / PARQUET)
    assert len(load_frame(folder)[0]) == len(sweep())

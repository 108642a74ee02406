"""A full disk, and folders that cannot be written: one line, nothing half-written, no work in vain."""

import contextlib
import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.cli import Ended, ddbench, leftovers, run_inline, sweep_file
from helpers.record import sweep, write

from bench.core.errors import UserError
from bench.core.io import check_writable, replacing, writing
from bench.execution.store import Store

LARGE = torch.rand(10_000)


@contextlib.contextmanager
def full_disk(left: int) -> Iterator[None]:
    """Files end at so many bytes; the system says so as it does of a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(ended: Ended, *needles: object) -> None:
    """One line on standard error with all the needles, and exit code 2."""
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert [str(needle) for needle in needles if str(needle) not in ended.err] == [], ended.err


def save_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(LARGE, file)


def save_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": LARGE}, path)


@pytest.mark.parametrize(
    "write_file", [save_torch, save_safetensors, lambda path: path.write_text("x" * 10_000)]
)
def test_a_file_without_room_is_named_whatever_writes_it(
    write_file: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    refusal = pytest.raises(UserError, match=f"^{path}: cannot be written: File too large; ")
    with full_disk(1000), refusal, replacing(path) as unfinished:
        write_file(unfinished)
    assert list(tmp_path.iterdir()) == []


def test_without_room_the_line_says_to_make_some(tmp_path: Path) -> None:
    why = "No space left on device; make room, and run the same command again"
    with pytest.raises(UserError, match=why), writing(tmp_path):
        raise OSError(errno.ENOSPC, "x")
    with pytest.raises(FileNotFoundError), writing(tmp_path):  # that is no matter of writing
        (tmp_path / "nothing").read_text()


def test_a_report_without_room_is_refused_and_leaves_what_is_whole(tmp_path: Path) -> None:
    folder = write(tmp_path, sweep())
    with full_disk(3000):
        ended = ddbench("report", folder)
    refused(ended, folder, "cannot be written: File too large")
    assert leftovers(folder) == []


def test_a_run_without_room_fails_its_jobs_with_their_reason_and_no_log(tmp_path: Path) -> None:
    sweep_path = sweep_file(tmp_path, methods=["random_real"], ipc=[1])
    assert run_inline(sweep_path, tmp_path / "out", "--limit", 3).code == 0
    with full_disk(100):
        ended = run_inline(sweep_path, tmp_path / "out")
    assert (ended.code, ended.err) == (1, "")
    assert "failed: random_real digits ipc 1 seed 1 on mlp: " in ended.out
    assert "cannot be written: File too large; choose another folder (without a log: " in ended.out
    assert "no report: " in ended.out
    assert "process died" not in ended.out
    assert leftovers(tmp_path / "out") == []
    assert run_inline(sweep_path, tmp_path / "out").code == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    assert (
        run_inline(sweep_file(folder, methods=["random_real"], ipc=[1]), folder / "out", "--limit", 3).code
        == 0
    )
    return folder / "out"


def in_the_way(path: Path) -> Path:
    """A file where a folder is to be made: as good as a read-only folder, for root too."""
    path.write_text("mine")
    return path


COMMANDS: dict[str, tuple[tuple[object, ...], str]] = {
    "show": (("show", "{out}"), "grids"),
    "recall": (("recall", "{out}", "{key}", "--classes", "0,1"), "recall"),
    "report": (("report", "{out}"), "plots"),
    "export": (("export", "{out}", "{key}", "--to", "{out}/file/below/set.pt", "--format", "dc"), "file"),
    "import": (("import", "{set}", "--dataset", "digits", "--out", "{out}/file"), "file"),
    "evaluate": (("evaluate", "{set}", "--dataset", "digits", "--out", "{out}/file/below"), "file"),
}


@pytest.mark.parametrize(("words", "name"), COMMANDS.values(), ids=COMMANDS)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    words: tuple[str, ...], name: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("tools.recall.train_and_score", "interop.export._save_torch", "reporting.build._write"):
        monkeypatch.setattr(f"bench.{work}", lambda *_: pytest.fail("it worked first"))
    key = next(iter(Store(results).artifacts.iterdir())).name
    places = {"out": results, "key": key, "set": results / "artifacts" / key}
    path = in_the_way(results / name)
    try:
        refused(ddbench(*(str(word).format(**places) for word in words)), results / name, "cannot be written")
        assert path.read_text() == "mine"
    finally:
        path.unlink()
    assert {p.name for p in results.iterdir()} <= {"artifacts", "records", "tables", "plots", ".lock"}


def test_the_nearest_folder_that_is_there_decides(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b/c", "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "loose").symlink_to("nowhere")
    with pytest.raises(UserError, match="loose/a: cannot be written: No such file or directory; elsewhere"):
        check_writable(tmp_path / "loose/a", "elsewhere")

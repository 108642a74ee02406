"""Results that go to a URL as they finish, and are found there from another machine."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import BIN, Ended, ddbench, stable_records, sweep_file, wait_until, without_plots
from helpers.cluster import free_port
from pyarrow.fs import FileSelector, FileSystem, FileType

from bench.execution.url_folder import UrlFolder

MOTO = shutil.which("moto_server", path=BIN)
ONE: dict[str, Any] = {
    "methods": ["random_real", {"name": "dm", "steps": 2}],
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
}


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """moto's S3 server: the protocol, without latency, limits of rate, permissions or outages."""
    if MOTO is None:
        pytest.skip("moto is not installed: pip install 'ddbench[dev]'")
    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen([MOTO, "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out)
    try:
        wait_until(lambda: _answers(port), 60)
        yield port
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "one machine"))
    if request.param == "file":
        return f"file://{tmp_path}/there/tiny"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-a-test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    where = f"endpoint_override=127.0.0.1:{request.getfixturevalue('bucket_server')}&scheme=http"
    name = f"b{abs(hash(tmp_path)) % 10**9}"
    files, path = FileSystem.from_uri(f"s3://{name}?{where}&allow_bucket_creation=true&region=us-east-1")
    files.create_dir(path)
    return f"s3://{name}/deep/tiny?{where}&region=us-east-1"


def run_to(url: str, sweep: Path, *words: object) -> Ended:
    with without_plots():
        return ddbench("run", sweep, "--out", url, "--executor", "inline", *words)


def objects(url: str) -> dict[str, tuple[int, Any]]:
    """{file: its size and when it was written}."""
    files, path = FileSystem.from_uri(url)
    found = files.get_file_info(FileSelector(path, recursive=True))
    return {f.path.removeprefix(path): (f.size, f.mtime_ns) for f in found if f.type == FileType.File}


def test_what_finishes_is_sent_once_and_another_machine_goes_on_from_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_file(tmp_path, **ONE)
    run = run_to(url, sweep, "--limit", 2)
    assert (run.code, run.err) == (0, ""), run.out
    assert f"results go to {url.partition('?')[0]}, and stay in {tmp_path}/one machine/urls/" in run.out
    before = objects(url)
    assert sum(name.endswith("/meta.json") for name in before) + sum("/records/" in n for n in before) == 2
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "another machine"))
    run = run_to(url, sweep)
    assert (run.code, run.err) == (0, ""), run.out
    assert "2 jobs to run in" in run.text
    after = objects(url)
    assert before.items() <= after.items(), "nothing is written twice"
    assert not [name for name in after if "unfinished" in name or "/." in name]
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "third machine"))
    assert ddbench("plan", sweep, "--out", url).out.count(" done ") == 2  # of cells
    run = run_to(url, sweep)
    assert "Every cell has its record" in run.text
    store = UrlFolder(url).store
    assert not store.artifacts.exists(), "only what is needed is fetched"
    sent = {name: (store.root / name[1:]).stat().st_size for name in after if "/records/" in name}
    assert sent == {name: size for name, (size, _) in after.items() if "/records/" in name}
    assert len(found := stable_records(store.root)) == 2
    with without_plots():
        assert ddbench("run", sweep, "--out", tmp_path / "alone", "--executor", "inline").code == 0
    assert found == stable_records(tmp_path / "alone")


def change(url: str, part: str, edit: Callable[[bytes], bytes | None]) -> str:
    """Edit or delete the first file there whose name holds `part`."""
    files, path = FileSystem.from_uri(url)
    name = next(name for name in sorted(objects(url)) if part in name)
    with files.open_input_stream(path + name) as file:
        content = edit(file.read())
    if content is None:
        files.delete_file(path + name)
    else:
        with files.open_output_stream(path + name) as file:
            file.write(content)
    return name


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("/meta.json", lambda content: None),  # its sender was killed before the last file
        ("/data.safetensors", lambda content: content[:-8] + b"damaged!"),
        ("/records/", lambda content: content[:-40]),
    ],
)
def test_what_is_not_whole_there_is_made_and_sent_again(
    part: str,
    edit: Callable[[bytes], bytes | None],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = sweep_file(tmp_path, **ONE | {"methods": ["random_real"]})
    assert run_to(url, sweep).code == 0
    whole = {name: size for name, (size, _) in objects(url).items()}
    if "/records/" not in part:
        change(url, "/records/", lambda content: None)
    change(url, part, edit)
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "another machine"))
    run = run_to(url, sweep)
    assert (run.code, run.err) == (0, ""), run.out
    assert objects(url).keys() == whole.keys()
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "third machine"))
    assert "Every cell has its record" in run_to(url, sweep).text


def test_what_could_not_be_sent_is_told_kept_and_sent_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "there").write_text("no folder")
    sweep, url = sweep_file(tmp_path, **ONE | {"methods": ["random_real"]}), f"file://{tmp_path}/there/tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UrlFolder, "_names", lambda self, kind: set())  # as if it went wrong later
        run = run_to(url, sweep)
    assert run.code == 1
    assert f"finished, but not sent to {url}: " in run.text
    assert "Traceback" not in run.out + run.err
    (tmp_path / "there").unlink()
    run = run_to(url, sweep)
    assert (run.code, run.err) == (0, ""), run.out
    assert "Every cell has its record" in run.text
    assert sum("/records/" in name for name in objects(url)) == 1


@pytest.mark.parametrize(
    ("url", "why"), [("nonsense://x/y", "nonsense"), ("s3://", "bucket"), ("s3://me:secret@b/p?odd=1", "odd")]
)
def test_a_url_that_nothing_opens_is_refused_in_a_line(url: str, why: str, tmp_path: Path) -> None:
    run = run_to(url, sweep_file(tmp_path, **ONE))
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert f"--out {url.partition('?')[0].replace('me:secret@', '')}: cannot be read: " in run.err
    assert "secret" not in run.err
    assert why in run.err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_is_behind_a_url_is_not_made_again(command: str, tmp_path: Path) -> None:
    run = ddbench(command, sweep_file(tmp_path, **ONE), "--out", f"file://{tmp_path}/there", "--fresh")
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert "--fresh needs a folder for --out: behind a URL nothing is written again" in run.err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_url_with_one_slash_makes_no_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = ddbench(command, sweep_file(tmp_path, **ONE), "--out", "s3:/bucket")
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert "--out s3:/bucket: a URL has two slashes behind its colon" in ended.err
    assert not (tmp_path / "s3:").exists()


def test_a_bucket_that_is_not_there_is_told_in_a_line(
    url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if url.startswith("file"):
        pytest.skip("a folder is made")
    run = run_to(url.replace("s3://", "s3://not-"), sweep_file(tmp_path, **ONE))
    assert (run.code, run.err.count("\n")) == (2, 1), run.err
    assert "cannot be read: there is no bucket not-b" in run.err

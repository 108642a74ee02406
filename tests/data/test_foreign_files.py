"""Image files that are none, or that would take the machine: refused in a line, before they are read."""

import ast
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.folders import folder, make_tree, png, refused
from helpers.importer import refused as import_refused
from PIL import Image

from bench.data.image_files import MOST_BYTES

BENCH = Path(__file__).parents[2] / "bench"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "gif"])
def test_postscript_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it looks once
    root = make_tree(tmp_path / "set")
    evil = root / f"train/cat/evil.{ending}"
    evil.write_bytes(POSTSCRIPT)
    refused(folder(root), str(evil), "cannot be decoded")
    assert not (tmp_path / "ran").exists()
    with Image.open(evil) as opened, pytest.raises(OSError, match=r"gs|unable|cannot"):
        opened.load()
    assert (tmp_path / "ran").exists(), "so it would have run"


def test_every_picture_is_opened_with_a_list_of_formats() -> None:
    opens = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for path in BENCH.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "plt.imread", "imread")
    ]
    assert len(opens) >= 2
    assert [name for name, keywords in opens if "formats" not in keywords] == []


# --- no plain files ---------------------------------------------------------------------------------


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def too_large(path: Path) -> None:
    path.touch()
    os.truncate(path, MOST_BYTES + 1)  # a hole: it takes no room


HOSTILE = pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is no plain file: remove it"),
        (link_to("/dev/zero"), "is no plain file: remove it"),
        (link_to("x.png"), "cannot be read (Too many levels of symbolic links)"),
        (link_to("nowhere"), "cannot be read (No such file or directory)"),
        (too_large, "has 268,435,457 bytes, an image may have 268,435,456"),
    ],
)


@HOSTILE
@pytest.mark.parametrize("place", ["train/cat", "test/dog", "train"])
@pytest.mark.timeout(20)
def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None], words: str, place: str
) -> None:
    root = make_tree(tmp_path / "set")
    make(root / place / "x.png")
    refused(folder(root), f"{root / place / 'x.png'} {words}")


@HOSTILE
@pytest.mark.timeout(20)
def test_a_published_set_with_it_is_refused(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    (tmp_path / "0").mkdir()
    make(tmp_path / "0/x.png")
    assert words in import_refused(tmp_path)


@pytest.mark.timeout(20)
def test_a_class_folder_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set")
    (root / "train/owl").symlink_to("owl")
    refused(folder(root), str(root / "train/owl"), "Too many levels")


# --- pictures that unfold ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", [60_000, 12_000])
@pytest.mark.timeout(20)
def test_a_picture_of_too_many_pixels_is_refused(
    tmp_path: Path, side: int, recwarn: pytest.WarningsRecorder
) -> None:
    root = make_tree(tmp_path / "set")
    bomb = png(root / "train/cat/bomb.png", side, side, 2, b"\0" * 100, depth=8)
    refused(folder(root, image_size=4), str(bomb), "cannot be decoded", "decompression bomb")
    assert not recwarn.list


def test_a_file_that_pil_complains_of_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's, which the program does not have
    root = make_tree(tmp_path / "set")
    odd = root / "train/cat/odd.tif"
    Image.new("RGB", (4, 4)).save(odd)
    samples = b"\x15\x01\x03\0\x01\0\0\0"  # a tag of one short number: the samples of a pixel
    before = odd.read_bytes()
    odd.write_bytes(before.replace(samples + b"\x03\0", samples + b"\0\x08"))
    assert odd.read_bytes() != before
    refused(folder(root), str(odd), "cannot be decoded")
    assert capfd.readouterr().err.splitlines() == ["decoding 7 images of set (once; cached afterwards)"]

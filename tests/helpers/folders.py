"""Folders of images, written by the tests, and the data sets that they become."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from bench.core.errors import UserError
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec


def paint(file: Path, value: int, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "P") else (value, 0, 255)[: 3 if mode == "RGB" else 2]
    Image.new(mode, size, fill).save(file)


def png(file: Path, width: int, height: int, kind: int, rows: bytes, depth: int = 16) -> Path:
    """A PNG whose header says this, whatever its rows hold; PIL writes none with 16-bit colours."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return file


def make_tree(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), test: str = "test", mode: str = "RGB"
) -> Path:
    """Two training images and one test image per class, each of one colour."""
    for c, name in enumerate(classes):
        for i in range(2):
            paint(root / "train" / name / f"{i}.png", 10 * c + i, mode=mode)
        paint(root / test / name / "0.png", 100 + c, mode=mode)
    return root


def folder(root: Path, **keys: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "image_folder", "path": root, **keys})


def get(spec: DatasetSpec) -> Dataset:
    return read_dataset(prepare_dataset(spec))


def refused(spec: DatasetSpec, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        get(spec)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message

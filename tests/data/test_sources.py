"""The sources of the data package: folders of images, and the layouts of torchvision."""

import importlib
import os
import shutil
import struct
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.folders import folder, get, make_tree, paint, refused
from helpers.memory import limited
from PIL import Image

from bench.data import builtin, decode
from bench.data.cache import channel_stats, prepare_dataset
from bench.data.spec import DATASETS, DatasetSpec


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


# --- folders of images ----------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_folder_is_read_in_order(tmp_path: Path, test: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "pets", test=test)
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"x")
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / ".cache").mkdir()
    data = get(folder(root))
    assert data.classes == ("cat", "dog")
    assert (data.name, data.label) == ("image_folder", "pets")
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert data.train.images[0, :, 0, 0].tolist() == [0, 0, 255]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.images[:, 0, 0, 0].tolist() == [100, 101]
    assert data.test.labels.tolist() == [0, 1]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "decoding 6 images of pets (once; cached afterwards)",
        "pets: skipped in train/: 1 .txt",
    ]


def test_numbered_classes_are_in_numeric_order(tmp_path: Path) -> None:
    assert get(folder(make_tree(tmp_path / "a", ("10", "9", "2")))).classes == ("2", "9", "10")
    assert get(folder(make_tree(tmp_path / "b", ("10", "9", "x")))).classes == ("10", "9", "x")


def test_statistics_by_hand(tmp_path: Path) -> None:
    data = get(folder(make_tree(tmp_path)))
    red = np.array([0, 1, 10, 11]) / 255
    assert data.mean == pytest.approx((red.mean(), 0.0, 1.0))
    assert data.std == pytest.approx((red.std(), 1 / 255, 1 / 255))  # constant channels get the floor


def test_statistics_over_several_chunks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1100, 2, 3, 3), dtype=np.uint8)
    mean, std = channel_stats(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)))
    assert std == pytest.approx((images / 255).std(axis=(0, 2, 3)))


def test_grey_only_if_all_are(tmp_path: Path) -> None:
    root = make_tree(tmp_path, mode="L")
    data = get(folder(root))
    assert data.image_shape == (1, 4, 4)
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    paint(root / "test" / "dog" / "1.png", 7)
    data = get(folder(root))
    assert data.image_shape == (3, 4, 4)
    assert torch.all(data.train.images[3] == 11)


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    Image.new("RGBA", (4, 4), (1, 2, 3, 128)).save(root / "train/cat/a.png")
    Image.new("CMYK", (4, 4), (0, 0, 0, 0)).save(root / "train/cat/b.jpg")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(root / "train/cat/c.png")
    Image.fromarray(np.full((4, 4), 0x1234, np.uint16)).save(root / "train/cat/d.png")
    pixels = get(folder(root)).train.images[2:6, :, 0, 0].tolist()
    assert pixels == [[128, 128, 129], [255, 255, 255], [9, 8, 7], [0x91, 0x91, 0x91]]


def test_image_size_resizes_and_crops(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the centre square
    Image.fromarray(wide).save(root / "train/cat/a.png")
    data = get(folder(root, image_size=4))
    expected = Image.fromarray(wide).resize((12, 4), Image.Resampling.BILINEAR).crop((4, 0, 8, 4))
    assert torch.equal(data.train.images[2].permute(1, 2, 0), torch.from_numpy(np.array(expected)))


def test_many_images_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_POOL_FROM", 100)
    root = make_tree(tmp_path)
    for i in range(200):
        paint(root / "train/dog" / f"big{i:03}.png", i, size=(160, 130))
    paint(root / "train/cat/0.png", 0, size=(160, 130))
    data = get(folder(root, image_size=2))
    assert data.train.images[4:, 0, 0, 0].tolist() == list(range(200))


def test_mixed_or_oblong_sizes_are_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "a")
    paint(root / "train/dog/odd.png", 1, size=(5, 6))
    refused(folder(root), "odd.png", "5x6", "4x4", "image_size")
    for file in make_tree(tmp_path / "b").rglob("*.png"):
        paint(file, 1, size=(5, 6))
    refused(folder(tmp_path / "b"), "5x6", "not square", "image_size")


def test_badly_laid_out_folders(tmp_path: Path) -> None:
    layout = "expected train/<class>/"
    refused(folder(tmp_path / "none"), "no folder", str(tmp_path / "none"), layout)
    root = tmp_path / "data"
    root.mkdir()
    refused(folder(root), str(root / "train"), layout)
    (root / "train").mkdir()
    refused(folder(root), "no test split", "validation", layout)
    (root / "test").mkdir()
    refused(folder(root), "no class folders", layout)
    make_tree(root)
    (root / "train" / "empty").mkdir()
    refused(folder(root), "no images in class folder", "empty", layout)
    paint(root / "train/empty/0.png", 1)
    refused(folder(root), "classes", "empty only in train")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif", "tif", "ppm"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
def test_damaged_image_is_named(tmp_path: Path, suffix: str, keep: float) -> None:
    root = make_tree(tmp_path)
    bad = root / "train/dog" / f"bad.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[: int(keep * bad.stat().st_size)])
    refused(folder(root, image_size=4), str(bad), "cannot be decoded")


def test_32_bit_image_is_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(root / "train/dog/deep.tif")
    refused(folder(root), "deep.tif", "32-bit")


# --- folders in the cache --------------------------------------------------------------------------


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, two = make_tree(tmp_path / "one"), make_tree(tmp_path / "two")
    for file in two.rglob("*.png"):
        os.utime(file, ns=(1, 1))
    first = get(folder(one)).fingerprint
    assert len(first) == 32
    assert get(folder(two)).fingerprint == first
    image = Image.open(two / "train/cat/0.png")
    image.putpixel((0, 0), (1, 0, 255))
    image.save(two / "train/cat/0.png")
    assert get(folder(two)).fingerprint != first
    renamed = make_tree(tmp_path / "three", ("cat", "dot"))
    assert get(folder(renamed)).fingerprint != first


def test_second_call_does_not_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = folder(make_tree(tmp_path / "pets"))
    path = prepare_dataset(spec)
    assert path.parent == tmp_path / "cache" / "datasets"
    assert path.name.startswith("pets-")

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "decode", fail)
    assert prepare_dataset(spec) == path
    paint(tmp_path / "pets/train/cat/new.png", 3)
    with pytest.raises(AssertionError, match="decoded again"):
        prepare_dataset(spec)
    with pytest.raises(AssertionError, match="decoded again"):
        prepare_dataset(folder(tmp_path / "pets", image_size=2))


def test_callers_at_once_decode_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = folder(make_tree(tmp_path / "pets"))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(prepare_dataset, [spec] * 4))) == 1
    assert capsys.readouterr().err.count("decoding") == 1


def test_moved_tree_keeps_its_fingerprint(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "here")
    before = get(folder(root, label="x"))
    shutil.move(root, tmp_path / "there")
    assert get(folder(tmp_path / "there", label="x")).fingerprint == before.fingerprint


# --- torchvision ----------------------------------------------------------------------------------


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.write_bytes(head + array.astype(np.uint8).tobytes())


def make_mnist(root: Path) -> None:
    """MNIST's four raw files, with 20 and 10 images."""
    for part, n in (("train", 20), ("t10k", 10)):
        write_idx(root / f"MNIST/raw/{part}-images-idx3-ubyte", np.arange(n * 784).reshape(n, 28, 28) % 251)
        write_idx(root / f"MNIST/raw/{part}-labels-idx1-ubyte", np.arange(n) % 10)


def test_mnist_from_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_mnist(tmp_path)
    data = get(DatasetSpec(name="MNIST", data_dir=tmp_path))
    assert data.train.images.shape == (20, 1, 28, 28)
    assert data.test.images.shape == (10, 1, 28, 28)
    assert data.train.images.flatten().tolist() == [i % 251 for i in range(20 * 784)]
    assert data.test.labels.tolist() == list(range(10))
    assert data.classes[0].startswith("0")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("reading mnist from")


def test_truncated_mnist_is_one_line(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    refused(DatasetSpec(name="mnist", data_dir=tmp_path), "mnist", "damaged", "download: true")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train-labels-idx1-ubyte", np.arange(19) % 10, "20 images and 19 labels"),
        ("train-labels-idx1-ubyte", np.arange(20), "labels from 0 to 19 for 10 classes"),
        ("train-labels-idx1-ubyte", np.zeros((20, 2)), "damaged"),
        ("t10k-images-idx3-ubyte", np.zeros((0, 28, 28)), "damaged"),
        ("t10k-images-idx3-ubyte", np.zeros((10, 0, 28)), "damaged"),
        ("t10k-images-idx3-ubyte", np.zeros((10, 14, 14)), "of [1, 28, 28] and test images of [1, 14, 14]"),
        ("t10k-images-idx3-ubyte", np.zeros(10), "damaged"),
    ],
)
def test_mnist_whose_files_do_not_fit(tmp_path: Path, file: str, content: np.ndarray, words: str) -> None:
    make_mnist(tmp_path)
    write_idx(tmp_path / "MNIST/raw" / file, content)
    refused(DatasetSpec(name="mnist", data_dir=tmp_path), words)


@pytest.mark.parametrize("head", [b"\0\0\x08\x03" + b"\xff" * 12, b"\xff" * 16, b"\0\0\x08\xff"], ids=repr)
def test_mnist_whose_header_promises_too_much(tmp_path: Path, head: bytes) -> None:
    make_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(head + bytes(100))
    with limited():
        refused(DatasetSpec(name="mnist", data_dir=tmp_path), "damaged")


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "image_folder")])
def test_missing_files_name_the_download_key(tmp_path: Path, name: str) -> None:
    refused(DatasetSpec(name=name, data_dir=tmp_path), f"no {name} files", str(tmp_path), "download: true")


class FakeCIFAR:
    """Replaces torchvision's CIFAR10, which checks the md5 of its files."""

    classes = ("a", "b")

    def __init__(self, root: str, train: bool, download: bool) -> None:
        if download:
            raise OSError("<urlopen error no network>\nmore")
        print("Files already downloaded and verified")
        n = 4 if train else 2
        self.data = np.arange(n * 5 * 5 * 3, dtype=np.uint8).reshape(n, 5, 5, 3)
        self.targets = [i % 2 for i in range(n)]


class FakeSVHN:
    """SVHN's layout: [N, C, H, W], labels, no class names."""

    def __init__(self, root: str, split: str, download: bool) -> None:
        n = {"train": 20, "test": 10}[split]
        self.data = np.zeros((n, 3, 4, 4), np.uint8)
        self.labels = np.arange(n) % 10


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.SimpleNamespace(CIFAR10=FakeCIFAR, SVHN=FakeSVHN)
    monkeypatch.setattr(builtin, "import_torchvision", lambda part: fake)


@pytest.mark.usefixtures("fakes")
def test_layouts_of_torchvision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    data = get(DatasetSpec(name="cifar10", data_dir=tmp_path))
    assert data.train.images.shape == (4, 3, 5, 5)
    assert data.classes == ("a", "b")
    assert data.train.images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert capsys.readouterr().out == ""
    for split in ("train", "test"):
        (tmp_path / f"{split}_32x32.mat").touch()
    data = get(DatasetSpec(name="svhn", data_dir=tmp_path))
    assert data.train.images.shape == (20, 3, 4, 4)
    assert data.classes == tuple("0123456789")


@pytest.mark.usefixtures("fakes")
def test_failed_download_is_one_line(tmp_path: Path) -> None:
    spec = DatasetSpec(name="cifar10", data_dir=tmp_path, download=True)
    refused(spec, "could not download cifar10", "no network", "check the network")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "--force-reinstall torch torchvision"),
        (ModuleNotFoundError("No module named 'torchvision'"), "pip install torchvision"),
    ],
)
def test_broken_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    refused(DatasetSpec(name="cifar10", data_dir=tmp_path), words)

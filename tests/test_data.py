"""The data package: specs, sources, cache and class-wise draws."""

import importlib
import os
import shutil
import struct
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from bench.data import (
    DATASETS,
    ClassIndex,
    ClassSampler,
    Dataset,
    DatasetSpec,
    Split,
    cache,
    decode,
    load,
    prepare,
    sources,
)
from bench.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


def paint(file: Path, value: int, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "P") else (value, 0, 255)[: 3 if mode == "RGB" else 2]
    Image.new(mode, size, fill).save(file)


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
    return load(prepare(spec))


def refused(spec: DatasetSpec, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        get(spec)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# --- the spec -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("CIFAR10", "cifar10"), ("FashionMNIST", "fashion_mnist"), ("fashion-mnist", "fashion_mnist")],
)
def test_names_in_any_spelling(spelled: str, name: str) -> None:
    spec = DatasetSpec(name=spelled, data_dir=Path("here"))
    assert (spec.name, spec.label) == (name, name)
    assert spec.data_dir == Path.cwd() / "here"


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec(name="cifar11")
    message = caught.value.errors()[0]["msg"]
    assert "did you mean cifar10" in message
    assert all(name in message for name in DATASETS)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"name": "digits", "path": "x"}, "path"),
        ({"name": "digits", "download": True}, "download"),
        ({"name": "cifar10", "data_dir": "x", "image_size": 8}, "image_size"),
        ({"name": "image_folder", "path": "x", "data_dir": "y"}, "data_dir"),
        ({"name": "image_folder", "path": "x", "image_size": 0}, "image_size"),
        ({"name": "image_folder"}, "path"),
        ({"name": "cifar10"}, "data_dir"),
        ({"name": "digits", "sise": 3}, "sise"),
    ],
)
def test_wrong_keys_are_reported_by_name(keys: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec.model_validate(keys)
    assert caught.value.errors()[0]["loc"] == (key,)


def test_labels_and_round_trip(tmp_path: Path) -> None:
    spec = folder(tmp_path / "pets")
    assert spec.label == "pets"
    assert folder(tmp_path, label="mine").label == "mine"
    for each in (spec, DatasetSpec(name="digits")):
        assert DatasetSpec.model_validate(each.model_dump(mode="json")) == each


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_fixed_and_stratified() -> None:
    data = get(DatasetSpec(name="digits"))
    assert data.image_shape == (1, 8, 8)
    assert data.n_classes == 10
    assert data.classes[3] == "3"
    assert (len(data.train.labels), len(data.test.labels)) == (1437, 360)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert int(data.train.images.max()) == 255
    share = data.train.labels.bincount() / (data.train.labels.bincount() + data.test.labels.bincount())
    assert torch.all((share - 0.8).abs() < 0.01)
    assert cache.content_fingerprint(sources.read_digits()) == data.fingerprint


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
    assert err == "decoding 6 images of pets (once; cached afterwards)\n"


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
    mean, std = cache.channel_stats(images)
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
    assert pixels == [[1, 2, 3], [255, 255, 255], [9, 8, 7], [0x12, 0x12, 0x12]]


def test_image_size_resizes_and_crops(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the centre square
    Image.fromarray(wide).save(root / "train/cat/a.png")
    data = get(folder(root, image_size=4))
    expected = Image.fromarray(wide).resize((12, 4), Image.Resampling.BILINEAR).crop((4, 0, 8, 4))
    assert torch.equal(data.train.images[2].permute(1, 2, 0), torch.from_numpy(np.array(expected)))


def test_large_images_in_threads(tmp_path: Path) -> None:
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


# --- the cache ------------------------------------------------------------------------------------


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
    path = prepare(spec)
    assert path.parent == tmp_path / "cache" / "datasets"
    assert path.name.startswith("pets-")

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "decode", fail)
    assert prepare(spec) == path
    paint(tmp_path / "pets/train/cat/new.png", 3)
    with pytest.raises(AssertionError, match="decoded again"):
        prepare(spec)
    with pytest.raises(AssertionError, match="decoded again"):
        prepare(folder(tmp_path / "pets", image_size=2))


def test_callers_at_once_decode_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = folder(make_tree(tmp_path / "pets"))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(prepare, [spec] * 4))) == 1
    assert capsys.readouterr().err.count("decoding") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:

    def interrupted(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata=metadata)
        raise error

    monkeypatch.setattr(cache, "save_file", interrupted)
    with pytest.raises((UserError, KeyboardInterrupt)):
        prepare(DatasetSpec(name="digits"))
    assert [
        file.suffix for file in (cache.cache_dir() / "datasets").iterdir() if file.suffix != ".lock"
    ] == []


def test_unusable_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "file"))
    refused(DatasetSpec(name="digits"), "DDBENCH_CACHE", "cache folder")


def test_damaged_cache_is_refused(tmp_path: Path) -> None:
    path = prepare(DatasetSpec(name="digits"))
    whole = path.read_bytes()
    assert b"[1437,1,8,8]" in whole
    damaged = {
        "short": whole[:-100],
        "head": whole[:20],
        "empty": b"",
        "reshaped": whole.replace(b"[1437,1,8,8]", b"[1437,8,1,8]"),
        "schema": whole.replace(b'\\"schema\\": 1', b'\\"schema\\": 0'),
        "foreign": whole.replace(b'"ddbench"', b'"other__"'),
    }
    for name, content in damaged.items():
        assert content != whole, name
        path.write_bytes(content)
        with pytest.raises(UserError, match="delete it") as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no cache file"):
        load(tmp_path / "nothing.safetensors")


def test_loads_are_private_copies_on_write() -> None:
    path = prepare(DatasetSpec(name="digits"))
    before = path.read_bytes()
    mine, second = load(path), load(path)
    was = mine.train.images.clone()
    code = (
        "import sys; from pathlib import Path; from bench.data import load\n"
        "data = load(Path(sys.argv[1])); data.train.images.fill_(77); data.train.labels.zero_()\n"
        "assert data.train.images.unique().tolist() == [77]"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=root)
    assert path.read_bytes() == before
    assert torch.equal(mine.train.images, was)
    mine.train.images.fill_(5)
    assert torch.equal(second.train.images, was)
    assert torch.equal(load(path).train.images, was)
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_load_maps_the_file() -> None:
    path = prepare(DatasetSpec(name="digits"))
    data = load(path)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if path.name in line]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    for tensor in (data.train.images, data.test.labels):
        assert any(start <= tensor.data_ptr() < end for start, end in ranges)
    assert all(line.split()[1].endswith("p") for line in lines)


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


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "image_folder")])
def test_missing_files_name_the_download_key(tmp_path: Path, name: str) -> None:
    refused(DatasetSpec(name=name, data_dir=tmp_path), f"no {name} files", str(tmp_path), "download: true")


class FakeCIFAR:
    """Stands in for torchvision's CIFAR10, whose files are checked against their md5."""

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
    monkeypatch.setattr(sources, "import_torchvision", lambda: fake)


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


# --- classes --------------------------------------------------------------------------------------

LABELS = torch.tensor([2, 0, 1, 2, 2, 0, 2, 2, 1, 2])  # 2, 2 and 6 members


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_class_index() -> None:
    index = ClassIndex.of(LABELS, 3)
    assert index.counts.tolist() == [2, 2, 6]
    assert index.members(2).tolist() == [0, 3, 4, 6, 7, 9]
    with pytest.raises(UserError, match="labels run from 0 to 2"):
        ClassIndex.of(LABELS, 2)


@pytest.mark.parametrize("per_class", [1, 2, 3, 6, 15])
def test_sample(per_class: int) -> None:
    index = ClassIndex.of(LABELS, 3)
    drawn = index.sample(per_class, seeded())
    assert drawn.shape == (3, per_class)
    assert drawn.dtype == torch.int64
    assert torch.equal(LABELS[drawn], torch.arange(3)[:, None].expand(3, per_class))
    for c, row in enumerate(drawn):
        times = torch.bincount(row, minlength=10)[index.members(c)]
        assert times.max() - times.min() <= 1  # no member twice before each has come once
    assert torch.equal(drawn, index.sample(per_class, seeded()))


def test_sample_is_uniform() -> None:
    index, generator = ClassIndex.of(LABELS, 3), seeded()
    drawn = torch.cat([index.sample(2, generator)[2] for _ in range(3000)])
    assert torch.all((torch.bincount(drawn)[index.members(2)] - 1000).abs() < 120)


@pytest.mark.parametrize("per_class", [1, 2, 3, 4, 6, 7, 15])
@pytest.mark.parametrize("counts", [(2, 2, 6), (7, 7, 7), (1, 13, 40)])
def test_sampler_walks_in_epochs(per_class: int, counts: tuple[int, ...]) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    index = ClassIndex.of(labels[torch.randperm(len(labels), generator=seeded())], 3)
    sampler = ClassSampler(index, per_class, seeded())
    draws = torch.stack([sampler.next() for _ in range(60)])  # [60, 3, per_class]
    for c in range(3):
        members = index.members(c)
        walk = draws[:, c].flatten()
        epochs = walk[: len(walk) // len(members) * len(members)].view(-1, len(members))
        assert torch.equal(epochs.sort(dim=1).values, members.expand_as(epochs))
        if per_class <= len(members):
            assert all(len(draw.unique()) == per_class for draw in draws[:, c])
    again = ClassSampler(index, per_class, seeded())
    assert torch.equal(draws[0], again.next())


def test_draws_without_members() -> None:
    index = ClassIndex.of(LABELS, 4)
    with pytest.raises(UserError, match="no images of class 3"):
        index.sample(1, seeded())
    with pytest.raises(UserError, match="no images of class 3"):
        ClassSampler(index, 1, seeded())
    with pytest.raises(UserError, match="at least 1"):
        ClassSampler(ClassIndex.of(LABELS, 3), 0, seeded())


def test_split_to_device() -> None:
    split = Split(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    assert split.to("meta").images.device.type == "meta"
    assert split.to("cpu").images is split.images


def test_moved_tree_keeps_its_fingerprint(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "here")
    before = get(folder(root, label="x"))
    shutil.move(root, tmp_path / "there")
    assert get(folder(tmp_path / "there", label="x")).fingerprint == before.fingerprint

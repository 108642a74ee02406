"""Exports: what is written is what is read back, whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.importer import PER, K, dataset, decoded, noise, only, smooth, unit
from PIL import Image
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.preprocess import Preprocess, Zca
from bench.interop.export import EXPORT_FORMATS, export_set
from bench.interop.importers.read import read_set
from bench.interop.importers.request import ImportRequest
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.parameterise.weighted_pixels import WeightedPixels

STATS = Preprocess((0.4, 0.5, 0.6), (0.25, 0.25, 0.25))
TENSORS = ("dc", "plain", "safetensors")
NAMES = {"dc": "a.pt", "plain": "a", "safetensors": "a.safetensors", "folder": "a"}


def pixels(preprocess: Preprocess = STATS, **common: Tensor) -> Pixels:
    return Pixels(smooth(), [PER] * K, preprocess, **common)


def written(distilled: DistilledDataset, folder: Path, format: str) -> Path:
    target = folder / NAMES[format]
    files = export_set(distilled, ("cat", "dog", "owl"), target, format)
    assert all(file.is_file() for file in files)
    there = [target] if target.is_file() else [f for f in target.rglob("*") if f.is_file()]
    assert sorted(files) == sorted(there)
    assert not list(folder.glob(".tmp-*"))
    return target


def same(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(one[0], two[0])
    torch.testing.assert_close(one[1], two[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("format", TENSORS)
@pytest.mark.parametrize("labels", ["hard", "image"])
def test_there_and_back(tmp_path: Path, format: str, labels: str) -> None:
    """Images, targets, learned rate and preprocessing, with no flag."""
    soft = {"label_logits": noise(K * PER, K)} if labels == "image" else {}
    before = pixels(inner_lr=torch.tensor(0.125), **soft)
    found = only(written(before, tmp_path, format))
    assert found.format == ("dc" if format == "dc" else "plain")
    order = torch.arange(K * PER)
    targets = before.decode()[1]
    if labels == "image" and len(set(targets.argmax(1).bincount(minlength=K).tolist())) == 1:
        order = targets.argmax(1).argsort(stable=True)
    same(decoded(found), tuple(t.detach()[order] for t in before.decode()))
    assert found.distilled.preprocess == STATS
    assert float(found.distilled.state_dict()["inner_lr"]) == 0.125


@pytest.mark.parametrize("format", TENSORS)
def test_whitening_goes_along(tmp_path: Path, format: str) -> None:
    data = dataset()
    zca = Zca.fit(data.train.images, "kip")
    found = only(written(pixels(zca), tmp_path, format))
    same(decoded(found), tuple(t.detach() for t in pixels(zca).decode()))
    after = found.distilled.preprocess
    assert torch.equal(after(data.test.images), zca(data.test.images))
    with pytest.raises(UserError, match="says itself that it is zca: leave out --space normalized"):
        read_set(ImportRequest(tmp_path / NAMES[format], space="normalized"), data)


def test_preprocessing_of_another_data_set(tmp_path: Path) -> None:
    path = written(pixels(), tmp_path, "dc")
    held = torch.load(path, weights_only=True)
    for damaged in ({"header": {"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "tensors": {}}, {}, "none"):
        torch.save({**held, "preprocess": damaged}, path)
        with pytest.raises(UserError, match="its preprocessing does not fit cifar10"):
            only(path)


@pytest.mark.parametrize("format", TENSORS)
@pytest.mark.parametrize("name", ["multi_formation", "linear_bases"])
def test_factorised_sets_are_decoded(tmp_path: Path, format: str, name: str) -> None:
    before: DistilledDataset
    if name == "multi_formation":
        before = MultiFormation(unit(K * PER, 3, 4, 4), K, 2, "uniform", STATS)
    else:
        before = LinearBases(noise(5, 3, 2, 2), noise(PER, K, 5), 2, STATS)
    found = only(written(before, tmp_path, format))
    assert type(found.distilled) is Pixels
    same(decoded(found), tuple(t.detach() for t in before.decode()))


def test_pictures_there_and_back_to_the_byte(tmp_path: Path) -> None:
    images = torch.randint(256, (K * PER, 3, 4, 4), dtype=torch.uint8, generator=random.generator(0))
    target = written(Pixels(images, [1, 2, 3], STATS), tmp_path, "folder")
    assert sorted(p.name for p in target.iterdir()) == ["00000_cat", "00001_dog", "00002_owl"]
    found = only(target)
    assert found.format == "folder"
    assert torch.equal(found.distilled.state_dict()["images"], images)
    assert decoded(found)[1].tolist() == [0, 1, 1, 2, 2, 2]


def test_grey_pictures(tmp_path: Path) -> None:
    images = torch.randint(256, (K, 1, 4, 4), dtype=torch.uint8, generator=random.generator(0))
    target = written(Pixels(images, [1] * K, Preprocess((0.5,), (0.5,))), tmp_path, "folder")
    with Image.open(next(target.rglob("*.png"))) as picture:
        assert picture.mode == "L"
    assert torch.equal(only(target, dataset(channels=1)).distilled.state_dict()["images"], images)


def test_pixels_are_rounded_and_cut_to_bytes(tmp_path: Path) -> None:
    values = torch.tensor([-3.0, 0.0, 0.4984, 1.0, 7.0]).repeat_interleave(48).view(5, 3, 4, 4)
    before = Pixels(STATS(values), [2, 2, 1], STATS)
    found = only(written(before, tmp_path, "folder"))
    assert found.distilled.state_dict()["images"][:, 0, 0, 0].tolist() == [0, 0, 127, 255, 255]


def test_class_names_that_are_no_file_names(tmp_path: Path) -> None:
    names = ("a/b", "..", "c d")
    target = tmp_path / "out"
    export_set(pixels(), names, target, "folder")
    assert sorted(p.name for p in target.iterdir()) == ["00000_a-b", "00001_..", "00002_c-d"]
    assert decoded(only(target, dataset(names=names)))[1].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "names",
    [
        *(
            ("+", "-", "="),
            ("C", "C#", "C++"),
            ("a_b", "ab", "c"),
            ("a\u00e9b", "ab", "a+b"),
            ("0", "1_0", "10"),
        ),
        *(("\U0001f600", "\U0001f680", "caf\u00e9"), ("\u732b", "\u72ac", "cat"), ("2", "1", "0")),
        *(("x" * 200, "x" * 100, "x" * 199), ("00001_a", "00000_b", "c"), ("Cat", "cat", "CAT")),
    ],
)
def test_classes_come_back_whatever_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = torch.randint(256, (K * PER, 3, 4, 4), dtype=torch.uint8, generator=random.generator(0))
    export_set(Pixels(images, [1, 2, 3], STATS), names, tmp_path / "out", "folder")
    found = only(tmp_path / "out", dataset(names=names))
    assert torch.equal(found.distilled.state_dict()["images"], images)
    assert decoded(found)[1].tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("format", sorted(EXPORT_FORMATS))
def test_what_is_there_stays(tmp_path: Path, format: str) -> None:
    target = written(pixels(), tmp_path, format)
    with pytest.raises(UserError, match="is there already"):
        export_set(pixels(), ("cat", "dog", "owl"), target, format)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no export format named 'png'"):
        export_set(pixels(), ("a", "b", "c"), tmp_path / "x", "png")
    weighted = WeightedPixels(pixels().images.detach(), torch.rand(K * PER) + 1, [PER] * K, STATS)
    for distilled in (pixels(label_logits=noise(K, K)), weighted):
        with pytest.raises(UserError, match="holds no soft labels or weights"):
            export_set(distilled, ("a", "b", "c"), tmp_path / "x", "folder")
    assert list(tmp_path.iterdir()) == []


def test_the_weights_of_an_artifact_are_no_images(tmp_path: Path) -> None:
    weights = torch.linspace(0.5, 1.5, K * PER)
    weighted = WeightedPixels(pixels().images.detach(), weights, [PER] * K, STATS)
    weighted.save(tmp_path / "data.safetensors")
    found = only(tmp_path / "data.safetensors", dataset())
    assert found.ipc == PER
    assert torch.equal(decoded(found)[1].sum(1), weights)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    for format in ("dc", "plain"):
        with pytest.raises(OSError, match="no space left"):
            export_set(pixels(), ("cat", "dog", "owl"), tmp_path / NAMES[format], format)
    assert list(tmp_path.iterdir()) == []

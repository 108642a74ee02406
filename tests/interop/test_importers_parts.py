"""Sets in several files, under other names and in other containers; and what says which are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.importer import LABELS, PER, K, dataset, decoded, only, refused, saved, smooth, state, unit
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

IMAGES = smooth()
NAMED = {"space": "normalized"}
Save = Callable[[Path, Tensor], object]


def as_numpy(path: Path, value: Tensor) -> None:
    np.save(path, value.numpy())


SAVE: dict[str, Save] = {".pt": lambda path, value: saved(path, value), ".npy": as_numpy}


def in_parts(folder: Path, name: str, labels: Tensor = LABELS, first: int = 0) -> Path:
    """One file of images and one of labels for each class; `name` has places for that word and a number."""
    for i, (x, y) in enumerate(zip(IMAGES.split(PER), labels.split(PER), strict=True), first):
        for what, value in (("images", x), ("labels", y)):
            path = folder / name.format(what, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            SAVE[path.suffix](path, value.clone())
    return folder


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("{}_best_{}.pt", 0),
        ("{}_{}.pt", 1),
        ("my_{}_part{}.pt", 0),
        ("cifar10_{1}_{0}.npy", 0),
        ("{}{}.pt", 1),
    ],
)
def test_numbered_parts_are_joined(tmp_path: Path, name: str, first: int) -> None:
    found = only(in_parts(tmp_path, name, first=first), lr=0.1, **NAMED)
    images, targets = decoded(found)
    assert torch.equal(images, IMAGES)
    assert torch.equal(targets, LABELS)
    assert found.source.count(",") == 2 * K - 1


def test_parts_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """As text, 10 comes before 2."""
    names = tuple(map(str, range(12)))
    images = smooth(12)
    for i in range(12):
        saved(tmp_path / f"images_{i}.pt", images[i : i + 1].clone())
        saved(tmp_path / f"labels_{i}.pt", torch.tensor([0]))  # numbered from 0 in each part
    found = only(tmp_path, dataset(names=names), lr=0.1, **NAMED)
    assert torch.equal(decoded(found)[0], images)
    assert torch.equal(decoded(found)[1], torch.arange(12))


@pytest.mark.parametrize("name", ["part{}.pt", "imagenet100_20_phase{}/data.pt"])
@pytest.mark.parametrize("local", [False, True])
def test_pairs_in_parts(tmp_path: Path, name: str, local: bool) -> None:
    """As IDC publishes 100 classes: five pairs, whose labels may begin at 0 in each."""
    images = unit(K * PER, 3, 4, 4)
    for i, (x, y) in enumerate(zip(images.split(PER), LABELS.split(PER), strict=True)):
        (tmp_path / name.format(i)).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save((tmp_path / name.format(i)).with_name("init.png"))  # for viewing
        saved(tmp_path / name.format(i), [x.clone(), torch.zeros_like(y) if local else y.clone()])
    assert "pass --factor" in refused(tmp_path)
    found = only(tmp_path, factor=2)
    assert found.format == "idc"
    assert torch.equal(decoded(found)[1], LABELS.repeat_interleave(4))
    whole = only(saved(tmp_path / "whole.pt", [images, LABELS]), factor=2)
    assert torch.equal(decoded(found)[0], decoded(whole)[0])


def test_soft_labels_in_parts(tmp_path: Path) -> None:
    logits = 5 * torch.nn.functional.one_hot(LABELS, K) + unit(K * PER, K)
    in_parts(tmp_path, "{}_{}.pt", logits)
    for i in range(K):
        saved(tmp_path / f"lr_{i}.pt", torch.tensor(0.25))
    found = only(tmp_path, **NAMED)
    assert found.format == "datm"
    torch.testing.assert_close(decoded(found)[1], logits.softmax(1))
    assert float(state(found)["inner_lr"]) == 0.25
    saved(tmp_path / "lr_0.pt", torch.tensor(0.5))
    assert "its learning rate is 0.25, 0.5" in refused(tmp_path, **NAMED)


def test_what_are_no_parts_of_one_set(tmp_path: Path) -> None:
    for it in (0, 1):  # two states of one set
        saved(tmp_path / f"images_{it}.pt", IMAGES)
        saved(tmp_path / f"labels_{it}.pt", LABELS)
    assert "have classes in common, so each is a set: name one" in refused(tmp_path, lr=0.1, **NAMED)
    assert only(tmp_path / "images_1.pt", lr=0.1, **NAMED).ipc == PER
    (tmp_path / "images_1.pt").rename(tmp_path / "images_500.pt")
    (tmp_path / "labels_1.pt").rename(tmp_path / "labels_500.pt")
    message = refused(tmp_path)
    assert "several files in" in message
    assert "images_0.pt, images_500.pt" in message


def test_a_part_is_missing_or_differs(tmp_path: Path) -> None:
    in_parts(tmp_path, "{}_{}.pt")
    assert "or the folder with all parts" in refused(tmp_path / "images_1.pt", lr=0.1, **NAMED)
    saved(tmp_path / "images_1.pt", IMAGES[:PER].double())
    assert "the images of its parts differ in shape or type" in refused(tmp_path, lr=0.1)
    (tmp_path / "images_1.pt").unlink()
    assert "count up without a gap" in refused(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.tensor(1.0), torch.tensor([0.0]), "differ in shape or type"),
        (torch.zeros(2, 0), torch.zeros(2, 0), "its parts' labels are 2 x 0, not N or N x 3"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 3, 2), "not N or N x 3"),
        (torch.eye(3).bool()[:2], torch.eye(3).bool()[1:], "classes in common"),
        (torch.full((2,), torch.nan), torch.full((2,), torch.nan), "labels hold NaN"),
        (torch.tensor([-1, -1]), torch.tensor([0, 0]), "run from -1 to 0"),
        ({"a": 1}, LABELS[:2], "are a dict, not numbers"),
        (torch.zeros(0), torch.zeros(0), "its labels are 0, for 4 images"),
    ],
)
def test_labels_of_parts_that_do_not_fit(tmp_path: Path, first: Any, second: Any, words: str) -> None:
    for i, labels in enumerate((first, second)):
        saved(tmp_path / f"images_{i}.pt", IMAGES[:2].clone())
        saved(tmp_path / f"labels_{i}.pt", labels)
    assert words in refused(tmp_path, lr=0.1, **NAMED)


def test_several_files_of_experiments_are_no_parts(tmp_path: Path) -> None:
    for i in range(2):
        saved(tmp_path / f"res_{i}.pt", {"data": [[IMAGES, LABELS]]})
    assert "several files of the format dc" in refused(tmp_path)


# --- two files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("DIGITS_IPC5_images", "DIGITS_IPC5_labels"),
        ("images", "labels"),
        ("syn_images", "syn_labels"),
        ("X_train", "y_train"),
        ("data", "targets"),
        ("Images", "Labels"),
        ("X", "Y"),
        ("cifar10_image", "cifar10_label"),
    ],
)
@pytest.mark.parametrize("suffix", SAVE)
def test_images_and_labels_in_files_of_their_own(tmp_path: Path, names: tuple[str, str], suffix: str) -> None:
    for name, value in zip(names, (IMAGES, LABELS), strict=True):
        SAVE[suffix](tmp_path / f"{name}{suffix}", value)
    saved(tmp_path / "optimizer.pt", {"state": 1})  # something else beside them
    for path in (tmp_path, tmp_path / f"{names[0]}{suffix}"):
        found = only(path, **NAMED)
        assert found.format == "plain"
        assert found.source == f"{names[0]}{suffix}, {names[1]}{suffix}"
        assert torch.equal(decoded(found)[0], IMAGES)
        assert torch.equal(decoded(found)[1], LABELS)


def test_two_pairs_in_a_folder_are_asked_about(tmp_path: Path) -> None:
    for ipc in (1, 10):
        saved(tmp_path / f"ipc{ipc}_images.pt", IMAGES)
        saved(tmp_path / f"ipc{ipc}_labels.pt", LABELS)
    assert "several files in" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("DIGITS_images.npy", "as DIGITS_labels.npy beside DIGITS_images.npy"),
        ("set.npy", "as labels.npy beside images.npy"),
        ("images_best.pt", "as labels_best.pt beside images_best.pt"),
    ],
)
def test_images_without_labels(tmp_path: Path, name: str, wanted: str) -> None:
    SAVE[Path(name).suffix](tmp_path / name, IMAGES)
    assert f"has no labels (it has images): put them beside it, {wanted}" in refused(tmp_path / name, lr=0.1)


# --- other names and containers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("syn_images", "syn_labels"),
        ("image_syn", "label_syn"),
        ("x_train", "y_train"),
        ("X", "Y"),
        ("Images", "Targets"),
        ("imgs", "label"),
        ("distilled_data", "distilled_targets"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors"])
def test_keys_of_the_field(tmp_path: Path, images: str, labels: str, suffix: str) -> None:
    held = {images: IMAGES, labels: LABELS, "syn_lr": torch.tensor([0.25]), "epoch": torch.tensor([3])}
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        saved(path, held)
    elif suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in held.items()})
    else:
        save_file(held, path)
    found = only(path, **NAMED)
    assert torch.equal(decoded(found)[0], IMAGES)
    assert torch.equal(decoded(found)[1], LABELS)
    assert float(state(found)["inner_lr"]) == 0.25


def test_two_keys_that_both_may_be_the_images(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"images": IMAGES, "syn_images": IMAGES + 1, "labels": LABELS})
    assert "has images, syn_images: keep the one that is meant" in refused(path, **NAMED)


@pytest.mark.parametrize(
    ("name", "shown"), [("a.npz", "pixels, classes"), ("b.safetensors", "classes, pixels")]
)
def test_archives_of_other_keys_name_what_is_read(tmp_path: Path, name: str, shown: str) -> None:
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, pixels=IMAGES.numpy(), classes=LABELS.numpy())
    else:
        save_file({"pixels": IMAGES, "classes": LABELS}, path)
    message = refused(path)
    assert f"has no images and no labels (it has {shown}): name them images and labels" in message


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.mat", "a"])
@pytest.mark.parametrize("kind", ["auto", "plain", "dc", "mtt", "idc", "kip", "ddbench"])
def test_other_containers_name_the_accepted_endings(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(HDF5)
    flags: dict[str, Any] = {"format": kind, "factor": 2 if kind == "idc" else None}
    message = refused(path, **flags)
    assert "has none of the endings ." in message
    assert "damaged" not in message


@pytest.mark.parametrize(
    ("name", "kind"), [("a.npz", "dc"), ("a.npy", "mtt"), ("a.pt", "kip"), ("a.pt", "ddbench")]
)
def test_a_file_of_another_format_by_its_ending(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK")
    assert f"of the format {kind}" in refused(path, format=kind)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_of_another_ending_is_read_when_told(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "res.pth.tar", {"data": [[IMAGES, LABELS]]}, legacy=legacy)
    assert "none of the endings" in refused(path)
    assert torch.equal(decoded(only(path, format="dc"))[0], IMAGES)


def test_endings_in_capitals(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES.numpy(), labels=LABELS.numpy())
    path = (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    assert only(path, **NAMED).ipc == PER


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"garbage" * 20])
def test_damaged_arrays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.npy"
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_an_array_that_promises_more_than_there_is_or_holds_objects(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, IMAGES.numpy())
    path.write_bytes(
        path.read_bytes().replace(b"(6, 3, 4, 4), }" + b" " * 11, b"(60000000000, 3, 4, 4), }" + b" ")
    )
    assert "damaged" in refused(path)
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)
    assert "holds Python objects" in refused(path)

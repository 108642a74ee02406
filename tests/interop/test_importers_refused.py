"""Files that are not read: those that would run code, damaged ones, and those of another data set."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.importer import (
    LABELS,
    PER,
    K,
    archived,
    dataset,
    noise,
    only,
    refused,
    saved,
    smooth,
    trajectory,
    unit,
)

from bench.core.errors import UserError
from bench.core.preprocess import Preprocess
from bench.interop.importers.read import read_set
from bench.interop.importers.request import ImportRequest
from methods.blocks.parameterise.pixels import Pixels


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["auto", "dc", "idc", "rtp", "plain"])
def test_a_pickle_that_wants_to_run_code(tmp_path: Path, legacy: bool, kind: str) -> None:
    marker = tmp_path / "marker"
    path = saved(tmp_path / "a.pt", {"data": [[smooth(), Evil(marker)]]}, legacy=legacy)
    message = refused(path, format=kind)
    assert f"wants to run {os.system.__module__}.system" in message
    assert "refused" in message
    assert not marker.exists()


def test_a_bare_pickle_and_the_marker_of_one_that_is_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(Evil(marker), protocol=2))
    assert "wants to run" in refused(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the file above is malicious"


@pytest.mark.parametrize("name", ["labels_best.pt", "lr_best.pt", "weights_best.pt"])
def test_code_in_a_file_beside(tmp_path: Path, name: str) -> None:
    trajectory(tmp_path, smooth(), LABELS, lr=0.1)
    saved(tmp_path / name, Evil(tmp_path / "marker"))
    assert name in refused(tmp_path, space="normalized")
    assert not (tmp_path / "marker").exists()


def test_python_objects_in_an_archive(tmp_path: Path) -> None:
    labels = np.array([Evil(tmp_path / "marker")], dtype=object)
    path = archived(tmp_path / "kip_a_zca.npz", images=noise(6, 4, 4, 3), labels=labels)
    assert "holds Python objects" in refused(path)
    assert not (tmp_path / "marker").exists()


# --- damage ---------------------------------------------------------------------------------------


def whole(path: Path) -> bytes:
    if path.suffix == ".npz":
        archived(path, images=smooth(), labels=LABELS)
    elif path.suffix == ".safetensors":
        Pixels(smooth(), [PER] * K, Preprocess((0.5,) * 3, (0.5,) * 3)).save(path)
    else:
        saved(path, {"data": [[smooth(), LABELS]]}, legacy="legacy" in path.name)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.pt", "legacy.pt", "a.npz", "a.safetensors"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = whole(path)
    for part in (b"", b"garbage" * 50, content[:3], content[: len(content) // 2], content[:-200]):
        path.write_bytes(part)
        assert "damaged" in refused(path)


def test_damaged_pictures(tmp_path: Path) -> None:
    for c in range(K):
        (tmp_path / str(c)).mkdir()
        (tmp_path / str(c) / "a.png").write_bytes(b"no picture")
    assert "cannot be decoded" in refused(tmp_path)


# --- what does not fit ----------------------------------------------------------------------------


def bad_images(value: float) -> torch.Tensor:
    images = smooth()
    images[4, 1, 2, 3] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (noise(6, 1, 4, 4), LABELS, "its images are 6 x 1 x 4 x 4, those of cifar10 N x 3 x 4 x 4"),
        (noise(6, 3, 5, 5), LABELS, "6 x 3 x 5 x 5"),
        (noise(6, 48), LABELS, "6 x 48"),
        (noise(0, 3, 4, 4), [], "0 x 3 x 4 x 4"),
        (smooth().long(), LABELS, "torch.int64"),
        ("images", LABELS, "are a str, not numbers"),
        (bad_images(float("nan")), LABELS, "1 of 6 images hold NaN or infinite values"),
        (bad_images(float("inf")), LABELS, "1 of 6 images hold NaN or infinite values"),
        (smooth(), LABELS[:5], "its labels are 5, for 6 images"),
        (smooth(), LABELS + 1, "run from 1 to 3, not from 0 to 2"),
        (smooth(), LABELS - 1, "run from -1 to 1, not from 0 to 2"),
        (smooth(), LABELS + 0.5, "run from 0.5 to 2.5, not from 0 to 2"),
        (smooth(), noise(6, 4), "its labels are 6 x 4, for 6 images and the 3 classes"),
        (smooth(), noise(6, K) / 0, "labels hold NaN or infinite"),
        (smooth(5), noise(5, K), "5 images with soft labels for 3 classes"),
        (smooth(), [[1, 2], [3]], "not numbers"),
        ([10**400, 0.5], LABELS, "not numbers"),
    ],
)
def test_images_and_labels_that_do_not_fit(tmp_path: Path, images: Any, labels: Any, words: str) -> None:
    assert words in refused(saved(tmp_path / "a.pt", {"data": [[images, labels]]}))


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"data": []}, "no list `data`"),
        ({"data": [smooth()]}, "no list `data`"),
        ({"net": 1}, "holds net, which is no format"),
        ({}, "holds nothing"),
        ({"a\nb\x1b[1m": 1}, "holds a?b?[1m, which is no format"),
        ({"x" * 300: 1}, f"holds {'x' * 60}..., which is no format"),
        ([1, 2, 3], "has no images and no labels"),
        (3.5, "has no images and no labels (it has nothing)"),
        (smooth(), "has no labels (it has images)"),
    ],
)
def test_contents_of_no_known_format(tmp_path: Path, held: Any, words: str) -> None:
    assert words in refused(saved(tmp_path / "a.pt", held))


def test_places_without_a_set(tmp_path: Path) -> None:
    assert "no file or folder" in refused(tmp_path / "nowhere")
    assert "no distilled set in" in refused(tmp_path)
    saved(tmp_path / "a.pt", {"data": [[smooth(), LABELS]]})
    assert only(tmp_path).source == "a.pt"
    saved(tmp_path / "b.pt", {"data": [[smooth(), LABELS]]})
    assert "several files in" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("no")
    assert "none of the endings" in refused(tmp_path / "notes.txt")
    assert "no images_best.pt in" in refused(tmp_path, format="mtt")
    assert "not called images_*.pt" in refused(tmp_path / "a.pt", format="mtt")
    assert "no class folders" in refused(tmp_path / "a.pt", format="folder")


def test_labels_that_are_no_numbers_in_an_archive(tmp_path: Path) -> None:
    path = archived(tmp_path / "kip_a_zca.npz", images=noise(6, 4, 4, 3), labels=noise(6, K) / 0)
    assert "its labels hold NaN or infinite values" in refused(path)
    one_hot = np.eye(K, dtype=bool)[LABELS]
    assert only(archived(path, images=noise(6, 4, 4, 3), labels=one_hot), space="normalized").ipc == PER
    assert "not 1 x 3: name" in refused(archived(path, images=1.0, labels=noise(6, K)))


@pytest.mark.parametrize("labels", [noise(6, K + 1), LABELS])
def test_labels_of_an_archive(tmp_path: Path, labels: torch.Tensor) -> None:
    path = archived(tmp_path / "kip_a_zca.npz", images=noise(6, 4, 4, 3), labels=labels)
    assert "not 6 x 3: name" in refused(path)
    assert "has no image and no label (it has images, labels)" in refused(path, format="frepo")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"format": "mtv"}, "did you mean mtt?"),
        ({"space": "raw"}, "no space named 'raw'"),
        ({"factor": 2}, "of format dc, which has no factor: leave out --factor"),
        ({"downsample": 2}, "of format dc, which has no downsample: leave out --downsample"),
        ({"lr": 0.0}, "--lr 0 is no learning rate"),
        ({"lr": float("nan")}, "--lr nan is no learning rate"),
    ],
)
def test_flags_that_do_not_fit(tmp_path: Path, flags: dict[str, Any], words: str) -> None:
    path = saved(tmp_path / "a.pt", {"data": [[smooth(), LABELS]]})
    with pytest.raises(UserError) as caught:
        read_set(ImportRequest(path, **flags), dataset())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_artifacts_of_another_data_set(tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    Pixels(smooth(), [PER] * K, Preprocess((0.5,) * 3, (0.5,) * 3)).save(path)
    assert only(tmp_path).format == "ddbench"
    assert "3 classes, cifar10 4" in refused(path, dataset(names=("a", "b", "c", "d")))
    assert "decodes to images of 3 x 4 x 4" in refused(path, dataset(side=5))
    assert "leave out --space and --lr" in refused(path, space="normalized")


def test_unit_images_are_not_normalised_ones(tmp_path: Path) -> None:
    """A DC file is normalised by convention: values that cannot be so are asked about, not taken."""
    path = saved(tmp_path / "a.pt", {"data": [[unit(6, 3, 4, 4), LABELS]]})
    assert "pass --space raw01" in refused(path)
    assert only(path, space="raw01").ipc == PER

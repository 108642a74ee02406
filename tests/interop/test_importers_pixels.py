"""How the pixels of other people's files are scaled: recognised where it is certain, else asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.importer import LABELS, PER, K, dataset, decoded, noise, only, refused, saved, smooth, unit
from torch import Tensor

from bench.core.preprocess import Preprocess
from bench.interop.importers.pixel_space import RAW, looks_like

BYTES = (255 * unit(K * PER, 3, 4, 4)).round()
BYTES[0, 0, 0, :2] = torch.tensor([0.0, 255.0])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (unit(6, 3, 4, 4), "raw01"),
        (smooth(300), "normalized"),
        (noise(300, 3, 8, 8), "zca"),
        (smooth(300) + 3, None),
        (BYTES, "raw255"),
        (1.05 * BYTES - 5, "raw255"),
        (BYTES / 16, None),  # from 0 to 16, as scikit-learn's digits
        (BYTES / 127.5 - 1, "signed"),
        ((BYTES / 127.5 - 1) * 0.99, "signed"),  # of a hyperbolic tangent
        ((BYTES / 255) ** 4 * 1.6 - 1, "signed"),  # dark: from -1 to 0.6
        ((smooth(300) / 5).clamp(-0.9, 0.9), None),  # normalised and of low contrast, or signed
        ((smooth(300) / 5 + 0.5).clamp(-0.1, 1), None),  # raw01 that was optimised
    ],
)
def test_what_pixels_look_like(images: Tensor, expected: str | None) -> None:
    assert looks_like(images) == expected


@pytest.mark.parametrize("space", ["raw255", "signed"])
@pytest.mark.parametrize("told", [False, True])
def test_raw_pixels_of_any_range_are_the_same_images(tmp_path: Path, space: str, told: bool) -> None:
    black, white = RAW[space]
    images = BYTES / 255 * (white - black) + black
    path = saved(tmp_path / "a.pt", {"images": images, "labels": LABELS})
    found = only(path, space=space if told else None)
    data = dataset()
    assert found.distilled.preprocess == Preprocess(data.mean, data.std)
    torch.testing.assert_close(decoded(found)[0], Preprocess(data.mean, data.std)(BYTES / 255))
    assert f"pixels taken as {space}" in found.notes


@pytest.mark.parametrize("kind", ["dc", "plain", "idc"])
@pytest.mark.parametrize("space", ["raw01", "raw255", "signed"])
@pytest.mark.parametrize("told", ["raw01", "raw255", "signed", "normalized", "zca"])
def test_a_certain_range_is_never_taken_for_another_space(
    tmp_path: Path, kind: str, space: str, told: str
) -> None:
    black, white = RAW[space]
    images = BYTES / 255 * (white - black) + black
    held = {"data": [[images, LABELS]]} if kind == "dc" else [images, LABELS]
    flags: dict[str, Any] = {"format": kind, "factor": 2 if kind == "idc" else None, "space": told}
    path = saved(tmp_path / "a.pt", held)
    if told == space:
        assert only(path, **flags).format == kind
    elif kind == "idc" and told in ("normalized", "zca"):
        assert "idc files hold raw pixels" in refused(path, **flags)
    else:
        assert f"so it is {space}: pass --space {space}" in refused(path, **flags)


@pytest.mark.parametrize("space", ["raw01", "raw255", "signed"])
def test_a_convention_that_the_values_contradict(tmp_path: Path, space: str) -> None:
    """DC's files are normalised, and MTT's do not say: both name the space that the values have."""
    black, white = RAW[space]
    path = saved(tmp_path / "a.pt", {"data": [[BYTES / 255 * (white - black) + black, LABELS]]})
    assert f"pass --space {space}" in refused(path)


@pytest.mark.parametrize("images", [BYTES / 16, BYTES / 2, 20 * smooth()])
@pytest.mark.parametrize("label", ["cifar10", "my-birds"])
def test_what_no_normalised_pixels_can_be_is_refused(tmp_path: Path, images: Tensor, label: str) -> None:
    path = saved(tmp_path / "a.pt", {"images": images, "labels": LABELS})
    assert f"which is not normalized of {label}: pass --space" in refused(
        path, dataset(label), space="normalized"
    )
    assert "pass --space raw01|raw255|signed|normalized|zca" in refused(path, dataset(label))


@pytest.mark.parametrize("scale", [0.3, 1, 2])
def test_normalised_pixels_of_any_contrast_are_taken_when_told(tmp_path: Path, scale: float) -> None:
    """Averages have little contrast, and what is optimised leaves the range of pixels."""
    images = scale * smooth()
    path = saved(tmp_path / "a.pt", {"images": images, "labels": LABELS})
    assert torch.equal(decoded(only(path, space="normalized"))[0], images)


@pytest.mark.parametrize(
    ("images", "space"),
    [
        (5 * smooth(), "raw01"),
        (5 * smooth(), "signed"),
        (smooth(), "raw255"),
        (smooth(), "signed"),
        (20 * smooth(), "normalized"),
    ],
)
def test_flags_that_the_values_contradict(tmp_path: Path, images: Tensor, space: str) -> None:
    path = saved(tmp_path / "a.pt", (images, LABELS))
    message = refused(path, space=space)
    assert f"which is not {space} of cifar10: pass --space" in message
    assert space not in message.split("--space")[1].split("|")


def test_eight_bit_pixels_are_raw_by_both_names(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", (BYTES.byte(), LABELS))
    one, other = (decoded(only(path, space=space))[0] for space in ("raw01", "raw255"))
    assert torch.equal(one, other)
    assert "pass --space raw01" in refused(path, space="normalized")


def test_plain_guesses_what_is_safe_and_asks_for_the_rest(tmp_path: Path) -> None:
    normal, white = smooth(K * 100), noise(K * 100, 3, 4, 4)
    labels = torch.arange(K).repeat_interleave(100)
    assert torch.equal(decoded(only(saved(tmp_path / "a.pt", (normal, labels))))[0], normal)
    path = saved(tmp_path / "b.pt", (white, labels))
    assert "look zca" in refused(path)
    assert torch.equal(decoded(only(path, space="normalized"))[0], white)


# --- IDC's layout without its name ----------------------------------------------------------------

UNIT = unit(K * PER, 3, 4, 4)


@pytest.mark.parametrize("images", [UNIT, 1.2 * UNIT - 0.1], ids=["clamped", "not clamped"])
@pytest.mark.parametrize("pair", [list, tuple])
@pytest.mark.parametrize("space", [None, "raw01"])
def test_a_pair_of_unit_images_may_be_idc(tmp_path: Path, images: Tensor, pair: Any, space: str) -> None:
    path = saved(tmp_path / "cifar10_ipc2.pt", pair((images, LABELS)))
    message = refused(path, space=space)
    assert "pass --factor" in message
    assert "--format plain" in message
    assert "pass --factor" in refused(tmp_path, space=space)  # the one file of a folder
    found = only(path, factor=2)
    assert (found.format, len(decoded(found)[0])) == ("idc", 4 * K * PER)
    assert torch.equal(decoded(only(path, factor=2, format="idc"))[0], decoded(found)[0])
    plain = only(path, format="plain", space="raw01")
    assert (plain.format, len(decoded(plain)[0])) == ("plain", K * PER)


def test_numpy_arrays_without_names_may_be_idc(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, UNIT.numpy(), LABELS.numpy())
    assert "pass --factor" in refused(path)
    assert torch.equal(decoded(only(path, factor=1))[1], LABELS)
    assert torch.equal(decoded(only(path, format="plain"))[1], LABELS)


@pytest.mark.parametrize("images", [smooth(), BYTES, BYTES.byte(), BYTES / 127.5 - 1])
def test_a_pair_that_idc_does_not_save_is_plain(tmp_path: Path, images: Tensor) -> None:
    path = saved(tmp_path / "a.pt", [images, LABELS])
    space = None if looks_like(images) else "normalized"
    assert only(path, space=space).format == "plain"


def test_named_unit_images_are_plain_and_a_factor_makes_them_idc(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"images": UNIT, "labels": LABELS})
    found = only(path)
    assert found.format == "plain"
    assert any("pass --factor" in note for note in found.notes)
    assert only(path, factor=2).format == "idc"
    assert "leave out --factor" in refused(path, format="plain", factor=2)


def test_a_pair_called_data_is_idc(tmp_path: Path) -> None:
    saved(tmp_path / "data.pt", [UNIT, LABELS])
    assert "pass --factor" in refused(tmp_path)
    assert "--format plain" in refused(tmp_path)
    assert only(tmp_path, format="plain").format == "plain"
    saved(tmp_path / "data.pt", {"images": UNIT, "labels": LABELS})  # says by its names that it is not
    assert only(tmp_path).format == "plain"

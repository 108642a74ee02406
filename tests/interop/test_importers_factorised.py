"""Factorised sets in other people's files: they decode to what the authors' code decodes them to."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.importer import (
    LABELS,
    PER,
    K,
    dataset,
    decoded,
    noise,
    only,
    refused,
    saved,
    smooth,
    state,
    styles,
    trajectory,
    unit,
)
from torch import Tensor

from bench.core.preprocess import Preprocess, Zca
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.multi_formation import MultiFormation
from methods.blocks.parameterise.pixels import Pixels

CIFAR10 = Preprocess((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


# --- IDC ------------------------------------------------------------------------------------------


def zoomed(images: Tensor, factor: int) -> Tensor:
    """IDC's decoding of the images of one class: padded with grey, cut row by row, enlarged."""
    side = images.shape[-1]
    tile = -(-side // factor)
    padded = F.pad(images, (0, tile * factor - side) * 2, value=0.5)
    tiles = [
        padded[..., i : i + tile, j : j + tile]
        for i in range(0, tile * factor, tile)
        for j in range(0, tile * factor, tile)
    ]
    return F.interpolate(torch.cat(tiles), size=side, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("factor", "side"), [(1, 4), (2, 4), (2, 5), (3, 8)])
def test_idc_decodes_as_its_code_does(tmp_path: Path, factor: int, side: int) -> None:
    images = 1.2 * unit(K * PER, 3, side, side) - 0.1  # IDC does not clamp
    path = saved(tmp_path / "data.pt", [images.requires_grad_(), LABELS])
    assert "pass --factor" in refused(path, dataset(side=side))
    found = only(tmp_path, dataset(side=side), factor=factor)
    assert (found.format, found.ipc, type(found.distilled)) == ("idc", PER, MultiFormation)
    expected = torch.cat([zoomed(images[c == LABELS], factor) for c in range(K)])
    pixels, targets = decoded(found)
    torch.testing.assert_close(pixels, CIFAR10(expected), rtol=0, atol=1e-5)
    assert torch.equal(targets, torch.arange(K).repeat_interleave(PER * factor**2))


def test_what_idc_refuses(tmp_path: Path) -> None:
    path = saved(tmp_path / "data.pt", [unit(K * PER, 3, 4, 4), LABELS])
    assert "--factor 0 is below 1" in str_refused(path, factor=0)
    assert "leave out --space" in refused(path, factor=2, space="zca")
    assert "factor 4 cuts no 5 x 5 image" in str_refused(
        saved(tmp_path / "data.pt", [unit(K * PER, 3, 5, 5), LABELS]), dataset(side=5), factor=4
    )
    saved(path, [unit(K * PER, 3, 4, 4), torch.tensor([0, 0, 0, 1, 2, 2])])
    assert "as many of each class" in refused(path, factor=2)
    saved(path, [5 * smooth(), LABELS])
    assert "not raw01" in refused(path, factor=2)
    saved(path, {"images": unit(1)})
    assert "has no labels (it has images)" in refused(path, format="idc", factor=2)


def str_refused(path: Path, data: Any = None, **flags: Any) -> str:
    """A refusal that is about a flag, so that it need not name the path."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        only(path, data, **flags)
    return str(caught.value)


# --- HaBa -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stacked", [False, True])
def test_haba_is_every_basis_under_every_hallucinator(tmp_path: Path, stacked: bool) -> None:
    modules, bases = styles(2), noise(K * PER, 3, 4, 4)
    trajectory(tmp_path, bases, LABELS)
    (tmp_path / "labels_best.pt").unlink()
    tensors: dict[str, Tensor] = dict(modules.state_dict())
    if stacked:
        names = {"enc.weight": "encoder_weight", "enc.bias": "encoder_bias", "dec.weight": "decoder_weight"}
        names |= {"dec.bias": "decoder_bias", "scale": "scale", "shift": "shift"}
        tensors = {n: torch.stack([tensors[f"{i}.{t}"] for i in range(2)]) for t, n in names.items()}
        tensors |= {name: tensors[name][:, 0] for name in ("scale", "shift")}
    saved(tmp_path / "weights_best.pt", tensors)
    assert "pass --space normalized|zca" in refused(tmp_path)
    assert "pass --lr" in refused(tmp_path, space="zca")
    found = only(tmp_path, space="normalized", lr=0.1)
    assert (found.format, type(found.distilled)) == ("haba", Hallucinators)
    assert found.source == "images_best.pt, weights_best.pt"
    with torch.no_grad():
        by_class = [torch.cat([style(bases[c == LABELS]) for style in modules]) for c in range(K)]
    pixels, targets = decoded(found)
    torch.testing.assert_close(pixels, torch.cat(by_class), rtol=0, atol=1e-5)
    assert torch.equal(targets, torch.arange(K).repeat_interleave(2 * PER))
    floats = K * PER * 48 + sum(p.numel() for p in modules.parameters())
    assert found.ipc == -(-floats // (K * 48))


def test_haba_as_pickled_modules_is_refused_by_name(tmp_path: Path) -> None:
    trajectory(tmp_path, noise(K * PER, 3, 4, 4), LABELS)
    saved(tmp_path / "weights_best.pt", styles(2))
    message = str_refused(tmp_path, space="normalized", lr=0.1)
    assert "wants to run torch.nn.modules.container.ModuleList" in message
    assert "torch.save its state_dict() under the name weights_best.pt" in message


def test_hallucinators_that_do_not_fit(tmp_path: Path) -> None:
    trajectory(tmp_path, noise(K * PER, 3, 4, 4), LABELS)
    flags = {"space": "normalized", "lr": 0.1}
    whole = dict(styles(2).state_dict())
    path = saved(tmp_path / "weights_best.pt", {k: v for k, v in whole.items() if k != "1.scale"})
    assert "not every module of 0..1 has scale" in str_refused(tmp_path, **flags)
    saved(path, [1, 2])
    assert "no tensors by name" in str_refused(tmp_path, **flags)
    saved(path, dict(styles(2, side=5).state_dict()))
    assert "do not fit" in str_refused(tmp_path, **flags)
    saved(path, {name: tensor.flatten() for name, tensor in whole.items()})
    assert "are no hallucinators" in str_refused(tmp_path, **flags)
    saved(path, whole)
    saved(tmp_path / "images_best.pt", noise(K * PER + 1, 3, 4, 4))
    assert "7 bases for 3 classes" in refused(tmp_path / "images_best.pt", **flags)
    saved(tmp_path / "images_best.pt", noise(K * PER, 3, 5, 5))
    assert "its bases are not N x 3 or 1 x 4 x 4" in refused(tmp_path / "images_best.pt", **flags)


# --- RTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("downsample", [1, 2])
def test_rtp_combines_then_enlarges(tmp_path: Path, downsample: int, prefix: str) -> None:
    side = 4 // downsample
    basis, rows = noise(5, 3 * side**2), noise(K * PER, 5)
    held = {"compressor": {f"{prefix}basis.weight": basis, f"{prefix}imgs.weight": rows}}
    path = saved(tmp_path / "bptt_cifar10_compressor.pt", held)
    assert "pass --space normalized|zca" in refused(path)
    found = only(path, space="normalized")
    assert (found.format, type(found.distilled)) == ("rtp", LinearBases)
    small = (rows @ basis).view(-1, 3, side, side)
    expected = F.interpolate(small, size=4, mode="bilinear", align_corners=False)
    pixels, targets = decoded(found)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)
    assert torch.equal(targets, LABELS)
    assert found.distilled.n_stored == basis.numel() + rows.numel()
    assert only(path, space="normalized", downsample=downsample).ipc == found.ipc
    assert "leave out --downsample" in refused(path, space="normalized", downsample=4)


def test_rtp_whitens_in_its_own_way(tmp_path: Path) -> None:
    """Each image less its mean and of length 1, then whitened: as its preprocess() does, in float64."""
    data = dataset()
    held = {"compressor": {"basis.weight": noise(5, 48), "imgs.weight": noise(K * PER, 5)}}
    transform = only(saved(tmp_path / "a.pt", held), data, space="zca").distilled.preprocess
    assert isinstance(transform, Zca)
    rows = data.train.images.double().flatten(1)
    rows = F.normalize(rows - rows.mean(1, keepdim=True))
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    whitening = vectors @ ((values + 0.1 * values.mean()) ** -0.5).diag() @ vectors.T
    expected = (rows @ whitening).float().view_as(data.train.images)
    torch.testing.assert_close(transform(data.train.images), expected, rtol=1e-3, atol=1e-3)


def test_rtp_without_a_memory_is_plain_images(tmp_path: Path) -> None:
    images = smooth()
    path = saved(tmp_path / "a_compressor.pt", {"compressor": {"imgs.weight": images.flatten(1)}})
    found = only(path, space="normalized")
    assert type(found.distilled) is Pixels
    assert torch.equal(decoded(found)[0], images)
    saved(path, {"compressor": {"imgs.weight": noise(K * PER, 12)}})
    assert "stored 2 times smaller" in refused(path, space="normalized")


@pytest.mark.parametrize(
    ("state_dict", "words"),
    [
        ({"basis.weight": noise(5, 48), "imgs.weight": noise(7, 5)}, "no images of 3 classes"),
        ({"basis.weight": noise(5, 48), "imgs.weight": noise(6, 4)}, "no images of 3 classes"),
        ({"basis.weight": noise(5, 48)}, "no images of 3 classes"),
        ({"basis.weight": noise(5, 47), "imgs.weight": noise(6, 5)}, "do not shrink 3 x 4 x 4"),
        ({"basis.weight": noise(5, 27), "imgs.weight": noise(6, 5)}, "do not shrink 3 x 4 x 4"),
        ({"basis.weight": noise(5, 48), "imgs.weight": noise(0, 5)}, "no images of 3 classes"),
        ({"basis.weight": noise(5), "imgs.weight": noise(6, 5)}, "no images of 3 classes"),
        ({"imgs.weight": 3}, "nothing"),
        ({}, "nothing"),
        ([1], "no `compressor`"),
    ],
)
def test_compressors_that_do_not_fit(tmp_path: Path, state_dict: Any, words: str) -> None:
    path = saved(tmp_path / "a.pt", {"compressor": state_dict})
    assert words in refused(path, space="normalized")


@pytest.mark.parametrize("space", ["raw01"])
def test_what_decodes_is_as_networks_see_it(tmp_path: Path, space: str) -> None:
    held = {"compressor": {"basis.weight": noise(5, 48), "imgs.weight": noise(K * PER, 5)}}
    assert "pass --space normalized|zca" in refused(saved(tmp_path / "a.pt", held), space=space)


def test_a_rate_that_is_given_is_kept(tmp_path: Path) -> None:
    held = {"compressor": {"basis.weight": noise(5, 48), "imgs.weight": noise(K * PER, 5)}}
    found = only(saved(tmp_path / "a.pt", held), space="normalized", lr=0.25)
    assert float(state(found)["inner_lr"]) == 0.25

"""Sets that must be decoded: IDC's multi-formation, HaBa's hallucinators, RTP's memory of bases."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.words import listed
from bench.data.dataset import Dataset
from bench.interop.importers import pixel_space, safe_load
from bench.interop.importers.arrays import by_class, images_of, labels_of, plain_set
from bench.interop.importers.contents import image_files, read_contents
from bench.interop.importers.request import (
    Imported,
    ImportRequest,
    build_parameterisation,
    check_finite,
    finish_import,
    learned_rate,
    shape_text,
)
from bench.interop.importers.torch_files import beside, images_file

# Tensors of a StyleTranslator, the hallucinator of the authors' code -> the names of our stacked tensors.
_STYLE = {
    "enc.weight": "encoder_weight",
    "enc.bias": "encoder_bias",
    "scale": "scale",
    "shift": "shift",
    "dec.weight": "decoder_weight",
    "dec.bias": "decoder_bias",
}
_RANKS = {"weight": 5, "bias": 2, "scale": 4, "shift": 4}  # of the stacked tensors


def read_idc(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """data.pt = [images, targets] with raw pixels, or parts of it; the factor is not in the file."""
    path = request.path
    held = read_contents(path, image_files(path), dataset.n_classes)
    if request.factor is None:
        raise UserError(
            f"{path} does not say its factor: pass --factor (2; 3 for ImageNet; 1 for IDC-I), or "
            "--format plain if it is not IDC's"
        )
    if request.space not in (None, *pixel_space.RAW):
        raise UserError(f"{path}: idc files hold raw pixels: leave out --space {request.space}")
    images = images_of(path, held.images, dataset)
    targets, _ = labels_of(path, held.labels, len(images), dataset)
    space = pixel_space.settle_space(request, images, dataset, "raw01", allowed=tuple(pixel_space.RAW))
    order, counts = by_class(path, targets, dataset.n_classes)
    if targets.dim() == 2 or len(set(counts)) > 1:
        raise UserError(f"{path}: idc files have hard labels, as many of each class: pass the right --format")
    preprocess, notes = pixel_space.preprocess_for(
        request, "normalized", dataset
    )  # as in the authors' evaluation
    pixels = pixel_space.to_unit(images[order], space) if images.is_floating_point() else images[order] / 255
    tensors = {"images": pixels, "inner_lr": learned_rate(request, held.stated.get("lr"))}
    config = {"n_classes": dataset.n_classes, "factor": request.factor, "decoder": "uniform"}
    distilled = build_parameterisation("multi_formation", tensors, preprocess, **config)
    return [finish_import(request, distilled, dataset, held.files, (f"factor {request.factor}", *notes))]


def read_haba(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """images_best.pt, class after class, and a file with the tensors of the hallucinators.

    The tensors have the names of the authors' modules, or are stacked and have our names.
    """
    path = images_file(request.path)
    names = [beside(path, stem) for stem in ("weights", "styles")]
    file = next((name for name in names if name.is_file()), names[0])
    tensors = _stacked(file, safe_load.load_torch(file))
    bases = safe_load.load_torch(path)
    c, side, _ = dataset.image_shape
    if not isinstance(bases, Tensor) or bases.shape[1:] not in ((c, side, side), (1, side, side)):
        raise UserError(
            f"{path}: its bases are not N x {c} or 1 x {side} x {side}: name the data set they are of"
        )
    if len(bases) == 0 or len(bases) % dataset.n_classes:
        raise UserError(
            f"{path}: {len(bases)} bases for {dataset.n_classes} classes: as many for each are needed"
        )
    check_finite(path, bases)
    tensors |= {"bases": bases.detach().float()}
    kernel, latent = tensors["encoder_weight"].shape[-1], tensors["scale"].shape[-1]
    config = {"n_classes": dataset.n_classes, "padding": (latent - side + kernel - 1) // 2}
    return [_decoded(request, dataset, "hallucinators", tensors, config, [path, file], rate_needed=True)]


def _stacked(file: Path, held: Any) -> dict[str, Tensor]:
    """The six tensors [H,...] of H hallucinators. Raises UserError if one is missing or has a wrong shape."""
    if not isinstance(held, Mapping):
        raise UserError(f"{file} holds no tensors by name: save the state_dict() of the hallucinators")
    tensors = _tensors(held)
    if set(_STYLE.values()) <= tensors.keys():
        stacked = {name: tensors[name] for name in _STYLE.values()}
    else:
        stacked = {ours: _column(file, tensors, theirs) for theirs, ours in _STYLE.items()}
        stacked |= {name: stacked[name].squeeze(1) for name in ("scale", "shift")}  # each is [1,m,S,S]
    ranks = {name: _RANKS[name.rpartition("_")[2]] for name in stacked}
    if any(tensor.dim() != ranks[name] for name, tensor in stacked.items()):
        parts = ", ".join(f"{name} {shape_text(tensor)}" for name, tensor in stacked.items())
        raise UserError(f"{file}: its tensors are no hallucinators ({parts})")
    return stacked


def _tensors(held: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict in float32, by name without the prefix of a parallel wrapper."""
    named = {str(name).removeprefix("module."): value for name, value in held.items()}
    return {name: value.detach().float() for name, value in named.items() if isinstance(value, Tensor)}


def _column(file: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Stack the tensor `name` of the modules 0, 1, ... of a list."""
    count = len({key.partition(".")[0] for key in tensors})
    try:
        return torch.stack([tensors[f"{i}.{name}"] for i in range(count)])
    except (KeyError, RuntimeError):
        raise UserError(f"{file}: not every module of 0..{count - 1} has {name}, in one shape") from None


def read_rtp(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """`{"compressor": state_dict}` with `basis.weight` [B,C*h*w] and `imgs.weight` [K*r,B], by class.

    Without a basis, `imgs.weight` are the images. The down-sampling follows from the size of a basis.
    """
    held = safe_load.load_torch(request.path)
    state = held.get("compressor") if isinstance(held, Mapping) else None
    if not isinstance(state, Mapping):
        raise UserError(f"{request.path} has no `compressor`: pass the right --format")
    weights = _tensors(state)
    rows, basis, k = weights.get("imgs.weight"), weights.get("basis.weight"), dataset.n_classes
    paired = rows is not None and (basis is None or (basis.dim() == 2 and rows.shape[1:] == basis.shape[:1]))
    if rows is None or rows.dim() != 2 or not paired or len(rows) == 0 or len(rows) % k:
        parts = listed(f"{name} {shape_text(tensor)}" for name, tensor in weights.items())
        raise UserError(f"{request.path}: {parts} are no images of {k} classes from bases: name its data set")
    pixels = rows if basis is None else basis
    downsample = _downsample(request, pixels.shape[1], dataset)
    c, side, _ = dataset.image_shape
    small = pixels.unflatten(1, (c, side // downsample, side // downsample))
    if basis is not None:
        addresses = rows.unflatten(0, (k, -1)).transpose(0, 1).contiguous()
        tensors, config = {"bases": small, "addresses": addresses}, {"downsample": downsample}
        return [_decoded(request, dataset, "linear_bases", tensors, config, [request.path])]
    if downsample > 1:
        raise UserError(
            f"{request.path}: images stored {downsample} times smaller, without bases, cannot be kept"
        )
    labels = torch.arange(k).repeat_interleave(len(rows) // k)
    return [plain_set(request, dataset, small, labels, [request.path], rate=learned_rate(request))]


def _downsample(request: ImportRequest, numbers: int, dataset: Dataset) -> int:
    """The down-sampling of bases with so many numbers each.

    Raises UserError if it is not a whole number, or another one was given.
    """
    c, side, _ = dataset.image_shape
    small = math.isqrt(numbers // c)
    if c * small * small != numbers or small == 0 or side % small:
        raise UserError(
            f"{request.path}: bases of {numbers} numbers do not shrink {c} x {side} x {side} images: name "
            "the data set they were made from"
        )
    if request.downsample not in (None, side // small):
        raise UserError(
            f"{request.path}: its bases are down-sampled by {side // small}: leave out --downsample "
            f"{request.downsample}"
        )
    return side // small


def _decoded(
    request: ImportRequest,
    dataset: Dataset,
    parameterisation: str,
    tensors: Mapping[str, Tensor],
    config: dict[str, Any],
    files: list[Path],
    *,
    rate_needed: bool = False,
) -> Imported:
    """A set that decodes to images as networks see them. Raises UserError if its tensors do not fit."""
    if request.space in pixel_space.RAW:
        raise UserError(f"{request.path} decodes to images as networks see them: pass --space normalized|zca")
    if request.space is None:
        raise UserError(f"{request.path} does not say how images are scaled: pass --space normalized|zca")
    preprocess, notes = pixel_space.preprocess_for(request, request.space, dataset)
    rate = learned_rate(request, required=rate_needed)
    distilled = build_parameterisation(parameterisation, {**tensors, "inner_lr": rate}, preprocess, **config)
    return finish_import(request, distilled, dataset, files, (f"pixels taken as {request.space}", *notes))

"""Export of decoded sets in the layouts that other people's tools read."""

import functools
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.io import check_writable, replacing, sync, temporary, writing
from bench.core.registry import choose

EXPORT_FORMATS = {
    "dc": "one torch file {'data': [[images, labels]], 'accs_all_exps': {}, 'preprocess': ...}",
    "plain": "a folder of images.pt, labels.pt, preprocess.pt, and lr.pt if learned (DD-Ranking)",
    "safetensors": "one safetensors file of images and labels, and lr if learned",
    "folder": "a folder of 8-bit PNG files for each class",
}

ENDINGS = {"dc": ".pt", "safetensors": ".safetensors"}  # of those that are one file


@torch.no_grad()
def export_set(distilled: DistilledDataset, classes: Sequence[str], target: Path, format: str) -> list[Path]:
    """Write the decoded set, completely or not at all.

    Tensors are images float32 [N,C,H,W] as networks see them, labels int64 [N] or probabilities [N,K] (times
    weights, if images have them), and the preprocessing that test images need. PNG files undo the
    preprocessing and round to 8 bits.

    Args:
        distilled: the set.
        classes: names of the classes, for the folders of images.
        target: the file or folder to write.
        format: one of EXPORT_FORMATS.

    Returns:
        The files.

    Raises:
        UserError: the format is unknown, the target has the wrong ending or exists already, or the labels are
            soft or weighted and the format is a folder of images.
    """
    choose("export format", format, EXPORT_FORMATS)
    ending = ENDINGS.get(format, target.suffix)
    if target.suffix != ending:
        raise UserError(f"{target}: the file of the format {format} must end in {ending}")
    if target.exists():
        raise UserError(f"{target} is there already: remove it, or give another name")
    check_writable(target.parent, "choose another place with --to")
    images, labels = (t.detach().cpu().contiguous() for t in distilled.decode())
    rate = getattr(distilled, "inner_lr", None)
    lr = {} if rate is None else {"lr": rate.detach().cpu().clone()}
    transform = {"header": distilled.preprocess.header(), "tensors": distilled.preprocess.tensors()}
    tensors = {"images": images, "labels": labels, **lr}
    if format == "dc":
        data = {"data": [[images, labels]], "accs_all_exps": {}, "preprocess": transform, **lr}
        return [_file(target, functools.partial(_save_torch, data))]
    if format == "safetensors":
        return [_file(target, lambda path: _save_tensors(path, tensors, transform))]
    if format == "plain":
        parts = {f"{name}.pt": value for name, value in {**tensors, "preprocess": transform}.items()}
        return _folder(target, parts, lambda path, value: _save_torch(value, path))
    if labels.dim() == 2:
        raise UserError(
            "a folder of images holds no soft labels or weights: export as plain, dc or safetensors"
        )
    pixels = distilled.preprocess.invert(images).clamp(0, 1).mul(255).round().byte()
    return _folder(target, _pictures(pixels, labels, classes), _save_picture)


def _save_torch(value: Any, path: Path) -> None:
    with path.open("wb") as file:  # torch refuses hidden names, but not open files
        torch.save(value, file)


def _save_tensors(path: Path, tensors: dict[str, Tensor], transform: dict[str, Any]) -> None:
    extra = {f"preprocess.{name}": t.contiguous() for name, t in transform["tensors"].items()}
    save_file({**tensors, **extra}, path, metadata={"preprocess": json.dumps(transform["header"])})


def _pictures(pixels: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """{file name: pixels [C,H,W]}; folders have number and name of the class, and sort by number."""
    names = [folder_name(c, name) for c, name in enumerate(classes)]
    seen = [0] * len(classes)
    found = {}
    for image, c in zip(pixels, labels.tolist(), strict=True):
        found[f"{names[c]}/class{c:05d}_id{seen[c]:05d}.png"] = image
        seen[c] += 1
    return found


def folder_name(c: int, name: str) -> str:
    """The folder of class c, with as much of its name as every file system takes."""
    return f"{c:05d}_{re.sub(r'[^A-Za-z0-9.-]+', '-', name)[:100]}"


def _save_picture(path: Path, pixels: Tensor) -> None:
    array = pixels.permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)).save(
        path, format="PNG"
    )


def _file(target: Path, write: Callable[[Path], object]) -> Path:
    with replacing(target) as unfinished:
        write(unfinished)
        unfinished.chmod(0o644)
    return target


def _folder(target: Path, parts: dict[str, Any], write: Callable[[Path, Any], object]) -> list[Path]:
    """Write each part under its name into a folder, which is renamed to `target` when it is complete."""
    unfinished = target.with_name(temporary(target.name))
    try:
        with writing(target):
            for name, value in parts.items():
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                write(unfinished / name, value)
                sync(unfinished / name)
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [target / name for name in parts]

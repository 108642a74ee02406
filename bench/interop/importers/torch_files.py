"""Plain images in torch, numpy and safetensors files: DC, MTT, DATM and others; our own artifacts."""

import dataclasses
from pathlib import Path
from typing import Any

from bench.core.distilled import load_distilled
from bench.core.errors import UserError
from bench.data.dataset import Dataset
from bench.interop.importers import pixel_space, safe_load
from bench.interop.importers.arrays import as_tensor, plain_set
from bench.interop.importers.contents import image_files, read_contents
from bench.interop.importers.request import (
    Imported,
    ImportRequest,
    decode_within_bounds,
    finish_import,
    learned_rate,
)


def file_of(path: Path, *names: str) -> Path:
    """The file itself, or the first of these names in a folder. Raises UserError if the folder has none."""
    if not path.is_dir():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"no {' or '.join(names)} in {path}: name the file")
    return found


def images_file(path: Path) -> Path:
    """images_best.pt in a folder, or a file images_*.pt itself. Raises UserError for any other file."""
    file = file_of(path, "images_best.pt")
    if file.name.startswith("images_zca"):
        raise UserError(f"{file} is for viewing, its whitening undone: name {file.name.replace('zca_', '')}")
    if not file.name.startswith("images"):
        raise UserError(f"{file} is not called images_*.pt, by which its labels are found: name that file")
    return file


def beside(images: Path, stem: str) -> Path:
    """images_500.pt, "labels" -> labels_500.pt in the same folder."""
    return images.with_name(images.name.replace("images", stem, 1))


def read_dc(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """`{"data": [[images, labels], ...], "accs_all_exps": {network: [...]}}`: a set for each experiment."""
    held = safe_load.load_torch(request.path)
    data = held.get("data") if isinstance(held, dict) else None
    if not (
        isinstance(data, list) and data and all(isinstance(d, list | tuple) and len(d) == 2 for d in data)
    ):
        raise UserError(f"{request.path} has no list `data` of [images, labels]: pass the right --format")
    preprocess = pixel_space.stated_preprocess(request, held, dataset)
    rate = learned_rate(request, held.get("lr"))
    found = []
    for i, (images, labels) in enumerate(data):
        one = plain_set(
            request,
            dataset,
            images,
            labels,
            [request.path],
            convention="normalized",
            preprocess=preprocess,
            rate=rate,
        )
        found.append(dataclasses.replace(one, seed=i, published=_claims(held, i, len(data))))
    return found


def _claims(held: dict[str, Any], i: int, experiments: int) -> dict[str, Any]:
    """The accuracies of experiment i by network; the file lists those of all experiments in a row."""
    claimed = held.get("accs_all_exps")
    if not isinstance(claimed, dict):
        return {}
    try:
        numbers = {net: [float(a) for a in accuracies] for net, accuracies in claimed.items()}
    except (TypeError, ValueError):  # something else under that name
        return {}
    each = {net: len(a) // experiments if len(a) % experiments == 0 else 0 for net, a in numbers.items()}
    parts = {net: a[i * each[net] : (i + 1) * each[net]] for net, a in numbers.items() if each[net]}
    return {"accuracies": parts} if parts else {}


def read_mtt(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """images_best.pt and labels_best.pt, or numbered parts; and the learned rate if there is one (DATM)."""
    files = [images_file(file) for file in image_files(request.path, "images")]
    held = read_contents(request.path, files, dataset.n_classes)
    rate = learned_rate(request, held.stated.get("lr"), required=True)
    return [plain_set(request, dataset, held.images, held.labels, held.files, rate=rate)]


def read_plain(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """Images and labels (and `lr`): in one file by name, as a pair, in files beside each other, in parts."""
    held = read_contents(request.path, image_files(request.path), dataset.n_classes)
    stated = pixel_space.stated_preprocess(request, held.stated, dataset)
    whole = stated is None and pixel_space.near_unit(as_tensor(request.path, "images", held.images))
    one = plain_set(
        request,
        dataset,
        held.images,
        held.labels,
        held.files,
        guess=True,
        preprocess=stated,
        rate=learned_rate(request, held.stated.get("lr")),
        notes=("each image taken whole: for IDC's multi-formation pass --factor",) if whole else (),
    )
    return [one]


def read_ddbench(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """An artifact of ddbench, which contains its preprocessing."""
    if request.space or request.lr is not None:
        raise UserError(
            f"{request.path} is an artifact of ddbench and says all itself: leave out --space and --lr"
        )
    path = file_of(request.path, "data.safetensors")
    distilled = load_distilled(path)
    _, targets = decode_within_bounds(path, distilled)
    classes = targets.shape[1] if targets.dim() == 2 else int(targets.max()) + 1
    if classes != dataset.n_classes:
        raise UserError(
            f"{path} has {classes} classes, {dataset.label} {dataset.n_classes}: name its data set"
        )
    return [finish_import(request, distilled, dataset, [path])]

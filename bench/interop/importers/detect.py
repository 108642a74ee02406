"""Detect a file's format from its name and its neighbours, and then from the names that it contains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.words import listed
from bench.interop.importers import safe_load
from bench.interop.importers.arrays import as_tensor
from bench.interop.importers.class_folders import class_folders
from bench.interop.importers.contents import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SUFFIXES,
    WHOLE,
    find_key,
    image_files,
    is_pair,
    load,
)
from bench.interop.importers.pixel_space import near_unit
from bench.interop.importers.torch_files import beside

PAIR = "pair"  # of images and labels without names: plain, or IDC's
_TORCH = (".pt", ".pth")
_ENDINGS = {
    "frepo": (".npz",),
    "kip": (".npz",),
    "ddbench": (".safetensors",),
    **dict.fromkeys(("plain", "idc"), SUFFIXES),
}  # of others: torch's
_JOINED = {"plain", PAIR, "idc", "mtt", "datm"}  # formats whose sets may be in parts


def detect(path: Path) -> tuple[str, Path]:
    """(format, the file or folder to read). Raises UserError if no format is recognised."""
    if not path.exists():
        raise UserError(f"no file or folder {path}: check the name")
    return _folder(path) if path.is_dir() else (_file(path), path)


def check_ending(format: str, path: Path) -> None:
    """Raises UserError if a file's ending is not of the format, nor its content torch's."""
    endings = _ENDINGS.get(format, _TORCH)
    if path.suffix.lower() in endings or format == "folder" or not path.is_file():
        return
    if path.suffix.lower() in SUFFIXES or ".pt" not in endings or not _begins_as_torch(path):
        raise UserError(
            f"{path} has none of the endings {', '.join(endings)} of the format {format}: save it in a file "
            "of such a kind, or pass the right --format"
        )


def _begins_as_torch(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")


def _folder(path: Path) -> tuple[str, Path]:
    if (path / "data.safetensors").is_file():
        return "ddbench", path
    stored = any((path / name).is_file() for name in WHOLE) or any(path.glob("*/data.pt"))
    if not stored and class_folders(path):
        return "folder", path
    files = image_files(path)
    kind = _file(files[0])
    if len(files) == 1:
        return kind, files[0]
    if kind not in _JOINED:
        raise UserError(f"several files of the format {kind} in {path}: name one")
    return kind, path


def _trajectory(images: Path) -> str:
    """The format of images_*.pt, MTT's or a related one, from the files beside it."""
    if any(beside(images, stem).is_file() for stem in ("weights", "styles")):
        return "haba"
    return "datm" if beside(images, "lr").is_file() else "mtt"


def _file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} has none of the endings {', '.join(SUFFIXES)}: save its images and labels in such a "
            "file, or pass --format"
        )
    if suffix == ".safetensors":
        return "ddbench" if "ddbench" in safe_load.load_safetensors(path)[1] else "plain"
    if suffix in _TORCH and path.stem.startswith("images_"):
        return _trajectory(path)
    return _content(path, load(path))


def _content(path: Path, held: Any) -> str:
    if is_pair(held):
        images = held["arr_0"] if isinstance(held, Mapping) else held[0]
        ambiguous = near_unit(as_tensor(path, "images", images))
        return "idc" if path.name == "data.pt" else PAIR if ambiguous else "plain"
    if not isinstance(held, Mapping):
        return "plain"
    images, labels = (find_key(path, held, names) for names in (IMAGE_NAMES, LABEL_NAMES))
    if path.suffix.lower() == ".npz":
        return _archive(path, held)
    if isinstance(held.get("data"), list) and labels is None:
        return "dc"
    if "compressor" in held:
        return "rtp"
    if images is not None and labels is not None:
        return "plain"
    raise UserError(
        f"{path} holds {listed(held)}, which is no format that ddbench knows: name its tensors images and "
        "labels, or pass --format"
    )


def _archive(path: Path, held: Mapping[Any, Any]) -> str:
    if {"image", "label"} <= held.keys():
        return "frepo"
    return "kip" if path.stem.lower().startswith("kip") else "plain"

"""Detect a file's format from its name and its neighbours, and then from the names that it contains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.words import listed
from bench.interop.importers import safe_load
from bench.interop.importers.class_folders import class_folders
from bench.interop.importers.torch_files import IMAGE_NAMES, LABEL_NAMES, beside

_SUFFIXES = (".pt", ".pth", ".npz", ".safetensors")
_KNOWN = {"data.safetensors": "ddbench", "data.pt": "idc", "images.pt": "plain"}


def detect(path: Path) -> tuple[str, Path]:
    """(format, the file or folder to read). Raises UserError if no format is recognised."""
    if not path.exists():
        raise UserError(f"no file or folder {path}: check the name")
    return _folder(path) if path.is_dir() else (_file(path), path)


def _folder(path: Path) -> tuple[str, Path]:
    if (path / "images_best.pt").is_file():
        return _trajectory(path / "images_best.pt"), path
    for name, kind in _KNOWN.items():
        if (path / name).is_file():
            return kind, path
    if class_folders(path):
        return "folder", path
    files = sorted(f for f in path.iterdir() if f.suffix in _SUFFIXES and not f.name.startswith("."))
    if len(files) == 1:
        return _file(files[0]), files[0]
    what = "several files" if files else "no distilled set"
    raise UserError(
        f"{what} in {path}: name a file, or a folder with images_best.pt, images.pt or class folders"
    )


def _trajectory(images: Path) -> str:
    """The format of images_*.pt, MTT's or a related one, from the files beside it."""
    if any(beside(images, stem).is_file() for stem in ("weights", "styles")):
        return "haba"
    return "datm" if beside(images, "lr").is_file() else "mtt"


def _file(path: Path) -> str:
    if path.suffix == ".safetensors":
        return "ddbench" if "ddbench" in safe_load.load_safetensors(path)[1] else "plain"
    if path.suffix == ".npz":
        return _archive(path)
    if path.suffix not in (".pt", ".pth"):
        raise UserError(f"{path} has none of the endings {', '.join(_SUFFIXES)}: pass --format")
    if path.stem.startswith("images_"):
        return _trajectory(path)
    return _content(path, safe_load.load_torch(path))


def _archive(path: Path) -> str:
    names = safe_load.load_npz(path).keys()
    if {"image", "label"} <= names:
        return "frepo"
    return "kip" if path.stem.lower().startswith("kip") else "plain"


def _content(path: Path, held: Any) -> str:
    if isinstance(held, Mapping):
        if isinstance(held.get("data"), list):
            return "dc"
        if "compressor" in held:
            return "rtp"
        if held.keys() & set(IMAGE_NAMES) and held.keys() & set(LABEL_NAMES):
            return "plain"
        raise UserError(f"{path} holds {listed(held)}, which is no format that ddbench knows: pass --format")
    if isinstance(held, list | tuple) and len(held) == 2:
        return "idc" if path.name == "data.pt" else "plain"
    return "plain"

"""Files from elsewhere as plain values: none of their code runs, and errors are one line."""

import contextlib
import json
import pickletools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import safe_open
from torch import Tensor

from bench.core.errors import UserError

# What pickles of numpy numbers and arrays refer to, under the names of both numpy 1 and 2. None of them does
# more than fill a buffer with bytes.
_MULTIARRAY = ("_reconstruct", "scalar")
_NUMPY: list[Any] = [
    *((getattr(multiarray, name), f"numpy.core.multiarray.{name}") for name in _MULTIARRAY),
    *(getattr(multiarray, name) for name in _MULTIARRAY),
    *(np.ndarray, np.dtype),
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def load_torch(path: Path) -> Any:
    """Read what torch.save wrote, in either of its formats, onto the CPU.

    Raises UserError for a missing, damaged or empty file, and for one that wants to run code; the message
    names that code.
    """

    def read() -> Any:
        with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; unreadable files are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)

    return _read(path, "torch file", read)


def load_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a numpy archive. Raises UserError for a damaged one and for one of Python objects."""

    def read() -> dict[str, Tensor]:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}

    return _read(path, "npz archive", read)


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, metadata with JSON values decoded). Raises UserError for a damaged file."""

    def read() -> tuple[dict[str, Tensor], dict[str, Any]]:
        with safe_open(path, framework="pt") as file:
            metadata = {name: _json(text) for name, text in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118

    return _read(path, "safetensors file", read)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: Path, kind: str, read: Callable[[], Any]) -> Any:
    if not path.is_file():
        raise UserError(f"no file {path}: check the name")
    try:
        return read()
    except Exception as error:  # damaged archives raise many kinds, from EOFError to UnicodeDecodeError
        wanted = match.group(1) if (match := _GLOBAL.search(str(error))) else _wanted(path)
        if wanted:
            raise UserError(_refusal(path, wanted)) from None
        if "allow_pickle" in str(error):
            raise UserError(f"{path} holds Python objects, which may run code: save arrays only") from None
        raise UserError(f"{path} is not a readable {kind}, or is damaged: fetch it again") from None


def _wanted(path: Path) -> str | None:
    """The first thing that a plain pickle would import, read without running it; None for other files."""
    strings: list[str] = []
    with path.open("rb") as file, contextlib.suppress(ValueError, EOFError, UnicodeDecodeError):
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL":
                return ".".join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    return None


def _refusal(path: Path, wanted: str) -> str:
    advice = "convert it to plain tensors where it is trusted"
    if wanted.startswith(("torch.nn.", "__main__.", "utils.", "networks.")):
        advice = f"where it is trusted, torch.save its state_dict() under the name {path.name}"
    return f"{path} wants to run {wanted} when it is loaded, which is refused: {advice}"

"""Files from elsewhere as plain values: none of their code runs, they take no more memory than a set of
their size may, and errors are one line."""

import contextlib
import json
import math
import mmap
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import safe_open
from torch import Tensor

from bench.core.distilled import not_plain
from bench.core.errors import UserError
from bench.core.words import plain_text

# What pickles of numpy numbers and arrays refer to, under the names of both numpy 1 and 2. None of them does
# more than fill a buffer with bytes.
_CODES = "?bBhHiIlLqQefd"  # of the types of numbers that torch has too
_MULTIARRAY = ("_reconstruct", "scalar")
_NUMPY: list[Any] = [
    *((getattr(multiarray, name), f"numpy.core.multiarray.{name}") for name in _MULTIARRAY),
    *(getattr(multiarray, name) for name in _MULTIARRAY),
    *(np.ndarray, np.dtype),
    *{type(np.dtype(code)) for code in _CODES},
]
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_ZIP = b"PK\3\4"  # the first bytes of torch.save's files, but for those of its former format
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as torch and numpy pack
# What a file holds, unpacked and with every repetition written out, takes at most so many times its size, or
# so many bytes: pictures are hard to pack, and what packs better, as one-hot labels do, is small.
MOST_GROWTH, SMALL = 32, 2**28
MOST_NESTED = 16  # containers in one another


def load_torch(path: Path) -> Any:
    """Read what torch.save wrote, in either of its formats, onto the CPU.

    Raises UserError for a missing, damaged or empty file, and for one that wants to run code; the message
    names that code.
    """

    def read() -> Any:
        with path.open("rb") as file, _mapped(file) as content:
            packed = content[: len(_ZIP)] == _ZIP
            if any(b"bytearray\n" in pickled for pickled in (_pickles(path) if packed else (content,))):
                raise UserError(
                    f"{path} makes a bytearray of any length when it is loaded: save tensors only"
                )
            with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols; unreadable files are refused anyway
                return torch.load(path if packed else content, map_location="cpu", weights_only=True)

    return _plain(path, _read(path, "torch file", read))


def _mapped(file: BinaryIO) -> Any:
    """A file of which no more is read than there is, whatever lengths a pickle tells."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def load_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of numbers in a numpy archive. Raises UserError for a damaged one and for Python objects."""

    def read() -> dict[str, Tensor]:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
        return {name: _tensor(array) for name, array in arrays.items() if array.dtype.char in _CODES}

    return _plain(path, _read(path, "npz archive", read))


def load_npy(path: Path) -> Tensor:
    """The one array of a numpy file. Raises UserError for a damaged one and for Python objects."""

    def read() -> Tensor:
        return _tensor(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))  # as much as there is

    tensor: Tensor = _plain(path, _read(path, "npy array", read))
    return tensor


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Numbers as a tensor; torch computes with one type that is unsigned, and in the machine's byte order."""
    unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1
    return torch.from_numpy(array.astype(np.int64 if unsigned else array.dtype.newbyteorder("="), copy=False))


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, metadata with JSON values decoded). Raises UserError for a damaged file."""

    def read() -> tuple[dict[str, Tensor], dict[str, Any]]:
        with safe_open(path, framework="pt") as file:
            metadata = {name: _json(text) for name, text in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a mapping)

    tensors, metadata = _read(path, "safetensors file", read)
    return _plain(path, tensors), metadata


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# --- sizes --------------------------------------------------------------------------------------------------


def _check_sizes(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of a zip file. Raises UserError if they are packed strangely, or unpack to too much."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type not in _UNPACKED for entry in entries):
        raise UserError(f"{path} is packed in a way that numpy and torch do not use: save it with them")
    _check_growth(path, sum(entry.file_size for entry in entries))
    return entries


def _pickles(path: Path) -> Iterator[bytes]:
    """What is pickled in torch.save's zip file. Raises UserError as `_check_sizes`."""
    entries = _check_sizes(path)
    with zipfile.ZipFile(path) as archive:
        yield from (archive.read(entry) for entry in entries if entry.filename.endswith(".pkl"))


def _check_growth(path: Path, held: int) -> None:
    most = max(MOST_GROWTH * path.stat().st_size, SMALL)
    if held > most:
        raise UserError(
            f"{path} would take more than {most >> 20:,} MiB of memory, too much for a set in a file of its "
            "size: save its tensors whole, without compression"
        )


def _plain(path: Path, held: Any) -> Any:
    """What was read, as it is. Raises UserError if it holds tensors without numbers, or repeats too much."""
    _check_growth(path, _bytes(path, held, {}))
    return held


def _bytes(path: Path, value: Any, known: dict[int, int], depth: int = 0) -> int:
    """The memory that a value takes with every repetition written out.

    Args:
        path: of the file, for error messages.
        value: of any type.
        known: {id of a container: its bytes}; one that is referred to again is not gone through again.
        depth: of the value in its containers.
    """
    if isinstance(value, Tensor):
        if why := not_plain(value):
            raise UserError(f"{path} holds {why}")
        return math.prod(value.shape) * value.element_size()  # nbytes may overflow
    if isinstance(value, np.ndarray | str | bytes):
        return value.nbytes if isinstance(value, np.ndarray) else len(value)
    if not isinstance(value, Mapping | list | tuple | set):
        return 8
    if depth == MOST_NESTED:
        raise UserError(f"{path} holds lists in lists, more than {MOST_NESTED} deep: save tensors by name")
    if id(value) not in known:
        parts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
        known[id(value)] = sum(_bytes(path, part, known, depth + 1) for part in parts)
    return known[id(value)]


# --- errors -------------------------------------------------------------------------------------------------


def _read(path: Path, kind: str, read: Callable[[], Any]) -> Any:
    if not path.is_file():
        raise UserError(f"no file {path}: check the name")
    try:
        return read()
    except UserError:
        raise
    except Exception as error:  # damaged archives raise many kinds, from EOFError to UnicodeDecodeError
        wanted = match.group(1) if (match := _GLOBAL.search(str(error))) else _wanted(path)
        if wanted:
            raise UserError(_refusal(path, wanted)) from None
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise UserError(f"{path} holds Python objects, which may run code: save arrays only") from None
        raise UserError(f"{path} is not a readable {kind}, or is damaged: fetch it again") from None


def _wanted(path: Path) -> str | None:
    """The first thing that a plain pickle would import, read without running it; None for other files."""
    strings: list[str] = []
    with contextlib.suppress(ValueError, EOFError), path.open("rb") as file, _mapped(file) as content:
        for opcode, argument, _ in pickletools.genops(content):
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
    return f"{path} wants to run {plain_text(wanted)} when it is loaded, which is refused: {advice}"

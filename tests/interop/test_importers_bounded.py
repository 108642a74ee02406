"""Files that promise more than they hold, or pack more than a set may: one line, and little memory."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.importer import LABELS, PER, archived, only, refused, saved, smooth, state
from helpers.memory import limited
from safetensors.torch import save_file

from bench.interop.importers import safe_load

pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested tensors")
TOO_MUCH = "MiB of memory, too much for a set in a file of its size"


def refused_in_little_memory(path: Path, **flags: Any) -> str:
    with limited():
        return refused(path, **flags)


# --- archives -------------------------------------------------------------------------------------


def repacked(path: Path, method: int, **larger: bytes) -> Path:
    """The same zip file, packed in another way; entries whose names end so have another content."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, next((new for end, new in larger.items() if name.endswith(end)), data))
    return path


def of_torch(path: Path) -> Path:
    return saved(path, {"images": smooth(), "labels": LABELS})


def of_numpy(path: Path) -> Path:
    return archived(path, images=smooth(), labels=LABELS)


ARCHIVES = pytest.mark.parametrize(("name", "make"), [("a.pt", of_torch), ("a.npz", of_numpy)])


@ARCHIVES
def test_an_archive_that_unpacks_to_much_is_not_unpacked(
    tmp_path: Path, name: str, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_load, "SMALL", 2**20)
    path = repacked(make(tmp_path / name), zipfile.ZIP_DEFLATED, **{"more": b""})
    assert only(path, space="normalized").ipc == PER, "what is packed as much as pictures can be is read"
    path = repacked(path, zipfile.ZIP_DEFLATED, **{"data.pkl": bytes(2**24), "images.npy": bytes(2**24)})
    assert path.stat().st_size < 2**16
    assert TOO_MUCH in refused_in_little_memory(path)


@pytest.mark.parametrize(
    ("name", "make", "said", "words"),
    [
        ("a.pt", of_torch, 2**31 - 1, TOO_MUCH),
        ("a.pt", of_torch, 2**27, "damaged"),
        ("a.npz", of_numpy, 2**31 - 1, TOO_MUCH),
    ],
)
def test_an_archive_whose_directory_lies(
    tmp_path: Path, name: str, make: Callable[[Path], Path], said: int, words: str
) -> None:
    path = make(tmp_path / name)
    content = path.read_bytes()
    first = content.index(b"PK\1\2")  # of its directory; the two sizes stand 20 bytes after
    path.write_bytes(content[: first + 20] + struct.pack("<II", said, said) + content[first + 28 :])
    assert words in refused_in_little_memory(path)


@ARCHIVES
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_in_a_strange_way(
    tmp_path: Path, name: str, make: Callable[[Path], Path], method: int
) -> None:
    assert "packed in a way" in refused(repacked(make(tmp_path / name), method))


@pytest.mark.parametrize("shape", [(10**12, 3, 4, 4), (2**62, 2**62), (-1, 3)])
def test_an_array_whose_header_lies(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    path = repacked(of_numpy(tmp_path / "a.npz"), zipfile.ZIP_STORED, **{"images.npy": header.getvalue()})
    assert "damaged" in refused_in_little_memory(path)


def test_arrays_of_types_that_torch_does_not_compute_with(tmp_path: Path) -> None:
    images, labels = smooth().numpy(), LABELS.numpy()
    path = archived(
        tmp_path / "a.npz", images=images.astype(">f8"), labels=labels.astype(np.uint16), names=["cat", "dog"]
    )
    found = only(path, space="normalized")
    assert torch.equal(state(found)["images"], smooth())
    assert "has no labels (it has images)" in refused(archived(path, images=images, labels=["cat"] * 6))


# --- tensors --------------------------------------------------------------------------------------


def sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.zeros(4, 0).long(), torch.zeros(0), (10**9, 3, 4, 4))


TENSORS: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "expanded": (lambda: torch.zeros(1).expand(10**9, 3, 4, 4), TOO_MUCH),
    "expanded far": (lambda: torch.zeros(1).expand(2**62), TOO_MUCH),
    "meta": (lambda: torch.empty(10**9, 3, 4, 4, device="meta"), "a tensor without its numbers"),
    "sparse": (sparse, "a sparse or nested tensor: save it as a dense one"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), "a sparse or nested tensor"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2)]), "a sparse or nested tensor"),
    "float8": (lambda: smooth().to(torch.float8_e4m3fn), "numbers of the type float8_e4m3fn: save them as"),
    "complex": (lambda: smooth().to(torch.complex64), "numbers of the type complex64"),
    "uint16": (lambda: torch.zeros(6, 3, 4, 4, dtype=torch.uint16), "numbers of the type uint16"),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("place", ["alone", "images", "deep"])
def test_tensors_that_hold_no_numbers_of_their_own(tmp_path: Path, name: str, place: str) -> None:
    make, words = TENSORS[name]
    images = make()
    held = {
        "alone": images,
        "images": {"images": images, "labels": LABELS},
        "deep": {"data": [[smooth(), LABELS]], "more": ({"of": [images]},)},
    }
    assert words in refused_in_little_memory(saved(tmp_path / "a.pt", held[place]))


def test_types_of_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"images": smooth().to(torch.float8_e4m3fn), "labels": LABELS}, path)
    assert "numbers of the type float8_e4m3fn" in refused(path)


def test_a_grey_image_seen_as_three_channels_is_read(tmp_path: Path) -> None:
    grey = smooth(channels=1).expand(-1, 3, -1, -1)
    found = only(saved(tmp_path / "a.pt", {"data": [[grey, LABELS]]}))
    assert torch.equal(state(found)["images"], grey)


def repeated() -> list[Any]:
    found: list[Any] = [smooth()]
    for _ in range(12):
        found = [found] * 10
    return found


def itself() -> list[Any]:
    found: list[Any] = []
    found += [found] * 10
    return found


@pytest.mark.parametrize(("make", "words"), [(repeated, TOO_MUCH), (itself, "lists in lists")])
@pytest.mark.parametrize("legacy", [False, True])
def test_lists_that_stand_for_much(
    tmp_path: Path, make: Callable[[], list[Any]], words: str, legacy: bool
) -> None:
    path = saved(tmp_path / "a.pt", {"images": make(), "labels": LABELS}, legacy=legacy)
    assert words in refused_in_little_memory(path)


# --- pickles --------------------------------------------------------------------------------------

LONG = struct.pack("<Q", 2**40)
PICKLES = {
    "text of 8 bytes' length": (b"\x8c" + b"\x8e" + LONG + b"x.", "damaged"),
    "text": (b"X" + LONG[:4][::-1].replace(b"\0", b"\x7f") + b"x.", "damaged"),
    "bytes": (b"\x8e" + LONG + b"x.", "damaged"),
    "number": (b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\1.", "damaged"),
    "lists in lists": (b"]" * 10_000 + b"a" * 9_999 + b".", "lists in lists"),
    "bytearray": (b"cbuiltins\nbytearray\n" + b"J" + struct.pack("<i", 2**31 - 1) + b"\x85R.", "bytearray"),
    "array": (pickle.dumps(np.zeros(1), 2)[2:].replace(b"K\0\x85", b"J\xff\xff\xff\x7f\x85"), "damaged"),
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("bare", [False, True])
def test_pickles_that_promise_too_much(tmp_path: Path, name: str, bare: bool) -> None:
    content, words = PICKLES[name]
    path = repacked(of_torch(tmp_path / "a.pt"), zipfile.ZIP_STORED, **{"data.pkl": b"\x80\2" + content})
    if bare:  # of torch's former format, which begins with a pickled number
        path.write_bytes(b"\x80\2" + content)
    found = refused_in_little_memory(path)
    others = {
        "lists in lists": "damaged",
        "array": "wants to run numpy",
    }  # what comes before is no torch file
    assert (others.get(name, words) if bare else words) in found


@pytest.mark.parametrize("legacy", [False, True])
def test_a_storage_that_is_said_to_be_larger(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "a.pt", {"images": torch.zeros(1000), "labels": LABELS}, legacy=legacy)
    said, more = b"M" + struct.pack("<H", 1000), b"J" + struct.pack("<i", 2**31 - 1)
    if legacy:
        content = path.read_bytes()
        assert content.count(said) > 0
        path.write_bytes(content.replace(said, more))
    else:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        repacked(path, zipfile.ZIP_STORED, **{"data.pkl": pickled.replace(said, more)})
    assert "damaged" in refused_in_little_memory(path)


# --- a learned rate -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("x", "its learning rate is a str"),
        ("0.1", "its learning rate is a str"),
        ({"lr": 0.1}, "its learning rate is a dict"),
        ([0.1, "x"], "its learning rate is a list"),
        ([[0.1], [0.1, 0.2]], "its learning rate is a list"),
        ([], "its learning rate is a list"),
        (torch.zeros(0), "its learning rate is a Tensor"),
        ([0.1, 0.2], "its learning rate is 0.1, 0.2"),
        (float("nan"), "its learning rate is nan"),
        (torch.tensor(-0.5), "its learning rate is -0.5"),
        (10**400, "its learning rate is a int"),
    ],
    ids=str,
)
def test_a_rate_that_is_none(tmp_path: Path, rate: Any, words: str) -> None:
    path = saved(tmp_path / "a.pt", {"images": smooth(), "labels": LABELS, "lr": rate})
    assert f"{words}: pass a positive one, --lr" in refused(path, space="normalized")
    assert state(only(path, space="normalized", lr=0.5))["inner_lr"] == 0.5

"""Published sets, altered or made up: each is read, or refused in one line, in little memory."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fuzz
from helpers.importer import LABELS, PER, K, dataset, noise, saved, smooth, styles, trajectory, unit
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.core.preprocess import Preprocess
from bench.interop.importers.read import IMPORT_FORMATS, read_set
from bench.interop.importers.request import ImportRequest
from methods.blocks.parameterise.pixels import Pixels

pytestmark = pytest.mark.filterwarnings("ignore")
DATA = dataset()


def imported(path: Path, flags: dict[str, Any]) -> str | None:
    return fuzz.one_line(lambda: read_set(ImportRequest(path, **flags), DATA))


# --- altered bytes --------------------------------------------------------------------------------


def haba(folder: Path) -> None:
    trajectory(folder, smooth(), LABELS)
    saved(folder / "weights_best.pt", styles(2).state_dict())


def rtp(folder: Path) -> None:
    state = {"imgs.weight": noise(K * PER, 4), "basis.weight": noise(4, 12)}
    saved(folder / "a.pt", {"compressor": state})


def pictures(folder: Path) -> None:
    for c, image in zip(LABELS.tolist(), unit(K * PER, 4, 4, 3), strict=True):
        (folder / str(c)).mkdir(exist_ok=True)
        Image.fromarray((image.numpy() * 255).astype(np.uint8)).save(
            folder / f"{c}/{len(list(folder.rglob('*')))}.png"
        )


def packed(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", images=smooth().numpy(), labels=LABELS.numpy())


def parts(folder: Path) -> None:
    for i, (x, y) in enumerate(zip(smooth().split(PER), LABELS.split(PER), strict=True)):
        saved(folder / f"images_{i}.pt", x.clone())
        saved(folder / f"labels_{i}.pt", y.clone())


def numpy_files(folder: Path) -> None:
    np.save(folder / "a_images.npy", smooth().numpy())
    np.save(folder / "a_labels.npy", LABELS.numpy())


FLAGS = {"space": "normalized"}
WHOLE: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    "dc": (lambda folder: saved(folder / "a.pt", {"data": [[smooth(), LABELS]]}), {}),
    "former": (lambda folder: saved(folder / "a.pt", {"data": [[smooth(), LABELS]]}, legacy=True), {}),
    "arrays": (lambda folder: saved(folder / "a.pt", [smooth().numpy(), LABELS.numpy()]), FLAGS),
    "datm": (lambda folder: trajectory(folder, smooth(), LABELS, lr=0.1), FLAGS),
    "idc": (lambda folder: saved(folder / "data.pt", [unit(K * PER, 3, 4, 4), LABELS]), {"factor": 2}),
    "haba": (haba, FLAGS | {"lr": 0.1}),
    "rtp": (rtp, FLAGS),
    "frepo": (lambda folder: np.savez(folder / "a.npz", image=noise(6, 4, 4, 3), label=noise(6, K)), {}),
    "packed": (packed, FLAGS),
    "safetensors": (
        lambda folder: save_file({"images": smooth(), "labels": LABELS}, folder / "a.safetensors"),
        FLAGS,
    ),
    "ddbench": (
        lambda folder: Pixels(smooth(), [PER] * K, Preprocess((0.5,) * 3, (0.5,) * 3)).save(
            folder / "data.safetensors"
        ),
        {},
    ),
    "folder": (pictures, {}),
    "parts": (parts, FLAGS | {"lr": 0.1}),
    "numpy": (numpy_files, FLAGS),
}  # fmt: skip


def alter(path: Path, how: list[fuzz.Alteration], entry: int | None) -> None:
    """Alter a file, or one of the entries of a zip file, whose checksum fits then."""
    content = path.read_bytes()
    if entry is None or not zipfile.is_zipfile(path):
        path.write_bytes(fuzz.altered(content, how))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = list(parts)[entry % len(parts)]
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in parts.items():
            archive.writestr(each, fuzz.altered(data, how) if each == name else data)


@pytest.mark.parametrize("name", WHOLE)
@given(st.data())
def test_altered_files(name: str, data: st.DataObject) -> None:
    write, flags = WHOLE[name]
    how, entry = data.draw(fuzz.alterations), data.draw(st.none() | st.integers(0, 5))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        alter(files[data.draw(st.integers(0, len(files) - 1))], how, entry)
        imported(Path(folder), flags)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_altered_was_read(name: str, tmp_path: Path) -> None:
    write, flags = WHOLE[name]
    write(tmp_path)
    assert imported(tmp_path, flags) is None


# --- made up --------------------------------------------------------------------------------------


def layout(**parts: fuzz.Values) -> fuzz.Values:
    return st.fixed_dictionaries({name: part for name, part in parts.items()})


IMAGES = fuzz.near(K * PER, 3, 4, 4)
TARGETS = st.one_of(fuzz.near(K * PER, fill="classes"), fuzz.near(K * PER, K))
RATES = fuzz.mostly(st.just(0.1), st.one_of(fuzz.near(), fuzz.values))
STATED = layout(header=fuzz.values, tensors=st.dictionaries(st.sampled_from(["mean", "std"]), fuzz.near(3)))
STYLES = {"enc.weight": fuzz.near(3, 3, 3, 3), "enc.bias": fuzz.near(3), "scale": fuzz.near(1, 3, 2, 2)}
STYLES |= {"shift": fuzz.near(1, 3, 2, 2), "dec.weight": fuzz.near(3, 3, 3, 3), "dec.bias": fuzz.near(3)}
STATES = st.fixed_dictionaries({f"{i}.{name}": part for i in range(2) for name, part in STYLES.items()})
MEMORY = st.fixed_dictionaries(
    {"imgs.weight": fuzz.near(K * PER, 4)}, optional={"basis.weight": fuzz.near(4, 12)}
)
NAMED = st.fixed_dictionaries(
    {"images": IMAGES, "labels": TARGETS}, optional={"lr": RATES, "preprocess": STATED}
)
EXPERIMENTS = st.lists(st.tuples(IMAGES, TARGETS), min_size=1, max_size=2)
LAYOUTS: dict[str, tuple[fuzz.Values, dict[str, Any]]] = {
    "dc": (layout(a=layout(data=EXPERIMENTS, accs_all_exps=fuzz.values, lr=st.none() | RATES)), {}),
    "plain": (layout(a=NAMED), FLAGS),
    "pair": (layout(a=st.tuples(IMAGES, TARGETS)), FLAGS),
    "datm": (layout(images_best=IMAGES, labels_best=TARGETS, lr_best=RATES), FLAGS),
    "idc": (layout(data=st.tuples(fuzz.near(K * PER, 3, 4, 4, fill="unit"), TARGETS)), {"factor": 2}),
    "haba": (layout(images_best=IMAGES, weights_best=STATES), FLAGS | {"lr": 0.1}),
    "rtp": (layout(a=layout(compressor=MEMORY)), FLAGS),
    "parts": (
        layout(
            images_0=fuzz.near(PER, 3, 4, 4),
            labels_0=TARGETS,
            images_1=fuzz.near(2 * PER, 3, 4, 4),
            labels_1=fuzz.near(2 * PER, fill="classes"),
        ),
        FLAGS | {"lr": 0.1},
    ),
    "pairs": (
        layout(p0=st.tuples(IMAGES, TARGETS), p1=st.tuples(IMAGES, TARGETS), p2=fuzz.values),
        {"factor": 2},
    ),
    "keys": (layout(a=layout(syn_images=IMAGES, Y=TARGETS, syn_lr=RATES)), {"space": "signed"}),
    "any": (layout(a=fuzz.values), {}),
}


@pytest.mark.parametrize("name", LAYOUTS)
@given(st.data())
def test_made_up_torch_files(name: str, data: st.DataObject) -> None:
    parts, flags = LAYOUTS[name]
    found, legacy = data.draw(parts), data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        for stem, content in found.items():
            saved(Path(folder) / f"{stem}.pt", content, legacy=legacy)
        imported(Path(folder), flags)


@pytest.mark.parametrize("form", ["plain", "frepo", "kip"])
@given(fuzz.near(K * PER, 3, 4, 4, plain=True), fuzz.near(K * PER, K, plain=True))
def test_made_up_archives(form: str, images: Tensor, labels: Tensor) -> None:
    names = ("image", "label") if form == "frepo" else ("images", "labels")
    parts = (part.to(torch.float32) if part.dtype in fuzz.NOT_OF_NUMPY else part for part in (images, labels))
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / f"{form}.npz", **dict(zip(names, parts, strict=True)))
        imported(Path(folder), FLAGS if form == "plain" else {})


@given(
    st.fixed_dictionaries(
        {"images": fuzz.near(K * PER, 3, 4, 4, plain=True), "labels": fuzz.near(K * PER, K, plain=True)},
        optional={"lr": fuzz.near(plain=True), "preprocess.mean": fuzz.near(3, plain=True)},
    ),
    st.dictionaries(st.sampled_from(["preprocess", "format"]), fuzz.values.map(json.dumps), max_size=2),
)
def test_made_up_safetensors(found: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_file(found, Path(folder) / "a.safetensors", metadata=metadata or None)
        imported(Path(folder), FLAGS)


@pytest.mark.parametrize("form", sorted(IMPORT_FORMATS))
@pytest.mark.parametrize("name", WHOLE)
def test_every_file_read_in_every_format(form: str, name: str, tmp_path: Path) -> None:
    WHOLE[name][0](tmp_path)
    for flags in ({}, {"space": "raw01"}, {"space": "zca", "lr": 0.1}, {"factor": 2}, {"downsample": 2}):
        imported(tmp_path, {"format": form, **flags})
        for file in tmp_path.glob("*"):
            imported(file, {"format": form, **flags})

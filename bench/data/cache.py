"""The cache: one safetensors file per data set, written once and memory-mapped by every process."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.core.errors import UserError, first_line
from bench.core.io import remove_leftovers, replacing
from bench.data.builtin import open_source
from bench.data.dataset import Dataset, DataSource, DecodedSplits, Split
from bench.data.holdout import hold_out
from bench.data.spec import DatasetSpec
from bench.data.subset import class_positions, regroup

CACHE_SCHEMA = 1  # raise it when the layout of the file changes (for the decoding: decode.DECODING)
_STD_FLOOR = 1 / 255  # one grey level, so that a constant channel does not lead to division by zero
_CHUNK = 512  # images converted to float64 at a time


def cache_dir() -> Path:
    """The cache folder: $DDBENCH_CACHE, or the user's cache folder of the operating system."""
    folder = os.environ.get("DDBENCH_CACHE") or platformdirs.user_cache_dir("ddbench")
    return Path(folder).expanduser().absolute()


def prepare_dataset(spec: DatasetSpec) -> Path:
    """Decode (or download) a data set, unless its cache file exists already.

    A hold-out or a subset of the classes has a cache file of its own, made from that of the whole data set.

    Returns:
        The path of the cache file, for `read_dataset`.

    Raises:
        UserError: for missing or damaged sources, unknown classes, a class too small for the hold-out, and a
            cache folder that cannot be written.
    """
    source = _source(spec)
    path = cache_dir() / "datasets" / _file_name(spec, source.key)
    if path.exists():
        return path
    with _locked(path):
        if not path.exists():  # another process may have written it while this one waited
            remove_leftovers(path.parent)
            _write(path, spec, source.read())
    return path


def read_dataset(path: Path) -> Dataset:
    """Memory-map a cache file.

    The tensors are private copy-on-write maps: they take no memory until they are read, processes share their
    pages, and an in-place write changes neither the file nor what any other process or call reads.

    Raises:
        UserError: for a file that is missing, truncated or altered.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["ddbench"])
            tensors = {name: file.get_tensor(name) for name in meta["shapes"]}
        return _dataset(meta, tensors)
    except FileNotFoundError as error:
        raise UserError(f"no cache file {path}: prepare the data set first") from error
    except OSError as error:
        raise UserError(f"cannot read the cache file {path} ({error}): check its permissions") from error
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = first_line(error)
        raise UserError(f"cache file {path} is damaged ({why}): delete it to have it made again") from error


def receive_dataset(fingerprint: str, copy: Callable[[Path], None]) -> Path:
    """The cache file of a data set that another machine has decoded, copied once and then found here.

    Args:
        fingerprint: of the data set.
        copy: writes the file to a path.

    Raises:
        UserError: what has arrived is not that data set, or the cache folder cannot be written.
    """
    path = cache_dir() / "datasets" / f"{fingerprint}.safetensors"
    if path.exists():
        return path
    with _locked(path):
        if not path.exists():
            remove_leftovers(path.parent)
            with replacing(path) as unfinished:
                copy(unfinished)
                if content_fingerprint(_raw(read_dataset(unfinished))) != fingerprint:
                    raise UserError(
                        f"the data set {fingerprint} has not arrived whole: run the same command again"
                    )
                unfinished.chmod(0o644)
    return path


def regroup_dataset(whole: Dataset, groups: Sequence[Sequence[int]], label: str) -> Dataset:
    """Make a data set of some classes, alone or joined.

    Args:
        whole: the data set.
        groups: `groups[j]` are the classes of `whole` that become class j; other classes are left out.
        label: of the new data set.
    """
    raw = regroup(_raw(whole), groups)
    mean, std = channel_stats(raw.train.images.numpy())
    fingerprint = content_fingerprint(raw)
    return Dataset(whole.name, label, raw.train, raw.test, raw.classes, fingerprint, mean, std)


def _raw(data: Dataset) -> DecodedSplits:
    return DecodedSplits(data.train, data.test, data.classes)


def _source(spec: DatasetSpec) -> DataSource:
    """The source of a data set, with its hold-out and subset.

    The hold-out comes first, so that a subset holds out the same images as the whole data set (recall uses
    both).
    """
    if spec.classes:
        return _subset(spec, spec.classes)
    return _with_holdout(spec, spec.holdout) if spec.holdout else open_source(spec)


def _with_holdout(spec: DatasetSpec, fraction: float) -> DataSource:
    """A hold-out, read from the cache file of the published data set."""
    path = prepare_dataset(spec.published)

    def read() -> DecodedSplits:
        try:
            return hold_out(_raw(read_dataset(path)), fraction)
        except UserError as error:
            raise UserError(f"holdout of {spec.label}: {error}") from None

    return DataSource(f"{path.name} holdout {fraction}", read)


def _subset(spec: DatasetSpec, classes: Sequence[str | int]) -> DataSource:
    """Some classes, read from the cache file of the whole data set, which is decoded once for all subsets."""
    path = prepare_dataset(spec.whole)
    whole = read_dataset(path)
    try:
        chosen = class_positions(classes, whole.classes)
    except UserError as error:
        raise UserError(f"classes of {spec.label}: {error}") from None
    return DataSource(f"{path.name} {chosen}", lambda: regroup(_raw(whole), [[c] for c in chosen]))


def _locked(path: Path) -> AbstractContextManager[object]:
    """Hold the lock of a cache file for a `with` block; makes the folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {path.parent} ({error}): set DDBENCH_CACHE to one "
            "that you can write to"
        ) from error


def _file_name(spec: DatasetSpec, key: str) -> str:
    digest = hashlib.sha256(json.dumps([CACHE_SCHEMA, spec.name, spec.label, key]).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', spec.label)[:80]}-{digest[:16]}.safetensors"


def _tensors(raw: DecodedSplits) -> dict[str, Tensor]:
    return {
        "train_images": raw.train.images,
        "train_labels": raw.train.labels,
        "test_images": raw.test.images,
        "test_labels": raw.test.labels,
    }


def _write(path: Path, spec: DatasetSpec, raw: DecodedSplits) -> None:
    """Write the cache file, completely or not at all."""
    tensors = _tensors(raw)
    mean, std = channel_stats(raw.train.images.numpy())
    meta = {
        "schema": CACHE_SCHEMA,
        "name": spec.name,
        "label": spec.label,
        "classes": raw.classes,
        "fingerprint": content_fingerprint(raw),
        "mean": mean,
        "std": std,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }
    try:
        with replacing(path) as unfinished:
            save_file(tensors, unfinished, metadata={"ddbench": json.dumps(meta)})
            unfinished.chmod(0o644)  # safetensors makes files private, but a cache folder may be shared
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the cache file {path} ({error}): make room there, or set "
            "DDBENCH_CACHE to another folder"
        ) from error


def content_fingerprint(raw: DecodedSplits) -> str:
    """The data set's fingerprint: 32 hex digits of sha256 over shapes, pixels, labels and class names."""
    digest = hashlib.sha256(json.dumps(raw.classes).encode())
    for name, tensor in _tensors(raw).items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:32]


def channel_stats(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images [N,C,H,W], scaled to [0, 1]."""
    total = np.zeros(images.shape[1])
    squares = np.zeros(images.shape[1])
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].astype(np.float64)
        total += chunk.sum(axis=(0, 2, 3))
        squares += np.einsum("nchw,nchw->c", chunk, chunk)
    # Both sums are exact: they are whole numbers below 2**53.
    count = images.size / images.shape[1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return tuple((mean / 255).tolist()), tuple(np.maximum(std / 255, _STD_FLOOR).tolist())


def _dataset(meta: dict[str, Any], tensors: dict[str, Tensor]) -> Dataset:
    """The data set of a cache file. Raises ValueError if the tensors do not agree with the metadata."""
    if meta["schema"] != CACHE_SCHEMA:
        raise ValueError(f"its schema is {meta['schema']}, not {CACHE_SCHEMA}")
    for name, tensor in tensors.items():
        dtype = torch.uint8 if name.endswith("images") else torch.int64
        if list(tensor.shape) != meta["shapes"][name] or tensor.dtype != dtype:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise ValueError(f"{name} is {found}, not {dtype} {meta['shapes'][name]}")
    train, test = (Split(tensors[f"{part}_images"], tensors[f"{part}_labels"]) for part in ("train", "test"))
    mean, std = (tuple(map(float, meta[name])) for name in ("mean", "std"))
    if any(s.images.dim() != 4 or s.labels.shape != s.images.shape[:1] for s in (train, test)):
        raise ValueError("its images and labels are not as many")
    if not len(mean) == len(std) == train.images.shape[1]:
        raise ValueError("its mean and std are not those of each channel")
    return Dataset(
        name=meta["name"],
        label=meta["label"],
        train=train,
        test=test,
        classes=tuple(map(str, meta["classes"])),
        fingerprint=meta["fingerprint"],
        mean=mean,
        std=std,
    )

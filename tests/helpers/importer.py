"""Files in the layouts that other people published, written by the tests, and a small data set of theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.core import random
from bench.core.errors import UserError
from bench.data.dataset import Dataset, Split
from bench.interop.importers.read import read_set
from bench.interop.importers.request import Imported, ImportRequest

K, PER = 3, 2  # classes, and images of each


def dataset(
    label: str = "cifar10", channels: int = 3, side: int = 4, names: tuple[str, ...] = ("cat", "dog", "owl")
) -> Dataset:
    """Twenty random images of each class."""
    shape = (20 * len(names), channels, side, side)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=random.generator(0, "data"))
    split = Split(images, torch.arange(len(images)) % len(names))
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    return Dataset("image_folder", label, split, split, names, "0" * 32, mean, std)


def smooth(count: int = K * PER, channels: int = 3, side: int = 4) -> Tensor:
    """Normalised images [N,C,S,S] of deviation about 1, alike from pixel to pixel."""
    base = torch.randn(count, channels, 1, 1, generator=random.generator(1, "smooth"))
    return base + 0.1 * noise(count, channels, side, side)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=random.generator(seed, "noise", *shape))


def unit(*shape: int) -> Tensor:
    return torch.rand(shape, generator=random.generator(0, "unit", *shape))


LABELS = torch.arange(K).repeat_interleave(PER)


def saved(path: Path, value: Any, *, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def archived(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return path


def trajectory(folder: Path, images: Any, labels: Any, lr: Any = None, it: str = "best") -> Path:
    """images_best.pt, labels_best.pt and, for DATM, lr_best.pt."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"images": images, "labels": labels} | ({} if lr is None else {"lr": lr})
    for name, value in parts.items():
        saved(folder / f"{name}_{it}.pt", value)
    return folder


class StyleTranslator(nn.Module):
    """The hallucinator of HaBa, by its formula; the names of its tensors are those of the published files."""

    def __init__(self, channels: int, side: int, kernel: int = 3) -> None:
        super().__init__()
        latent = (1, channels, side - kernel + 1, side - kernel + 1)
        self.enc = nn.Conv2d(channels, channels, kernel)
        self.scale, self.shift = nn.Parameter(torch.ones(latent)), nn.Parameter(torch.zeros(latent))
        self.dec = nn.ConvTranspose2d(channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.dec(self.scale * self.enc(x) + self.shift)


def styles(count: int, channels: int = 3, side: int = 4) -> nn.ModuleList:
    with torch.random.fork_rng(), torch.no_grad():
        modules = nn.ModuleList(StyleTranslator(channels, side) for _ in range(count))
        for i, p in enumerate(modules.parameters()):
            p.copy_(noise(*p.shape, seed=i))
    return modules


def only(path: Path, data: Dataset | None = None, **flags: Any) -> Imported:
    """The one set in a file."""
    (found,) = read_set(ImportRequest(path, **flags), data or dataset())
    return found


def decoded(found: Imported) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        images, targets = found.distilled.decode()
    return images, targets


def refused(path: Path, data: Dataset | None = None, **flags: Any) -> str:
    """The one line with which it is refused, which names the path."""
    with pytest.raises(UserError) as caught:
        read_set(ImportRequest(path, **flags), data or dataset())
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def state(found: Imported) -> Mapping[str, Tensor]:
    return found.distilled.state_dict()

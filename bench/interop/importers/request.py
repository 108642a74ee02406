"""The request to import a file, the imported set, and what all readers share."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError, first_line
from bench.core.preprocess import Preprocess
from bench.core.registry import block_choices
from bench.data.dataset import Dataset
from bench.evaluation.storage import images_per_class

# What a set decodes to takes at most so many times what is stored, or so many bytes: a few coefficients of
# bases that all classes share stand for a whole image.
MOST_GROWTH, SMALL = 256, 2**30


@dataclass(frozen=True)
class ImportRequest:
    """A file or folder to import, and what it does not say itself.

    Args:
        path: the file or folder.
        format: one of IMPORT_FORMATS, or "auto".
        space: how its pixels are scaled, one of `pixel_space.SPACES`.
        factor: of multi-formation.
        lr: the learned rate of a student.
        downsample: of a memory of bases.
    """

    path: Path
    format: str = "auto"
    space: str | None = None
    factor: int | None = None
    lr: float | None = None
    downsample: int | None = None


@dataclass(frozen=True)
class Imported:
    """One imported set.

    Args:
        format: of the file.
        distilled: the set.
        seed: the number of the experiment in its file.
        ipc: images per class with as many numbers as are stored, without labels, rounded up.
        source: names of the files.
        published: what the file claims about the set.
        notes: what was assumed.
    """

    format: str
    distilled: DistilledDataset
    seed: int
    ipc: int
    source: str
    published: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def build_parameterisation(
    parameterisation: str, tensors: Mapping[str, Tensor | None], preprocess: Preprocess, **config: Any
) -> DistilledDataset:
    """Build a parameterisation by name, from tensors (None for absent ones) and its other arguments."""
    cls = block_choices()["parameterisation"][parameterisation]
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    distilled: DistilledDataset = cls(**given, **config, preprocess=preprocess)
    return distilled


def finish_import(
    request: ImportRequest,
    distilled: DistilledDataset,
    dataset: Dataset,
    files: list[Path],
    notes: tuple[str, ...] = (),
) -> Imported:
    """Check the set and describe it. Raises UserError if it does not decode to images of the data set."""
    images, _ = decode_within_bounds(request.path, distilled)
    if tuple(images.shape[1:]) != dataset.image_shape:
        raise UserError(
            f"{request.path} decodes to images of {shape_text(images[0])}, those of {dataset.label} are "
            f"{' x '.join(map(str, dataset.image_shape))}: name the data set it was made from"
        )
    check_finite(request.path, images)
    ipc = images_per_class(distilled, dataset)
    source = ", ".join(file.name for file in files)
    return Imported(request.format, distilled, 0, ipc, source, notes=notes)


def decode_within_bounds(path: Path, distilled: DistilledDataset) -> tuple[Tensor, Tensor]:
    """Images and targets.

    Raises UserError if the tensors of the set do not fit each other, or decode to too much.
    """
    stored = sum(tensor.nbytes for tensor in distilled.state_dict().values())
    try:
        if _decoded_bytes(distilled) > max(MOST_GROWTH * stored, SMALL):
            raise UserError(f"{path} decodes to more than {SMALL >> 20:,} MiB: take another file")
        with torch.no_grad():
            images, targets = distilled.decode()
    except UserError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its tensors do not fit each other ({first_line(error)})") from None
    if images.dim() != 4 or len(images) == 0:
        raise UserError(f"{path} decodes to {shape_text(images)} numbers, not to images: take another file")
    return images, targets


def _decoded_bytes(distilled: DistilledDataset) -> int:
    """What the images will take, from the shapes alone; 0 where a plug-in needs numbers to decode."""
    try:
        with torch.no_grad():
            images, _ = copy.deepcopy(distilled).to("meta").decode()
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        return 0
    return math.prod(images.shape) * images.element_size()


def learned_rate(request: ImportRequest, stated: Any = None, *, required: bool = False) -> Tensor | None:
    """The learned rate as a 0-dim tensor: the file's, else that of `--lr`; None if there is none.

    Raises UserError if they disagree, if the rate is not positive, and if there is none but one is required.
    """
    rate = request.lr
    if stated is not None:
        numbers = numbers_of(stated)
        usable = len(numbers) == 1 and math.isfinite(numbers[0]) and numbers[0] > 0
        if not usable and rate is None:
            said = ", ".join(map(str, numbers[:2])) or f"a {type(stated).__name__}"
            raise UserError(f"{request.path}: its learning rate is {said}: pass a positive one, --lr")
        if usable and rate is not None and not math.isclose(rate, numbers[0], rel_tol=1e-6):
            raise UserError(
                f"{request.path} states the learning rate {numbers[0]:g}: leave out --lr {rate:g}"
            )
        rate = numbers[0] if usable else rate
    if rate is None and required:
        other = "" if request.format == "haba" else ", or --format plain if none was learned"
        raise UserError(
            f"{request.path}: {request.format} files do not hold a learned rate: pass --lr{other}"
        )
    return None if rate is None else torch.tensor(rate)


def numbers_of(value: Any) -> list[float]:
    """The numbers of a tensor, an array, a list, or a number itself; none of anything else."""
    try:
        numbers: list[float] = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return []
    return numbers


def check_finite(path: Path, numbers: Tensor) -> None:
    """Raises UserError if any of the images [N,...] has NaN or infinite values, and says how many do."""
    bad = len(numbers) - int(torch.isfinite(numbers.flatten(1)).all(1).sum())
    if bad:
        raise UserError(
            f"{path}: {bad} of {len(numbers)} images hold NaN or infinite values: take another file"
        )


def shape_text(tensor: Tensor) -> str:
    """A tensor's shape as text: `10 x 3 x 32 x 32`."""
    return " x ".join(map(str, tensor.shape)) or "a single number"

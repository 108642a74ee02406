"""From pixels to what networks see: per-channel normalisation, or ZCA whitening.

It is stored in the artifact, so that test images are treated like the distilled ones.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.errors import UserError
from bench.core.registry import choose
from bench.core.transfer import to_device, to_host

# what a method may ask for: the training set's own mean and deviation, the papers' (core.paper_constants), or
# a whitening of some kind
NORMALISE, PAPER = "normalise", "paper"
ZCA_KINDS = ("mtt", "kip", "frepo", "rtp")
WHITENINGS = {"zca": "mtt", **{f"zca_{kind}": kind for kind in ZCA_KINDS[1:]}}
PREPROCESSES = (NORMALISE, PAPER, *WHITENINGS)
EACH_TO_LENGTH_1 = ("kip", "rtp")  # kinds that divide each image, less its mean, by its length
FIT_PIECE = 1000  # images of a step of the fit: 25 MB of float64 at 3 x 32 x 32
STD_FLOOR = 1 / 255  # of a channel that is constant


@dataclass(frozen=True)
class Preprocess:
    """(x - mean) / std per channel, for pixels x in [0, 1].

    Args:
        mean: of each channel.
        std: of each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _stats(self, like: Tensor) -> tuple[Tensor, Tensor]:
        stats = torch.tensor([self.mean, self.std], dtype=like.dtype).view(2, 1, -1, 1, 1)
        mean, std = to_device(stats, like.device)
        return mean, std

    def __call__(self, images: Tensor) -> Tensor:
        """Images [...,C,H,W], uint8 or float in [0, 1] -> float, as networks see them."""
        x = images.float().div_(255) if images.dtype == torch.uint8 else images
        mean, std = self._stats(x)
        return (x - mean) / std

    def invert(self, images: Tensor) -> Tensor:
        """Images [...,C,H,W] as networks see them -> pixels in [0, 1] (not clamped)."""
        mean, std = self._stats(images)
        return images * std + mean

    def header(self) -> dict[str, Any]:
        """The part that goes into a file's JSON header."""
        return {"mean": self.mean, "std": self.std}

    def tensors(self) -> dict[str, Tensor]:
        """The part that a file stores as tensors, {name: tensor}."""
        return {}


@dataclass(frozen=True, eq=False)
class Zca(Preprocess):
    """ZCA whitening: normalise per channel, subtract a centre, multiply by U diag(1/scales) U^T.

    With Lambda and U the eigenvalues and eigenvectors of the covariance of n training images in d dimensions,
    scales = sqrt(Lambda + floor). The field knows four kinds, which are not interchangeable:

    - mtt (Cazenavette et al., CVPR 2022, and HaBa; their code takes kornia's ZCAWhitening(eps=0.1)): pixels
      in [0, 1], not normalised; the centre is the mean image; divided by n - 1; floor = eps.
    - frepo (Zhou et al., NeurIPS 2022; lib/dataset of the authors' code): normalised per channel; the centre
      is the mean image; divided by n; floor = eps * mean(Lambda).
    - kip (Nguyen et al., NeurIPS 2021; kip/nn_training.ipynb of google-research): normalised per channel,
      then each image minus its own mean over all d values, divided by its own length; no centre, so that the
      second moment takes the place of the covariance; divided by n; floor = eps * mean(Lambda).

    - rtp (Deng & Russakovsky, NeurIPS 2022; preprocess of the authors' data_utils.py): as kip, but all
      channels are normalised together, which the mean and length of each image cancel; eps = 100 on SVHN.

    If n < d, the last three do not scale the d - n smallest directions (scale 1), as in KIP's code. All use
    eps = 0.1 on CIFAR-10. The length that kip and rtp divide each image by is lost: `invert` undoes the rest
    and gives an image of average brightness and contrast (length sqrt(d) when normalised), for viewing.

    Args:
        mean: of each channel, for the normalisation.
        std: of each channel, for the normalisation.
        kind: "mtt", "kip", "frepo" or "rtp".
        centre: float32 [d], with d = C * H * W.
        directions: U, float32 [d,d], one eigenvector a column.
        scales: float32 [d].
    """

    kind: str
    centre: Tensor
    directions: Tensor
    scales: Tensor
    # (device, type, power) -> centre and matrix there: computed once, because d x d products are expensive
    _kept: dict[tuple[torch.device, torch.dtype, int], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        choose("whitening", self.kind, ZCA_KINDS)
        d = self.centre.numel()
        if (self.centre.shape, self.directions.shape, self.scales.shape) != ((d,), (d, d), (d,)):
            raise UserError("the tensors of a whitening are a centre [d], directions [d,d] and scales [d]")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Zca) or self.kind != other.kind:
            return False
        pairs = zip(self.tensors().values(), other.tensors().values(), strict=True)
        return all(torch.equal(one.cpu(), two.cpu()) for one, two in pairs)

    __hash__ = Preprocess.__hash__

    @classmethod
    def fit(cls, images: Tensor, kind: str = "mtt", eps: float = 0.1) -> "Zca":
        """Fit the whitening to training images, in float64 and on their device.

        Memory: a few matrices [d,d] of float64, with d = C * H * W.

        Args:
            images: training images, uint8 [n,C,H,W].
            kind: "mtt", "kip", "frepo" or "rtp", as the class describes them.
            eps: what is added to the eigenvalues; times their mean for all but "mtt".

        Returns:
            The whitening; its tensors are float32.

        Raises:
            UserError: `kind` is unknown, or `eps` is not above 0.
        """
        choose("whitening", kind, ZCA_KINDS)
        if not eps > 0:
            raise UserError(f"whitening: eps {eps} must be above 0, or directions without variance blow up")
        n, d = len(images), images[0].numel()
        normalise = _before_whitening(images, kind)
        centre = torch.zeros(d, dtype=torch.float64, device=images.device)
        covariance = centre.new_zeros(d, d)
        if kind not in EACH_TO_LENGTH_1:
            for rows in _rows(images, normalise, kind):
                centre += rows.sum(0) / n
        for rows in _rows(images, normalise, kind):
            rows -= centre
            covariance.addmm_(rows.T, rows)
        variances, directions = torch.linalg.eigh(covariance / (n - 1 if kind == "mtt" else n))  # ascending
        floor = eps if kind == "mtt" else eps * variances.mean()
        scales = (variances.clamp_min(0) + floor).sqrt()
        if kind != "mtt":
            scales[: max(d - n, 0)] = 1
        tensors = (tensor.float() for tensor in (centre, directions, scales))
        return cls(normalise.mean, normalise.std, kind, *tensors)

    @classmethod
    def of(cls, kind: str, tensors: Mapping[str, Tensor]) -> "Zca":
        """Restore it from `tensors()`. Raises UserError for wrong shapes, KeyError for a missing tensor."""
        mean, std = (tuple(tensors[name].tolist()) for name in ("mean", "std"))
        return cls(mean, std, kind, *(tensors[name] for name in ("centre", "directions", "scales")))

    def __call__(self, images: Tensor) -> Tensor:
        """Images [...,C,H,W], uint8 or float in [0, 1] -> whitened, float."""
        x = super().__call__(images)
        centre, matrix = self._on(x, -1)
        return ((_flat(x, self.kind) - centre) @ matrix).view_as(x)

    def invert(self, images: Tensor) -> Tensor:
        """Whitened images [...,C,H,W] -> pixels in [0, 1] (not clamped); for kip, see the class."""
        centre, matrix = self._on(images, 1)
        rows = images.flatten(-3) @ matrix + centre
        if self.kind in EACH_TO_LENGTH_1:
            rows = rows * len(centre) ** 0.5
        return super().invert(rows.view_as(images))

    def _on(self, like: Tensor, power: int) -> tuple[Tensor, Tensor]:
        """The centre and U diag(scales^power) U^T, with the device and type of `like`."""
        key = (like.device, like.dtype, power)
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # autograd may use the matrix later
                centre, u, scales = (
                    to_device(t, like.device).to(like.dtype)
                    for t in (self.centre, self.directions, self.scales)
                )
                self._kept[key] = centre, (u * scales**power) @ u.T
        return self._kept[key]

    def header(self) -> dict[str, Any]:
        """The kind; everything else is stored as tensors."""
        return {"kind": self.kind}

    def tensors(self) -> dict[str, Tensor]:
        """`mean` and `std` [C], `centre` and `scales` [d], `directions` [d,d]."""
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float64).unbind()
        found = {"mean": mean, "std": std, "centre": self.centre}
        return {**found, "directions": self.directions, "scales": self.scales}


def restore_preprocess(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preprocess:
    """Restore a preprocessing from `header()` and `tensors()`.

    Raises UserError, KeyError or TypeError when they do not fit.
    """
    if "kind" in header:
        found: Preprocess = Zca.of(header["kind"], tensors)
    else:
        found = Preprocess(*(tuple(header[name]) for name in ("mean", "std")))
    numbers = (*found.mean, *found.std)
    usable = all(type(n) in (int, float) and math.isfinite(n) for n in numbers) and min(found.std) > 0
    if not usable or len(found.mean) != len(found.std):
        raise UserError("its preprocessing has no mean and positive std of each channel")
    return found


def _normaliser(images: Tensor) -> Preprocess:
    """Normalise by the mean and standard deviation per channel of uint8 images [n,C,H,W]."""
    sums, squares = (
        torch.stack([piece.double().pow(power).sum((0, 2, 3)) for piece in images.split(FIT_PIECE)]).sum(0)
        for power in (1, 2)
    )
    size = images.numel() / images.shape[1]
    mean = sums / size
    mean, std = to_host(torch.stack([mean, (squares / size - mean**2).clamp_min(0).sqrt()]))
    return Preprocess(tuple((mean / 255).tolist()), tuple((std / 255).clamp_min(STD_FLOOR).tolist()))


def _before_whitening(images: Tensor, kind: str) -> Preprocess:
    """The normalisation that a kind of whitening of images [n,C,H,W] begins with."""
    channels = images.shape[1]
    if kind == "mtt":
        return Preprocess((0.0,) * channels, (1.0,) * channels)
    if kind == "rtp":
        joint = _normaliser(images.flatten(1)[:, None, None])
        return Preprocess(joint.mean * channels, joint.std * channels)
    return _normaliser(images)


def _rows(images: Tensor, normalise: Preprocess, kind: str) -> Iterator[Tensor]:
    """All images, normalised and flat, in float64, a piece at a time; each piece may be overwritten."""
    for piece in images.split(FIT_PIECE):
        yield _flat(normalise(piece.double().div_(255)), kind)


def _flat(x: Tensor, kind: str) -> Tensor:
    """[...,C,H,W] -> [...,d]; for kip and rtp with mean 0 and length 1 (a uniform image becomes 0)."""
    rows = x.flatten(-3)
    return F.normalize(rows - rows.mean(-1, keepdim=True), dim=-1) if kind in EACH_TO_LENGTH_1 else rows

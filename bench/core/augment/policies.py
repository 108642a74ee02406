"""Augmentation policies on 8-bit pixels: AutoAugment and RandAugment, drawn image by image.

The operations are torchvision's, with its ranges, nearest-neighbour sampling and black fill. torchvision's
own transforms draw once for a whole batch and from the global generator; here the draws are made on the host,
and images with the same operation are processed together on the device. Rounding pixels to bytes stops the
gradient.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.core.optional import import_torchvision
from bench.core.preprocess import Preprocess
from bench.core.transfer import to_device

OPERATIONS_PER_IMAGE = 2  # applied one after the other

# AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019, appendix): operation, probability, level
CIFAR10_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
# The strength at the highest level, applied with either sign: a shear as a factor, a shift as a fraction of
# the side, a rotation in degrees; the others are added to a factor of 1.
_SIGNED = {
    **{"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331, "TranslateY": 150 / 331, "Rotate": 30.0},
    **{"Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9},
}
_PLAIN = ("Posterize", "Solarize", "AutoContrast", "Equalize")

AUTOAUGMENT, RANDAUGMENT = "autoaugment", "randaugment"
LEVELS = {AUTOAUGMENT: 10, RANDAUGMENT: 31}  # RandAugment's level 9 of 0 to 30 is torchvision's default
# Every operation of a policy with its level; the first one does nothing.
POLICY_OPERATIONS: dict[str, tuple[tuple[str, int], ...]] = {
    AUTOAUGMENT: tuple(
        dict.fromkeys([("Identity", 0), *((op, level) for row in CIFAR10_POLICY for op, _, level in row)])
    ),
    RANDAUGMENT: tuple((op, 9) for op in ("Identity", *_SIGNED, *_PLAIN)),
}
_PLACES = torch.tensor(
    [[POLICY_OPERATIONS[AUTOAUGMENT].index((op, level)) for op, _, level in row] for row in CIFAR10_POLICY]
)
_PROBABILITIES = torch.tensor([[probability for _, probability, _ in row] for row in CIFAR10_POLICY])
_HAS_SIGN = {
    name: torch.tensor([op in _SIGNED for op, _ in kinds]) for name, kinds in POLICY_OPERATIONS.items()
}


def policy_constants(name: str) -> dict[str, Any]:
    """What a policy draws from, as plain JSON."""
    rows = CIFAR10_POLICY if name == AUTOAUGMENT else POLICY_OPERATIONS[name]
    found = {"operations": rows, "levels": LEVELS[name], "strengths": _SIGNED}
    return {**found, "operations_per_image": OPERATIONS_PER_IMAGE}


@functools.cache
def strength(operation: str, level: int, levels: int, height: int, width: int) -> float:
    """The strength of an operation at a level.

    Args:
        operation: a key of `_OPERATIONS`.
        level: 0 to levels - 1.
        levels: number of levels of the policy.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        Pixels for a shift, degrees for a rotation, bits for Posterize, a fraction of the brightest value for
        Solarize, a factor for a shear, what is added to a factor of 1 for the colour operations, else 0.
    """
    if operation == "Posterize":
        return round(8 - 4 * level / (levels - 1))  # bits
    if operation == "Solarize":
        return float(torch.linspace(1, 0, levels)[level])  # the threshold, a share of the brightest
    side = {"TranslateX": width, "TranslateY": height}.get(operation, 1)
    return float(torch.linspace(0, _SIGNED.get(operation, 0.0) * side, levels)[level])


_OPERATIONS: dict[str, Callable[[Any, Tensor, float], Tensor]] = {
    "Identity": lambda tv, x, m: x,
    "ShearX": lambda tv, x, m: _shear(tv, x, [m, 0.0]),
    "ShearY": lambda tv, x, m: _shear(tv, x, [0.0, m]),
    "TranslateX": lambda tv, x, m: tv.affine(x, 0.0, [int(m), 0], 1.0, [0.0, 0.0]),
    "TranslateY": lambda tv, x, m: tv.affine(x, 0.0, [0, int(m)], 1.0, [0.0, 0.0]),
    "Rotate": lambda tv, x, m: tv.rotate(x, m),
    "Brightness": lambda tv, x, m: tv.adjust_brightness(x, 1 + m),
    "Color": lambda tv, x, m: tv.adjust_saturation(x, 1 + m),  # a grey image stays as it is
    "Contrast": lambda tv, x, m: tv.adjust_contrast(x, 1 + m),
    "Sharpness": lambda tv, x, m: tv.adjust_sharpness(x, 1 + m),
    "Posterize": lambda tv, x, m: tv.posterize(x, int(m)),
    "Solarize": lambda tv, x, m: tv.solarize(x, 255 * m),
    "AutoContrast": lambda tv, x, m: tv.autocontrast(x),
    "Equalize": lambda tv, x, m: tv.equalize(x),
    "Invert": lambda tv, x, m: tv.invert(x),
}


def _shear(tv: Any, x: Tensor, factors: list[float]) -> Tensor:
    """Shear about the upper left corner, as in the authors' code; torchvision takes degrees."""
    degrees = [math.degrees(math.atan(factor)) for factor in factors]
    return tv.affine(x, 0.0, [0, 0], 1.0, degrees, center=[0, 0])


def operate(images: Tensor, operation: str, value: float) -> Tensor:
    """Apply one operation at strength `value` to all uint8 images [N,C,H,W], of one or three channels."""
    return _OPERATIONS[operation](import_torchvision("transforms.v2.functional"), images, value)


def dispatch(choice: Tensor, operations: Sequence[Callable[..., Tensor]], *per_image: Tensor) -> Tensor:
    """Apply a chosen operation to each image; each operation runs once, on all images that chose it.

    Args:
        choice: position of each image's operation, int64 [N], on the CPU, so that nothing waits for the
            device.
        operations: what can be chosen.
        per_image: the images [N,C,H,W], and further arguments of the operations with N rows.

    Returns:
        operations[choice[i]](images[i], ...) for every image i, [N,C,H,W].
    """
    there = partial(to_device, device=per_image[0].device)
    order = choice.argsort(stable=True)
    counts = choice.bincount(minlength=len(operations)).tolist()
    sources = zip(*(t[there(order)].split(counts) for t in per_image), strict=True)
    parts = [op(*source) for op, source in zip(operations, sources, strict=True) if len(source[0])]
    return torch.cat(parts)[there(order.argsort())]


@dataclass(frozen=True)
class Policy:
    """A stage that applies two operations, one after the other, to each of G groups.

    Args:
        name: "autoaugment" or "randaugment".
        codes: int64 [G, 2], on the CPU: twice the position in `POLICY_OPERATIONS[name]`, plus one for a
            negative strength.
    """

    name: str
    codes: Tensor

    def __call__(self, images: Tensor, preprocess: Preprocess) -> Tensor:
        """Augment images [G*B,C,H,W], as networks see them, in pixel space; no gradient passes through."""
        height, width = images.shape[2:]
        operations = [
            partial(operate, operation=op, value=sign * strength(op, level, LEVELS[self.name], height, width))
            for op, level in POLICY_OPERATIONS[self.name]
            for sign in (1, -1)
        ]
        pixels = preprocess.invert(images.detach()).mul(255).round().clamp(0, 255).to(torch.uint8)
        for codes in self.codes.repeat_interleave(len(images) // len(self.codes), 0).unbind(1):
            pixels = dispatch(codes, operations, pixels)
        return preprocess(pixels).to(images.dtype)


def draw_policy(name: str, groups: int, generator: torch.Generator) -> Policy:
    """Draw the operations of each group.

    AutoAugment draws one of 25 sub-policies and applies each of its operations with its probability.
    RandAugment draws any two of its operations. A strength that has a sign is negative half of the time.

    Args:
        name: "autoaugment" or "randaugment".
        groups: number of groups.
        generator: a CPU generator.

    Returns:
        The stage.

    References:
        Cubuk et al., AutoAugment, CVPR 2019; Cubuk et al., RandAugment, NeurIPS 2020.
    """
    if name == AUTOAUGMENT:
        row = torch.randint(len(CIFAR10_POLICY), (groups,), generator=generator)
        happens = torch.rand(groups, OPERATIONS_PER_IMAGE, generator=generator) < _PROBABILITIES[row]
        kind = torch.where(happens, _PLACES[row], 0)
    else:
        kind = torch.randint(
            len(POLICY_OPERATIONS[name]), (groups, OPERATIONS_PER_IMAGE), generator=generator
        )
    negative = torch.rand(groups, OPERATIONS_PER_IMAGE, generator=generator) < 0.5
    return Policy(name, 2 * kind + (negative & _HAS_SIGN[name][kind]))

"""DSA's operations as they are drawn: what images show stays in the ranges of the paper, and fills them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.core import random
from bench.core.augment.dsa import apply, draw

N, SIDE = 2000, 33
LINE = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
ACROSS, DOWN = LINE.expand(SIDE, SIDE), LINE[:, None].expand(SIDE, SIDE)
MIDDLE = SIDE // 2


def drawn(operation: str, *channels: Tensor) -> Tensor:
    """One image [C, side, side], augmented N times."""
    image = torch.stack(channels)
    return apply(image.expand(N, *image.shape), draw(operation, N, random.generator(0)))


def slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """How fast each image rises to the right and downwards in its middle, in units of the ramps'."""
    step, at = 2 / (SIDE - 1), images[:, :, MIDDLE, MIDDLE]
    right, below = images[:, :, MIDDLE, MIDDLE + 1], images[:, :, MIDDLE + 1, MIDDLE]
    return (right - at) / step, (below - at) / step


def colour(channel: int) -> Tensor:
    """Brightness, saturation and contrast [N, 3], from a ramp and a tint that leave the grey value alone."""
    tint = torch.ones_like(ACROSS)
    made = drawn("color", ACROSS + tint, ACROSS - tint, ACROSS)
    contrast = slopes(made)[0][:, 2]
    tinted = (made[:, 0] - made[:, 1]).mean((1, 2)) / 2
    return torch.stack([made.mean((1, 2, 3)), tinted / contrast, contrast], 1)[:, channel]


def shift(axis: int) -> Tensor:
    """Where a point went, in pixels."""
    point = torch.zeros_like(ACROSS)
    point[MIDDLE, MIDDLE] = 1
    found = drawn("crop", point)[:, 0].flatten(1).argmax(1)
    return torch.stack([found // SIDE, found % SIDE])[axis].double() - MIDDLE


def factor(axis: int) -> Tensor:
    return slopes(drawn("scale", ACROSS, DOWN))[axis][:, axis]


def angle(_: int) -> Tensor:
    right, down = slopes(drawn("rotate", ACROSS, DOWN))
    torch.testing.assert_close(right[:, 0] ** 2 + down[:, 0] ** 2, torch.ones(N, dtype=torch.float64))
    return torch.rad2deg(torch.atan2(right[:, 1], right[:, 0]))


def cut(axis: int) -> Tensor:
    """The side of the hole."""
    hole = drawn("cutout", torch.ones_like(ACROSS))[:, 0] == 0
    return hole.any(2 - axis).sum(1).double()


@pytest.mark.parametrize(
    ("value", "of", "low", "high"),
    [
        *((colour, i, *ends) for i, ends in enumerate([(-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)])),
        *((shift, axis, -(SIDE // 8), SIDE // 8) for axis in (0, 1)),
        *((factor, axis, 1 / 1.2, 1.2) for axis in (0, 1)),
        (angle, 0, -15.0, 15.0),
        *((cut, axis, 9, 17) for axis in (0, 1)),  # half of the side; centred on the border, half of that
    ],
)
def test_draws_fill_the_ranges_of_the_paper(
    value: Callable[[int], Tensor], of: int, low: float, high: float
) -> None:
    found, slack = value(of), 2e-6 * max(abs(low), abs(high))  # the uniforms are float32
    assert low - slack <= float(found.min()) <= low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) <= float(found.max()) <= high + slack


def test_half_of_the_images_are_flipped() -> None:
    made = drawn("flip", ACROSS)[:, 0]
    flipped = (made == ACROSS.flip(1)).flatten(1).all(1)
    assert torch.equal(made[~flipped], ACROSS.expand_as(made)[~flipped])
    assert abs(int(flipped.sum()) - N / 2) < 4 * math.sqrt(N / 4)


@pytest.mark.parametrize("operation", ["crop", "cutout", "scale", "rotate"])
def test_what_comes_from_outside_is_zero(operation: str) -> None:
    """A warp of ones reads ones and zeros: nothing but zero is added, and both are there."""
    made = drawn(operation, torch.ones_like(ACROSS))
    assert (float(made.min()), round(float(made.max()), 12)) == (0, 1)
    if operation in ("crop", "cutout"):
        assert torch.all((made == 0) | (made == 1))

"""Shuffled patches and resized crops: against plain slices, torchvision, and the law of the draws."""

import itertools

import pytest
import torch
from torch import Tensor

from bench.core import random
from bench.core.augment import dsa
from bench.core.augment.tiles import TILE_OPERATIONS, TileDraw, draw_tiles, resolve_tiles
from bench.core.errors import UserError

WHOLE_IMAGE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def images(n: int = 1, side: int = 6) -> Tensor:
    return torch.randn(n, 2, side, side, dtype=torch.float64, generator=random.generator(0, "images"))


def shuffled_by_hand(x: Tensor, factor: int, rows: list[int], columns: list[int]) -> Tensor:
    """Slices of columns side by side in their new order, then slices of rows; rows[i]: where slice i goes."""
    step = x.shape[-1] // factor
    for axis, places in ((3, columns), (2, rows)):
        parts = x.tensor_split([step * i for i in range(1, factor)], axis)
        x = torch.cat([part for _, part in sorted(zip(places, parts, strict=True), key=lambda p: p[0])], axis)
    return x


@pytest.mark.parametrize(("factor", "side"), [(2, 6), (3, 6), (2, 7), (3, 8)])
def test_tiles_are_shuffled_as_rows_and_columns(factor: int, side: int) -> None:
    x = images(side=side)
    orders = list(itertools.permutations(range(factor)))
    for rows, columns in itertools.product(orders, orders):
        drawn = TileDraw(factor, torch.tensor([rows]), torch.tensor([columns]), WHOLE_IMAGE)
        expected = shuffled_by_hand(x, factor, list(rows), list(columns))
        torch.testing.assert_close(drawn(x), expected, rtol=0, atol=1e-12)


def test_a_crop_is_enlarged_to_the_whole_image() -> None:
    """Of a linear ramp, whose value at any place is known; and a half of doubled pixels gives them back."""
    ramp = (torch.arange(8, dtype=torch.float64) + 0.5).expand(1, 1, 8, 8)
    still = torch.arange(2)[None]
    box = torch.tensor([[0.25, 0.5, 0.5, 0.5]], dtype=torch.float64)
    found = TileDraw(2, still, still, box)(ramp)
    expected = 2.0 + 0.5 * (torch.arange(8, dtype=torch.float64) + 0.5)
    torch.testing.assert_close(found, expected.expand(1, 1, 8, 8), rtol=0, atol=1e-12)


def test_crops_have_torchvision_s_law() -> None:
    """At least half the area, sides in proportion 3:4 to 4:3, inside of the image, the place uniform."""
    drawn = draw_tiles("tiles2", 4000, random.generator(1))
    x, y, width, height = drawn.boxes.unbind(1)
    whole = (width == 1) & (height == 1)
    area, ratio = (width * height)[~whole], (width / height)[~whole]
    assert area.min() >= 0.5
    assert area.max() > 0.97
    assert 0.75 - 1e-6 <= ratio.min() < 0.76
    assert 1.32 < ratio.max() <= 4 / 3 + 1e-6
    assert (x >= 0).all()
    assert (x + width <= 1 + 1e-6).all()
    assert (y + height <= 1 + 1e-6).all()
    free = width < 1
    place = (x / (1 - width))[free]
    assert abs(float(place.mean()) - 0.5) < 0.02
    assert whole.float().mean() < 0.01
    for order in (drawn.rows, drawn.columns):
        assert torch.equal(order.sort(1).values, torch.arange(2).expand(4000, 2))
        assert abs(float(order[:, 0].float().mean()) - 0.5) < 0.03


@pytest.mark.parametrize("strategy", ["tiles2", "tiles3+flip"])
def test_every_image_has_its_own_draw(strategy: str) -> None:
    x = images(6)
    one, two = (dsa.draw(strategy, 3, random.generator(seed)) for seed in (1, 2))
    joined = dsa.apply(x, dsa.concat([one, two]))
    torch.testing.assert_close(joined, torch.cat([dsa.apply(x[:3], one), dsa.apply(x[3:], two)]))
    assert (dsa.apply(x[:1].expand(3, -1, -1, -1), one).std(0) > 0).any()


def test_a_gradient_passes() -> None:
    drawn = draw_tiles("tiles2", 2, random.generator(0))
    x = images(2, side=4).requires_grad_()
    assert torch.autograd.gradcheck(drawn, x)


def test_tiles_are_a_stage_of_their_own() -> None:
    assert dsa.parse_strategy("tiles2+flip") == (("tiles2",), ("flip",))
    assert dsa.constants("tiles2").keys() == {"tiles2"}
    with pytest.raises(UserError, match="tiles2 is a stage of its own"):
        dsa.parse_strategy("tiles2_flip")
    with pytest.raises(UserError, match="no augmentation named 'tiles9'"):
        dsa.parse_strategy("tiles9")
    assert list(TILE_OPERATIONS.values()) == [1, 2, 3, 4, 5]


def test_a_set_says_how_many_tiles_its_images_show() -> None:
    assert resolve_tiles("tiles+flip", 2) == "tiles2+flip"
    assert resolve_tiles("tiles+flip", 1) == "flip"
    assert resolve_tiles("tiles", 1) == "none"
    for untouched in ("none", "color_crop", "tiles3"):
        assert resolve_tiles(untouched, 2) == untouched
    x = images(3)
    torch.testing.assert_close(dsa.apply(x, dsa.draw("tiles", 3, random.generator(0))), x)

"""CutMix: whose pixels are where, how much of each there is, and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core import random
from bench.core.augment.cutmix import apply_cutmix, draw_cutmix


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 9999))
def test_cutmix_pastes_one_box_of_each_partner(n: int, side: int, seed: int) -> None:
    """Images of one value each: the share of an image's own pixels is the weight, to the last bit."""
    values = torch.arange(float(n), dtype=torch.float64)
    drawn = draw_cutmix((n, 2, side, side), random.generator(seed))
    mixed = apply_cutmix(values.view(-1, 1, 1, 1).expand(n, 2, side, side), drawn)
    assert torch.equal(drawn.partner.sort().values, torch.arange(n))
    box = torch.zeros(side, side, dtype=torch.bool)
    box[drawn.rows, drawn.columns] = True
    assert drawn.weight == 1 - int(box.sum()) / side**2
    assert torch.equal(mixed[:, :, box], values[drawn.partner][:, None, None].expand_as(mixed[:, :, box]))
    assert torch.equal(mixed[:, :, ~box], values[:, None, None].expand_as(mixed[:, :, ~box]))


def test_cutmix_boxes_have_the_drawn_area() -> None:
    """A side r = sqrt(u), u uniform, keeps r - r^2/4 of itself on average, and E[r - r^2/4]^2 = 77/240.

    Rounding down to even sides takes some of it, less the larger the image.
    """
    n, side = 2000, 512
    draws = random.generator(0)
    boxes = [draw_cutmix((1, 1, side, side), draws) for _ in range(n)]
    for box in boxes:
        inside = min(box.rows.start, box.columns.start) > 0 and max(box.rows.stop, box.columns.stop) < side
        sides = {box.rows.stop - box.rows.start, box.columns.stop - box.columns.start}
        assert len(sides) == 1 or not inside  # only the border clips a square
        assert 0 <= min(sides) <= max(sides) <= side
    expected = 1 - 77 / 240
    assert abs(sum(box.weight for box in boxes) / n - expected) < 4 * 0.3 / math.sqrt(n)


@pytest.mark.parametrize(("side", "share"), [(32, 0.29925097), (28, 0.29613295), (8, 0.23257446)])
def test_the_share_is_that_of_the_official_code(side: int, share: float) -> None:
    """The mean share that its code pastes, 200,000 draws."""
    n = 20_000
    draws = random.generator(side)
    pasted = torch.tensor([1 - draw_cutmix((1, 1, side, side), draws).weight for _ in range(n)])
    assert abs(float(pasted.mean()) - share) < 4 * float(pasted.std()) / math.sqrt(n)


def test_gradients_of_cutmix() -> None:
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64, generator=random.generator(0)).requires_grad_()
    drawn = draw_cutmix((3, 1, 5, 5), random.generator(2))
    assert 0 < drawn.weight < 1
    assert torch.autograd.gradcheck(lambda images: apply_cutmix(images, drawn), x)

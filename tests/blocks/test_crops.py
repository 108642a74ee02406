"""Where random crops lie, and what is cut out there."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.parameterise import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core import random
from methods.blocks.crops import crop_matrices, cut_crops, draw_crops


@given(side=st.integers(1, 40), smallest=st.floats(1e-4, 1), stretch=st.floats(1, 3), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_crop_lies_within_its_image(side: int, smallest: float, stretch: float, seed: int) -> None:
    first, length = draw_crops(50, side, smallest, random.generator(seed), stretch).unbind(-1)
    assert (first >= 0).all()
    assert (length >= 1).all()
    assert (first + length <= side).all()


def test_shares_and_shapes_are_those_asked_for() -> None:
    """The share is uniform in [s, 1], the ratio within its bounds; of places, every one occurs."""
    spans = draw_crops(4000, 1000, 0.25, random.generator(0))
    height, width = spans[:, :, 1].double().unbind(1)
    assert torch.equal(height, width)
    share = (height * width / 1000**2).sort().values
    uniform = torch.linspace(0.25, 1, 4000, dtype=torch.float64)
    assert (share - uniform).abs().max() < 0.75 * 1.95 / math.sqrt(4000)  # Kolmogorov-Smirnov at 0.1 %
    height, width = draw_crops(4000, 1000, 0.1, random.generator(0), 4 / 3)[:, :, 1].double().unbind(1)
    ratio = width / height
    assert 3 / 4 - 0.01 < float(ratio.min()) < 0.8
    assert 1.25 < float(ratio.max()) < 4 / 3 + 0.01
    rows = draw_crops(500, 4, 0.25, random.generator(0))[:, 0]
    assert {tuple(row) for row in rows.tolist()} >= {(0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (0, 4)}


def test_a_share_of_one_takes_whole_images_whatever_the_shape() -> None:
    spans = draw_crops(200, 32, 1.0, random.generator(0), 4 / 3)
    assert (spans == torch.tensor([[0, 32], [0, 32]])).float().mean() > 0.9
    assert torch.equal(draw_crops(9, 8, 1.0, random.generator(0)), torch.tensor([[[0, 8]] * 2] * 9))


@given(side=st.integers(1, 12), to=st.integers(1, 16), smallest=st.floats(0.05, 1), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_crop_is_resized_as_torch_does_it(side: int, to: int, smallest: float, seed: int) -> None:
    images, spans = noise(3, 2, side, side), draw_crops(3, side, smallest, random.generator(seed), 2.0)
    found = cut_crops(images, spans, to)
    for image, crop, ((top, height), (left, width)) in zip(images, found, spans.tolist(), strict=True):
        part = image[None, :, top : top + height, left : left + width]
        wanted = F.interpolate(part, (to, to), mode="bilinear", antialias=True, align_corners=False)[0]
        torch.testing.assert_close(crop, wanted, rtol=0, atol=1e-10)


def test_a_whole_image_at_its_own_size_stays_as_it_is() -> None:
    assert torch.equal(crop_matrices(torch.tensor([[0, 5]]), 5, 5)[0], torch.eye(5))


def test_the_gradient_of_cutting() -> None:
    spans = draw_crops(2, 5, 0.3, random.generator(0))
    images = noise(2, 1, 5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cut_crops(x, spans, 4), images)


@pytest.mark.parametrize("seed", [0, 1])
def test_draws_depend_on_the_generator_alone(seed: int) -> None:
    torch.manual_seed(seed)
    assert torch.equal(draw_crops(5, 9, 0.1, random.generator(3)), draw_crops(5, 9, 0.1, random.generator(3)))

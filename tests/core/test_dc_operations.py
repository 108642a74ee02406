"""DC's augmentations of students: what each does, in closed form."""

import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bench.core import random
from bench.core.augment import dsa
from bench.core.augment.dc_operations import dc_crop, dc_noise, dc_rotate, dc_scale

LAST = 1 - 2**-24  # the largest float32 that torch.rand gives


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random.generator(0, "noise"))


def uniforms(*values: float, n: int = 1) -> Tensor:
    return torch.tensor([*values, 0.5, 0.5, 0.5][:3], dtype=torch.float64).expand(n, 3)


@pytest.mark.parametrize("side", [8, 28, 32])
def test_crop_starts_at_one_of_eight_pixels_of_a_frame_of_four(side: int) -> None:
    x = noise(1, 3, side, side)
    framed = F.pad(x, (4, 4, 4, 4))
    for i, j in [(0, 0), (4, 4), (7, 2)]:
        found = dc_crop(x, uniforms((i + 0.5) / 8, (j + 0.5) / 8))
        assert torch.equal(found, framed[:, :, i : i + side, j : j + side])
    assert torch.equal(dc_crop(x, uniforms(LAST, LAST)), framed[:, :, 7 : 7 + side, 7 : 7 + side])


def resized(x: Tensor, h: int, w: int) -> Tensor:
    """Resized by the nearest pixel, put into the middle of a frame, of which the middle is cut out."""
    side = x.shape[2]
    frame = max(h, w, side)
    canvas, row, col = torch.zeros(*x.shape[:2], frame, frame).to(x), (frame - h) // 2, (frame - w) // 2
    canvas[:, :, row : row + h, col : col + w] = F.interpolate(x, [h, w])
    at = (frame - side) // 2
    return canvas[:, :, at : at + side, at : at + side]


@pytest.mark.parametrize("side", [8, 28, 32])
def test_scale_resizes_each_axis_by_its_own_factor(side: int) -> None:
    x = noise(1, 2, side, side)
    sizes = range(int(0.8 * side), int(1.2 * side) + 1)
    for h, w in zip(sizes, reversed(sizes), strict=True):
        u = [((size + 0.5) / side - 0.8) / 0.4 for size in (h, w)]
        assert torch.equal(dc_scale(x, uniforms(*u)), resized(x, h, w))


@pytest.mark.parametrize(("size", "shown"), [(6, [0, 1, 2, 4, 5, 6]), (9, [0, 0, 1, 2, 3, 4, 5, 6])])
def test_scale_reads_the_pixel_at_the_floor(size: int, shown: list[int]) -> None:
    """Pixel i of the resized axis is pixel floor(8 i / size); the middle of nine begins at the first."""
    x = torch.arange(8.0, dtype=torch.float64).expand(1, 1, 8, 8) + 1
    found = dc_scale(x, uniforms(0.5, ((size + 0.5) / 8 - 0.8) / 0.4))[0, 0, 4]
    expected = [i + 1 for i in shown]
    assert found.tolist() == (expected if size > 8 else [0, *expected, 0])


@pytest.mark.parametrize("degrees", [-45, -10, 0, 30, 44])
def test_rotate_turns_by_a_whole_number_of_degrees(degrees: int) -> None:
    x = noise(1, 1, 32, 32)
    found = dc_rotate(x, uniforms((degrees + 45.5) / 90))[0, 0]
    expected = ndimage.rotate(x[0, 0].numpy(), degrees, reshape=False, order=1)
    inside = (torch.arange(32) - 15.5).square() < 10**2
    middle = inside[:, None] & inside
    torch.testing.assert_close(found[middle], torch.tensor(expected)[middle], rtol=0, atol=1e-9)


def test_noise_is_normal_of_a_thousandth_and_each_image_s_own() -> None:
    x, u = noise(200, 3, 8, 8), torch.rand(200, 3, generator=random.generator(1)).double()
    added = dc_noise(x, u) - x
    assert added.std() == pytest.approx(0.001, rel=0.02)
    assert added.mean().abs() < 2e-5
    assert not torch.allclose(added[0], added[1])
    torch.testing.assert_close(dc_noise(x[5:9], u[5:9]), dc_noise(x, u)[5:9], rtol=0, atol=0)


def test_a_stage_has_one_of_them_for_each_image_and_keys_hold_their_constants() -> None:
    drawn = dsa.draw("dc-crop_dc-scale_dc-rotate", 3000, random.generator(0))
    (stage,) = drawn.stages
    assert isinstance(stage, dsa.Pick)
    assert (stage.choice.bincount() / 3000 - 1 / 3).abs().max() < 0.03
    assert dsa.constants("dc-crop_dc-noise") == {"dc-crop": 4, "dc-noise": 0.001}
    assert dsa.constants("dc-scale_dc-rotate") == {"dc-scale": 0.2, "dc-rotate": 45}

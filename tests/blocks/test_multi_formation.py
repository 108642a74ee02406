"""Multi-formation: the order of the tiles, the linear map that decode is, and where it starts."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.parameterise import STATS, decoded, make, noise, some_items, stir
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.preprocess import Preprocess
from methods.blocks.parameterise.multi_formation import MultiFormation, cut, formed, paste, spans
from methods.blocks.parameterise.resample import bilinear, resample, shrink

RAW = Preprocess((0.0,), (1.0,))  # decode gives raw pixels
SIZES = [(32, 2), (28, 2), (32, 3), (28, 3), (10, 4)]
sizes = st.sampled_from([(8, 1), (8, 2), (8, 3), (8, 4), (9, 2), (10, 4), (7, 3), (10, 3)])


def formation(images: Tensor, n_classes: int, factor: int, decoder: str = "uniform") -> MultiFormation:
    return MultiFormation(images, n_classes, factor, decoder, RAW)


def literal(image: Tensor, factor: int) -> list[Tensor]:
    """The tiles of one image [C,H,H], up-sampled one by one by torch's own function."""
    side = image.shape[-1]
    s = math.ceil(side / factor)
    canvas = torch.full((image.shape[0], s * factor, s * factor), 0.5, dtype=image.dtype)
    canvas[:, :side, :side] = image
    tiles = [
        canvas[:, i * s : (i + 1) * s, j * s : (j + 1) * s] for i in range(factor) for j in range(factor)
    ]
    return [F.interpolate(t[None], side, mode="bilinear", align_corners=False)[0] for t in tiles]


# --- decode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "factor"), SIZES)
def test_order_labels_and_up_sampling(side: int, factor: int) -> None:
    n_classes, n = 2, 3
    images = noise(n_classes * n, 1, side, side)
    found, labels = formation(images, n_classes, factor).decode()
    assert found.shape == (n_classes * n * factor**2, 1, side, side)
    assert torch.equal(labels.bincount(), torch.full((n_classes,), n * factor**2))
    for c in range(n_classes):
        for m in range(n):
            for q, tile in enumerate(literal(images[c * n + m], factor)):
                k = c * n * factor**2 + q * n + m
                assert labels[k] == c
                torch.testing.assert_close(found[k].detach(), tile, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factor_one_changes_nothing(dtype: torch.dtype) -> None:
    images = noise(4, 1, 7, 7).to(dtype)
    for decoder in ("uniform", "multi_scale", "bounded"):
        found = decoded(formation(images, 2, 1, decoder))
        assert found.dtype == dtype
        assert torch.equal(found, images)


@given(size=sizes, a=st.floats(-2, 2), seed=st.integers(0, 99))
def test_decode_is_affine_and_linear_where_nothing_is_padded(
    size: tuple[int, int], a: float, seed: int
) -> None:
    (side, factor), x, y = (
        size,
        noise(2, 1, *size[:1] * 2, seed=seed),
        noise(2, 1, *size[:1] * 2, seed=seed + 1),
    )
    dx, dy = (decoded(formation(z, 1, factor)) for z in (x, y))
    mixed = decoded(formation(a * x + (1 - a) * y, 1, factor))
    torch.testing.assert_close(mixed, a * dx + (1 - a) * dy, rtol=0, atol=1e-12)
    if side % factor == 0:
        torch.testing.assert_close(
            decoded(formation(a * x + 3 * y, 1, factor)), a * dx + 3 * dy, rtol=0, atol=1e-12
        )


@given(size=sizes, seed=st.integers(0, 99))
def test_decode_keeps_what_lies_between_zero_and_one(size: tuple[int, int], seed: int) -> None:
    side, factor = size
    x = noise(2, 1, side, side, seed=seed).sigmoid()
    found = decoded(formation(x, 1, factor))
    low = min(float(x.min()), 0.5 if side % factor else 1.0)
    high = max(float(x.max()), 0.5 if side % factor else 0.0)
    assert low - 1e-14 <= float(found.min()) <= float(found.max()) <= high + 1e-14
    constant = decoded(formation(torch.full_like(x, 0.25), 1, factor))
    if side % factor == 0:
        torch.testing.assert_close(constant, torch.full_like(constant, 0.25), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("side", "factor"), [*SIZES, (224, 3)])
def test_every_stored_pixel_reaches_the_images_of_its_tile_and_no_other(side: int, factor: int) -> None:
    """The sum over images of |d image / d pixel|, in one pass: the up-sampling weights are not negative."""
    n = 2 if side < 100 else 1
    images = noise(n, 1, side, side)
    distilled = formation(images, 1, factor)
    found, _ = distilled.decode()
    (gradient,) = torch.autograd.grad(found.sum(), distilled.images)
    assert (gradient > 0).all()
    s = math.ceil(side / factor)
    for pixel in [(0, 0), (side - 1, side - 1), (s - 1, min(s, side - 1))]:
        moved = images.clone()
        moved[0, 0, pixel[0], pixel[1]] += 1
        change = (decoded(formation(moved, 1, factor)) - found.detach()).flatten(1).abs().amax(1)
        tile = (pixel[0] // s) * factor + pixel[1] // s
        assert change.nonzero().flatten().tolist() == [tile * n]


@pytest.mark.parametrize("decoder", ["uniform", "multi_scale", "bounded"])
def test_the_gradient_is_the_adjoint(decoder: str) -> None:
    x, zero = noise(4, 1, 7, 7), torch.zeros(4, 1, 7, 7, dtype=torch.float64)
    distilled = formation(x, 2, 3, decoder)
    found, _ = distilled.decode()
    v = noise(*found.shape)
    (pulled,) = torch.autograd.grad((found * v).sum(), distilled.images)
    pushed = found.detach() - decoded(formation(zero, 2, 3, decoder))
    torch.testing.assert_close((pushed * v).sum(), (x * pulled).sum(), rtol=1e-12, atol=0)


def test_gradients_by_differences() -> None:
    problem = make(side=5, channels=1, n_classes=2, ipc=2)
    distilled = stir(MultiFormation.start(problem, random.generator(0), factor=2, decoder="learnable"))
    assert torch.autograd.gradcheck(lambda *_: distilled.decode()[0], (distilled.images, distilled.kernel))


def test_padding_is_grey_at_the_bottom_and_on_the_right() -> None:
    tiles = cut(torch.zeros(1, 1, 1, 7, 7), 3)[0]  # side 3, two rows and columns missing
    assert tiles.shape == (9, 1, 3, 3)
    for q, tile in enumerate(tiles):
        below, right = q // 3 == 2, q % 3 == 2
        expected = torch.zeros(3, 3)
        expected[1 if below else 3 :, :] = 0.5
        expected[:, 1 if right else 3 :] = 0.5
        assert torch.equal(tile[0], expected)


@given(size=sizes, n=st.integers(1, 3))
def test_paste_is_the_inverse_of_cut(size: tuple[int, int], n: int) -> None:
    images = noise(2, n, 1, size[0], size[0])
    assert torch.equal(paste(cut(images, size[1]), size[1], size[0]), images)


@pytest.mark.parametrize("decoder", ["uniform", "multi_scale", "bounded"])
def test_all_classes_at_once_are_class_by_class(decoder: str) -> None:
    images = noise(9, 1, 8, 8)
    whole = decoded(formation(images, 3, 2, decoder))
    parts = [decoded(formation(part, 1, 2, decoder)) for part in images.split(3)]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-14)


def test_only_the_chosen_tiles_are_up_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(tiles: Tensor, matrix: Tensor) -> Tensor:
        sizes.append(len(tiles))
        return resample(tiles, matrix)

    monkeypatch.setattr("methods.blocks.parameterise.multi_formation.resample", spy)
    distilled = formation(noise(6, 1, 8, 8), 2, 2)
    distilled.decode(some_items(distilled, 5))
    assert sizes == [5]


# --- scales ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "factor", "counts", "total"),
    [
        (20, 3, {3: 12, 2: 3, 1: 5}, 125),
        (50, 2, {2: 19, 1: 31}, 107),
        (50, 3, {3: 8, 2: 3, 1: 39}, 123),
        (10, 2, {2: 10}, 40),
    ],
)
def test_bounded_by_the_papers_table(n: int, factor: int, counts: dict[int, int], total: int) -> None:
    assert {k: end - first for k, first, end in spans("bounded", n, factor)} == counts
    assert formed("bounded", n, factor) == total


@given(n=st.integers(1, 128), factor=st.integers(1, 5))
@settings(max_examples=200)
def test_bounded_uses_each_image_once_and_stays_below_its_cap(n: int, factor: int) -> None:
    ranges = spans("bounded", n, factor)
    assert [i for _, first, end in ranges for i in range(first, end)] == list(range(n))
    assert [k for k, _, _ in ranges] == sorted((k for k, _, _ in ranges), reverse=True)
    assert n <= formed("bounded", n, factor) <= 128


@pytest.mark.parametrize(("decoder", "per_image"), [("uniform", 9), ("multi_scale", 14), ("bounded", 9)])
def test_how_many_images_are_decoded(decoder: str, per_image: int) -> None:
    distilled = formation(noise(4, 1, 9, 9), 2, 3, decoder)
    assert distilled.per_class == 2 * per_image
    assert len(distilled.decode()[0]) == 2 * distilled.per_class


def test_multi_scale_is_every_uniform_decode_after_the_other() -> None:
    images = noise(3, 1, 9, 9)
    parts = [decoded(formation(images, 1, k)) for k in (1, 2, 3)]
    torch.testing.assert_close(decoded(formation(images, 1, 3, "multi_scale")), torch.cat(parts))


def test_bounded_decodes_the_first_images_at_the_largest_scale() -> None:
    images = noise(50, 1, 6, 6)
    found = decoded(formation(images, 1, 2, "bounded"))
    torch.testing.assert_close(found[:76], decoded(formation(images[:19], 1, 2)))
    assert torch.equal(found[76:], images[19:])


# --- the learned up-sampling ----------------------------------------------------------------------


@pytest.mark.parametrize(("side", "factor"), [(8, 2), (9, 2), (8, 3), (8, 1)])
def test_the_learned_up_sampling_starts_as_the_bilinear_one(side: int, factor: int) -> None:
    problem = make(side=side, ipc=3)
    learned = MultiFormation.start(problem, random.generator(0), factor=factor, decoder="learnable")
    assert learned.kernel is not None
    assert learned.kernel.shape == (side, math.ceil(side / factor))
    assert len(learned.images) == 3 * 2  # its floats take the place of one image per class
    uniform = MultiFormation(learned.images.detach(), 3, factor, "uniform", problem.preprocess)
    assert torch.equal(decoded(learned), decoded(uniform)) or factor == 1
    torch.testing.assert_close(decoded(learned), decoded(uniform), rtol=0, atol=1e-6)


def test_up_sampling_by_a_matrix_is_torchs_own() -> None:
    for side, to in ((4, 8), (5, 9), (11, 32), (10, 28), (3, 3)):
        x = noise(2, 3, side, side)
        expected = F.interpolate(x, to, mode="bilinear", align_corners=False)
        torch.testing.assert_close(resample(x, bilinear(side, to, x)), expected, rtol=0, atol=1e-13)


# --- storage and start ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("decoder", ["uniform", "multi_scale", "bounded"])
def test_stored_pixels_do_not_depend_on_the_factor(factor: int, decoder: str) -> None:
    problem = make()
    distilled = MultiFormation.start(problem, random.generator(0), factor=factor, decoder=decoder)
    assert distilled.n_stored == problem.budget


def test_soft_labels_of_a_formation_are_one_row_a_decoded_image() -> None:
    problem = make(ipc=4)
    distilled = MultiFormation.start(problem, random.generator(0), labels="image")
    n = len(distilled.images) // 3
    assert distilled.n_stored == 3 * n * 192 + 3 * 4 * n * 3 <= problem.budget
    assert distilled.n_stored + 3 * 192 + 3 * 4 * 3 > problem.budget


@pytest.mark.parametrize(("side", "factor"), [(8, 1), (8, 2), (8, 4), (9, 3), (8, 3), (7, 2)])
def test_a_mixed_start_decodes_to_shrunk_real_images(side: int, factor: int) -> None:
    """Exactly where the factor divides the side; elsewhere but for what the crop took and grey replaced."""
    problem = make(side=side, ipc=2, members=40)
    distilled = MultiFormation.start(problem, random.generator(3), factor=factor)
    s = math.ceil(side / factor)
    tiles = cut(distilled.images.detach().unflatten(0, (3, 2)), factor).flatten(0, 1)
    small = shrink(problem.images.float() / 255, s)
    kept = [min(s, side - i * s) for i in range(factor)]
    chosen = []
    for k, tile in enumerate(tiles):
        q = k % distilled.per_class // 2
        rows, columns = kept[q // factor], kept[q % factor]
        gap = (small - tile)[..., :rows, :columns].abs().flatten(1).amax(1)
        match = int(gap.argmin())
        assert gap[match] < 1e-6
        assert int(problem.labels[match]) == k // distilled.per_class
        chosen.append(match)
    assert len(set(chosen)) == 3 * 2 * factor**2, "without replacement"
    if side % factor == 0:
        x = small[chosen]
        expected = problem.preprocess(resample(x, bilinear(s, side, x)) if factor > 1 else x)
        torch.testing.assert_close(decoded(distilled), expected, rtol=0, atol=1e-5)


def test_a_class_too_small_for_its_tiles_repeats_itself() -> None:
    problem = make(ipc=2, members=3, smooth=True)
    distilled = MultiFormation.start(problem, random.generator(0), factor=2)
    values = problem.preprocess.invert(decoded(distilled))[:, 0, 0, 0].mul(255).round().long()
    for c in range(3):
        own = set(problem.images[problem.labels == c][:, 0, 0, 0].tolist())
        assert set(values[c * 8 : (c + 1) * 8].tolist()) == own


def test_starts_from_whole_images_or_from_noise() -> None:
    problem = make()
    real = MultiFormation.start(problem, random.generator(0), factor=2, init="real").images.detach()
    whole = problem.images.float() / 255
    assert all((whole == image).flatten(1).all(1).any() for image in real)
    grey = MultiFormation.start(
        make(side=16, ipc=9), random.generator(0), factor=2, init="noise"
    ).images.detach()
    assert float(grey.min()) == 0
    assert float(grey.max()) == 1
    inside = grey[(grey > 0) & (grey < 1)]
    assert abs(float(grey.mean()) - 0.5) < 4 * 0.25 / grey.numel() ** 0.5
    assert abs(len(inside) / grey.numel() - math.erf(math.sqrt(2))) < 0.01  # two standard deviations


def test_clamp_puts_pixels_back() -> None:
    distilled: Any = formation(3 * noise(2, 1, 4, 4), 1, 2)
    before = distilled.images.detach().clone()
    distilled.clamp()
    assert torch.equal(distilled.images.detach(), before.clamp(0, 1))


def test_decoded_images_are_normalised() -> None:
    problem = make(smooth=True)
    distilled = MultiFormation.start(problem, random.generator(0), factor=2)
    mean, std = (torch.tensor(s).view(1, 3, 1, 1) for s in STATS)
    raw = decoded(distilled) * std + mean
    torch.testing.assert_close(raw, raw[:, :1, :1, :1].expand_as(raw), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factor": 0}, "factor 0"),
        ({"factor": 5}, "factor 5"),
        ({"factor": 9}, "factor 9"),
        ({"decoder": "learnable"}, "a kernel of 32 floats"),
        ({"decoder": "single"}, "no decoder named 'single'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        MultiFormation.start(make(ipc=1), random.generator(0), **options)
    assert "\n" not in str(caught.value)


def test_bounded_refuses_more_images_than_it_may_decode() -> None:
    with pytest.raises(UserError, match="at most 128 images per class, not 129"):
        MultiFormation.start(make(side=4, ipc=129), random.generator(0), decoder="bounded", init="noise")

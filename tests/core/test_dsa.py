"""Augmentation: neutral parameters, closed forms, gradients, and which image gets which draw."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.augment.dsa import (
    CHAIN_OPS,
    OPS,
    Draw,
    Mix,
    Pick,
    apply,
    color,
    crop,
    cutout,
    draw,
    flip,
    parse_strategy,
    rotate,
    scale,
)
from bench.core.errors import UserError

ALL = "color_crop_cutout_flip_scale_rotate"
LAST = 1 - 2**-24  # the largest float32 that torch.rand gives
NEUTRAL_SCALE = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random.generator(seed, "noise"))


def uniforms(n: int, *values: float) -> Tensor:
    """The same parameters for n images; 0.5 where none is given."""
    return torch.tensor([*values, 0.5, 0.5, 0.5][:3], dtype=torch.float64).expand(n, 3)


def ramp(side: int) -> tuple[Tensor, Tensor]:
    """The coordinates of each pixel, from -1 to 1: horizontal and vertical [1,1,side,side]."""
    line = torch.linspace(-1, 1, side, dtype=torch.float64)
    return line.expand(1, 1, side, side), line[:, None].expand(1, 1, side, side)


# --- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize(
    ("operation", "values"),
    [
        (flip, (0.5,)),
        (flip, (LAST,)),
        (color, (0.5, 0.5, 0.5)),
        (crop, (0.5, 0.5)),
        (scale, (NEUTRAL_SCALE, NEUTRAL_SCALE)),
        (rotate, (0.5,)),
    ],
)
def test_neutral_parameters_change_nothing(
    operation: Callable[[Tensor, Tensor], Tensor], values: tuple[float, ...], shape: tuple[int, int, int]
) -> None:
    x = noise(4, *shape)
    torch.testing.assert_close(operation(x, uniforms(4, *values)), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OPS)
def test_shape_and_type_are_kept(name: str) -> None:
    for dtype, shape in itertools.product((torch.float32, torch.float64), ((1, 8, 8), (3, 32, 32))):
        x = noise(5, *shape).to(dtype)
        y = OPS[name](x, uniforms(5, 0.2, 0.7).to(dtype))
        assert (y.shape, y.dtype) == (x.shape, dtype)


# --- closed forms ---------------------------------------------------------------------------------


def test_flip_mirrors_the_columns() -> None:
    x = noise(3, 2, 4, 4)
    assert torch.equal(flip(x, uniforms(3, 0.499)), x[..., [3, 2, 1, 0]])


@pytest.mark.parametrize("channels", [1, 3])
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_color_is_the_three_steps_of_dsa(channels: int, u: tuple[float, float, float]) -> None:
    x = noise(2, channels, 4, 4)
    y = x + (u[0] - 0.5)
    for image in y:
        if channels > 1:
            grey = sum(image[c].clone() for c in range(channels)) / channels
            for c in range(channels):
                image[c] = (image[c] - grey) * (2 * u[1]) + grey
        image.copy_((image - image.mean()) * (u[2] + 0.5) + image.mean())
    torch.testing.assert_close(color(x, uniforms(2, *u)), y, rtol=0, atol=1e-12)


def test_saturation_leaves_grey_images_alone() -> None:
    x = noise(2, 1, 8, 8)
    assert torch.equal(color(x, uniforms(2, 0.3, 0.0, 0.9)), color(x, uniforms(2, 0.3, LAST, 0.9)))
    rgb = x.expand(2, 3, 8, 8)  # grey in RGB as well, up to the rounding of the mean
    lost, kept = color(rgb, uniforms(2, 0.5, 0.0, 0.5)), color(rgb, uniforms(2, 0.5, 1.0, 0.5))
    torch.testing.assert_close(lost, kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("side", "most"), [(8, 1), (28, 4), (32, 4)])
def test_crop_gives_every_shift_and_fills_with_zeros(side: int, most: int) -> None:
    n = 2 * most + 1
    x = noise(1, 2, side, side)
    padded = torch.zeros(2, side + 2 * most, side + 2 * most, dtype=torch.float64)
    padded[:, most : most + side, most : most + side] = x[0]
    u = torch.tensor([((i + 0.5) / n, (j + 0.5) / n, 0.0) for i in range(n) for j in range(n)])
    shifted = crop(x.expand(n * n, -1, -1, -1), u)
    expected = [padded[:, i : i + side, j : j + side] for i in range(n) for j in range(n)]
    assert torch.equal(shifted, torch.stack(expected))
    for u_end, start in ((0.0, 0), (LAST, 2 * most)):
        corner = padded[None, :, start : start + side, start : start + side]
        assert torch.equal(crop(x, torch.full((1, 3), u_end)), corner)


@pytest.mark.parametrize("side", [5, 8, 28, 32])
def test_cutout_is_a_clipped_square(side: int) -> None:
    half = int(side / 2 + 0.5)
    centres = side + 1 - half % 2
    x = noise(1, 3, side, side).abs() + 1
    for i, j in itertools.product(range(centres), repeat=2):
        y = cutout(x, uniforms(1, (i + 0.5) / centres, (j + 0.5) / centres))
        rows, cols = (range(max(0, c - half // 2), min(side, c - half // 2 + half)) for c in (i, j))
        expected = x.clone()
        expected[:, :, rows.start : rows.stop, cols.start : cols.stop] = 0
        assert torch.equal(y, expected)
        assert (half // 2) ** 2 <= int((y[0, 0] == 0).sum()) <= half**2
    middle = cutout(x, uniforms(1, 0.5, 0.5))
    assert int((middle[0, 0] == 0).sum()) == half**2


@pytest.mark.parametrize(("u", "factor"), [(0.0, 1 / 1.2), (NEUTRAL_SCALE, 1.0), (1.0, 1.2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_scale_stretches_each_axis_by_its_own_factor(u: float, factor: float, axis: int) -> None:
    """Bilinear reading of a linear function is exact: pixel c shows what was at factor * c, zero outside."""
    values = [NEUTRAL_SCALE, NEUTRAL_SCALE]
    values[axis] = u
    position = ramp(9)[axis]
    y = scale(position + 2, uniforms(1, *values))
    inside = factor * position.abs() <= 1
    torch.testing.assert_close(y[inside], factor * position[inside] + 2, rtol=0, atol=1e-12)
    beyond = factor * position.abs() >= 1 + 2 / 8  # a pixel or more outside
    assert torch.all(y[beyond] == 0)
    across = ramp(9)[1 - axis]
    kept = scale(across, uniforms(1, *values))
    torch.testing.assert_close(kept[inside], across[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("u", "degrees"), [(0.0, -15), (0.25, -7.5), (0.5, 0), (1.0, 15)])
def test_rotate_turns_coordinates(u: float, degrees: float) -> None:
    """Bilinear reading of a linear function is exact: coordinates turn as vectors do."""
    x, y = ramp(11)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    inside = (cos * x - sin * y).abs().max(dim=0).values <= 1
    inside = inside & ((sin * x + cos * y).abs() <= 1)
    for image, expected in ((x, cos * x - sin * y), (y, sin * x + cos * y)):
        turned = rotate(image, uniforms(1, u))
        torch.testing.assert_close(turned[inside], expected[inside], rtol=0, atol=1e-12)
    ones = rotate(torch.ones_like(x), uniforms(1, u))
    assert (ones[0, 0, 0, 0] == 1) == (degrees == 0)  # a corner that came from outside is filled with zero


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPS)
def test_gradients(name: str, channels: int) -> None:
    x = noise(3, channels, 6, 6).requires_grad_()
    u = torch.rand(3, 3, dtype=torch.float64, generator=random.generator(1))
    assert torch.autograd.gradcheck(lambda images: OPS[name](images, u), x)


@pytest.mark.parametrize(
    "strategy", [ALL, "color+crop+cutout", "color+flip+crop_scale_rotate", "augmix+flip"]
)
def test_gradients_of_a_whole_draw(strategy: str) -> None:
    x = noise(8, 2, 3, 3).requires_grad_()
    drawn = draw(strategy, 4, random.generator(3))
    assert torch.autograd.gradcheck(lambda images: apply(images, drawn), x)


# --- draws ----------------------------------------------------------------------------------------


def pick(images: Tensor, stage: Pick) -> Tensor:
    """One group after the other."""
    groups = images.unflatten(0, (len(stage.choice), -1))
    functions = {"none": lambda x, _: x, **OPS}
    parts = [
        functions[stage.ops[int(i)]](x, u.to(x).expand(len(x), 3))
        for x, i, u in zip(groups, stage.choice, stage.uniforms, strict=True)
    ]
    return torch.cat(parts)


def mix(images: Tensor, stage: Mix) -> Tensor:
    """AugMix's algorithm box, with the chains' images in a row: m x + (1 - m) sum of w_i chain_i(x)."""
    size = len(images) // len(stage.shares)
    shares = stage.shares.repeat_interleave(size, 0).to(images)[:, :, None, None, None]
    total = shares[:, 0] * images
    for i, chain in enumerate(stage.chains):
        x = images
        for step in chain:
            x = pick(x, step)
        total = total + shares[:, 1 + i] * x
    return total


def reference(images: Tensor, drawn: Draw) -> Tensor:
    """One stage after the other."""
    for stage in drawn.stages:
        images = pick(images, stage) if isinstance(stage, Pick) else mix(images, stage)
    return images


@pytest.mark.parametrize("size", [1, 3])
@given(st.permutations(ALL.split("_")), st.integers(1, 6), st.integers(0, 999))
def test_apply_is_one_operation_a_group(size: int, names: list[str], n_ops: int, seed: int) -> None:
    drawn = draw("_".join(names[:n_ops]), 7, random.generator(seed))
    x = noise(7 * size, 3, 8, 8)
    torch.testing.assert_close(apply(x, drawn), reference(x, drawn), rtol=0, atol=1e-12)


@given(st.lists(st.sampled_from([*OPS, "crop_scale_rotate", "augmix"]), max_size=4), st.integers(0, 999))
def test_every_stage_is_applied_in_order(stages: list[str], seed: int) -> None:
    drawn = draw("+".join(stages) or "none", 5, random.generator(seed))
    assert len(drawn.stages) == len(stages)
    x = noise(10, 3, 8, 8)
    torch.testing.assert_close(apply(x, drawn), reference(x, drawn), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strategy", ["none", *OPS, ALL, "color_crop"])
def test_one_stage_draws_a_choice_and_three_uniforms(strategy: str) -> None:
    """What records were made with: these draws in this order, also where nothing is applied."""
    mine, by_hand = random.generator(1), random.generator(1)
    drawn = draw(strategy, 9, mine)
    choice = torch.randint(len(strategy.split("_")), (9,), generator=by_hand)
    uniforms = torch.rand(9, 3, generator=by_hand)
    for stage in drawn.stages:
        assert torch.equal(stage.choice, choice)
        assert torch.equal(stage.uniforms, uniforms)
    assert torch.equal(mine.get_state(), by_hand.get_state())


def test_stages_have_draws_of_their_own() -> None:
    """IDC's evaluation: every image is coloured, half are flipped, and each has one of three warps."""
    drawn = draw("color+flip+crop_scale_rotate", 3000, random.generator(0))
    first, second, third = (stage.uniforms for stage in drawn.stages)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert [stage.ops for stage in drawn.stages] == [("color",), ("flip",), ("crop", "scale", "rotate")]
    assert torch.all((drawn.stages[2].choice.bincount() - 1000).abs() < 4 * math.sqrt(3000 * 2 / 9))


def test_apply_keeps_the_order() -> None:
    """Images of one value each: cropping and cutting can only add zeros, and a flip changes nothing."""
    values = torch.arange(1.0, 61)
    y = apply(values.view(-1, 1, 1, 1).expand(60, 2, 8, 8), draw("crop_cutout_flip", 20, random.generator(0)))
    assert torch.equal(y.flatten(1).max(dim=1).values, values)


@pytest.mark.parametrize("strategy", [ALL, "color+crop+cutout", "augmix"])
def test_one_draw_is_siamese(strategy: str) -> None:
    """Same image, same group: same result, in one call and across calls; other groups draw their own."""
    drawn = draw(strategy, 8, random.generator(0))
    image = noise(1, 3, 8, 8)
    many, few = apply(image.expand(40, 3, 8, 8), drawn), apply(image.expand(16, 3, 8, 8), drawn)
    many, few = many.unflatten(0, (8, 5)), few.unflatten(0, (8, 2))
    torch.testing.assert_close(many, many[:, :1].expand_as(many), rtol=0, atol=1e-12)
    torch.testing.assert_close(many[:, :2], few, rtol=0, atol=1e-12)
    colored = apply(image.expand(8, 3, 8, 8), draw("color", 8, random.generator(0)))
    assert all(not torch.equal(colored[i], colored[j]) for i, j in itertools.combinations(range(8), 2))


@pytest.mark.parametrize("strategy", [ALL, "color+crop+cutout", "augmix+flip"])
def test_draws_come_from_the_generator_alone(strategy: str) -> None:
    torch.manual_seed(987_654_321)
    before = torch.get_rng_state()
    x = noise(50, 1, 8, 8)
    one, same, other = (apply(x, draw(strategy, 50, random.generator(seed))) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_draw_can_be_replayed() -> None:
    x, drawn = noise(12, 3, 8, 8), draw("augmix+color+crop_scale_rotate", 6, random.generator(0))
    assert torch.equal(apply(x, drawn), apply(x, drawn))


def test_operations_are_drawn_evenly_and_uniforms_are_uniform() -> None:
    (drawn,) = draw(ALL, 60_000, random.generator(0)).stages
    sigma = math.sqrt(60_000 * 1 / 6 * 5 / 6)
    assert torch.all((drawn.choice.bincount() - 10_000).abs() < 4 * sigma)
    assert torch.all((drawn.uniforms.mean(0) - 0.5).abs() < 4 / math.sqrt(12 * 60_000))
    assert 0 <= float(drawn.uniforms.min()) < float(drawn.uniforms.max()) < 1


def test_none_is_the_identity() -> None:
    x = noise(4, 1, 8, 8)
    assert parse_strategy("none") == ()
    assert apply(x, draw("none", 4, random.generator(0))) is x


def test_the_grammar() -> None:
    assert parse_strategy(ALL) == (tuple(ALL.split("_")),)
    assert parse_strategy("color+crop+cutout") == (("color",), ("crop",), ("cutout",))
    assert parse_strategy("color+flip+crop_scale_rotate") == (
        ("color",),
        ("flip",),
        ("crop", "scale", "rotate"),
    )
    assert parse_strategy("augmix+flip") == (("augmix",), ("flip",))
    with pytest.raises(UserError, match="augmix is a stage of its own; join it with \\+, not _"):
        parse_strategy("flip+augmix_color")


@pytest.mark.parametrize(
    "strategy",
    ["colour", "color_", "", "none_flip", "Flip", "color-flip", "color+", "+color", "none+flip", "a++b"],
)
def test_unknown_operations_name_the_choices(strategy: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_strategy(strategy)
    known = "augmix, autoaugment, color, crop, cutout, dc-crop, dc-noise, dc-rotate, dc-scale, flip, "
    assert f"choose from: {known}" in str(caught.value)


def test_images_that_do_not_divide_into_groups() -> None:
    with pytest.raises(ValueError, match="10 images do not divide into 3 groups"):
        apply(noise(10, 1, 8, 8), draw(ALL, 3, random.generator(0)))


# --- AugMix ---------------------------------------------------------------------------------------


def test_augmix_draws_what_its_algorithm_box_says() -> None:
    """Shares of a convex combination, chains of 1 to 3 operations, all evenly."""
    n = 60_000
    (stage,) = draw("augmix", n, random.generator(0)).stages
    assert isinstance(stage, Mix)
    torch.testing.assert_close(stage.shares.sum(1), torch.ones(n))
    assert stage.shares.min() >= 0
    m, weights = stage.shares[:, 0], stage.shares[:, 1:] / (1 - stage.shares[:, :1])
    for values, mean, variance in (  # Beta(1, 1), and each weight of Dirichlet(1, 1, 1) is Beta(1, 2)
        (m, 1 / 2, 1 / 12),
        *((weights[:, i], 1 / 3, 1 / 18) for i in range(3)),
    ):
        assert abs(float(values.mean()) - mean) < 4 * math.sqrt(variance / n)
        assert abs(float(values.var()) / variance - 1) < 0.03
    for chain in stage.chains:
        choices = torch.stack([step.choice for step in chain])  # [3, n]; 0 is no operation
        lengths = (choices > 0).sum(0)
        assert torch.equal(choices > 0, torch.arange(3)[:, None] < lengths)
        assert torch.all((lengths.bincount()[1:] - n / 3).abs() < 4 * math.sqrt(n * 2 / 9))
        first = choices[0].bincount(minlength=5)[1:]
        assert torch.all((first - n / 4).abs() < 4 * math.sqrt(n * 3 / 16))
        assert all(step.ops == ("none", *CHAIN_OPS) for step in chain)


def test_augmix_with_nothing_in_its_chains_is_the_identity() -> None:
    x, (stage,) = noise(8, 3, 8, 8), draw("augmix", 4, random.generator(0)).stages
    assert isinstance(stage, Mix)
    idle = tuple(tuple(Pick(p.ops, 0 * p.choice, p.uniforms) for p in chain) for chain in stage.chains)
    torch.testing.assert_close(Mix(stage.shares.double(), idle)(x), x, rtol=0, atol=1e-6)
    own = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(4, 4)
    assert torch.equal(Mix(own, stage.chains)(x), x)
    second = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(4, 4)
    assert torch.equal(Mix(second, stage.chains)(x), mix(x, Mix(second, stage.chains)))

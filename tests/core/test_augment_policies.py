"""AutoAugment and RandAugment against torchvision's own, image by image; and draws put together."""

import importlib
import itertools
import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2

from bench.core import random
from bench.core.augment.dsa import Draw, apply, concat, draw, parse_strategy
from bench.core.augment.policies import (
    CIFAR10_POLICY,
    LEVELS,
    POLICY_OPERATIONS,
    Policy,
    draw_policy,
    operate,
    strength,
)
from bench.core.errors import UserError
from bench.core.preprocess import Preprocess, Zca
from bench.core.training import Recipe

THEIRS = {"autoaugment": v2.AutoAugment(AutoAugmentPolicy.CIFAR10), "randaugment": v2.RandAugment()}
SPACES = {name: type(theirs)._AUGMENTATION_SPACE for name, theirs in THEIRS.items()}
SHAPES = [(1, 8, 8), (3, 32, 32), (3, 12, 20)]
BYTES = {1: Preprocess((0.3,), (0.4,)), 3: Preprocess((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))}


def pixels(n: int, *shape: int) -> Tensor:
    """Smooth images and noise by turns, of unlike contrast, so that every operation has something to do."""
    g = random.generator(0, "pixels")
    coarse = torch.rand(n, shape[0], 3, 3, generator=g) * torch.rand(n, 1, 1, 1, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    noise = torch.rand(n, *shape, generator=g)
    return torch.where(torch.arange(n).view(-1, 1, 1, 1) % 2 == 0, smooth, noise).mul(255).to(torch.uint8)


def through(drawn: Draw, images: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 images, augmented as a training does it, as bytes again."""
    seen = apply(preprocess(images), drawn, preprocess)
    return preprocess.invert(seen).mul(255).round().clamp(0, 255).to(torch.uint8)


# --- torchvision as the oracle ------------------------------------------------------------------------------


def test_the_policy_is_torchvisions() -> None:
    theirs = THEIRS["autoaugment"]._policies
    assert [[(op, p, level or 0) for op, p, level in row] for row in theirs] == [
        list(row) for row in CIFAR10_POLICY
    ]
    assert [op for op, _ in POLICY_OPERATIONS["randaugment"]] == list(SPACES["randaugment"])
    assert {op for op, _ in POLICY_OPERATIONS["autoaugment"]} <= SPACES["autoaugment"].keys() | {"Identity"}


@pytest.mark.parametrize(("name", "size"), [*itertools.product(THEIRS, [(8, 8), (28, 28), (32, 48)])])
def test_levels_mean_what_they_mean_in_torchvision(name: str, size: tuple[int, int]) -> None:
    for operation, (magnitudes, _) in SPACES[name].items():
        theirs = magnitudes(LEVELS[name], *size)
        ours = [strength(operation, level, LEVELS[name], *size) for level in range(LEVELS[name])]
        assert ours == ([0.0] * LEVELS[name] if theirs is None else theirs.tolist())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", THEIRS)
def test_every_operation_is_torchvisions_on_each_image(name: str, shape: tuple[int, ...]) -> None:
    images = pixels(6, *shape)
    for operation, level in POLICY_OPERATIONS[name]:
        signed = SPACES[name].get(operation, (None, False))[1]
        for sign in (1, -1) if signed else (1,):
            value = sign * strength(operation, level, LEVELS[name], *shape[1:])
            made = operate(images, operation, value)
            for before, after in zip(images, made, strict=True):
                theirs = THEIRS[name]._apply_image_or_video_transform(
                    before, operation, value, interpolation="nearest", fill=THEIRS[name]._fill
                )
                assert torch.equal(after, theirs), operation


def told(patch: pytest.MonkeyPatch, name: str, image: Tensor, draws: Iterable[float]) -> Tensor:
    """What torchvision makes of one image where these are its draws, in its order."""
    remaining = iter(draws)
    with patch.context() as patched:
        for function in ("rand", "randint"):
            patched.setattr(torch, function, lambda *_: torch.tensor(next(remaining)))
        made: Tensor = THEIRS[name](image)
    assert next(remaining, None) is None
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_autoaugment_is_torchvisions_with_the_same_draws(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, g = 150, random.generator(1)
    images = pixels(n, *shape)
    ours = through(draw("autoaugment", n, random.generator(1)), images, BYTES[shape[0]])
    rows, (happens, negative) = torch.randint(25, (n,), generator=g), torch.rand(2, n, 2, generator=g)
    for i, row in enumerate(rows.tolist()):
        draws = [row]
        for k, (operation, probability, _) in enumerate(CIFAR10_POLICY[row]):
            draws.append(float(happens[i, k]))
            if draws[-1] <= probability and SPACES["autoaugment"][operation][1]:
                draws.append(float(negative[i, k]))
        assert torch.equal(ours[i], told(monkeypatch, "autoaugment", images[i], draws)), CIFAR10_POLICY[row]


@pytest.mark.parametrize("shape", SHAPES)
def test_randaugment_is_torchvisions_with_the_same_draws(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, g = 100, random.generator(1)
    images = pixels(n, *shape)
    ours = through(draw("randaugment", n, random.generator(1)), images, BYTES[shape[0]])
    kinds, negative = torch.randint(14, (n, 2), generator=g), torch.rand(n, 2, generator=g)
    signed = [sign for _, sign in SPACES["randaugment"].values()]
    for i, pair in enumerate(kinds.tolist()):
        draws = [
            d
            for k, kind in enumerate(pair)
            for d in ((kind, float(negative[i, k])) if signed[kind] else (kind,))
        ]
        assert torch.equal(ours[i], told(monkeypatch, "randaugment", images[i], draws)), pair


# --- draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICY_OPERATIONS)
def test_operations_come_as_often_as_the_papers_have_them(name: str) -> None:
    n, kinds = 60_000, POLICY_OPERATIONS[name]
    shares = torch.full((2, len(kinds)), 1 / len(kinds))
    if name == "autoaugment":
        shares.zero_()
        for row, k in itertools.product(CIFAR10_POLICY, range(2)):
            operation, probability, level = row[k]
            shares[k, kinds.index((operation, level))] += probability / 25
            shares[k, 0] += (1 - probability) / 25
    codes = draw_policy(name, n, random.generator(0)).codes
    for k in range(2):
        counts = codes[:, k].bincount(minlength=2 * len(kinds)).view(-1, 2)
        sigma = (n * shares[k] * (1 - shares[k])).sqrt()
        assert torch.all((counts.sum(1) - n * shares[k]).abs() <= 4 * sigma)
        for (operation, _), (plus, minus) in zip(kinds, counts.tolist(), strict=True):
            signed = SPACES[name].get(operation, (None, False))[1]
            assert abs(plus - minus) <= 4 * math.sqrt(plus + minus) if signed else minus == 0


@pytest.mark.parametrize("strategy", ["autoaugment", "randaugment", "autoaugment+crop_flip"])
def test_one_draw_is_siamese_and_repeatable(strategy: str) -> None:
    """Same image, same group: same result; other groups draw their own; the global state stays."""
    torch.manual_seed(987_654_321)
    state, pre = torch.get_rng_state(), BYTES[3]
    drawn = draw(strategy, 20, random.generator(0))
    image = pre(pixels(1, 3, 16, 16))
    made = apply(image.expand(60, 3, 16, 16), drawn, pre).unflatten(0, (20, 3))
    assert torch.equal(made, made[:, :1].expand_as(made))
    assert torch.equal(made[:, 0], apply(image.expand(20, 3, 16, 16), drawn, pre))
    assert len(made[:, 0].unique(dim=0)) > 10
    assert torch.equal(torch.get_rng_state(), state)
    again = draw(strategy, 20, random.generator(0))
    assert torch.equal(made[:, 0], apply(image.expand(20, 3, 16, 16), again, pre))


@given(
    st.lists(
        st.sampled_from(["crop", "color_flip_scale", "augmix", "autoaugment", "randaugment"]), max_size=3
    ),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_joined_draws_do_what_each_does(stages: list[str], groups: list[int], size: int) -> None:
    draws = [draw("+".join(stages) or "none", n, random.generator(i)) for i, n in enumerate(groups)]
    pre = BYTES[3]
    images = pre(pixels(sum(groups) * size, 3, 8, 8))
    parts = images.split([n * size for n in groups])
    apart = [apply(x, drawn, pre) for x, drawn in zip(parts, draws, strict=True)]
    joined = concat(draws)
    assert joined.groups == sum(groups)
    torch.testing.assert_close(apply(images, joined, pre), torch.cat(apart), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [("flip", "crop"), ("flip", "color_flip"), ("autoaugment", "randaugment"), ("none", "flip")],
)
def test_draws_of_two_strategies_are_not_joined(one: str, other: str) -> None:
    with pytest.raises(ValueError, match=r"strategies|argument 2 is"):
        concat([draw(one, 2, random.generator(0)), draw(other, 2, random.generator(0))])


# --- pixels -------------------------------------------------------------------------------------------------


def test_bytes_pass_unchanged_where_nothing_is_drawn() -> None:
    """And what lies outside the range, or between two bytes, becomes a byte."""
    pre, idle = BYTES[1], Draw(2, (Policy("randaugment", torch.zeros(2, 2, dtype=torch.int64)),))
    images = pre(torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8))
    assert torch.equal(apply(images, idle, pre), images)
    levels = torch.tensor([-0.2, 0.1004, 0.999, 1.7], dtype=torch.float64).view(4, 1, 1, 1)
    wanted = pre(torch.tensor([0, 26, 255, 255], dtype=torch.uint8).view(4, 1, 1, 1))
    assert torch.equal(apply(pre(levels), idle, pre), wanted.double())


@pytest.mark.parametrize("name", POLICY_OPERATIONS)
def test_what_networks_see_does_not_matter(name: str) -> None:
    images, drawn = pixels(120, 3, 8, 8), draw(name, 60, random.generator(2))
    plain, other = Preprocess((0.0,) * 3, (1.0,) * 3), Zca.fit(pixels(400, 3, 8, 8))
    wanted = through(drawn, images, plain)
    assert torch.equal(through(drawn, images, BYTES[3]), wanted)
    assert torch.equal(through(drawn, images, other), wanted)


@pytest.mark.parametrize("name", POLICY_OPERATIONS)
def test_nothing_is_read_from_the_device(name: str) -> None:
    """Tensors without values can be augmented: which image gets what is known on the host."""
    images = torch.empty(200, 3, 16, 16, device="meta")
    assert apply(images, draw(name, 100, random.generator(0)), BYTES[3]).shape == images.shape


@pytest.mark.parametrize("name", POLICY_OPERATIONS)
def test_a_policy_passes_no_gradient_and_says_so(name: str) -> None:
    images = BYTES[1](pixels(4, 1, 8, 8)).requires_grad_()
    drawn = draw(f"{name}+flip", 4, random.generator(0))
    assert not apply(images, drawn, BYTES[1]).requires_grad
    for refused in (lambda: apply(images, drawn), lambda: parse_strategy(f"flip+{name}")):
        with pytest.raises(
            UserError, match=f"{name}.*: a policy works on 8-bit pixels.*distillation"
        ) as caught:
            refused()
        assert len(str(caught.value).splitlines()) == 1
    assert Recipe(batch_size=1, lr=1, steps=1, augment=name).augment == name


@pytest.mark.parametrize("name", POLICY_OPERATIONS)
def test_a_policy_is_a_stage_of_its_own(name: str) -> None:
    assert parse_strategy(f"{name}+crop_flip", policies=True) == ((name,), ("crop", "flip"))
    with pytest.raises(UserError, match=f"{name} is a stage of its own; join it with \\+, not _"):
        parse_strategy(f"crop_{name}", policies=True)


def test_a_broken_torchvision_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(f"{name}: operator torchvision::nms does not exist")

    drawn = draw("randaugment", 4, random.generator(0))
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UserError, match="--force-reinstall torch torchvision"):
        apply(BYTES[1](pixels(4, 1, 8, 8)), drawn, BYTES[1])

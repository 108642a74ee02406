"""Bases and hallucinators of HaBa: what they take, the affine map they are, and which pair is which item."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.parameterise import decoded, make, noise, stir
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.preprocess import Preprocess
from methods.blocks.parameterise.hallucinators import Hallucinators
from methods.blocks.parameterise.pixels import Pixels


def start(problem: Any = None, seed: int = 0, **options: Any) -> Any:
    problem = problem or make(side=8, channels=3, n_classes=3, ipc=6)
    return Hallucinators.start(problem, random.generator(seed), **({"hallucinators": 2} | options))


def literal(haba: Any, basis: Tensor, j: int) -> Tensor:
    """One basis [c,S,S] under hallucinator j."""
    z = F.conv2d(basis[None], haba.encoder_weight[j], haba.encoder_bias[j], padding=haba.padding)
    z = haba.scale[j] * z + haba.shift[j]
    weight, bias = haba.decoder_weight[j], haba.decoder_bias[j]
    return F.conv_transpose2d(z, weight, bias, padding=haba.padding)[0]


def per_hallucinator(haba: Any) -> int:
    return (haba.n_stored - haba.bases.numel()) // haba.hallucinators


# --- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "options", "floats"),
    [
        (32, {}, 5568),
        (32, {"basis_channels": 1}, 5514),
        (32, {"kernel": 1}, 6168),
        (32, {"padding": 1}, 6312),
        (64, {}, 23232),
        (128, {}, 95424),
    ],
)
def test_floats_of_a_hallucinator(side: int, options: dict[str, int], floats: int) -> None:
    haba = start(make(side=side, n_classes=2, members=2), bases_per_class=1, **options)
    assert per_hallucinator(haba) == floats
    k, p = options.get("kernel", 3), options.get("padding", 0)
    c, latent = options.get("basis_channels", 3), side + 2 * p - k + 1
    assert floats == k * k * c * 3 + 3 + 2 * 3 * latent**2 + k * k * 3 * 3 + 3


@pytest.mark.parametrize(
    ("n_classes", "bases", "channels", "floats", "equivalent", "decoded_images"),
    [
        (10, 1, 3, 58_560, 1.906, 5),
        (10, 10, 3, 335_040, 10.906, 50),
        (10, 50, 3, 1_563_840, 50.906, 250),
        (100, 1, 3, 335_040, 1.091, 5),
        (100, 10, 3, 3_099_840, 10.091, 50),
        (10, 3, 1, 58_290, 1.897, 15),
    ],
)
def test_the_papers_sets(
    n_classes: int, bases: int, channels: int, floats: int, equivalent: float, decoded_images: int
) -> None:
    problem = make(32, 3, n_classes, ipc=1, members=1)
    haba = start(problem, hallucinators=5, bases_per_class=bases, basis_channels=channels, init="noise")
    assert haba.n_stored == floats
    assert haba.n_stored / problem.budget == pytest.approx(equivalent, abs=5e-4)
    assert haba.per_class == decoded_images
    assert haba.bytes_uint8 is None


@pytest.mark.parametrize(
    ("ipc", "channels", "bases"), [(2, 3, 1), (11, 3, 10), (51, 3, 50), (2, 1, 3), (3, 1, 6)]
)
def test_as_many_bases_as_the_budget_holds(ipc: int, channels: int, bases: int) -> None:
    problem = make(32, 3, 10, ipc=ipc, members=2)
    haba = start(problem, hallucinators=5, basis_channels=channels)
    assert haba.bases_per_class == bases
    assert haba.n_stored <= problem.budget < haba.n_stored + 10 * channels * 1024


def test_one_image_per_class_leaves_no_room_for_five_hallucinators() -> None:
    problem = make(32, 3, 10, ipc=1, members=1)
    with pytest.raises(UserError, match="5 hallucinators of 5,568 floats and one basis per class") as caught:
        start(problem, hallucinators=5)
    assert "58,560 of 30,720 floats" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert start(problem, hallucinators=3, basis_channels=1).bases_per_class == 1


@given(labels=st.sampled_from(["hard", "class", "image"]), ipc=st.integers(1, 6), h=st.integers(1, 3))
def test_nothing_is_over_the_budget_and_no_further_basis_fits(labels: str, ipc: int, h: int) -> None:
    problem = make(6, 1, 3, ipc)
    try:
        haba = start(problem, hallucinators=h, labels=labels)
    except UserError:
        assert start(problem, hallucinators=h, labels=labels, bases_per_class=1).n_stored > problem.budget
        return
    another = 3 * (36 + (3 * h if labels == "image" else 0))
    assert haba.n_stored <= problem.budget < haba.n_stored + another


# --- decode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"basis_channels": 1},
        {"padding": 1},
        {"kernel": 1},
        {"kernel": 2},
        {"kernel": 5, "padding": 1},
        {"hallucinators": 1},
        {"hallucinators": 3, "bases_per_class": 3},
    ],
)
def test_every_pair_once_in_order(options: dict[str, int]) -> None:
    haba = stir(start(**options))
    b, h = haba.bases_per_class, haba.hallucinators
    images, labels = haba.decode()
    assert len(images) == 3 * b * h
    assert torch.equal(labels, torch.arange(3).repeat_interleave(b * h))
    basis, style = (
        grid.flatten() for grid in torch.meshgrid(torch.arange(3 * b), torch.arange(h), indexing="ij")
    )
    items = haba.pair(basis, style)
    assert sorted(items.tolist()) == list(range(3 * b * h))
    for i, j, item in zip(basis.tolist(), style.tolist(), items.tolist(), strict=True):
        assert item == (i // b) * (b * h) + j * b + i % b
        torch.testing.assert_close(images[item], literal(haba, haba.bases[i], j), rtol=0, atol=1e-12)
        assert int(labels[item]) == i // b


def test_one_hallucinator_for_a_whole_batch() -> None:
    haba = stir(start())
    basis = torch.tensor([4, 0, 2])
    images, labels = haba.decode(haba.pair(basis, torch.full((3,), 1)))
    expected = torch.stack([literal(haba, haba.bases[i], 1) for i in basis.tolist()])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-12)
    assert torch.equal(labels, basis // haba.bases_per_class)


@given(a=st.floats(-2, 2), seed=st.integers(0, 9))
def test_decoding_is_affine_in_the_basis(a: float, seed: int) -> None:
    haba = stir(start(bases_per_class=1))
    x, y = noise(3, 3, 8, 8, seed=seed), noise(3, 3, 8, 8, seed=seed + 1)

    def decode(bases: Tensor) -> Tensor:
        haba.bases.data = bases
        return decoded(haba)

    mixed = a * decode(x) + (1 - a) * decode(y)
    torch.testing.assert_close(decode(a * x + (1 - a) * y), mixed, rtol=0, atol=1e-10)


def test_gradients_by_differences() -> None:
    haba = stir(start(make(4, 1, 2, 4), bases_per_class=1))
    assert torch.autograd.gradcheck(lambda *_: haba.decode()[0], tuple(haba.parameters()))
    items = torch.tensor([3, 0, 3])
    assert torch.autograd.gradcheck(lambda *_: haba.decode(items)[0], tuple(haba.parameters()))


def test_only_what_was_decoded_learns() -> None:
    haba = stir(start())
    haba.decode(haba.pair(torch.tensor([1]), torch.tensor([0])))[0].square().sum().backward()
    assert haba.bases.grad.flatten(1).any(1).nonzero().flatten().tolist() == [1]
    for name in ("encoder_weight", "encoder_bias", "scale", "shift", "decoder_weight", "decoder_bias"):
        assert getattr(haba, name).grad.flatten(1).any(1).tolist() == [True, False], name


# --- starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (5, 2)])
@pytest.mark.parametrize("hallucinators", [1, 2])
def test_identity_hallucinators_show_the_bases(kernel: int, padding: int, hallucinators: int) -> None:
    options = {"kernel": kernel, "padding": padding, "hallucinators": hallucinators}
    haba = start(hallucinator_init="identity", **options)
    shown = haba.bases.detach().unflatten(0, (3, -1)).repeat(1, hallucinators, 1, 1, 1).flatten(0, 1)
    torch.testing.assert_close(decoded(haba), shown, rtol=0, atol=1e-6)


def test_one_identity_hallucinator_is_plain_pixels() -> None:
    """Same images, same targets, same gradient on the bases as on the pixels."""
    haba = start(hallucinator_init="identity", kernel=1, hallucinators=1).double()
    pixels = Pixels(
        haba.bases.detach().clone(), [haba.bases_per_class] * 3, Preprocess((0.0,) * 3, (1.0,) * 3)
    )
    for one, two in zip(haba.decode(), pixels.decode(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    for distilled in (haba, pixels):
        distilled.decode()[0].pow(3).sum().backward()
    torch.testing.assert_close(haba.bases.grad, pixels.images.grad, rtol=0, atol=1e-10)


def test_an_identity_of_grey_bases_is_grey() -> None:
    haba = start(hallucinator_init="identity", kernel=1, hallucinators=1, basis_channels=1)
    shown = haba.bases.detach().expand(-1, 3, -1, -1)
    assert torch.equal(decoded(haba), shown)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (2, 0), (2, 1), (3, 2)])
def test_there_is_no_identity_without_padding(kernel: int, padding: int) -> None:
    with pytest.raises(UserError, match="no identity with kernel"):
        start(hallucinator_init="identity", kernel=kernel, padding=padding)


def test_the_official_shape_cannot_keep_the_frame() -> None:
    """Rank m * (S - 2)^2 of C * S^2; padded, it is whole. A centred kernel keeps the inside."""

    def rank(padding: int) -> int:
        haba = stir(start(make(6, 1, 1, 9), padding=padding, bases_per_class=36, hallucinators=1))
        haba.bases.data = torch.eye(36, dtype=torch.float64).view(36, 1, 6, 6)
        images = decoded(haba).flatten(1)
        haba.bases.data = torch.zeros_like(haba.bases)
        return int(torch.linalg.matrix_rank(images - decoded(haba).flatten(1), rtol=1e-10))

    assert rank(0) == 16
    assert rank(1) == 36
    haba = start(bases_per_class=1, hallucinators=1)
    centre = torch.zeros(1, 3, 3, 3, 3)
    centre[..., 1, 1] = torch.eye(3)
    haba.encoder_weight.data, haba.decoder_weight.data = centre, centre.clone()
    haba.encoder_bias.data.zero_()
    images, bases = decoded(haba), haba.bases.detach()
    torch.testing.assert_close(
        images[..., 1:-1, 1:-1], bases[..., 1:-1, 1:-1] + _bias(haba), rtol=0, atol=1e-6
    )
    frame = torch.ones(8, 8, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    torch.testing.assert_close(images[..., frame], _bias(haba)[..., 0].expand(3, 3, int(frame.sum())))


def _bias(haba: Any) -> Tensor:
    return haba.decoder_bias.detach().view(1, 3, 1, 1)


def test_the_official_start_is_that_of_torchs_convolutions() -> None:
    haba = start(hallucinators=50, bases_per_class=1, kernel=3)
    for part in ("encoder", "decoder"):
        bound = 1 / math.sqrt(3 * 9)
        weight, bias = (getattr(haba, f"{part}_{kind}").detach() for kind in ("weight", "bias"))
        for x in (weight, bias):
            assert float(x.abs().max()) <= bound
            assert float(x.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert float(weight.max()) > 0.99 * bound
    assert torch.equal(haba.scale.detach(), torch.ones(50, 3, 6, 6))
    assert not haba.shift.detach().any()


@pytest.mark.parametrize("channels", [3, 1])
def test_bases_start_from_real_images_or_noise(channels: int) -> None:
    problem = make(8, 3, 3, 6, members=6)
    real = problem.preprocess(problem.images)
    real = real.mean(1, keepdim=True) if channels == 1 else real
    bases = start(problem, basis_channels=channels, bases_per_class=4).bases.detach()
    gap = (bases.flatten(1)[:, None] - real.flatten(1)).abs().amax(2)
    assert float(gap.amin(1).max()) < 1e-6
    chosen = gap.argmin(1)
    assert len(set(chosen.tolist())) == 12
    assert torch.equal(problem.labels[chosen], torch.arange(3).repeat_interleave(4))
    noisy = start(problem, basis_channels=channels, bases_per_class=90, init="noise").bases.detach()
    assert noisy.shape == (270, channels, 8, 8)
    assert abs(float(noisy.var()) - 1) < 4 * (2 / noisy.numel()) ** 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hallucinators": 0}, "take at least one"),
        ({"basis_channels": 2}, "bases with 3 or 1"),
        ({"kernel": 9}, "a kernel of at most 8"),
        ({"padding": 3}, "less padding than kernel"),
        ({"padding": -1}, "less padding than kernel"),
        ({"hallucinator_init": "xavier"}, "no hallucinator init named 'xavier'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        start(**options)
    assert "\n" not in str(caught.value)

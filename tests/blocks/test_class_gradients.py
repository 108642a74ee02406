"""Gradient matching: all classes at once against a loop over the classes, and what the loss must keep."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.core import random
from bench.core.augment import dsa
from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from methods.blocks import class_gradients
from methods.blocks.class_gradients import matched_parameters, per_class_gradients
from methods.blocks.objectives import gradient_distance, gradient_matching

K = 3
DISTANCES, MATCHED = ("squared", "l1", "cosine"), ("kernels", "weights", "all")
NORMS = ("instance", "group", "layer", "none")


def network(name: str = "convnet-d2-w4", shape: tuple[int, int, int] = (2, 8, 8), seed: int = 0) -> Network:
    """In double precision, and with norms whose affine maps do something."""
    net = parse_architecture(name).build(shape, K, random.generator(seed)).double()
    draws = random.generator(seed, "affine")
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=torch.float64, generator=draws))
    return net


def images(n: int, seed: int = 0, shape: tuple[int, int, int] = (2, 8, 8)) -> Tensor:
    """n images a class, class after class."""
    return torch.randn(K * n, *shape, dtype=torch.float64, generator=random.generator(seed, "images"))


def labels(n: int) -> Tensor:
    return torch.arange(K).repeat_interleave(n)


def soft(n: int, seed: int = 0) -> Tensor:
    logits = torch.randn(K * n, K, dtype=torch.float64, generator=random.generator(seed, "soft"))
    return logits.softmax(1)


def one_by_one(net: Network, x: Tensor, y: Tensor, matched: str) -> list[Tensor]:
    """The papers' loop: the gradient of each class's mean cross-entropy, differentiable in the images."""
    parameters = dict(net.named_parameters())
    chosen = [parameters[name] for name in matched_parameters(net, matched)]
    per_class = [
        torch.autograd.grad(F.cross_entropy(net(images), targets), chosen, create_graph=True)
        for images, targets in zip(x.chunk(K), y.chunk(K), strict=True)
    ]
    return [torch.stack(parts) for parts in zip(*per_class, strict=True)]


def looped(
    net: Network, real: Tensor, synthetic: Tensor, targets: Tensor, distance: str, matched: str
) -> Tensor:
    """The loss as written: class by class, layer by layer, unit by unit."""
    n = len(real) // K
    total = torch.zeros((), dtype=torch.float64)
    ours, theirs = one_by_one(net, synthetic, targets, matched), one_by_one(net, real, labels(n), matched)
    for a, b in itertools.chain.from_iterable(
        zip(x, y, strict=True) for x, y in zip(ours, theirs, strict=True)
    ):
        b = b.detach()
        if distance == "squared":
            total = total + ((a - b) ** 2).sum()
        elif distance == "l1":
            total = total + (a - b).abs().sum()
        else:
            for u, v in zip(a, b, strict=True) if a.dim() > 1 else [(a, b)]:
                total = total + 1 - (u * v).sum() / (u.norm() * v.norm()).clamp_min(1e-6)
    return total


@pytest.fixture(params=[1, 7, 1000])
def _piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One class at a time, some, and all of them."""
    monkeypatch.setattr("methods.blocks.class_gradients.piece_size", lambda *_: request.param)
    return request.param


# --- the gradients --------------------------------------------------------------------------------


@pytest.mark.usefixtures("_piece")
@pytest.mark.parametrize(
    ("name", "matched"),
    [
        *itertools.product([*(f"convnet-d2-w4-{norm}" for norm in NORMS), "lenet"], MATCHED),
        *(("mlp-w8", matched) for matched in ("weights", "all")),  # it has no kernels
    ],
)
def test_all_classes_at_once_are_the_papers_loop(name: str, matched: str) -> None:
    shape = (1, 28, 28) if name == "lenet" else (2, 8, 8)
    net, x = network(name, shape), images(3, shape=shape)
    for y in (labels(3), soft(3)):
        ours = per_class_gradients(net, x, y, K, matched, create_graph=True)
        for a, b in zip(ours, one_by_one(net, x, y, matched), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_classes_that_do_not_fit_the_memory_are_halved(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, y = network("convnet-d2-w4-instance", (2, 8, 8)), images(3, shape=(2, 8, 8)), labels(3)
    whole = per_class_gradients(net, x, y, K, "all", create_graph=False)
    piece, tried = class_gradients._piece, list[int]()

    def short(*args: Any) -> list[torch.Tensor]:
        tried.append(args[4])
        if args[4] > most:
            raise torch.OutOfMemoryError
        return piece(*args)

    monkeypatch.setattr(class_gradients, "_piece", short)
    for a, b in zip(per_class_gradients(net, x, y, K, "all", create_graph=False), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert sum(k for k in tried if k <= most) == K
    monkeypatch.setattr(class_gradients, "_piece", lambda *_: short(*_[:4], most + 1))
    with pytest.raises(torch.OutOfMemoryError):
        per_class_gradients(net, x, y, K, "all", create_graph=False)


def test_strided_and_dilated_convolutions() -> None:
    convolutions = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 2, (2, 1), dilation=2)
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.LazyLinear(K)).double()
    x = images(3, shape=(2, 9, 9))
    with torch.no_grad():
        net(x)
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.randn(p.shape, dtype=torch.float64, generator=random.generator(i)))
    ours = per_class_gradients(net, x, labels(3), K, "all", create_graph=False)
    for a, b in zip(ours, one_by_one(net, x, labels(3), "all"), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("norm", "matched", "distance"),
    # biases before an instance norm have no gradient: a cosine of rounding errors
    sorted({*itertools.product(NORMS, MATCHED, DISTANCES)} - {("instance", "all", "cosine")}),
)
def test_loss_and_pixel_gradients_are_those_of_the_loop(norm: str, matched: str, distance: str) -> None:
    """With batches of different sizes, hard and soft targets."""
    net, real, synthetic = network(f"convnet-d2-w4-{norm}"), images(5), images(2, seed=1).requires_grad_()
    for targets in (labels(2), soft(2).requires_grad_()):
        loss = gradient_matching(
            net, real, labels(5), synthetic, targets, K, distance=distance, matched=matched
        )
        expected = looped(net, real, synthetic, targets, distance, matched)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        wanted = [synthetic, targets] if targets.requires_grad else [synthetic]
        pairs = zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shape", "count"), [((3, 32, 32), 298_368), ((1, 28, 28), 296_064)])
def test_what_is_matched_has_the_published_size(shape: tuple[int, int, int], count: int) -> None:
    """IDC matches 298,368 of ConvNet-3's 320,010 parameters at 32x32x3, 296,064 of 317,706 at 28x28x1."""
    net = parse_architecture("convnet").build(shape, 10, random.generator(0))
    parameters = dict(net.named_parameters())
    sizes = {m: sum(parameters[name].numel() for name in matched_parameters(net, m)) for m in MATCHED}
    assert sizes == {"kernels": count, "weights": count + 20_480, "all": count + 21_642}


def test_layer_norms_are_not_kernels() -> None:
    """Their affine parameters have three axes, as kernels without one have."""
    assert matched_parameters(network("convnet-d2-w4-layer"), "kernels") == [
        "features.0.weight",
        "features.4.weight",
    ]


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("matched", MATCHED)
@pytest.mark.parametrize("norm", NORMS)
def test_gradient_to_the_pixels_and_the_labels(norm: str, matched: str) -> None:
    net = network(f"convnet-d1-w4-{norm}", (1, 4, 4))
    real, synthetic = images(2, 0, (1, 4, 4)), images(1, 1, (1, 4, 4)).requires_grad_()
    logits = torch.randn(K, K, dtype=torch.float64, generator=random.generator(5)).requires_grad_()

    def loss(x: Tensor, z: Tensor) -> Tensor:
        return gradient_matching(net, real, labels(2), x, z.softmax(1), K, matched=matched)

    assert torch.autograd.gradcheck(loss, (synthetic, logits))


def test_gradient_of_the_cosine_to_the_pixels() -> None:
    net = network("convnet-d1-w4-none", (1, 4, 4))
    real, synthetic = images(2, 0, (1, 4, 4)), images(1, 1, (1, 4, 4)).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return gradient_matching(net, real, labels(2), x, labels(1), K, distance="cosine", matched="weights")

    assert torch.autograd.gradcheck(loss, synthetic)


@pytest.mark.parametrize("distance", ["squared", "l1"])
@pytest.mark.parametrize("matched", MATCHED)
@pytest.mark.parametrize("norm", NORMS)
def test_equal_batches_match(norm: str, matched: str, distance: str) -> None:
    """After one siamese draw. A norm's differentiable backward rounds differently from its plain one."""
    net, omega = (
        network(f"convnet-d2-w4-{norm}"),
        dsa.draw("color+crop_rotate+cutout", K, random.generator(1)),
    )
    real, synthetic = images(4), images(4).requires_grad_()
    batches = (dsa.apply(real, omega), labels(4)), (dsa.apply(synthetic, omega), labels(4))
    loss = gradient_matching(net, *batches[0], *batches[1], K, distance=distance, matched=matched)
    assert loss <= {"none": 0, "squared": 1e-26}.get(norm if norm == "none" else distance, 1e-12)
    if norm == "none" or distance == "squared":  # the slope of |x| jumps where the sides are equal
        (slope,) = torch.autograd.grad(loss, synthetic)
        assert slope.abs().max() <= (0 if norm == "none" else 1e-13)


@settings(max_examples=15)
@given(st.permutations(range(4)), st.permutations(range(3)), st.integers(1, 3))
def test_order_and_repetition_inside_a_class_do_not_matter(
    real_order: list[int], order: list[int], times: int
) -> None:
    net, real, synthetic = network("convnet-d1-w4"), images(4), images(3, seed=1)
    expected = gradient_matching(net, real, labels(4), synthetic, labels(3), K)
    real = real.unflatten(0, (K, 4))[:, real_order].flatten(0, 1)
    synthetic = synthetic.unflatten(0, (K, 3))[:, order * times].flatten(0, 1)
    loss = gradient_matching(net, real, labels(4), synthetic, labels(3 * times), K)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@pytest.mark.usefixtures("_piece")
def test_classes_are_independent() -> None:
    """The gradients of a class do not move with the images of another."""
    net, x = network(), images(2).requires_grad_()
    gradients = per_class_gradients(net, x, labels(2), K, "all", create_graph=True)
    for c in range(K):
        own = sum(g[c].square().sum() for g in gradients)
        (slope,) = torch.autograd.grad(own, x, retain_graph=True)
        touched = slope.unflatten(0, (K, 2)).abs().amax((1, 2, 3, 4)) > 0
        assert touched.tolist() == [i == c for i in range(K)]


@pytest.mark.parametrize(("distance", "factor"), [("squared", 4), ("l1", 2), ("cosine", 1)])
@pytest.mark.parametrize("shape", [(3, 4, 2, 3, 3), (3, 5, 6), (3, 7)])
def test_scale(distance: str, factor: int, shape: tuple[int, ...]) -> None:
    """Sums, not means: twice the gradients."""
    a, b = (torch.randn(shape, dtype=torch.float64, generator=random.generator(i)) for i in (0, 1))
    one, two = gradient_distance(a, b, distance), gradient_distance(2 * a, 2 * b, distance)
    torch.testing.assert_close(two, factor * one, rtol=1e-14, atol=0)


def test_cosine_by_hand() -> None:
    """Per output unit: opposite 2, orthogonal 1, aligned 0; a vector is one unit."""
    a = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    b = torch.tensor([[[-5.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    torch.testing.assert_close(gradient_distance(a, b, "cosine"), torch.tensor(3.0))
    torch.testing.assert_close(gradient_distance(a[:, 0], b[:, 0], "cosine"), torch.tensor(2.0))


def test_cosine_of_no_gradient() -> None:
    """A dead unit is at distance 1 from everything, itself included, and its slope is finite."""
    dead, alive = torch.zeros(1, 2, 3, requires_grad=True), torch.ones(1, 2, 3)
    for other in (alive, torch.zeros(1, 2, 3)):
        distance = gradient_distance(dead, other, "cosine")
        assert distance == 2
        (slope,) = torch.autograd.grad(distance, dead)
        assert torch.isfinite(slope).all()


def test_cosine_survives_a_dead_network() -> None:
    """All kernels of the second block see zeros only: real and synthetic gradients are exactly zero."""
    net, synthetic = network("convnet-d2-w4-none"), images(2, seed=1).requires_grad_()
    with torch.no_grad():
        net.features[0].bias.fill_(-100)
    for distance in DISTANCES:
        loss = gradient_matching(
            net, images(3), labels(3), synthetic, labels(2), K, distance=distance, matched="weights"
        )
        (slope,) = torch.autograd.grad(loss, synthetic)
        assert torch.isfinite(loss)
        assert torch.equal(slope, torch.zeros_like(slope))


# --- what is left alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
def test_the_network_is_left_as_it_is(frozen: bool) -> None:
    net, synthetic = network().requires_grad_(not frozen), images(2, seed=1).requires_grad_()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gradient_matching(net, images(3), labels(3), synthetic, labels(2), K, matched="all").backward()
    assert synthetic.grad is not None
    for p in net.parameters():
        assert p.grad is None
        assert p.requires_grad is not frozen
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_the_real_side_has_no_graph() -> None:
    net, real = network(), images(3).requires_grad_()
    assert not any(g.requires_grad for g in per_class_gradients(net, real, labels(3), K, "all", False))
    synthetic = images(2, seed=1).requires_grad_()
    gradient_matching(net, real, labels(3), synthetic, labels(2), K).backward()
    assert real.grad is None
    with torch.no_grad():  # gradients need no graph around them
        assert len(per_class_gradients(net, images(3), labels(3), K, "kernels", False)) == 2


def test_networks_that_couple_a_batch_are_refused() -> None:
    for matched in MATCHED:
        with pytest.raises(UserError, match=r"cannot take a BatchNorm2d as in 'features\.1'"):
            matched_parameters(network("convnet-d2-w4-batch"), matched)
    grouped, circular = nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 2, 3, padding_mode="circular")
    for strange in (grouped, circular, nn.Conv2d(2, 2, 3, padding="same"), nn.PReLU()):
        with pytest.raises(UserError, match=type(strange).__name__):
            matched_parameters(nn.Sequential(strange), "kernels")
    with pytest.raises(UserError, match="no kernels to match"):
        matched_parameters(network("mlp-w8"), "kernels")


def test_a_layer_that_is_called_twice_is_refused() -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1).double()
    net = nn.Sequential(layer, layer, nn.Flatten(), nn.Linear(128, K).double())
    with pytest.raises(UserError, match="calls its '0' twice"):
        per_class_gradients(net, images(2), labels(2), K, "kernels", False)
    assert not layer._forward_hooks


def test_batches_that_are_not_class_by_class() -> None:
    with pytest.raises(ValueError, match="7 images do not divide into 3 classes"):
        per_class_gradients(network(), images(3)[:7], labels(3)[:7], K, "kernels", False)


# --- as a method uses it --------------------------------------------------------------------------


def test_matching_brings_synthetic_images_nearer() -> None:
    """From noise, under one network: the loss at the end is below half of the first."""
    net, real, synthetic = network(), images(16), images(1, seed=1).requires_grad_()
    optimiser = torch.optim.Adam([synthetic], lr=0.05)
    losses = []
    for _ in range(30):
        loss = gradient_matching(net, real, labels(16), synthetic, labels(1), K)
        losses.append(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2

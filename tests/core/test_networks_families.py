"""The field's networks: published sizes, the images that each takes, and students stacked for vmap."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.network import OWN, Shape, build, images, size
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from bench.core import random
from bench.core.errors import UserError
from bench.core.networks.architecture import PARAMETER_CHOICES, parse_architecture
from bench.core.networks.layers import NORMS
from bench.core.networks.resnet import ResidualBlock

WITH_NORM = ("alexnet", "vgg11", "resnet10-w4", "resnet12-w4", "resnet18-w4", "resnet_ap10-w4", "densenet-w4")

# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "expected"),
    [
        ("alexnet", (3, 32, 32), 10, 1_874_122),  # RTP
        ("alexnet-none", (3, 32, 32), 10, 1_872_202),
        ("alexnet", (1, 28, 28), 10, 1_874_122 - 2 * 25 * 128),
        ("vgg11", (3, 32, 32), 10, 9_231_114),
        ("resnet10", (3, 32, 32), 10, 1_228_970),  # IDC: 1.23 M
        ("resnet10-w64", (3, 32, 32), 10, 4_903_242),  # IDC, SVHN: 4.90 M
        ("resnet12", (3, 32, 32), 10, 4_980_042),  # RTP
        ("resnet18", (3, 32, 32), 10, 11_173_962),
        ("resnet18-batch", (3, 32, 32), 10, 11_173_962),
        ("resnet_ap10", (3, 224, 224), 10, 4_910_922),  # IDC: 4.91 M
        ("densenet", (3, 32, 32), 10, 1_000_618),  # IDC: 1.00 M
        ("vit", (3, 32, 32), 10, 2_693_194),
    ],
)
def test_published_sizes(name: str, shape: Shape, n_classes: int, expected: int) -> None:
    assert size(build(name, shape, n_classes)) == expected


@pytest.mark.parametrize("width", [4, 12])
def test_residual_sizes_in_closed_form(width: int) -> None:
    """A stem, two blocks of 3x3 convolutions a stage, 1x1 shortcuts where they widen, norms, a head."""
    widths = [width * 2**i for i in range(4)]
    steps = [(w // 2, w) for w in widths[1:]]
    convolutions = 9 * (3 * width + sum(4 * w * w for w in widths) - sum(w * w - v * w for v, w in steps))
    shortcuts = sum(v * w for v, w in steps)
    norms = 2 * (width + sum(4 * w for w in widths) + sum(w for _, w in steps))
    expected = convolutions + shortcuts + norms + (8 * width + 1) * 10
    assert size(build(f"resnet18-w{width}")) == expected


@pytest.mark.parametrize("growth", [2, 4])
def test_densenet_size_in_closed_form(growth: int) -> None:
    channels, total = 2 * growth, 3 * 9 * 2 * growth
    for i, depth in enumerate((6, 12, 24, 16)):
        if i:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
        inputs = [channels + j * growth for j in range(depth)]
        total += sum(2 * c + c * 4 * growth + 8 * growth + 9 * 4 * growth**2 for c in inputs)
        channels += depth * growth
    assert size(build(f"densenet-w{growth}")) == total + 2 * channels + (channels + 1) * 10


@pytest.mark.parametrize(("depth", "patch"), [(1, 4), (2, 8)])
def test_vit_size_in_closed_form(depth: int, patch: int) -> None:
    width, tokens = 64, (32 // patch) ** 2
    layer = 12 * width**2 + 13 * width  # attention 4 w^2 + 4 w, hidden 8 w^2 + 5 w, two norms
    rest = (3 * patch**2 + 1) * width + tokens * width + 2 * width + (width + 1) * 10
    assert size(build(f"vit-d{depth}-w{width}-p{patch}")) == depth * layer + rest


# --- which images they take -----------------------------------------------------------------------


# the least images of each, 28-pixel ones being padded to 32 in plain stacks
LEAST = {
    "convnet-w4": 8,
    "convnet-w4-unpooled": 1,
    "lenet": 16,
    "alexnet": 8,
    "vgg11": 32,
    "resnet10-w4": 1,
    "resnet10-w4-instance": 9,
    "resnet12-w4": 16,
    "resnet12-w4-batch": 8,
    "resnet18-w4": 9,
    "resnet18-w4-batch": 1,
    "resnet_ap10-w4": 64,
    "resnet_ap10-w4-batch": 32,
    "densenet-w4": 8,
    "densenet-w4-instance": 16,
    "vit-d1-w64": 4,
}


@pytest.mark.parametrize("name", [n for n, least in LEAST.items() if least > 4 and n != "convnet-w4"])
def test_smaller_images_are_refused(name: str) -> None:
    """At the least size an untrained network tells two images apart; one pixel less is refused."""
    least = LEAST[name]
    shape = (1, least, least)
    one, other = build(name, shape).eval()(images(2, shape, torch.float32))
    assert not torch.equal(one, other)
    with pytest.raises(UserError, match=f"^architecture {name} needs .*{least} pixels.*, not {least - 1}$"):
        parse_architecture(name).check((1, least - 1, least - 1))


SIZES = [
    (name, side)
    for name, least in LEAST.items()
    for side in (8, 16, 28, 32, 64)
    if side >= least or (name, side) == ("vgg11", 28)
]


@pytest.mark.parametrize(("name", "side"), SIZES)
def test_gradients_reach_every_weight_at_every_size(name: str, side: int) -> None:
    shape = (1 if side in (8, 28) else 3, side, side)
    net, x = build(name, shape, n_classes=5), images(4, shape, torch.float32)
    features = net.embed(x)
    logits = net.classifier(features)
    assert features.shape == (4, net.classifier.in_features)
    assert torch.equal(logits, net(x))
    F.cross_entropy(logits, torch.tensor([0, 4, 1, 1])).backward()
    weights = [p for p in net.parameters() if p.dim() > 1]  # a bias before a norm has no gradient
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in weights)


def test_what_cannot_be_built_says_so() -> None:
    for name, shape, words in [
        ("vit-p5", (3, 32, 32), "has patches of 5 pixels, which do not divide images of 32"),
        ("vit-w100", (3, 32, 32), "width 100 must divide by 64"),
        ("resnet18-w6-group", (3, 32, 32), "width 6 must divide by 4"),
        ("densenet-w3-group", (3, 32, 32), "width 3 must divide by 4"),
    ]:
        with pytest.raises(UserError, match=f"^architecture {name} .*{words}$"):
            parse_architecture(name).check(shape)


# --- what they compute ----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", WITH_NORM)
def test_every_norm_runs(name: str, norm: str) -> None:
    shape = (3, 64, 64) if "ap10" in name else (3, 32, 32)
    logits = build(f"{name}-{norm}", shape)(images(2, shape, torch.float32))
    assert logits.shape == (2, 10)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("activation", PARAMETER_CHOICES["activation"])
def test_a_convnet_has_its_activation(activation: str) -> None:
    """One block on a constant image: norm-free, so each map is constant but at the border."""
    net = build(f"convnet-d1-w2-none-{activation}-unpooled", (1, 4, 4)).double()
    conv, x = net.features[0], torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    z = conv.weight.sum((1, 2, 3)) * 0.5 + conv.bias
    expected = {
        "relu": z.clamp_min(0),
        "leaky_relu": torch.where(z > 0, z, 0.01 * z),
        "sigmoid": 1 / (1 + (-z).exp()),
        "gelu": z * (1 + torch.erf(z / math.sqrt(2))) / 2,
        "silu": z / (1 + (-z).exp()),
    }[activation]
    centre = net.embed(x).view(2, 4, 4)[:, 1:3, 1:3]
    torch.testing.assert_close(centre, expected.view(2, 1, 1).expand(2, 2, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pooling", "side"), [("avg", 8), ("max", 8), ("unpooled", 32)])
def test_a_convnet_has_its_pooling(pooling: str, side: int) -> None:
    net = build(f"convnet-d2-w2-none-{pooling}", (1, 28, 28))
    assert net.classifier.in_features == 2 * side**2  # 28 pixels are padded to 32
    x = images(2, (1, 28, 28), torch.float32)
    first = net.features[:2](x).relu()
    halved = {"avg": F.avg_pool2d(first, 2), "max": F.max_pool2d(first, 2), "unpooled": first}[pooling]
    torch.testing.assert_close(net.features[: 3 if pooling == "unpooled" else 4](x), halved)


@pytest.mark.parametrize("halving", ["pool_first", "pool_second"])
def test_a_pooling_block_is_a_block_of_pooled_images(halving: str) -> None:
    """On maps of 2x2 constant squares and without the 3x3 convolutions, a block is its shortcut, pooled."""
    block = ResidualBlock(2, 4, 8, 4, "none", halving).double()
    for module in block.residual:
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    small = images(3, (2, 4, 4)) - 0.5
    expected = F.conv2d(small, block.shortcut[0].weight).relu()
    torch.testing.assert_close(block(F.interpolate(small, scale_factor=2)), expected)


def test_he_initialisation_of_resnet_ap10() -> None:
    """Normal weights of variance 2 / (k^2 maps): the variance of each convolution within 5 deviations."""
    for module in build("resnet_ap10-w32", (3, 64, 64)).modules():
        if isinstance(module, nn.Conv2d):
            variance = 2 / (module.out_channels * math.prod(module.kernel_size))
            ratio = float(module.weight.detach().square().mean()) / variance
            assert abs(ratio - 1) < 5 * math.sqrt(2 / module.weight.numel())


def test_vit_without_positions_sees_a_bag_of_patches() -> None:
    net = build("vit-d2-w64", (3, 16, 16)).double().requires_grad_(False)
    x = images(2, (3, 16, 16))
    swapped = torch.cat([x[:, :, 8:], x[:, :, :8]], 2)
    assert not torch.allclose(net(x), net(swapped), rtol=0, atol=1e-6)
    net.positions.zero_()
    torch.testing.assert_close(net(x), net(swapped), rtol=0, atol=1e-12)


def test_vit_attention_is_that_of_torch() -> None:
    net = build("vit-d1-w128", (3, 16, 16)).double()
    attention, x = net.layers[0].attention[1], images(2, (5, 128, 1)).squeeze(-1)
    heads = [y.unflatten(2, (2, 64)).transpose(1, 2) for y in attention.inputs(x).chunk(3, 2)]
    expected = attention.output(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


# --- students together ----------------------------------------------------------------------------

STACKED = [
    *(
        f"convnet-d2-w4-{norm}-{pool}"
        for norm in NORMS
        if norm != "batch"
        for pool in PARAMETER_CHOICES["pooling"]
    ),
    *(f"convnet-d2-w4-{activation}" for activation in PARAMETER_CHOICES["activation"]),
    *(f"{name}-instance" for name in WITH_NORM if name != "vgg11"),
    *("mlp-w8", "lenet", "vit-d1-w64-p8"),
]


@pytest.mark.parametrize("name", STACKED)
def test_stacked_students_have_their_own_gradients(name: str) -> None:
    """vmap over stacked weights, each student with its own images, equals one after the other."""
    side = 64 if "ap10" in name else 16
    nets = [build(name, (1, side, side), n_classes=3, seed=s).double() for s in range(2)]
    x, y = images(4, (1, side, side)).view(2, 2, 1, side, side), torch.tensor([[0, 1], [2, 0]])
    weights, buffers = stack_module_state(nets)
    assert not buffers

    def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(nets[0], params, (x,)), y)

    together = vmap(grad(loss))(weights, x, y)
    for i, net in enumerate(nets):
        F.cross_entropy(net(x[i]), y[i]).backward()
        for key, p in net.named_parameters():
            torch.testing.assert_close(together[key][i], p.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in OWN if n not in ("mlp", "lenet", "vgg11")])
def test_gradients_of_gradients(name: str) -> None:
    """Every network can be matched and unrolled: the hypergradient against a difference quotient."""
    narrow = {"vit": "-d1-w64", "alexnet": ""}.get(name, "-w4")
    shape = (1, 64, 64) if "ap10" in name else (1, 16, 16)
    net = build(name + narrow, shape, n_classes=3).double()
    x, y, direction = images(2, shape), torch.tensor([0, 2]), images(2, shape).flip(0)

    def steepness(x: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()), create_graph=True)
        return torch.stack([g.square().sum() for g in grads]).sum()

    leaf = x.clone().requires_grad_()
    slope = (torch.autograd.grad(steepness(leaf), leaf)[0] * direction).sum()
    step = 1e-8  # few ReLUs change their side in between
    quotient = (steepness(x + step * direction) - steepness(x - step * direction)) / (2 * step)
    assert slope.item() == pytest.approx(quotient.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["convnet-d1-w4", "resnet10-w4", "vit-d1-w64"])
def test_a_network_takes_one_draw_of_its_generator(name: str) -> None:
    """So that what is drawn next does not depend on the architecture."""
    stream, same = random.generator(0, "stream"), random.generator(0, "stream")
    parse_architecture(name).build((3, 16, 16), 10, stream)
    torch.randint(2**62, (), generator=same)
    assert torch.equal(torch.rand(3, generator=stream), torch.rand(3, generator=same))

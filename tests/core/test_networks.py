"""Networks: sizes in closed form, names that read back, and initial weights from one generator alone."""

import math
from typing import Any

import pytest
import torch
from helpers.network import OWN, Shape, assert_from_the_generator_alone, build, images, size
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.core.networks.architecture import PARAMETER_CHOICES, family_parameters, parse_architecture
from bench.core.networks.layers import NORMS
from bench.core.random import derive, generator


def convnet_size(shape: Shape, n_classes: int, depth: int, width: int) -> int:
    """3x3 convolutions with bias, two affine vectors a block, a linear layer on what the poolings leave."""
    side = (32 if shape[1] == 28 else shape[1]) // 2**depth
    convolutions = 9 * width * (shape[0] + (depth - 1) * width) + depth * width
    return convolutions + 2 * depth * width + (width * side**2 + 1) * n_classes


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "expected"),
    [
        ("convnet", (3, 32, 32), 10, 320_010),
        ("convnet", (1, 28, 28), 10, 317_706),
        ("convnet", (3, 32, 32), 100, 504_420),
        ("convnet-d4", (3, 64, 64), 200, 857_160),
        ("convnet-d5", (3, 128, 128), 10, 615_690),
        ("lenet", (3, 32, 32), 10, 62_006),
    ],
)
def test_published_sizes(name: str, shape: Shape, n_classes: int, expected: int) -> None:
    assert size(build(name, shape, n_classes)) == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize(("depth", "width"), [(1, 4), (2, 64), (3, 12)])
def test_convnet_size_in_closed_form(shape: Shape, depth: int, width: int) -> None:
    assert size(build(f"convnet-d{depth}-w{width}", shape, 7)) == convnet_size(shape, 7, depth, width)


@pytest.mark.parametrize(("shape", "width"), [((1, 8, 8), 128), ((3, 32, 32), 5)])
def test_mlp_size_in_closed_form(shape: Shape, width: int) -> None:
    expected = (math.prod(shape) + 1) * width + (width + 1) * width + (width + 1) * 10
    assert size(build(f"mlp-w{width}", shape)) == expected


# --- names ----------------------------------------------------------------------------------------


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """A family with some of its parameters, as a mapping."""
    family = draw(st.sampled_from(OWN))
    values = {key: st.integers(1, 999) for key in ("depth", "width", "patch")}
    values |= {key: st.sampled_from(words) for key, words in PARAMETER_CHOICES.items()}
    some = {key: draw(values[key]) for key in family_parameters(family) if draw(st.booleans())}
    return {"name": family, **some}


def tokens(entry: dict[str, Any]) -> list[str]:
    letters = {"depth": "d", "width": "w", "patch": "p"}
    return [f"{letters.get(key, '')}{value}" for key, value in entry.items() if key != "name"]


@given(entries(), st.randoms())
def test_every_spelling_is_the_same_architecture(entry: dict[str, Any], random: Any) -> None:
    architecture, parts = parse_architecture(entry), tokens(entry)
    random.shuffle(parts)
    assert parse_architecture("-".join([entry["name"], *parts])) == architecture
    assert parse_architecture({"name": "-".join([entry["name"], *parts])}) == architecture
    assert parse_architecture(architecture.label) == architecture
    assert dict(architecture.params) == family_parameters(entry["name"]) | {
        key: value for key, value in entry.items() if key != "name"
    }


@given(entries(), entries())
def test_labels_tell_architectures_apart(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (parse_architecture(one).label == parse_architecture(two).label) == (
        parse_architecture(one) == parse_architecture(two)
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("resnet", ["convnet", "lenet", "mlp"]),
        ("convent", ["did you mean convnet?"]),
        ({"depth": 3}, ["convnet", "lenet", "mlp"]),
        ("convnet-x3", ["'x3'", "d<depth>", "w<width>", "p<patch>", *NORMS, "leaky_relu", "max"]),
        ("convnet-", ["''", "d<depth>"]),
        ("convnet-d-w", ["'d'"]),
        ("convnet-instanse", ["'instanse'", "instance"]),
        ({"name": "convnet", "norm": "instanse"}, ["did you mean instance?", *NORMS]),
        ({"name": "convnet", "pooling": "none"}, ["avg, max, unpooled"]),
        ({"name": "convnet", "activation": "rely"}, ["did you mean relu?", *PARAMETER_CHOICES["activation"]]),
        ("mlp-d3", ["takes width", "'depth'"]),
        ("resnet18-max", ["takes width, norm", "'pooling'"]),
        ("convnet:resnet18", ["takes depth", "'model'"]),
        ("lenet-w3", ["takes no parameters", "'width'"]),
        ({"name": "convnet", "heads": 3}, ["depth, width, norm", "'heads'"]),
        ("convnet-d0", ["depth cannot be 0"]),
        ({"name": "convnet", "depth": -1}, ["depth cannot be -1"]),
        ({"name": "convnet", "depth": True}, ["depth cannot be True"]),
        ({"name": "convnet", "width": "64"}, ["width cannot be '64'"]),
        ({"name": "mlp", "width": 1.5}, ["width cannot be 1.5"]),
        ("convnet-d2-d3", ["depth", "twice"]),
        ("convnet-batch-none", ["norm", "twice"]),
        ("convnet-max-avg", ["pooling", "twice"]),
        ({"name": "convnet-d2", "depth": 3}, ["depth", "twice"]),
    ],
)
def test_bad_entries_name_the_choices(entry: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_architecture(entry)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# --- sizes of images ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2, 3, 8, 20, 28, 32])
def test_the_deepest_convnet_runs_and_a_deeper_one_is_refused(side: int) -> None:
    padded = 32 if side == 28 else side
    deepest = math.floor(math.log2(padded))
    architecture = parse_architecture(f"convnet-d{deepest}-w4")
    architecture.check((1, side, side))
    net = architecture.build((1, side, side), 3, generator(0))
    assert net(images(2, (1, side, side), torch.float32)).shape == (2, 3)
    with pytest.raises(UserError, match=f"{side}-pixel images.*1 to {deepest}"):
        parse_architecture(f"convnet-d{deepest + 1}-w4").check((1, side, side))


def test_lenet_needs_16_pixels() -> None:
    lenet = parse_architecture("lenet")
    with pytest.raises(UserError, match="at least 16 pixels, not 15"):
        lenet.check((1, 15, 15))
    for side in (16, 17, 28, 32):
        lenet.check((1, side, side))
        assert lenet.build((1, side, side), 3, generator(0))(
            images(2, (1, side, side), torch.float32)
        ).shape == (2, 3)


def test_group_norm_needs_a_width_of_fours() -> None:
    parse_architecture("convnet-w8-group").check((3, 32, 32))
    with pytest.raises(UserError, match="width 6 must divide by 4"):
        parse_architecture("convnet-w6-group").check((3, 32, 32))


# --- what they compute ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_runs_at_every_size(norm: str, shape: Shape) -> None:
    net = build(f"convnet-w8-{norm}", shape)
    x = images(4, shape, torch.float32)
    features = net.embed(x)
    assert features.shape == (4, net.classifier.in_features)
    logits = net(x)
    assert logits.shape == (4, 10)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("norm", "sees_scale", "sees_shift"),
    [("instance", False, False), ("group", False, True), ("layer", False, True), ("none", True, True)],
)
def test_what_a_norm_makes_invisible(norm: str, sees_scale: bool, sees_shift: bool) -> None:
    """An image's scale, and a constant that is added to a channel before its norm."""
    net = build(f"convnet-d2-w8-{norm}", (1, 8, 8)).double().requires_grad_(False)
    for module in net.modules():
        if hasattr(module, "eps"):
            module.eps = 0.0  # exact without the term that guards against zero variance
    x, scales = images(4, (1, 8, 8)), torch.tensor([0.5, 1.0, 2.0, 4.0]).view(4, 1, 1, 1)
    bias = net.features[0].bias.zero_()
    before, scaled = net.embed(x), net.embed(x * scales)
    assert torch.allclose(scaled, before, rtol=0, atol=1e-12) != sees_scale
    bias.copy_(torch.linspace(-1, 1, 8))
    assert torch.allclose(net.embed(x), before, rtol=0, atol=1e-12) != sees_shift


@pytest.mark.parametrize("norm", ["instance", "group", "layer", "none"])
def test_per_sample_norms_treat_each_image_alone(norm: str) -> None:
    net = build(f"convnet-d2-w8-{norm}", (1, 8, 8)).double()
    x = images(4, (1, 8, 8))
    alone = torch.cat([net(image) for image in x.split(1)])
    torch.testing.assert_close(net(x), alone, rtol=0, atol=1e-12)


# --- initial weights ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "total"),
    [
        ("convnet-d2-w8", (1, 8, 8), 16.032354222676076),
        ("convnet", (3, 32, 32), 382.8196566343738),
        ("convnet-d2-w8-batch", (1, 28, 28), 13.01129224898989),
        ("convnet-w8-none", (3, 32, 32), 0.8217375918204652),
        ("mlp", (1, 8, 8), 6.744027357394771),
        ("lenet", (3, 32, 32), -10.471757549089261),
    ],
)
def test_weights_are_those_of_the_first_release(name: str, shape: Shape, total: float) -> None:
    """Records and experts of before hold: labels, and the sum of the weights that a generator gives."""
    architecture = parse_architecture(name)
    net = architecture.build(shape, 10, generator(0, "x"))
    assert architecture.label == name
    assert sum(p.double().sum().item() for p in net.parameters()) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", OWN)
def test_weights_come_from_the_generator_alone(name: str) -> None:
    narrow = "-d2-w64" if name == "vit" else "-w8" if "width" in family_parameters(name) else ""
    assert_from_the_generator_alone(name + narrow, (3, 64, 64))


def test_one_generator_gives_a_stream_of_networks() -> None:
    stream = generator(0, "stream")
    nets = [parse_architecture("mlp-w8").build((1, 8, 8), 10, stream) for _ in range(3)]
    first = [net.classifier.weight for net in nets]
    assert not any(torch.equal(first[i], first[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_purposes_have_independent_streams() -> None:
    seeds = {derive(s, *p) for s in range(20) for p in [(), ("a",), ("b",), ("a", 1), ("a", "b"), (1,)]}
    assert len(seeds) == 20 * 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "a", 1) == derive(0, "a", 1)

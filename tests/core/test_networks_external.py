"""Classifiers of torchvision and timm by name."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.network import Shape, assert_from_the_generator_alone, build, images, size
from torch import nn

from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.external import Timm, split_classifier

MOBILE = "torchvision:mobilenet_v3_small"


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_published_size(name: str) -> None:
    assert size(build(name, (3, 64, 64))) == 11_181_642  # IDC, cross-architecture on ImageNet: 11.18 M


@pytest.mark.parametrize("entry", ["torchvision:resnet50", "timm:test_vit2", "timm:resnet50"])
def test_names_read_back(entry: str) -> None:
    architecture = parse_architecture(entry)
    library, _, model = entry.partition(":")
    assert architecture.label == entry
    assert architecture.params == (("model", model),)
    assert parse_architecture({"name": library, "model": model}) == architecture


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("torchvision:resnet51", ["torchvision has no classifier named 'resnet51'", "did you mean resnet50"]),
        ("torchvision:", ["named ''", "torchvision:resnet50"]),
        ("torchvision", ["named ''"]),
        ("timm:convnext_atom", ["did you mean convnext_atto"]),
        ("timm:resnet18.a1_in1k", ["did you mean resnet18"]),  # a tag names weights, and ours are fresh
        ("torchvision-d3:resnet18", ["takes model, not 'depth'"]),
        ({"name": "torchvision:resnet18", "model": "resnet34"}, ["model is given twice"]),
        ({"name": "timm", "model": 3}, ["model cannot be 3"]),
        ("torchvison:resnet18", ["did you mean torchvision?"]),
    ],
)
def test_bad_names(entry: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_architecture(entry)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("torchvision:vit_b_32", (3, 64, 64), "cannot take images of 64x64: Wrong image height"),
        ("torchvision:alexnet", (3, 32, 32), "cannot take images of 32x32: "),
        ("timm:vit_tiny_patch16_224", (3, 64, 64), "cannot take images of 64x64: Input height"),
        ("torchvision:squeezenet1_1", (3, 64, 64), "does not end in a linear layer"),
        ("torchvision:resnet18", (4, 64, 64), "takes images of 1 or 3 channels, not 4"),
        ("timm:levit_128s", (3, 224, 224), "has several heads"),
    ],
)
def test_what_cannot_work_says_so(name: str, shape: Shape, words: str) -> None:
    with pytest.raises(UserError, match=f"^architecture {name} {words}") as caught:
        parse_architecture(name).check(shape)
    assert "\n" not in str(caught.value)


def test_a_constructor_that_reads_tensors_is_checked_too() -> None:
    before = torch.get_rng_state()
    parse_architecture("torchvision:regnet_y_400mf").check((3, 32, 32))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [MOBILE, "timm:test_resnet"])
def test_weights_come_from_the_generator_alone(name: str) -> None:
    assert_from_the_generator_alone(name, (1, 32, 32))


@pytest.mark.parametrize("name", [MOBILE, "torchvision:efficientnet_b0", "timm:test_efficientnet"])
def test_training_draws_nothing(name: str) -> None:
    """Dropout and stochastic depth are off: two passes agree and the global generator stays."""
    net, x = build(name, (3, 64, 64)), images(4, (3, 64, 64), torch.float32)
    before = torch.get_rng_state()
    torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:test_convnext"])
def test_forward_is_the_classifier_of_the_embedding(name: str) -> None:
    net, x = build(name, (1, 64, 64)).eval(), images(2, (1, 64, 64), torch.float32)
    features = net.embed(x)
    assert features.shape == (2, net.classifier.in_features)
    torch.testing.assert_close(net(x), net.classifier(features), rtol=0, atol=0)
    torch.testing.assert_close(net(x), net(x.repeat(1, 3, 1, 1)), rtol=0, atol=0)  # grey is three times grey
    F.cross_entropy(net(x), torch.tensor([0, 9])).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_split_network_is_the_whole() -> None:
    whole = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = images(4, (3, 2, 2))
    logits = whole(x)
    classifier = split_classifier(whole, 3)
    assert torch.equal(classifier(whole(x)), logits)
    with pytest.raises(UserError, match="does not end in a linear layer"):
        split_classifier(whole, 3)


def test_timm_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^timm does not load .*: pip install timm$"):
        parse_architecture("timm:resnet18")
    with pytest.raises(UserError, match="pip install timm"):
        Timm.names()


def test_libraries_load_when_they_are_named() -> None:
    code = (
        "import sys; from bench.core.networks.architecture import parse_architecture as p; p('resnet18');"
        "sys.exit('torchvision' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0

"""Architectures by name: `convnet`, `convnet-d4-w64-batch`, or {name: convnet, depth: 4, width: 64}."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench.core import random
from bench.core.errors import UserError
from bench.core.networks.base import Network, on_meta
from bench.core.networks.convnet import VGG11, AlexNet, ConvNet
from bench.core.networks.densenet import DenseNet
from bench.core.networks.external import ExternalNetwork, Timm, TorchVision
from bench.core.networks.layers import ACTIVATIONS, GROUPS, NO_POOLING, NORMS, POOLINGS
from bench.core.networks.mlp_lenet import MLP, LeNet
from bench.core.networks.resnet import ResNet10, ResNet12, ResNet18, ResNetAP10
from bench.core.networks.vit import ViT
from bench.core.registry import choose
from bench.core.transfer import net_to_device

FAMILIES: dict[str, type[Network]] = {
    "convnet": ConvNet,
    "mlp": MLP,
    "lenet": LeNet,
    "alexnet": AlexNet,
    "vgg11": VGG11,
    "resnet10": ResNet10,
    "resnet12": ResNet12,
    "resnet18": ResNet18,
    "resnet_ap10": ResNetAP10,
    "densenet": DenseNet,
    "vit": ViT,
    "torchvision": TorchVision,
    "timm": Timm,
}
# each word must belong to one parameter only, so that a name can be read
PARAMETER_CHOICES = {"norm": NORMS, "activation": tuple(ACTIVATIONS), "pooling": (*POOLINGS, NO_POOLING)}
_LETTERS = {"d": "depth", "w": "width", "p": "patch"}


def family_parameters(family: str) -> dict[str, Any]:
    """{parameter: default value} of a family, in order."""
    return dict(FAMILIES[family].__init__.__kwdefaults__ or {})


@dataclass(frozen=True)
class Architecture:
    """A family of networks and the values of its parameters."""

    family: str
    params: tuple[tuple[str, Any], ...]  # all of them, in the family's order

    @property
    def label(self) -> str:
        """The canonical name, the same for every way to write the architecture."""
        defaults, letters = family_parameters(self.family), {v: k for k, v in _LETTERS.items()}
        parts = [f"{letters.get(k, '')}{v}" for k, v in self.params if v != defaults[k]]
        return (":" if "model" in defaults else "-").join([self.family, *parts])

    def resolved(self) -> dict[str, Any]:
        """All parameters, also those at their defaults, and the family's constants, as plain JSON."""
        params = dict(self.params)
        groups = {"groups": GROUPS} if params.get("norm") == "group" else {}
        return {"family": self.family, **params, **groups, **FAMILIES[self.family].constants()}

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Check images of shape (C, H, W). Raises UserError if the network cannot take them."""
        try:
            FAMILIES[self.family].check(image_shape, **dict(self.params))
        except UserError as error:
            raise UserError(f"architecture {self.label} {error}") from error

    def build(self, image_shape: tuple[int, int, int], n_classes: int, generator: torch.Generator) -> Network:
        """Build a network with fresh weights.

        Args:
            image_shape: (C, H, W).
            n_classes: number of outputs, K.
            generator: a CPU generator; the initial weights depend on it alone.

        Returns:
            The network, on the CPU.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global state: restore it
            torch.default_generator.manual_seed(random.derive(seed, "network"))
            return FAMILIES[self.family](image_shape, n_classes, **dict(self.params))

    def build_on(
        self,
        device: torch.device,
        image_shape: tuple[int, int, int],
        n_classes: int,
        generator: torch.Generator,
    ) -> Network:
        """As `build`, on a device; on torch's meta device it is the outline, after the same draw."""
        if device.type != "meta":
            return net_to_device(self.build(image_shape, n_classes, generator), device)
        torch.randint(2**62, (), generator=generator)
        return self.outline(image_shape, n_classes)

    def outline(self, image_shape: tuple[int, int, int], n_classes: int) -> Network:
        """The network without numbers, on torch's meta device: milliseconds, whatever its size."""
        return on_meta(lambda: FAMILIES[self.family](image_shape, n_classes, **dict(self.params)))


def parse_architecture(entry: str | Mapping[str, Any]) -> Architecture:
    """Read an architecture as a sweep file names it.

    Args:
        entry: a name such as "convnet-d4-w64-batch", or a mapping such as {name: convnet, depth: 4}.

    Returns:
        The architecture; parameters that are not given have their defaults.

    Raises:
        UserError: a name, parameter or value is not valid; the message lists the valid ones.
    """
    mapping = {"name": entry} if isinstance(entry, str) else entry
    name = str(mapping.get("name"))
    plain, colon, model = name.partition(":")
    family, *tokens = plain.split("-")
    choose("architecture", family, FAMILIES)
    defaults = family_parameters(family)
    given = {k: v for k, v in mapping.items() if k != "name"}
    for key, value in [*(_token(name, t) for t in tokens), *([("model", model)] if colon else [])]:
        if key in given:
            raise UserError(f"architecture {name!r}: {key} is given twice")
        given[key] = value
    for key, value in given.items():
        if key not in defaults:
            takes = ", ".join(defaults) or "no parameters"
            raise UserError(f"architecture {family} takes {takes}, not {key!r}")
        if type(value) is not type(defaults[key]) or (isinstance(value, int) and value < 1):
            raise UserError(f"architecture {family}: {key} cannot be {value!r} (default {defaults[key]!r})")
        if key in PARAMETER_CHOICES:
            choose(key, value, PARAMETER_CHOICES[key])
    if issubclass(library := FAMILIES[family], ExternalNetwork):
        library.choose(given.get("model", ""))
    return Architecture(family, tuple((k, given.get(k, v)) for k, v in defaults.items()))


def _token(name: str, token: str) -> tuple[str, Any]:
    """One part of a name: d4 (depth), w64 (width), p2 (patch), or a norm, activation or pooling."""
    if match := re.fullmatch(r"([dwp])(\d+)", token):
        return _LETTERS[match[1]], int(match[2])
    for key, words in PARAMETER_CHOICES.items():
        if token in words:
            return key, token
    kinds = ", ".join(
        f"a{'n' * (key[0] == 'a')} {key} ({', '.join(words)})" for key, words in PARAMETER_CHOICES.items()
    )
    raise UserError(
        f"architecture {name!r}: cannot read {token!r}; parts are d<depth>, w<width>, p<patch>, {kinds}"
    )

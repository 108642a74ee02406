"""Classifiers of torchvision and timm by name, for larger images; a library loads when it is named."""

import difflib
import importlib
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import UserError, first_line
from bench.core.networks.base import Network, Shape
from bench.core.optional import import_torchvision

# layers that draw at random, from a generator that is not the student's, and their probabilities
RANDOM = {"Dropout": "p", "StochasticDepth": "p", "DropPath": "drop_prob"}
# networks that would return the logits of more heads while they train
SINGLE_HEAD = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def split_classifier(body: nn.Module, n_classes: int) -> nn.Linear:
    """Take the last linear layer out of a network, which then returns what that layer was given."""
    layers = [(name, m) for name, m in body.named_modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1][1].out_features != n_classes:
        raise UserError("does not end in a linear layer, whose input would be its features")
    name, classifier = layers[-1]
    body.set_submodule(name, nn.Identity())
    return classifier


class ExternalNetwork(Network):
    """`model` as the library builds it, with fresh weights; its last linear layer is the classifier.

    Dropout and stochastic depth are off. Grey images are repeated over three channels.
    """

    def __init__(self, image_shape: Shape, n_classes: int, *, model: str = "") -> None:
        super().__init__()
        self.features = self.make(model, n_classes)
        self.classifier = split_classifier(self.features, n_classes)
        for module in self.features.modules():
            if probability := RANDOM.get(type(module).__name__):
                setattr(module, probability, 0.0)

    @classmethod
    def names(cls) -> list[str]:
        """What the library has. Raises UserError without the library."""
        raise NotImplementedError

    @classmethod
    def make(cls, model: str, n_classes: int) -> nn.Module:
        """The library's network."""
        raise NotImplementedError

    @classmethod
    def choose(cls, model: str) -> None:
        """Raises UserError with the nearest names when the library has no such classifier."""
        library, names = cls.__name__.lower(), cls.names()
        if model not in names:
            near = difflib.get_close_matches(model, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"write one as in {library}:resnet50"
            raise UserError(f"{library} has no classifier named {model!r}; {hint}")

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        channels, height, width = image_shape
        if channels not in (1, 3):
            raise UserError(f"takes images of 1 or 3 channels, not {channels}")
        net, images = cls._on_meta(params["model"], 10), torch.empty(2, 3, height, width, device="meta")
        try:
            net(images)
        except Exception as error:  # each network says it in its own way
            raise UserError(f"cannot take images of {height}x{width}: {first_line(error)}") from error
        classifier = split_classifier(net, 10)
        try:
            alone = net(images).shape == (2, classifier.in_features)
        except RuntimeError:  # sums logits with features
            alone = False
        if not alone:
            raise UserError("has several heads, and the last linear layer does not classify alone")

    @classmethod
    def _on_meta(cls, model: str, n_classes: int) -> nn.Module:
        """The network without memory and without arithmetic, for shapes."""
        try:
            with torch.device("meta"):
                return cls.make(model, n_classes).eval()
        except NotImplementedError:  # a constructor that reads tensors
            with torch.random.fork_rng(devices=[]):
                return cls.make(model, n_classes).eval().to("meta")

    def embed(self, x: Tensor) -> Tensor:
        return self.features(x.expand(-1, 3, -1, -1))


class TorchVision(ExternalNetwork):
    """Any classifier of torchvision, as in `torchvision:resnet50`."""

    @classmethod
    def names(cls) -> list[str]:
        models = import_torchvision("models")
        return models.list_models(module=models)

    @classmethod
    def make(cls, model: str, n_classes: int) -> nn.Module:
        options = SINGLE_HEAD.get(model, {})
        return import_torchvision("models").get_model(model, weights=None, num_classes=n_classes, **options)


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"timm does not load ({first_line(error)}): pip install timm") from error


class Timm(ExternalNetwork):
    """Any classifier of timm, as in `timm:convnext_atto`."""

    @classmethod
    def names(cls) -> list[str]:
        return _timm().list_models()

    @classmethod
    def make(cls, model: str, n_classes: int) -> nn.Module:
        return _timm().create_model(model, pretrained=False, num_classes=n_classes)

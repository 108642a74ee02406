"""Classifiers of torchvision and timm by name; a library is imported only when it is named."""

import difflib
import importlib
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import UserError, first_line
from bench.core.networks.base import Network, Shape, on_meta
from bench.core.optional import import_torchvision
from bench.core.precision import in_precision

# layers that draw from torch's global generator instead of the student's, and their probability attribute
RANDOM = {"Dropout": "p", "StochasticDepth": "p", "DropPath": "drop_prob"}
# networks that would otherwise also return the logits of auxiliary heads in training mode
SINGLE_HEAD = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def split_classifier(body: nn.Module, n_classes: int) -> nn.Linear:
    """Remove the last linear layer of a network, so that it returns the features that the layer read.

    Args:
        body: the network; changed in place.
        n_classes: the outputs that the layer must have.

    Returns:
        The layer.

    Raises:
        UserError: the network does not end in a linear layer with `n_classes` outputs.
    """
    layers = [(name, m) for name, m in body.named_modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1][1].out_features != n_classes:
        raise UserError("does not end in a linear layer, whose input would be its features")
    name, classifier = layers[-1]
    body.set_submodule(name, nn.Identity())
    return classifier


class ExternalNetwork(Network):
    """A library's `model` with fresh weights; its last linear layer is the classifier.

    Dropout and stochastic depth are turned off. Grey images are repeated over three channels.
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
        """The library's classifiers. Raises UserError if the library is not installed."""
        raise NotImplementedError

    @classmethod
    def make(cls, model: str, n_classes: int) -> nn.Module:
        """Build the library's `model` with fresh weights and `n_classes` outputs."""
        raise NotImplementedError

    @classmethod
    def choose(cls, model: str) -> None:
        """Check that the library has this classifier. Raises UserError with the nearest names if not."""
        library, names = cls.__name__.lower(), cls.names()
        if model not in names:
            near = difflib.get_close_matches(model, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"write one as in {library}:resnet50"
            raise UserError(f"{library} has no classifier named {model!r}; {hint}")

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError if the network cannot take images of this shape, or has several heads.

        A forward pass on torch's meta device finds out, which costs neither memory nor arithmetic.
        """
        channels, height, width = image_shape
        if channels not in (1, 3):
            raise UserError(f"takes images of 1 or 3 channels, not {channels}")
        net = on_meta(lambda: cls.make(params["model"], 10).eval())
        images = torch.empty(2, 3, height, width, device="meta")
        try:
            net(images)
        except Exception as error:  # each network raises its own kind of error
            raise UserError(f"cannot take images of {height}x{width}: {first_line(error)}") from error
        classifier = split_classifier(net, 10)
        try:
            alone = net(images).shape == (2, classifier.in_features)
        except RuntimeError:  # the network adds logits to features
            alone = False
        if not alone:
            raise UserError("has several heads, and the last linear layer does not classify alone")

    @in_precision
    def embed(self, x: Tensor) -> Tensor:
        """Images [N,1,H,W] or [N,3,H,W] -> the features that the classifier reads [N,D]."""
        return self.features(x.expand(-1, 3, -1, -1))


class TorchVision(ExternalNetwork):
    """Any classifier of torchvision, as in `torchvision:resnet50`."""

    @classmethod
    def names(cls) -> list[str]:
        """torchvision's classifiers. Raises UserError if torchvision is not installed."""
        models = import_torchvision("models")
        return models.list_models(module=models)

    @classmethod
    def make(cls, model: str, n_classes: int) -> nn.Module:
        """Build torchvision's `model` with fresh weights and `n_classes` outputs, without auxiliary heads."""
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
        """timm's classifiers. Raises UserError if timm is not installed."""
        return _timm().list_models()

    @classmethod
    def make(cls, model: str, n_classes: int) -> nn.Module:
        """Build timm's `model` with fresh weights and `n_classes` outputs."""
        return _timm().create_model(model, pretrained=False, num_classes=n_classes)

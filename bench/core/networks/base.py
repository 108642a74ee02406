"""The common base of all networks."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.precision import in_precision

Shape = tuple[int, int, int]
Module = TypeVar("Module", bound=nn.Module)


class Network(nn.Module):
    """A classifier of images [N,C,H,W]: `classifier(embed(x))`.

    A family is a subclass, built as `cls(image_shape, n_classes, **params)` with image_shape (C, H, W).
    Its keyword-only arguments are the parameters of the architecture; all of them have defaults.
    """

    features: nn.Module  # a subclass without it overrides `embed`
    classifier: nn.Linear

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Check that the network can take images of this shape.

        Args:
            image_shape: (C, H, W).
            params: all parameters of the architecture, by name.

        Raises:
            UserError: it cannot. The message continues "architecture NAME": "needs images of at least 8
                pixels, not 7".
        """

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """What its layers follow from beside its parameters, as plain JSON: part of every key."""
        return {}

    @in_precision
    def embed(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> the features that the classifier reads [N,D]."""
        return self.features(x)

    @in_precision
    def forward(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> logits [N,K]."""
        return self.classifier(self.embed(x))


def need_side(least: int, side: int, given: str = "") -> None:
    """Check that images of `side` pixels have at least `least`; `given` is appended to the minimum.

    Raises UserError if they do not.
    """
    if side < least:
        raise UserError(f"needs images of at least {least} pixels{given}, not {side}")


def on_meta(make: Callable[[], Module]) -> Module:
    """What `make` builds, on torch's meta device: it knows shapes, and holds no numbers."""
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:  # the constructor reads values of tensors
        with torch.random.fork_rng(devices=[]):
            return make().to("meta")

"""The common door of all networks."""

from typing import Any

from torch import Tensor, nn

from bench.core.errors import UserError

Shape = tuple[int, int, int]


class Network(nn.Module):
    """A classifier of [N,C,H,W] images: `classifier(embed(x))`."""

    features: nn.Module  # or an `embed` of its own
    classifier: nn.Linear

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError when the network cannot take images of this shape.

        The message goes on where "architecture NAME" ends: "needs images of at least 8 pixels, not 7".
        """

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """What its layers follow from beside its parameters, as plain JSON: part of every key."""
        return {}

    def embed(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> the last features before the classifier [N,D]."""
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> logits [N,K]."""
        return self.classifier(self.embed(x))


def need_side(least: int, side: int, given: str = "") -> None:
    """Raises UserError when the images' side is less than `least` pixels."""
    if side < least:
        raise UserError(f"needs images of at least {least} pixels{given}, not {side}")
